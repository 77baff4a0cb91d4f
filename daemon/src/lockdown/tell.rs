//! A line for the machine's log from a command that somebody runs in a terminal, where stderr is no journal.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the journal, or another syslog, takes lines.
pub(super) const SYSLOG: &str = "/dev/log";

/// Facility "security and authorization", severity "warning" (RFC 5424 §6.2.1).
const PRIORITY: u8 = 4 * 8 + 4;

/// Sends one line to the system's log; whether it took it.
pub(super) fn system_log(socket: &Path, line: &str) -> bool {
    let line: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let text = format!("<{PRIORITY}>egressd[{}]: {line}", std::process::id());
    UnixDatagram::unbound()
        .and_then(|log| {
            // A full queue must not hold up who wants to open a gateway.
            log.set_nonblocking(true)?;
            log.send_to(text.as_bytes(), socket)
        })
        .is_ok_and(|sent| sent == text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(!system_log(&path, "nobody hears"));
        let log = UnixDatagram::bind(&path).unwrap();
        assert!(system_log(&path, "opened\n<0>forged"));
        let mut buffer = [0; 256];
        let length = log.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let expected = format!("<36>egressd[{}]: opened <0>forged", std::process::id());
        assert_eq!(text, expected);
    }
}

//! How many connections the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that everything but the clients' connections may need: upstreams, planes, files, the
/// control socket.
const OTHERS: u64 = 1024;

/// How many connections of clients there may be when `wanted` are configured: all of them once the
/// process may have enough descriptors open, else as many as it may.
pub(super) fn room(wanted: usize) -> usize {
    let needed = u64::try_from(wanted)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHERS);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    let most = if soft >= needed {
        soft
    } else {
        let more = needed.min(hard);
        match setrlimit(Resource::RLIMIT_NOFILE, more, hard) {
            Ok(()) => more,
            Err(error) => {
                log::debug!(target: "dns", "the limit of open files stays at {soft}: {error}");
                soft
            }
        }
    };
    let room = fitting(wanted, most);
    if room < wanted {
        log::warn!(
            target: "dns",
            "at most {room} TCP connections of clients, not {wanted}: the process may have {most} files open (LimitNOFILE)"
        );
    }
    room
}

/// Of `wanted` connections those that fit when `most` descriptors may be open.
fn fitting(wanted: usize, most: u64) -> usize {
    // Where there are few, half of them.
    let left = most.saturating_sub(OTHERS).max(most / 2);
    usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_fit() {
        fn check(wanted: usize, most: u64, expected: usize) {
            assert_eq!(fitting(wanted, most), expected, "{wanted} of {most}");
        }
        check(4096, 65_536, 4096);
        check(4096, 5120, 4096);
        check(4096, 4096, 3072);
        check(4096, 1024, 512);
        check(16, 1024, 16);
        check(4096, u64::MAX, 4096);
    }

    #[test]
    fn the_limit_is_raised() {
        let room = room(2000);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(soft >= (2000 + OTHERS).min(hard));
        assert_eq!(room, fitting(2000, soft));
    }
}

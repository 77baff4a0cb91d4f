//! The internet's web servers: Debian's nginx on every address, with a certificate of its own.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: writes its configuration and starts it"
)]

use super::{Lab, Process, plan, tcp, until};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The TCP ports it answers on, and whether with TLS. They include ports that no catalogue grants,
/// so that a leak is seen as a success.
pub const WEB_PORTS: [(u16, bool); 11] = [
    (22, false),
    (25, false),
    (80, false),
    (443, true),
    (853, true),
    (3389, false),
    (5223, true),
    (5228, true),
    (7680, false),
    (8080, false),
    (8443, true),
];

/// A running nginx. To each request it answers `<host> <its address> <its port>`.
#[derive(Debug)]
pub struct Web {
    process: Process,
}

impl Web {
    /// Starts it in `lab`'s internet and waits until it listens.
    ///
    /// # Errors
    /// When nginx or openssl is missing.
    pub fn start(lab: &Lab) -> Result<Self> {
        let dir = lab.dir();
        certificate(dir)?;
        let config = dir.join("nginx.conf");
        std::fs::write(&config, configuration(&dir.display().to_string()))?;
        let mut command = Command::new("nginx");
        command
            .arg("-c")
            .arg(config)
            .arg("-p")
            .arg(dir)
            .arg("-e")
            .arg("stderr");
        let mut process = Process::start(&lab.internet, "nginx", &mut command, dir)?;
        let there = SocketAddr::new(plan::UPSTREAM, WEB_PORTS[0].0);
        until(Duration::from_secs(10), "nginx listens", || {
            process.alive()?;
            Ok(tcp(&lab.internet, there, Duration::from_millis(200))?.then_some(()))
        })?;
        Ok(Self { process })
    }

    /// Its last lines.
    #[must_use]
    pub fn words(&self) -> String {
        self.process.words()
    }
}

fn certificate(dir: &Path) -> Result<()> {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=lab", "-keyout"])
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .context("start openssl")?;
    ensure!(
        made.status.success(),
        "openssl: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(())
}

fn configuration(dir: &str) -> String {
    let listen: String = WEB_PORTS
        .iter()
        .map(|(port, tls)| {
            let tls = if *tls { " ssl" } else { "" };
            format!("    listen {port}{tls};\n    listen [::]:{port}{tls} ipv6only=on;\n")
        })
        .collect();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {dir}/{kind};\n"))
        .collect();
    // A worker of its own would outlive a killed master.
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\n\
         error_log stderr warn;\nevents {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n\
         {temporary}  ssl_certificate {dir}/cert.pem;\n  ssl_certificate_key {dir}/key.pem;\n  \
         server {{\n{listen}    default_type text/plain;\n    location / {{ \
         return 200 \"$host $server_addr $server_port\\n\"; }}\n  }}\n}}\n"
    )
}

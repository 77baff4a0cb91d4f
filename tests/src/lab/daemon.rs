//! The real `egressd` in the gateway's namespace, and the real `egressctl`.
#![expect(clippy::disallowed_methods, reason = "shell: starts the daemon")]

use super::store::Store;
use super::{Lab, Process, plan};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;

/// Where `egressd` and `egressctl` are.
#[derive(Clone, Debug)]
pub struct Binaries(pub PathBuf);

impl Binaries {
    /// The directory named by `EGRESSD_BIN_DIR`, if it is set.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        std::env::var_os("EGRESSD_BIN_DIR").map(|dir| Self(dir.into()))
    }
}

/// Which planes enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planes {
    /// nft alone.
    Nft,
    /// ebpf alone, which judges every packet by itself.
    Ebpf,
    /// Both: XDP in front of nft.
    Both,
}

impl Planes {
    /// The one named by `EGRESSD_PLANES`, if it is set.
    ///
    /// # Errors
    /// When it is not `nft`, `ebpf` or `both`.
    pub fn from_env() -> Result<Option<Self>> {
        std::env::var("EGRESSD_PLANES")
            .ok()
            .map(|text| text.parse())
            .transpose()
    }

    /// Whether the nft plane is on.
    #[must_use]
    pub fn nft(self) -> bool {
        match self {
            Self::Nft | Self::Both => true,
            Self::Ebpf => false,
        }
    }

    /// Whether the ebpf plane is on.
    #[must_use]
    pub fn ebpf(self) -> bool {
        match self {
            Self::Ebpf | Self::Both => true,
            Self::Nft => false,
        }
    }
}

impl FromStr for Planes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "nft" => Ok(Self::Nft),
            "ebpf" => Ok(Self::Ebpf),
            "both" => Ok(Self::Both),
            _ => bail!("planes are `nft`, `ebpf` or `both`, not `{text}`"),
        }
    }
}

/// What `egressctl` did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed, as JSON; `null` when that was nothing or something else.
    pub json: serde_json::Value,
    /// What it printed on either channel.
    pub text: String,
}

/// A running `egressd`, killed on drop.
#[derive(Debug)]
pub struct Daemon<'a> {
    lab: &'a Lab,
    binaries: Binaries,
    config: PathBuf,
    socket: PathBuf,
    notify: UnixDatagram,
    /// What its manager keeps, if it keeps anything.
    store: Option<Store>,
    environment: Vec<(String, OsString)>,
    process: Process,
}

/// How long it may take until the daemon says that it is ready.
const READY: Duration = Duration::from_secs(20);

impl<'a> Daemon<'a> {
    /// Writes the configuration ([`Daemon::preamble`] and `zones`), starts `egressd run` in the
    /// gateway and returns once it is ready.
    ///
    /// # Errors
    /// With its last words when it is not ready in time.
    pub fn start(lab: &'a Lab, binaries: &Binaries, planes: Planes, zones: &str) -> Result<Self> {
        let text = configuration(lab, planes, zones);
        Self::start_with(lab, binaries, planes, &text)
    }

    /// As [`Daemon::start`], with a whole configuration.
    ///
    /// # Errors
    /// With its last words when it is not ready in time.
    pub fn start_with(
        lab: &'a Lab,
        binaries: &Binaries,
        planes: Planes,
        text: &str,
    ) -> Result<Self> {
        Self::start_in(lab, binaries, planes, text, Vec::new())
    }

    /// As [`Daemon::start`], under a manager that keeps the descriptors it is sent and gives them to the next
    /// process.
    ///
    /// # Errors
    /// With its last words when it is not ready in time.
    pub fn start_kept(
        lab: &'a Lab,
        binaries: &Binaries,
        planes: Planes,
        zones: &str,
    ) -> Result<Self> {
        let text = configuration(lab, planes, zones);
        let store = Some(Store::default());
        Self::begin(lab, binaries, planes, &text, (store, Vec::new()))
    }

    /// As [`Daemon::start_with`], with these variables in its environment, now and whenever it is started
    /// again.
    ///
    /// # Errors
    /// With its last words when it is not ready in time.
    pub fn start_in(
        lab: &'a Lab,
        binaries: &Binaries,
        planes: Planes,
        text: &str,
        environment: Vec<(String, OsString)>,
    ) -> Result<Self> {
        Self::begin(lab, binaries, planes, text, (None, environment))
    }

    fn begin(
        lab: &'a Lab,
        binaries: &Binaries,
        planes: Planes,
        text: &str,
        (store, environment): (Option<Store>, Vec<(String, OsString)>),
    ) -> Result<Self> {
        let dir = lab.dir();
        let config = Self::configure(lab, text)?;
        if planes.ebpf() {
            std::fs::create_dir_all(lab.pins()).context("a bpf file system at /sys/fs/bpf")?;
        }
        // systemd's StateDirectory on a real gateway.
        std::fs::create_dir_all(dir.join("state"))?;
        let path = dir.join("notify");
        // A daemon started before in this lab had a socket of the same name.
        let _absent = std::fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path)?;
        let process = launch(lab, binaries, &config, &path, (None, &environment))?;
        let socket = dir.join("control.sock");
        let mut daemon = Self {
            lab,
            binaries: binaries.clone(),
            config,
            socket,
            notify,
            store,
            environment,
            process,
        };
        daemon.ready()?;
        Ok(daemon)
    }

    /// Writes a whole configuration, for commands that need no daemon; where it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(lab: &Lab, text: &str) -> Result<PathBuf> {
        let config = lab.dir().join("egressd.toml");
        std::fs::write(&config, text)?;
        Ok(config)
    }

    /// The part of the configuration that the lab decides: gateway, dns, planes, paths. Zones (and
    /// `[limits]`, without which [`Daemon::start`] sets none per client) are to be appended. Patience is longer than a gateway's: the machine may be busy.
    #[must_use]
    pub fn preamble(lab: &Lab, planes: Planes) -> String {
        let dir = lab.dir().display();
        let [gateway4, gateway6] = plan::GATEWAY;
        format!(
            "[gateway]\nupstream = [\"wan0\"]\ninternal = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n\
             unzoned = \"drop\"\n\n\
             [dns]\nlisten = [\"{gateway4}:53\", \"[{gateway6}]:53\"]\n\
             upstreams = [\"udp://{}\"]\ntimeout = \"5s\"\nhold = \"2s\"\n\n\
             [planes]\nnft = {}\nebpf = \"{}\"\n\n\
             [control]\nsocket = \"{dir}/control.sock\"\n\n\
             [service]\nstate = \"{dir}/state\"\nbpf = \"{}\"\n\n",
            plan::UPSTREAM,
            planes.nft(),
            if planes.ebpf() { "auto" } else { "off" },
            lab.pins().display(),
        )
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its last lines.
    #[must_use]
    pub fn words(&self) -> String {
        self.process.words()
    }

    /// Everything it printed.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }

    /// Runs `egressctl --json` with `args`.
    ///
    /// # Errors
    /// When it cannot be started; a refusal is an [`Outcome`].
    pub fn ctl(&self, args: &[&str]) -> Result<Outcome> {
        self.drain()?;
        let mut command = Command::new(self.binaries.0.join("egressctl"));
        command
            .arg("--socket")
            .arg(&self.socket)
            .arg("--json")
            .args(args);
        let output = self.lab.gateway.enter(|| command.output())?;
        let output = output.context("start egressctl")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        Ok(Outcome {
            status: output.status,
            json: serde_json::from_str(&printed).unwrap_or_default(),
            text: format!("{printed}{}", String::from_utf8_lossy(&output.stderr)),
        })
    }

    /// What `egressctl` prints for people.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn told(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.binaries.0.join("egressctl"));
        command.arg("--socket").arg(&self.socket).args(args);
        let output = self.lab.gateway.enter(|| command.output())??;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr))
    }

    /// Starts `egressctl --json watch`; what it prints is in the process's log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn watch(&self) -> Result<Process> {
        let mut command = Command::new(self.binaries.0.join("egressctl"));
        command
            .arg("--socket")
            .arg(&self.socket)
            .args(["--json", "watch"]);
        Process::start(&self.lab.gateway, "watch", &mut command, self.lab.dir())
    }

    /// Replaces the configuration and asks for a reload.
    ///
    /// # Errors
    /// When `egressctl` cannot be started; a refused configuration is an [`Outcome`].
    pub fn reload(&self, planes: Planes, zones: &str) -> Result<Outcome> {
        self.reload_with(&configuration(self.lab, planes, zones))
    }

    /// As [`Daemon::reload`], with a whole configuration.
    ///
    /// # Errors
    /// When `egressctl` cannot be started; a refused configuration is an [`Outcome`].
    pub fn reload_with(&self, text: &str) -> Result<Outcome> {
        std::fs::write(&self.config, text)?;
        self.ctl(&["reload"])
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// Sends it `signal`.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// The next start is of another build.
    pub fn replace(&mut self, binaries: &Binaries) {
        self.binaries = binaries.clone();
    }

    /// Starts it again after [`Daemon::kill`] or [`Daemon::terminate`], and waits until it is ready.
    ///
    /// # Errors
    /// With its last words when it is not ready in time.
    pub fn restart(&mut self) -> Result<()> {
        // Reloads have said READY=1 as well.
        self.notify.set_nonblocking(true)?;
        while self.notify.recv(&mut [0; 4096]).is_ok() {}
        self.notify.set_nonblocking(false)?;
        let path = self.lab.dir().join("notify");
        let kept = (self.store.as_ref(), &self.environment[..]);
        self.process = launch(self.lab, &self.binaries, &self.config, &path, kept)?;
        self.ready()
    }

    /// As [`Daemon::restart`], without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn relaunch(&mut self) -> Result<()> {
        let path = self.lab.dir().join("notify");
        let kept = (self.store.as_ref(), &self.environment[..]);
        self.process = launch(self.lab, &self.binaries, &self.config, &path, kept)?;
        Ok(())
    }

    /// Makes sure that it still runs.
    ///
    /// # Errors
    /// With its last words when it does not.
    pub fn alive(&mut self) -> Result<()> {
        self.process.alive()
    }

    /// Takes what it told its manager so far: it waits for room to tell more.
    fn drain(&self) -> Result<()> {
        self.notify.set_nonblocking(true)?;
        while self.notify.recv(&mut [0; 4096]).is_ok() {}
        Ok(self.notify.set_nonblocking(false)?)
    }

    fn ready(&mut self) -> Result<()> {
        self.notify
            .set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut buffer = [0; 4096];
        super::until(READY, "egressd says READY=1", || {
            self.process.alive()?;
            let received = match &mut self.store {
                Some(store) => store.receive(&self.notify),
                None => self
                    .notify
                    .recv(&mut buffer)
                    .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned()),
            };
            match received {
                Ok(text) => Ok(text.lines().any(|line| line == "READY=1").then_some(())),
                Err(error) if super::nothing_yet(&error) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .with_context(|| self.process.words())
    }
}

/// The whole configuration. One client of the lab does the work of many, so the limits per client are
/// off, unless `zones` has a `[limits]` of its own.
fn configuration(lab: &Lab, planes: Planes, zones: &str) -> String {
    const UNLIMITED: &str = "[limits]\nquestions = 0\nper_client = 16777216\n\n";
    let limits = if zones.contains("[limits]") {
        ""
    } else {
        UNLIMITED
    };
    Daemon::preamble(lab, planes) + limits + zones
}

fn launch(
    lab: &Lab,
    binaries: &Binaries,
    config: &Path,
    notify: &Path,
    (store, environment): (Option<&Store>, &[(String, OsString)]),
) -> Result<Process> {
    let path = binaries.0.join("egressd");
    ensure!(
        path.exists(),
        "{} is not there: run `cargo xtask build`",
        path.display()
    );
    let (mut command, mut input) = (Command::new(&path), Stdio::null());
    if let Some(kept) = store.and_then(|store| store.get("nft")) {
        // The first descriptor after the usual three, as sd_listen_fds(3) has it.
        const PASS: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$@\"";
        command = Command::new("sh");
        command
            .args(["-c", PASS, "sh"])
            .arg(path)
            .envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "nft")]);
        input = Stdio::from(kept.try_clone()?);
    }
    command
        .args(["run", "--config"])
        .arg(config)
        .env("NOTIFY_SOCKET", notify)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    // The words are kept, the frames would push them out.
    command.env("RUST_BACKTRACE", "0");
    Process::start_with(&lab.gateway, "egressd", &mut command, input, lab.dir())
}

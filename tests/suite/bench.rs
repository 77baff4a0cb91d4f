//! What every test needs: a lab with servers and a few names, a daemon, short ways to ask and try.
#![expect(clippy::disallowed_methods, reason = "shell: looks at the machine")]

use anyhow::{Context, Result, bail, ensure};
use egressd_tests::lab::{
    Answer, Authority, Binaries, Daemon, Echo, Flow, Lab, Namespace, Planes, Zone, ask, plan, tcp,
    udp, until,
};
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

/// What the machine lacks for any of these tests.
pub(crate) fn lacking() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root, for network namespaces");
    }
    let tool = |name: &str, flag: &str| Command::new(name).arg(flag).output().is_ok();
    let tools = [("ip", "-V"), ("nft", "-v"), ("nsd", "-v"), ("ping", "-V")];
    if !tools.into_iter().all(|(name, flag)| tool(name, flag)) {
        return Some("needs ip, nft, nsd and ping: run `cargo xtask test`");
    }
    None
}

/// The daemon to test, and how.
pub(crate) struct Bench {
    binaries: Binaries,
    /// Which planes enforce.
    pub(crate) planes: Planes,
}

/// How long something that must pass may take. Generous: the machine may be busy.
pub(crate) const SURE: Duration = Duration::from_secs(5);
/// How long something that must fail is tried.
pub(crate) const TRY: Duration = Duration::from_millis(500);
/// A port that the tests' rules grant.
pub(crate) const WEB: u16 = 443;
/// Another one.
pub(crate) const ALT: u16 = 8443;
/// One that no rule grants.
pub(crate) const NEVER: u16 = 2222;
/// A UDP port that the tests' rules grant.
pub(crate) const DATA: u16 = 9000;

impl Bench {
    /// As the environment says, or why the tests are ignored.
    pub(crate) fn from_env() -> Result<Result<Self, &'static str>> {
        let Some(binaries) = Binaries::from_env() else {
            return Ok(Err(
                "EGRESSD_BIN_DIR names no daemon: run `cargo xtask test`",
            ));
        };
        let Some(planes) = Planes::from_env()? else {
            return Ok(Err("EGRESSD_PLANES is not set: run `cargo xtask test`"));
        };
        Ok(Ok(Self { binaries, planes }))
    }

    /// Where the daemon is.
    pub(crate) fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Starts the daemon in `lab`'s gateway.
    pub(crate) fn daemon<'a>(&self, lab: &'a Lab, zones: &str) -> Result<Daemon<'a>> {
        Daemon::start(lab, &self.binaries, self.planes, zones)
    }

    /// Starts the daemon with a whole configuration.
    pub(crate) fn daemon_with<'a>(&self, lab: &'a Lab, text: &str) -> Result<Daemon<'a>> {
        Daemon::start_with(lab, &self.binaries, self.planes, text)
    }

    /// Asks for a reload with other zones.
    pub(crate) fn reload(&self, daemon: &Daemon<'_>, zones: &str) -> Result<()> {
        let outcome = daemon.reload(self.planes, zones)?;
        ensure!(
            outcome.status.success(),
            "reload: {}\n{}",
            outcome.text,
            daemon.words()
        );
        Ok(())
    }
}

/// A lab with an authority and echoes.
pub(crate) struct World {
    /// Who knows the names.
    pub(crate) authority: Authority,
    _echo: Echo,
    /// The namespaces.
    pub(crate) lab: Lab,
}

impl World {
    /// Builds it with these names.
    pub(crate) fn new(zone: &Zone) -> Result<Self> {
        let lab = Lab::new()?;
        let authority = Authority::start(&lab, zone)?;
        let echo = Echo::start(&lab.internet, &[WEB, ALT, NEVER], &[DATA, NEVER])?;
        Ok(Self {
            authority,
            _echo: echo,
            lab,
        })
    }
}

/// An address of the toy internet that answers may hold: 52.96.`a`.`b`.
pub(crate) fn host(a: u8, b: u8) -> IpAddr {
    IpAddr::from([52, 96, a, b])
}

/// The v6 counterpart.
pub(crate) fn host6(a: u16, b: u16) -> IpAddr {
    IpAddr::from([0x2603, 0x1000, 0, a, 0, 0, 0, b])
}

/// Asks the gateway for the A records of `name`.
pub(crate) fn question(client: &Namespace, name: &str) -> Result<Answer> {
    ask(client, SocketAddr::new(plan::GATEWAY[0], 53), name, SURE)
}

/// Asks and insists that `address` is in the answer.
pub(crate) fn learn(client: &Namespace, name: &str, address: IpAddr) -> Result<()> {
    let answer = question(client, name)?;
    ensure!(
        answer.addresses.contains(&address),
        "{name} has no {address}: {answer:?}"
    );
    Ok(())
}

/// Insists that a TCP connection opens.
pub(crate) fn passes(client: &Namespace, address: IpAddr, port: u16) -> Result<()> {
    ensure!(
        tcp(client, SocketAddr::new(address, port), SURE)?,
        "{address}:{port} did not pass"
    );
    Ok(())
}

/// Insists that a TCP connection does not open.
pub(crate) fn fails(client: &Namespace, address: IpAddr, port: u16) -> Result<()> {
    ensure!(
        !tcp(client, SocketAddr::new(address, port), TRY)?,
        "{address}:{port} passed"
    );
    Ok(())
}

/// Insists that a datagram comes back, or that it does not.
pub(crate) fn datagram(client: &Namespace, address: IpAddr, port: u16, must: bool) -> Result<()> {
    let limit = if must { SURE } else { TRY };
    let back = udp(client, SocketAddr::new(address, port), limit)?;
    ensure!(back == must, "UDP {address}:{port}: came back: {back}");
    Ok(())
}

/// Opens a flow that must open.
pub(crate) fn flow(client: &Namespace, address: IpAddr, port: u16) -> Result<Flow> {
    let mut flow = Flow::open(client, SocketAddr::new(address, port), SURE)?;
    ensure!(
        flow.echoes(SURE),
        "{address}:{port} opened but does not answer"
    );
    Ok(flow)
}

/// Insists that `flow` is dead within `limit`. A retransmission may still be echoed when the answer
/// was on its way, so one failure after another counts.
pub(crate) fn dies(flow: &mut Flow, limit: Duration) -> Result<()> {
    until(limit, "the flow is cut", || {
        Ok((!flow.echoes(TRY) && !flow.echoes(TRY)).then_some(()))
    })
}

/// Waits until the daemon no longer lists a grant for `address`. Asks the daemon and not the address:
/// packets keep a grant alive.
pub(crate) fn forgotten(daemon: &Daemon<'_>, address: IpAddr, limit: Duration) -> Result<()> {
    let text = address.to_string();
    until(limit, &format!("the grant of {address} ends"), || {
        let outcome = daemon.ctl(&["grants"])?;
        if !outcome.status.success() {
            bail!("egressctl grants: {}", outcome.text);
        }
        Ok((!outcome.text.contains(&format!("\"{text}\""))).then_some(()))
    })
    .with_context(|| daemon.words())?;
    // `grants` tells the policy; the planes have it a moment later.
    std::thread::sleep(TRY / 2);
    Ok(())
}

/// One zone `managed` on `lan0`, with `extra` keys and then its rules.
pub(crate) fn zone(extra: &str, rules: &[(&str, &[u16], &[u16])]) -> String {
    let mut text = format!(
        "[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\n\
         sources = [\"10.20.0.0/16\", \"2001:db8:20::/48\"]\n{extra}\n"
    );
    for (names, tcp, udp) in rules {
        text += &format!("[[zone.rule]]\nnames = [\"{names}\"]\ntcp = {tcp:?}\nudp = {udp:?}\n");
    }
    text
}

/// Grants end soon after their answers do.
pub(crate) const SHORT: &str = "[limits]\nttl_floor = 1\ngrace = 1\nidle = 1\n\n";

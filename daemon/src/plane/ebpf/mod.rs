//! The ebpf plane: XDP or TCX programs on the zones' interfaces. Every `replace` makes before it
//! breaks: a new object with new maps, filled whole, takes the place of the old one through the
//! link of each interface. Maps are never adopted, so nothing in them can be misread.

mod attach;
mod clsact;
mod filter;
mod generation;
mod grants;
mod kinds;
mod memory;
mod reports;
mod table;
pub(in crate::plane) mod tables;
#[cfg(test)]
mod tests;

use super::{Counter, Holdings, Plane, RefusedPacket};
use crate::config::EbpfMode;
use crate::policy::ZoneId;
use crate::policy::image::{Change, Image};
use crate::policy::origin::Origin;
use crate::policy::port::ClassMask;
use anyhow::Context as _;
use attach::{Attached, Hook};
use egressd_common::layout;
use egressd_common::verdict::{Action, NO_ZONE, Reason, Verdict};
use generation::{Generation, Tally};
use reports::Unreported;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use tables::{Tables, Wanted};

/// Most reports of refused packets taken at once.
const REPORTS_AT_ONCE: usize = 4096;

/// How the ebpf plane works.
#[derive(Clone, Debug)]
pub struct EbpfOptions {
    /// How programs are attached; never [`EbpfMode::Off`].
    pub mode: EbpfMode,
    /// A directory on a bpffs for links and maps; made if it is not there.
    pub pin_dir: PathBuf,
    /// Whether nft judges what passes here.
    pub nft_behind: bool,
    /// Most learned addresses per family.
    pub learned: usize,
}

/// The ebpf plane.
pub struct EbpfPlane {
    options: EbpfOptions,
    learned: u32,
    current: Option<Generation>,
    attached: BTreeMap<u32, Attached>,
    /// Packets that earlier generations counted.
    counted: Counted,
    /// Those of them that sets let pass.
    hits: Hits,
    /// The counters of the generation before, in which a last packet may just be counted.
    retired: Option<Tally>,
    reports: Vec<layout::Report>,
    /// Of earlier generations.
    unreported: Unreported,
    /// Whether nft was just found in place.
    nft_in_place: bool,
}

/// Removes the links that an earlier run pinned below `pin_dir`, and so detaches its programs: a
/// plane that is switched off must not stay in force. To be called once other planes are in force.
/// Returns how many there were; none where there is no such directory.
///
/// # Errors
/// When a pin cannot be removed; the others are gone all the same.
pub fn sweep_pins(pin_dir: &Path) -> anyhow::Result<usize> {
    let links = links_dir(pin_dir);
    match links.try_exists() {
        Ok(false) => Ok(0),
        Ok(true) => attach::sweep(&links, std::iter::empty()),
        Err(error) => Err(error).with_context(|| format!("look for {}", links.display())),
    }
}

fn links_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join("links")
}

/// Packets by zone name, action and reason.
type Counted = BTreeMap<(String, Action, Reason), u64>;

/// Packets by zone name and by what let them pass.
type Hits = BTreeMap<(String, Origin), u64>;

impl EbpfPlane {
    /// Prepares the plane; nothing is attached before the first [`Plane::replace`]. What an earlier
    /// process left attached stays in force until then.
    ///
    /// # Errors
    /// When this binary has no eBPF object or the pin directory cannot be made.
    pub fn open(options: EbpfOptions) -> anyhow::Result<Self> {
        generation::object()?;
        let learned = u32::try_from(options.learned.max(1)).context("learned addresses")?;
        let plane = Self {
            options,
            learned,
            current: None,
            attached: BTreeMap::new(),
            counted: Counted::new(),
            hits: Hits::new(),
            retired: None,
            reports: Vec::new(),
            unreported: Unreported::default(),
            nft_in_place: false,
        };
        let links = plane.links_dir();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&links)
            .with_context(|| format!("make {}", links.display()))?;
        Ok(plane)
    }

    fn links_dir(&self) -> PathBuf {
        links_dir(&self.options.pin_dir)
    }

    fn current(&self) -> anyhow::Result<&Generation> {
        self.current
            .as_ref()
            .context("the ebpf plane holds nothing yet")
    }

    fn current_mut(&mut self) -> anyhow::Result<&mut Generation> {
        self.current
            .as_mut()
            .context("the ebpf plane holds nothing yet")
    }

    /// The hooks to try on an interface, best first.
    fn hooks(&self, wanted: &Wanted) -> anyhow::Result<&'static [Hook]> {
        match (self.options.mode, wanted.ethernet) {
            (EbpfMode::Auto, true) => Ok(&[Hook::XdpNative, Hook::Tcx, Hook::Clsact]),
            (EbpfMode::Auto, false) | (EbpfMode::Tc, _) => Ok(&[Hook::Tcx, Hook::Clsact]),
            (EbpfMode::Xdp, true) => Ok(&[Hook::XdpNative]),
            (EbpfMode::XdpGeneric, true) => Ok(&[Hook::XdpGeneric]),
            (EbpfMode::Xdp | EbpfMode::XdpGeneric, false) => {
                anyhow::bail!(
                    "{} has no Ethernet header, so XDP cannot read it; set ebpf = \"auto\" or \"tc\"",
                    wanted.name
                )
            }
            (EbpfMode::Off, _) => anyhow::bail!("the ebpf plane is off"),
        }
    }
}

impl EbpfPlane {
    /// The link of an interface: the one it has, one that an earlier process pinned, or a new one.
    /// The second value tells whether it is new.
    fn link(
        &mut self,
        next: &mut Generation,
        (index, wanted): (u32, &Wanted),
    ) -> anyhow::Result<(Attached, bool)> {
        let hooks = self.hooks(wanted)?;
        if let Some(attached) = self.attached.remove(&index)
            && !attached.is_dead()
        {
            return Ok((attached.keep_pinned()?, false));
        }
        let directory = self.links_dir();
        let mut failures = Vec::new();
        for &hook in hooks {
            if let Some(mut adopted) = Attached::adopt((index, wanted), hook, &directory)? {
                adopted.instead = instead(&failures);
                return Ok((adopted, false));
            }
            match Attached::attach(next, (index, wanted), hook, &directory) {
                Ok(mut attached) => {
                    log::info!(target: "ebpf", "{}: {hook}{}", wanted.name, because(&failures));
                    attached.instead = instead(&failures);
                    return Ok((attached, true));
                }
                // It could redirect packets before TCX sees them: never fall back behind it unasked.
                Err(error) if attach::is_taken(&error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "attach to {}: {hook}: another program is there; remove it, or set \
                             ebpf = \"tc\" to run behind it",
                            wanted.name
                        )
                    });
                }
                Err(error) => failures.push(format!("{hook}: {error:#}")),
            }
        }
        anyhow::bail!("attach to {}: {}", wanted.name, failures.join("; "))
    }

    /// Gives every wanted interface the programs of `next`. On an error what ran before runs on.
    fn put_in_force(&mut self, tables: &Tables, next: &mut Generation) -> anyhow::Result<()> {
        let mut kept = Vec::new();
        let mut new = Vec::new();
        let mut outcome = Ok(());
        for (&index, wanted) in &tables.interfaces {
            match self.link(next, (index, wanted)) {
                Ok((attached, true)) => new.push(attached),
                Ok((attached, false)) => kept.push(attached),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let mut swapped = 0;
        if outcome.is_ok() {
            for attached in &mut kept {
                outcome = attached
                    .swap(next)
                    .with_context(|| format!("swap on {}", attached.name));
                if outcome.is_err() {
                    break;
                }
                swapped += 1;
            }
        }
        if outcome.is_err() {
            for attached in new.drain(..) {
                warn("detach", attached.detach());
            }
            if let Some(current) = &mut self.current {
                for attached in &mut kept[..swapped] {
                    warn("swap back", attached.swap(current));
                }
            }
        } else {
            // Interfaces that left the zones, or are gone: the sweep removes their pins, if no new
            // link has taken their place.
            for (_, attached) in std::mem::take(&mut self.attached) {
                log::info!(target: "ebpf", "{}: detached", attached.name);
            }
        }
        let links = kept.into_iter().chain(new);
        self.attached
            .extend(links.map(|attached| (attached.index, attached)));
        outcome
    }

    /// Takes over what the generation before counted and reported.
    fn retire(&mut self, mut old: Generation) {
        self.settle();
        self.reports
            .extend(old.take_reports(REPORTS_AT_ONCE, false));
        self.unreported.add(old.unreported().unwrap_or_default());
        self.retired = old.into_tally();
    }

    /// Adds up the counters of the generation before.
    fn settle(&mut self) {
        if let Some(tally) = self.retired.take() {
            match tally.counts() {
                Ok(counts) => {
                    add(&mut self.counted, &counts.packets, &tally.zones);
                    add_hits(&mut self.hits, &counts.hits, &tally.zones);
                }
                Err(error) => log::warn!(target: "ebpf", "old counters are lost: {error:#}"),
            }
        }
    }

    /// Pins the maps where people find them, in place of those of earlier generations.
    fn pin_maps(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(&self.options.pin_dir)? {
            let path = entry?.path();
            if path != self.links_dir() && path.is_dir() {
                std::fs::remove_dir_all(&path).with_context(|| format!("{}", path.display()))?;
            }
        }
        let directory = self.options.pin_dir.join(format!("{:016x}", layout::HASH));
        std::fs::create_dir(&directory)?;
        self.current()?.pin_maps(&directory)
    }
}

impl Plane for EbpfPlane {
    fn name(&self) -> &'static str {
        "ebpf"
    }

    fn replace(&mut self, image: &Image) -> anyhow::Result<()> {
        let tables = tables::compile(image, self.options.nft_behind)?;
        let mut next = Generation::load(image, &tables, self.learned, self.options.nft_behind)?;
        self.put_in_force(&tables, &mut next)?;
        if let Some(old) = self.current.replace(next) {
            self.retire(old);
        }
        // Everything is in force; what is left is housekeeping.
        warn(
            "detach left-over links",
            attach::sweep(&self.links_dir(), self.attached.values()).map(drop),
        );
        warn("pin the maps", self.pin_maps());
        Ok(())
    }

    fn apply(&mut self, changes: &[Change]) -> anyhow::Result<Vec<Change>> {
        // Of several changes to one address the last one counts.
        let last: BTreeMap<(ZoneId, IpAddr), Change> = changes
            .iter()
            .map(|change| ((change.zone, change.address), *change))
            .collect();
        self.current_mut()?.apply(last.into_values())
    }

    fn read(&mut self) -> anyhow::Result<Holdings> {
        Ok(self.current()?.read())
    }

    fn holds(&mut self, zone: ZoneId, address: IpAddr) -> anyhow::Result<ClassMask> {
        let current = self.current()?;
        let granted = current.grant(zone, address)?;
        let learned = granted.map_or(ClassMask::NONE, |(mask, _)| mask);
        Ok(learned.union(ClassMask(current.place(zone, address)?.mask)))
    }

    fn verify(&mut self) -> anyhow::Result<()> {
        let current = self
            .current
            .as_mut()
            .context("the ebpf plane holds nothing yet")?;
        self.attached
            .values()
            .try_for_each(|attached| attached.verify(current))
    }

    fn last_seen(&mut self, addresses: &[(ZoneId, IpAddr)]) -> BTreeMap<(ZoneId, IpAddr), u64> {
        let Ok(current) = self.current() else {
            return BTreeMap::new();
        };
        let Ok(asleep) = generation::asleep() else {
            return BTreeMap::new();
        };
        let seen = |&(zone, address): &(ZoneId, IpAddr)| {
            let (_, used) = current.grant(zone, address).ok()??;
            Some(((zone, address), asleep.saturating_add(used / 1_000_000)))
        };
        addresses.iter().filter_map(seen).collect()
    }

    fn counters(&mut self) -> Vec<Counter> {
        self.settle();
        let mut counted = self.counted.clone();
        if let Some(current) = &self.current {
            match current.counts() {
                Ok(counts) => add(&mut counted, &counts.packets, &current.zones),
                Err(error) => log::warn!(target: "ebpf", "read the counters: {error:#}"),
            }
        }
        counted
            .into_iter()
            .map(|((zone, action, reason), packets)| Counter {
                zone,
                action: action.word(),
                reason: reason.word().to_owned(),
                packets,
            })
            .collect()
    }

    fn hits(&mut self) -> Hits {
        self.settle();
        let mut hits = self.hits.clone();
        if let Some(current) = &self.current {
            match current.counts() {
                Ok(counts) => add_hits(&mut hits, &counts.hits, &current.zones),
                Err(error) => log::warn!(target: "ebpf", "read the hits: {error:#}"),
            }
        }
        hits
    }

    fn describe(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .attached
            .values()
            .map(|attached| format!("{}: {}{}", attached.name, attached.hook, attached.instead))
            .collect();
        if let Some(bytes) = self.current.as_ref().and_then(|now| now.bytes().ok()) {
            lines.push(format!("maps: {} KiB", bytes / 1024));
        }
        let current = self
            .current
            .as_ref()
            .and_then(|current| current.unreported().ok());
        let mut unreported = self.unreported;
        unreported.add(current.unwrap_or_default());
        let Unreported { lost, repeated } = unreported;
        if unreported != Unreported::default() {
            lines.push(format!(
                "refused packets counted but not reported: {repeated} repeated, {lost} lost"
            ));
        }
        lines
    }

    fn refused(&mut self) -> Vec<RefusedPacket> {
        let mut reports = std::mem::take(&mut self.reports);
        if let Some(current) = &mut self.current {
            reports.extend(current.take_reports(REPORTS_AT_ONCE, self.nft_in_place));
        }
        reports.iter().filter_map(refused_packet).collect()
    }

    fn refers(&self) -> bool {
        self.current.as_ref().is_some_and(Generation::refers)
    }

    fn rely(&mut self, in_place: bool) {
        self.nft_in_place = in_place;
    }
}

/// Reads a report as `egressd_common::layout::report` builds it.
fn refused_packet(report: &layout::Report) -> Option<RefusedPacket> {
    let &[interface, why, what, _, ref addresses @ ..] = report;
    let [zone, action, reason, protocol] = why.to_ne_bytes();
    let &[source, destination] = addresses.as_chunks::<4>().0 else {
        return None;
    };
    let address = |words: [u32; 4]| match what >> 16 {
        4 => IpAddr::from(words[0].to_ne_bytes()),
        _ => grants::ipv6(words).into(),
    };
    Some(RefusedPacket {
        plane: "ebpf",
        zone: (zone != NO_ZONE).then_some(ZoneId(u16::from(zone))),
        interface,
        source: address(source),
        destination: address(destination),
        protocol,
        port: (what & 0xffff) as u16,
        reason: Reason::of(reason)?.word().to_owned(),
        audited: action == Action::Audit as u8,
    })
}

/// Adds `packets`, as the kernel counted them, to `counted`.
fn add(counted: &mut Counted, packets: &[u64], zones: &[(u8, String)]) {
    let named = zones.iter().map(|(zone, name)| (*zone, name.as_str()));
    for (zone, name) in named.chain([(NO_ZONE, "")]) {
        for action in Action::ALL {
            for &reason in Reason::ALL {
                let index = layout::counter_index(Verdict {
                    action,
                    reason,
                    zone,
                });
                let packets = packets.get(index as usize).copied().unwrap_or_default();
                if packets > 0 {
                    *counted
                        .entry((name.to_owned(), action, reason))
                        .or_default() += packets;
                }
            }
        }
    }
}

/// Adds what the sets of zones let pass to `sum`.
fn add_hits(sum: &mut Hits, hits: &BTreeMap<(u8, Origin), u64>, zones: &[(u8, String)]) {
    for (&(zone, origin), packets) in hits {
        if let Some((_, name)) = zones.iter().find(|(id, _)| *id == zone) {
            *sum.entry((name.clone(), origin)).or_default() += packets;
        }
    }
}

/// As [`because`], in a line's length: the verifier tells stories.
fn instead(failures: &[String]) -> String {
    let first = failures.first().and_then(|failure| failure.lines().next());
    first.map_or_else(String::new, |failure| {
        let short: String = failure.chars().take(120).collect();
        format!(" (instead of {short})")
    })
}

fn because(failures: &[String]) -> String {
    if failures.is_empty() {
        String::new()
    } else {
        format!(" ({})", failures.join("; "))
    }
}

fn warn(what: &str, outcome: anyhow::Result<()>) {
    if let Err(error) = outcome {
        log::warn!(target: "ebpf", "{what}: {error:#}");
    }
}

//! The ebpf plane: XDP or TCX programs on the zones' interfaces. Every `replace` makes before it
//! breaks: a new object with new maps, filled whole, takes the place of the old one through the
//! link of each interface. Maps are never adopted, so nothing in them can be misread.

mod attach;
mod clsact;
mod filter;
mod follow;
mod generation;
mod grants;
pub(in crate::plane) mod interfaces;
mod kinds;
mod memory;
mod mend;
mod offload;
mod reports;
mod sign;
mod table;
pub(in crate::plane) mod tables;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "trials"))]
pub(in crate::plane) mod trial;

use super::drift::Drift;
use super::{Counter, Holdings, Plane, RefusedPacket};
use crate::config::EbpfMode;
use crate::policy::ZoneId;
use crate::policy::image::{Change, Image};
use crate::policy::links::Kind;
use crate::policy::origin::Origin;
use crate::policy::port::ClassMask;
use anyhow::Context as _;
use attach::{Attached, Hook};
use egressd_common::layout;
use egressd_common::verdict::{Action, NO_ZONE, Reason, Verdict};
use generation::{Generation, Tally};
use interfaces::Wanted;
use reports::Unreported;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use tables::Tables;

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
    /// What the maps in force hold, if that is known.
    tables: Option<Tables>,
    /// What was attached to, or was to be, by index.
    wanted: BTreeMap<u32, Wanted>,
    /// How often the links were looked at.
    looks: u32,
    /// Interfaces that nft judges alone, because no program could be attached to them.
    missing: BTreeMap<u32, Missing>,
    /// Why an interface has another hook than the best, by index.
    because: BTreeMap<u32, String>,
    /// The types of tags that must be seen on interfaces with VLAN devices.
    trunks: BTreeMap<u32, BTreeSet<u16>>,
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
    attach::sweep_all(&links)
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
            tables: None,
            wanted: BTreeMap::new(),
            looks: 0,
            missing: BTreeMap::new(),
            because: BTreeMap::new(),
            trunks: BTreeMap::new(),
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

    /// The hooks to try on an interface, best first, and why there are no better ones.
    fn hooks(
        &self,
        (index, wanted): (u32, &Wanted),
    ) -> anyhow::Result<(&'static [Hook], Option<String>)> {
        let name = &wanted.name;
        if wanted.sent {
            return Ok((&[Hook::TcxEgress], None));
        }
        let hooks: &[Hook] = match (self.options.mode, wanted.ethernet) {
            (EbpfMode::Off, _) => anyhow::bail!("the ebpf plane is off"),
            (EbpfMode::Tc, _) | (EbpfMode::Auto, false) => {
                return Ok((&[Hook::Tcx, Hook::Clsact], None));
            }
            (EbpfMode::Xdp | EbpfMode::XdpGeneric, false) => anyhow::bail!(
                "{name} has no Ethernet header, so XDP cannot read it; set ebpf = \"auto\" or \"tc\""
            ),
            (EbpfMode::Auto, true) => &[Hook::XdpNative, Hook::Tcx, Hook::Clsact],
            (EbpfMode::Xdp, true) => &[Hook::XdpNative],
            (EbpfMode::XdpGeneric, true) => &[Hook::XdpGeneric],
        };
        let (why, instead) = match wanted.kind {
            // Its trunk's program drops what it can by XDP; this one has the last word, see `Role`.
            Kind::Vlan(_) => {
                return Ok((
                    &[Hook::Tcx, Hook::Clsact],
                    Some("a VLAN device has no XDP".into()),
                ));
            }
            Kind::Bond => ("XDP runs on its ports, which are in no zone", String::new()),
            Kind::Plain | Kind::Bridge => match unseen(index, &wanted.tags) {
                None => return Ok((hooks, None)),
                Some((why, feature)) => (why, format!("`ethtool -K {name} {feature} off`, or ")),
            },
        };
        match self.options.mode {
            EbpfMode::Auto => Ok((&[Hook::Tcx, Hook::Clsact], Some(why.to_owned()))),
            EbpfMode::Xdp | EbpfMode::XdpGeneric | EbpfMode::Tc | EbpfMode::Off => {
                anyhow::bail!("{name}: {why}; {instead}set ebpf = \"auto\" or \"tc\"")
            }
        }
    }
}

/// Why XDP would not see tags of these types on an interface, and the feature of its card that is to
/// blame; `None` where it sees them. In doubt it does not.
fn unseen(index: u32, tags: &BTreeSet<u16>) -> Option<(&'static str, &'static str)> {
    if tags.is_empty() {
        return None;
    }
    match offload::strips(index, tags) {
        Ok(feature) => Some(("its card takes VLAN tags off before XDP", feature?)),
        Err(error) => {
            log::debug!(target: "ebpf", "interface {index}: {error:#}");
            Some(("its card may take VLAN tags off before XDP", "rxvlan"))
        }
    }
}

/// An interface without a program.
#[derive(Debug)]
struct Missing {
    wanted: Wanted,
    why: String,
}

impl EbpfPlane {
    /// The link of an interface: the one it has, one that an earlier process pinned, or a new one.
    /// The second value tells whether it is new.
    fn link(
        &mut self,
        next: &mut Generation,
        (index, wanted): (u32, &Wanted),
    ) -> anyhow::Result<(Attached, bool)> {
        let (hooks, why) = self.hooks((index, wanted))?;
        self.because.remove(&index);
        let directory = self.links_dir();
        let fits = |attached: &Attached| hooks.contains(&attached.hook) && !attached.is_dead();
        // One that does not fit stays in force until everything new is.
        if self.attached.get(&index).is_some_and(fits)
            && let Some(attached) = self.attached.remove(&index)
        {
            self.because.extend(why.map(|why| (index, why)));
            let attached = mend::keep_pinned(attached, next, &wanted.name, &directory)?;
            return Ok((attached, false));
        }
        let mut failures: Vec<String> = why.into_iter().collect();
        for &hook in hooks {
            let adopted = Attached::adopt((index, wanted), hook, &directory)?;
            let attached = match adopted {
                Some(adopted) => Ok((adopted, false)),
                None => Attached::attach(next, (index, wanted), hook, &directory)
                    .map(|attached| (attached, true)),
            };
            match attached {
                Ok(attached) => {
                    log::info!(target: "ebpf", "{}: {hook}{}", wanted.name, because(&failures));
                    if !failures.is_empty() {
                        self.because.insert(index, short(&failures));
                    }
                    return Ok(attached);
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
                // A lesser hook could meet one that was made again meanwhile, and keep it.
                Err(error) if attach::is_gone(&error) => {
                    return Err(error).with_context(|| format!("attach to {}", wanted.name));
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
        let mut missing = BTreeMap::new();
        for (&index, wanted) in &tables.interfaces {
            match self.link(next, (index, wanted)) {
                Ok((attached, true)) => new.push(attached),
                Ok((attached, false)) => kept.push(attached),
                // Nothing passes there that nft does not let pass.
                Err(error) if self.options.nft_behind => {
                    log::error!(target: "ebpf", "{}: left to nft alone: {error:#}", wanted.name);
                    let (wanted, why) = (wanted.clone(), format!("{error:#}"));
                    missing.insert(index, Missing { wanted, why });
                }
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
                log::info!(target: "ebpf", "{}: {} detached", attached.name, attached.hook);
            }
            self.missing = missing;
            self.wanted.clone_from(&tables.interfaces);
            let trunks = tables.interfaces.iter();
            self.trunks = trunks
                .filter(|(_, wanted)| !wanted.tags.is_empty())
                .map(|(index, wanted)| (*index, wanted.tags.clone()))
                .collect();
            self.because
                .retain(|index, _| tables.interfaces.contains_key(index));
        }
        let links = kept.into_iter().chain(new);
        self.attached
            .extend(links.map(|attached| (attached.index, attached)));
        outcome
    }

    /// Attaches once more to what could not be attached to.
    fn retry(&mut self) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        for (index, mut missing) in std::mem::take(&mut self.missing) {
            match self.link(&mut current, (index, &missing.wanted)) {
                Ok((mut attached, is_new)) => {
                    if !is_new && let Err(error) = attached.swap(&mut current) {
                        // Another generation's program must not stay beside this one's.
                        missing.why = format!("{error:#}");
                        self.missing.insert(index, missing);
                        warn(
                            "detach a program that cannot be replaced",
                            attached.detach(),
                        );
                        continue;
                    }
                    self.attached.insert(index, attached);
                }
                Err(error) => {
                    log::debug!(target: "ebpf", "{}: {error:#}", missing.wanted.name);
                    missing.why = format!("{error:#}");
                    self.missing.insert(index, missing);
                }
            }
        }
        self.current = Some(current);
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
        if self.follow(image, &tables) {
            self.tables = Some(tables);
            return Ok(());
        }
        let mut next = Generation::load(image, &tables, self.learned, self.options.nft_behind)?;
        self.put_in_force(&tables, &mut next)?;
        self.tables = Some(tables);
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
        self.retry();
        let mut current = self
            .current
            .take()
            .context("the ebpf plane holds nothing yet")?;
        let indices: Vec<u32> = self.attached.keys().copied().collect();
        let looked = indices
            .into_iter()
            .try_for_each(|index| self.look(&mut current, index));
        self.current = Some(current);
        Ok(looked?)
    }

    fn mend(&mut self) -> Vec<Drift> {
        self.mend_links()
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
            .map(|attached| {
                let why = self.because.get(&attached.index);
                let why = why.map_or_else(String::new, |why| format!(" ({why})"));
                format!("{}: {}{why}", attached.name, attached.hook)
            })
            .collect();
        lines.extend(self.missing.values().map(|missing| {
            let Missing { wanted, why } = missing;
            format!("{}: not attached, left to nft alone: {why}", wanted.name)
        }));
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

/// The first of `failures`, in a line's length: the verifier tells stories.
fn short(failures: &[String]) -> String {
    let first = failures.first().and_then(|failure| failure.lines().next());
    first.unwrap_or_default().chars().take(120).collect()
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

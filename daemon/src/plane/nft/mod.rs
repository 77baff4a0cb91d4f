//! The nft plane: owns the table `inet egressd` and nothing else, and never edits another table (the closed one
//! of `lockdown` beside it is egressd's as well). What was learned stands in hash sets; the rest is described by
//! `ruleset` and rewritten whole.

use super::drift::Drift;
use super::netlink::{Failure, Refusal, Socket};
use super::nflog::Reports;
use super::ruleset::{Chain, LearnedSet, PREROUTING, Ruleset, TABLE, Tally};
use super::{Counter, Holdings, Plane, RefusedPacket};
use crate::policy::ZoneId;
use crate::policy::image::{Change, Image};
use crate::policy::port::ClassMask;
use anyhow::{Context as _, bail, ensure};
use kernel::{OWNER, PERSIST, TableState};
use nftnl::MsgType;
use nix::errno::Errno;
use ownership::Ownership;
use standing::{Standing, holdings, steps};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use transaction::{Step, StepKind, Transaction};

mod expression;
mod kernel;
mod left;
pub mod lockdown;
mod mend;
mod ownership;
mod standing;
mod transaction;

pub use left::{remove, remove_left_behind};

#[cfg(test)]
mod lab;
#[cfg(test)]
mod tests;

/// How long the kernel may take for the largest transaction, in seconds.
const PATIENCE: i64 = 15;

/// The nft plane of one network namespace.
#[derive(Debug)]
pub struct NftPlane {
    socket: Socket,
    reports: Reports,
    /// Whether the kernel knows tables that outlive their owner; `None` until the first table.
    ownable: Option<bool>,
    /// Whether it is this kernel that does not.
    too_old: bool,
    /// Whose the table was when the plane was opened.
    found: Ownership,
    /// What is in force; `None` when nobody knows, and the next `replace` starts afresh.
    standing: Option<Standing>,
    /// Packets counted by tables that are gone.
    counted: BTreeMap<Tally, u64>,
    scratch: Vec<u8>,
}

impl NftPlane {
    /// Opens the plane in the calling thread's network namespace, without changing anything there.
    /// Refused packets are reported by NFLOG group `log_group`; a kernel without NFLOG only counts
    /// them.
    ///
    /// # Errors
    /// When the kernel has no nf_tables, the process no `CAP_NET_ADMIN`, or another living process
    /// owns the table.
    pub fn open(log_group: u16) -> anyhow::Result<Self> {
        Self::open_with(log_group, None)
    }

    /// As [`NftPlane::open`], with the socket that [`Plane::keepsake`] of an earlier run gave away. It is
    /// used if it still owns the table.
    ///
    /// # Errors
    /// As [`NftPlane::open`].
    pub fn open_with(log_group: u16, kept: Option<OwnedFd>) -> anyhow::Result<Self> {
        let (socket, found) = socket_with(kept)?;
        log::info!(
            target: "plane", plane = "nft", table = found.word();
            "{}", found.meaning()
        );
        let mut plane = Self {
            socket,
            reports: Reports::open(log_group),
            ownable: None,
            too_old: false,
            found,
            standing: None,
            counted: BTreeMap::new(),
            scratch: Vec::new(),
        };
        plane.stranger()?;
        Ok(plane)
    }

    /// The same, with a table that others may change, as on kernels before 6.9: whoever saves and loads
    /// whole rulesets wants it.
    #[must_use]
    pub fn open_to_others(mut self) -> Self {
        self.ownable = Some(false);
        self
    }

    /// Takes the table away. Forwarding is then other tables' business: only `egressd open` may.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self) -> anyhow::Result<()> {
        if self.stranger()?.is_some() {
            let mut transaction = Transaction::new(&mut self.scratch);
            transaction.remove_table();
            transaction
                .commit(&mut self.socket)
                .context("remove the nft table")?;
        }
        self.standing = None;
        Ok(())
    }

    /// The table that is there, if this process may have it.
    fn stranger(&mut self) -> anyhow::Result<Option<TableState>> {
        let table = kernel::table(&mut self.socket).context("read the nft table")?;
        match Ownership::of(table.as_ref(), self.socket.port()) {
            Ownership::ForeignOwned(owner) => bail!(belongs_to(owner)),
            Ownership::Absent | Ownership::Ours | Ownership::Ownerless | Ownership::Plain => {
                Ok(table)
            }
        }
    }

    /// Puts `ruleset` and `held` in place of the table of this process: counters and what was
    /// learned before and still is stay.
    fn rewrite(&mut self, ruleset: &Ruleset, held: &Holdings) -> Result<(), Failure> {
        let Some(standing) = &self.standing else {
            return Err(Failure::Unknown(Errno::ENOENT));
        };
        let old = &standing.ruleset;
        let mut steps = steps(&standing.held, old, held, ruleset);
        let mut transaction = Transaction::new(&mut self.scratch);
        if *ruleset == *old {
            transaction.steps(&steps);
            return transaction.commit(&mut self.socket);
        }
        for tally in ruleset
            .tallies
            .iter()
            .filter(|tally| !old.tallies.contains(tally))
        {
            transaction.counter(MsgType::Add, tally);
        }
        for set in ruleset
            .learned
            .iter()
            .filter(|set| old.learned.binary_search(set).is_err())
        {
            transaction.learned_set(MsgType::Add, *set);
        }
        let lasts = |set: &LearnedSet| ruleset.learned.binary_search(set).is_ok();
        steps.retain(|step| lasts(&step.set));
        transaction.steps(&steps);
        // The forward chain stays: a new one would answer with its policy until the commit.
        let hooked = old.chains.iter().filter(|chain| chain.is_hooked());
        hooked.for_each(|chain| transaction.flush(&chain.name));
        fill(&mut transaction, ruleset, self.reports.group(), &old.chains);
        transaction.commit(&mut self.socket)?;

        let mut transaction = Transaction::new(&mut self.scratch);
        let chains = || old.chains.iter().filter(|chain| !chain.is_hooked());
        chains().for_each(|chain| transaction.flush(&chain.name));
        old.maps
            .iter()
            .for_each(|map| transaction.remove_set(&map.name));
        old.networks
            .iter()
            .for_each(|set| transaction.remove_set(&set.name));
        chains().for_each(|chain| transaction.chain(MsgType::Del, &chain.name));
        for set in old.learned.iter().filter(|set| !lasts(set)) {
            transaction.learned_set(MsgType::Del, *set);
        }
        for tally in old
            .tallies
            .iter()
            .filter(|tally| !ruleset.tallies.contains(tally))
        {
            transaction.counter(MsgType::Del, tally);
        }
        transaction.commit(&mut self.socket)
    }

    /// Puts `ruleset` and `held` in place of whatever is there.
    fn recreate(&mut self, ruleset: &Ruleset, held: &Holdings) -> Result<(), Failure> {
        let flags = match self.ownable {
            Some(false) => None,
            Some(true) | None => Some(OWNER | PERSIST),
        };
        let log_group = self.reports.group();
        let mut transaction = Transaction::new(&mut self.scratch);
        transaction.recreate_table(flags);
        ruleset
            .tallies
            .iter()
            .for_each(|tally| transaction.counter(MsgType::Add, tally));
        ruleset
            .learned
            .iter()
            .for_each(|set| transaction.learned_set(MsgType::Add, *set));
        let nothing = (Holdings::new(), Ruleset::default());
        transaction.steps(&steps(&nothing.0, &nothing.1, held, ruleset));
        fill(&mut transaction, ruleset, log_group, &[]);
        match transaction.commit(&mut self.socket) {
            // Before Linux 6.9 there is no persist; owner alone would open the gateway when this
            // process dies.
            Err(Failure::Refused(Refusal {
                errno: Errno::EOPNOTSUPP,
                ..
            })) if self.ownable.is_none() => {
                log::warn!(
                    target: "plane", plane = "nft", table = NO_PERSIST;
                    "before Linux 6.9 a table cannot outlive its owner: this one has none, and others can change it"
                );
                (self.ownable, self.too_old) = (Some(false), true);
                self.recreate(ruleset, held)
            }
            Err(failure) => Err(failure),
            Ok(()) => {
                self.ownable = Some(flags.is_some());
                Ok(())
            }
        }
    }

    /// Remembers what was just put in force.
    fn stand(&mut self, ruleset: Ruleset, held: Holdings) -> anyhow::Result<()> {
        self.standing = None;
        let found = kernel::table(&mut self.socket).context("read the nft table")?;
        let table = found.context("the table that was just made is gone")?;
        let generation = kernel::generation(&mut self.socket).context("read the generation")?;
        let owned = self.ownable == Some(true);
        ensure!(
            !owned || table.owner == Some(self.socket.port()),
            "the table that was just made belongs to somebody else"
        );
        let rules = if owned {
            0
        } else {
            kernel::rule_count(&mut self.socket).context("count the rules")?
        };
        self.standing = Some(Standing {
            ruleset,
            held,
            table,
            rules,
            generation,
            drifted: false,
        });
        Ok(())
    }

    /// What was counted so far, by tables that are gone and by the one that stands.
    fn counted(&mut self) -> BTreeMap<Tally, u64> {
        let mut counted = self.counted.clone();
        let Some(standing) = &self.standing else {
            return counted;
        };
        // A table that somebody took away took its counts along.
        let Ok(found) = kernel::counters(&mut self.socket) else {
            return counted;
        };
        for tally in &standing.ruleset.tallies {
            let packets = found.get(&tally.to_string()).copied().unwrap_or(0);
            *counted.entry(tally.clone()).or_default() += packets;
        }
        counted
    }

    /// Commits `steps`; on a refusal halves them until the refused ones stand alone, and collects
    /// those in `refused`.
    fn commit(&mut self, steps: &[Step], refused: &mut Vec<Step>) -> Result<(), Failure> {
        let mut transaction = Transaction::new(&mut self.scratch);
        transaction.steps(steps);
        let refusal = match transaction.commit(&mut self.socket) {
            Ok(()) => {
                self.hold(steps);
                return Ok(());
            }
            Err(Failure::Refused(refusal)) => refusal,
            Err(failure) => return Err(failure),
        };
        let [step] = steps else {
            let (left, right) = steps.split_at(steps.len() / 2);
            self.commit(left, refused)?;
            return self.commit(right, refused);
        };
        if step.kind == StepKind::Remove && refusal.errno == Errno::ENOENT {
            // What was to be closed is closed, but somebody else was here.
            self.hold(steps);
            if let Some(standing) = &mut self.standing {
                standing.drifted = true;
            }
            return Ok(());
        }
        log::error!(target: "plane", plane = "nft", set:% = step.set, address:% = step.address; "{refusal}");
        refused.push(*step);
        Ok(())
    }

    fn hold(&mut self, steps: &[Step]) {
        if let Some(standing) = &mut self.standing {
            standing.hold(steps);
        }
    }
}

/// The word for a kernel whose tables do not outlive their owners.
const NO_PERSIST: &str = "no-persist";

fn belongs_to(owner: u32) -> String {
    format!(
        "foreign-owned: table inet {TABLE} belongs to another running process (netlink port {owner}, which \
         mostly is its pid), or to one whose socket the service manager keeps; stop that process, or its \
         service, first"
    )
}

/// A socket, and whose the table is for it: the one that was kept, if it owns the table here.
fn socket_with(kept: Option<OwnedFd>) -> anyhow::Result<(Socket, Ownership)> {
    let mut socket = Socket::open(PATIENCE).context("open a netlink socket")?;
    let table = kernel::table(&mut socket).context("read the nft table")?;
    if let Some(kept) = kept {
        match Socket::adopt(kept, PATIENCE) {
            Ok(kept) if Ownership::of(table.as_ref(), kept.port()) == Ownership::Ours => {
                return Ok((kept, Ownership::Ours));
            }
            Ok(_) => {
                log::info!(target: "plane", plane = "nft"; "the kept socket owns no table here")
            }
            Err(error) => {
                log::warn!(target: "plane", plane = "nft"; "the kept socket is of no use: {error}");
            }
        }
    }
    let found = Ownership::of(table.as_ref(), socket.port());
    Ok((socket, found))
}

/// Whether others can change the table that is in the calling thread's network namespace. In doubt they
/// can.
#[must_use]
pub fn is_open_to_others() -> bool {
    let Ok(mut socket) = Socket::open(PATIENCE) else {
        return true;
    };
    !matches!(kernel::table(&mut socket), Ok(Some(table)) if table.owner.is_some())
}

/// Everything of `ruleset` but counters and learned sets, into a table that has those and the
/// `standing` chains.
fn fill(
    transaction: &mut Transaction<'_>,
    ruleset: &Ruleset,
    log_group: Option<u16>,
    standing: &[Chain],
) {
    ruleset
        .networks
        .iter()
        .for_each(|set| transaction.add_networks(set));
    ruleset.maps.iter().for_each(|map| transaction.add_map(map));
    let stands = |chain: &Chain| {
        let mut standing = standing.iter();
        chain.is_hooked() && standing.any(|known| known.name == chain.name)
    };
    for chain in ruleset.chains.iter().filter(|chain| !stands(chain)) {
        transaction.chain(MsgType::Add, &chain.name);
    }
    ruleset
        .maps
        .iter()
        .for_each(|map| transaction.fill_map(map));
    ruleset
        .chains
        .iter()
        .for_each(|chain| transaction.rules(chain, log_group));
}

impl Plane for NftPlane {
    fn name(&self) -> &'static str {
        "nft"
    }

    fn replace(&mut self, image: &Image) -> anyhow::Result<()> {
        let check = self.check();
        let generation = self
            .standing
            .as_ref()
            .map(|standing| standing.ruleset.generation);
        // Reconciled or not: flows that the table in place redirects may live on.
        let translating =
            kernel::has_chain(&mut self.socket, PREROUTING).context("read a chain")?;
        let describe = |generation| {
            let mut ruleset = Ruleset::new(image, generation);
            if translating {
                ruleset.keep_translating();
            }
            ruleset
        };
        let mut ruleset = describe(generation.unwrap_or_default());
        let held = holdings(image, &ruleset);
        if check.is_ok() {
            if self
                .standing
                .as_ref()
                .is_some_and(|standing| standing.ruleset != ruleset)
            {
                ruleset = describe(ruleset.generation.other());
            }
            match self.rewrite(&ruleset, &held) {
                Ok(()) => return self.stand(ruleset, held),
                Err(Failure::Refused(refusal)) => {
                    log::warn!(target: "plane", plane = "nft"; "the table is made anew: {refusal}");
                }
                Err(failure) => {
                    self.standing = None;
                    return Err(failure).context("rewrite the nft table");
                }
            }
        }
        self.stranger()?;
        let counted = self.counted();
        // From here on the old table may be there or not, whole or in part.
        self.standing = None;
        self.recreate(&ruleset, &held)
            .context("load the nft table")?;
        self.counted = counted;
        self.stand(ruleset, held)
    }

    fn apply(&mut self, changes: &[Change]) -> anyhow::Result<Vec<Change>> {
        let Some(standing) = &self.standing else {
            bail!("the state of table inet {TABLE} is unknown");
        };
        // The last change of an address counts.
        let mut wanted = BTreeMap::new();
        for change in changes {
            wanted.insert((change.zone, change.address), change.now);
        }
        let mut steps = Vec::new();
        for (&(zone, address), &now) in &wanted {
            let was = standing
                .held
                .get(&(zone, address))
                .copied()
                .unwrap_or_default();
            let step = |kind| {
                move |class| Step {
                    set: LearnedSet::of(zone, address, class),
                    kind,
                    address,
                }
            };
            steps.extend(was.without(now).classes().map(step(StepKind::Remove)));
            steps.extend(now.without(was).classes().map(step(StepKind::Add)));
        }
        steps.sort_unstable();
        let mut refused = Vec::new();
        let outcome = self.commit(&steps, &mut refused);
        if outcome.is_err() {
            self.standing = None;
        }
        outcome.context("change the nft sets")?;
        if !refused.is_empty() {
            // Refused elements, or a table that somebody took away?
            let check = self.check();
            if check.is_err() {
                self.standing = None;
            }
            check?;
        }
        let refused: BTreeSet<(ZoneId, IpAddr)> = refused
            .iter()
            .map(|step| (step.set.zone, step.address))
            .collect();
        let not_in_force = |change: &&Change| refused.contains(&(change.zone, change.address));
        Ok(changes.iter().filter(not_in_force).copied().collect())
    }

    fn read(&mut self) -> anyhow::Result<Holdings> {
        let Some(standing) = &self.standing else {
            bail!("the state of table inet {TABLE} is unknown");
        };
        let mut holdings = Holdings::new();
        for set in &standing.ruleset.learned {
            let addresses = kernel::addresses(&mut self.socket, &set.to_string())
                .with_context(|| format!("read the set {set}"))?;
            for address in addresses {
                let mask = holdings.entry((set.zone, address)).or_default();
                *mask = mask.with(set.class);
            }
        }
        Ok(holdings)
    }

    fn holds(&mut self, zone: ZoneId, address: IpAddr) -> anyhow::Result<ClassMask> {
        let Some(standing) = &self.standing else {
            bail!("the state of table inet {TABLE} is unknown");
        };
        let mut mask = ClassMask::NONE;
        let all = ClassMask(u64::MAX);
        for learned in standing.ruleset.learned_in(zone, address, all) {
            let networks = learned.networks(standing.ruleset.generation);
            let networks = standing
                .ruleset
                .networks
                .iter()
                .find(|set| set.name == networks);
            let names = [
                Some(learned.to_string()),
                networks.map(|set| set.name.clone()),
            ];
            for name in names.into_iter().flatten() {
                if kernel::has(&mut self.socket, &name, address)
                    .with_context(|| format!("read the set {name}"))?
                {
                    mask = mask.with(learned.class);
                }
            }
        }
        Ok(mask)
    }

    fn verify(&mut self) -> anyhow::Result<()> {
        Ok(self.check()?)
    }

    fn stands_firm(&mut self) -> bool {
        // Without an owner anyone's flush takes it away in the time between two looks.
        let owner = self
            .standing
            .as_ref()
            .and_then(|standing| standing.table.owner);
        owner.is_some() && self.verify().is_ok()
    }

    fn mend(&mut self) -> Vec<Drift> {
        self.mend_table().into_iter().collect()
    }

    fn counters(&mut self) -> Vec<Counter> {
        let counted = self.counted();
        let zones = self
            .standing
            .as_ref()
            .map(|standing| standing.ruleset.zones.clone());
        let zones = zones.unwrap_or_default();
        let named = |zone: Option<ZoneId>| match zone {
            None => Some(String::new()),
            Some(zone) => zones.get(&zone).cloned(),
        };
        counted
            .into_iter()
            .filter_map(|(tally, packets)| {
                let (action, reason) = (tally.action.word(), tally.reason.to_owned());
                Some(Counter {
                    zone: named(tally.zone)?,
                    action,
                    reason,
                    packets,
                })
            })
            .collect()
    }

    fn refused(&mut self) -> Vec<RefusedPacket> {
        self.reports.take()
    }

    fn keepsake(&self) -> Option<OwnedFd> {
        if self.ownable == Some(false) {
            return None;
        }
        match self.socket.as_fd().try_clone_to_owned() {
            Ok(descriptor) => Some(descriptor),
            Err(error) => {
                log::warn!(target: "plane", plane = "nft"; "the socket cannot be given away: {error}");
                None
            }
        }
    }

    fn describe(&self) -> Vec<String> {
        let found = self.found;
        let table = match &self.standing {
            None => format!("table inet {TABLE}: not in place"),
            Some(Standing { table, .. }) => {
                let handle = table.handle;
                let whose = match (table.owner, self.too_old) {
                    (Some(owner), _) => format!("owned by port {owner}"),
                    (None, true) => {
                        format!(
                            "not owned ({NO_PERSIST}): others can change it until egressd notices"
                        )
                    }
                    (None, false) => {
                        "not owned: others can change it until egressd notices".to_owned()
                    }
                };
                format!("table inet {TABLE}, handle {handle}, {whose}; at the start it was {found}")
            }
        };
        vec![table, self.reports.describe()]
    }
}

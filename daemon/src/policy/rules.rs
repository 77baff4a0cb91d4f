//! The operator's intent, compiled: which zone asks, which names it may ask, which addresses an
//! answer may teach. Immutable once built; the edges share it as a snapshot.

use super::ZoneId;
use super::catalogue::{Catalogue, EndpointSet};
use super::exceptions::{self, Exception};
use super::image::{Image, Own, Resolver, Unzoned, ZoneImage};
use super::links::{InterfacePattern, Links};
use super::matcher::Matcher;
use super::name::{Name, Pattern};
use super::nat64::Prefix;
use super::observed::{self, Observed};
use super::port::{ClassId, ClassMask, ClassTable, TooManyClasses};
use super::slots::Slots;
use super::zone::{Selector, ZoneSpec};
use egressd_common::MAX_ZONES;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Everything the operator decided, before it meets the machine's interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// New connections entering here are not judged.
    pub upstream: Vec<InterfacePattern>,
    /// Destinations that are not egress.
    pub internal: Vec<IpNet>,
    /// What happens to packets of no zone.
    pub unzoned: Unzoned,
    /// Prefixes under which translators reach IPv4 addresses.
    pub nat64: Vec<Prefix>,
    /// Every catalogue, the built-in one included.
    pub catalogues: Vec<Catalogue>,
    /// Every zone.
    pub zones: Vec<ZoneSpec>,
    /// Caps on what is learned.
    pub limits: Limits,
    /// Whose answers teach as they pass by; `None` in forward mode.
    pub observed: Option<Observed>,
    /// Whom egressd itself asks, where a zone judges the gateway's own packets; else empty.
    pub resolvers: Vec<Resolver>,
    /// What operators allowed for a while. Those of zones that there are not are without effect.
    pub exceptions: Vec<Exception>,
}

/// Caps on what is learned, and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most learned addresses per address family, all zones together.
    pub learned: usize,
    /// Most of them in one zone.
    pub per_zone: usize,
    /// Most addresses that one client's questions (over IPv6: one /64's) may add per second, in all
    /// zones together.
    pub per_client: usize,
    /// Most learned addresses that one name may hold in one zone.
    pub per_name: usize,
    /// Most addresses one answer may teach.
    pub per_answer: usize,
    /// Shortest lifetime an answer gets, in seconds.
    pub ttl_floor: u32,
    /// Longest lifetime an answer gets, in seconds.
    pub ttl_ceiling: u32,
    /// Seconds added to every lifetime, for clients that cache too long.
    pub grace: u32,
    /// A grant that is over lives on while a packet used it within this many seconds.
    pub idle: u32,
    /// Refused packets per second and zone that the ebpf plane leaves to nft; 0 for none.
    pub referred: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            learned: 131_072,
            per_zone: 131_072,
            per_client: 200,
            per_name: 1000,
            per_answer: 256,
            ttl_floor: 60,
            ttl_ceiling: 86_400,
            grace: 900,
            idle: 180,
            referred: 10,
        }
    }
}

/// The compiled intent.
#[derive(Debug, Default)]
pub struct Rules {
    links: Links,
    intent: Arc<Intent>,
    sets: Vec<Row>,
    zones: BTreeMap<ZoneId, ZoneRules>,
    by_interface: BTreeMap<u32, Vec<(Option<IpNet>, ZoneId)>>,
    local: Option<ZoneId>,
}

/// A set's number within one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId(u32);

/// An endpoint set and the catalogue (or zone, for operators' rules) it belongs to.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the catalogue, or of the zone whose rule it is.
    pub catalogue: String,
    /// The set.
    pub set: EndpointSet,
}

impl Row {
    /// How selectors and people call it: `intune/163`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.catalogue, self.set.id)
    }
}

/// One zone, compiled.
#[derive(Debug, Default)]
pub struct ZoneRules {
    /// As the operator wrote it.
    pub spec: ZoneSpec,
    /// Its clients' prefixes with `connected` resolved; empty means every source.
    pub sources: Vec<IpNet>,
    /// The sets it may reach.
    pub sets: Vec<SetId>,
    /// Its networks, denied parts cut out, each with its set and class.
    pub networks: Vec<NetworkListing>,
    /// Wildcards over shared domains that it did not opt in to, and so are without effect.
    pub inert: Vec<(SetId, Pattern)>,
    names: Matcher<Listing>,
    denied_names: Matcher<SetId>,
    pub(super) denied_networks: Vec<IpNet>,
    /// Names whose answers may hold addresses of private networks.
    pub(super) private: Matcher<()>,
    reach: BTreeMap<IpNet, ClassMask>,
}

impl ZoneRules {
    /// The sources as the planes must take them, for whom an empty list means everyone.
    fn clients(&self) -> Vec<IpNet> {
        if self.sources.is_empty() && self.spec.connected {
            // No address on its interfaces yet: nobody is inside. No packet has this source.
            return vec![IpNet::from(IpAddr::V4(Ipv4Addr::BROADCAST))];
        }
        self.sources.clone()
    }
}

/// A set that lists a name.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Which set.
    pub set: SetId,
    /// The class of its ports.
    pub class: ClassId,
    /// The pattern that matched.
    pub pattern: Pattern,
}

/// A set that lists a network.
#[derive(Clone, Copy, Debug)]
pub struct NetworkListing {
    /// What is open of it.
    pub network: IpNet,
    /// The network as the catalogue writes it.
    pub written: IpNet,
    /// Which set.
    pub set: SetId,
    /// The class of its ports.
    pub class: ClassId,
}

/// Why an intent cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More distinct port sets than bits.
    #[error(transparent)]
    Classes(#[from] TooManyClasses),
    /// More zones than numbers.
    #[error("the policy has more than {MAX_ZONES} zones")]
    Zones,
}

/// The numbers that outlive one compilation.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Of port sets.
    pub classes: ClassTable,
    /// Of zones, by name.
    pub zones: Slots<String, MAX_ZONES>,
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Some allowed set lists the name.
    Forward,
    /// The client gets no answer.
    Refuse(Refusal),
}

/// Why a question is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No set that the zone may reach lists the name.
    Unlisted,
    /// A `deny` set lists the name.
    Denied,
    /// The name may be asked, this type of record not. [`Rules::ask`] never says it: it knows no types.
    Type,
}

/// Why an address is taken out of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A special-purpose address, with the registry's word for it.
    Special(&'static str),
    /// One of the gateway's own addresses.
    Own,
    /// An address of a subnet the gateway is connected to.
    Connected,
    /// An address that `[gateway] internal` names.
    Internal,
    /// An address in a network of a `deny` set.
    Denied,
}

impl Rules {
    /// Compiles `intent` for the machine's `links`. Numbers no longer used retire.
    ///
    /// # Errors
    /// When the intent needs more classes or zones than there are; `numbers` is then worthless.
    pub fn compile(
        intent: Arc<Intent>,
        links: Links,
        numbers: &mut Numbers,
    ) -> Result<Self, CompileError> {
        let mut rules = Self {
            links,
            intent: Arc::clone(&intent),
            ..Self::default()
        };
        for catalogue in &intent.catalogues {
            for set in &catalogue.sets {
                rules.sets.push(Row {
                    catalogue: catalogue.name.clone(),
                    set: set.clone(),
                });
            }
        }
        let mut used = ClassMask::NONE;
        for spec in &intent.zones {
            let index = numbers
                .zones
                .claim(&spec.name)
                .map_err(|_| CompileError::Zones)?;
            let id = ZoneId(u16::try_from(index).expect("a slot's number is below MAX_ZONES"));
            let zone = rules.compile_zone(spec, &mut numbers.classes, &mut used)?;
            if spec.local {
                rules.local = Some(id);
            }
            for (interface, link) in rules.links.matching(&spec.interfaces) {
                // Upstream is never a zone, however wide a zone's pattern is.
                if intent
                    .upstream
                    .iter()
                    .any(|pattern| pattern.matches(&link.name))
                {
                    continue;
                }
                let claims = rules.by_interface.entry(interface).or_default();
                if spec.sources.is_empty() && !spec.connected {
                    claims.push((None, id));
                }
                claims.extend(zone.sources.iter().map(|source| (Some(*source), id)));
            }
            rules.zones.insert(id, zone);
        }
        for claims in rules.by_interface.values_mut() {
            claims.sort_by_key(|(source, _)| {
                std::cmp::Reverse(source.map(|net| u16::from(net.prefix_len()) + 1))
            });
        }
        numbers.classes.retain(used);
        numbers.zones.retain(|index| {
            u16::try_from(index).is_ok_and(|index| rules.zones.contains_key(&ZoneId(index)))
        });
        Ok(rules)
    }

    fn compile_zone(
        &mut self,
        spec: &ZoneSpec,
        classes: &mut ClassTable,
        used: &mut ClassMask,
    ) -> Result<ZoneRules, CompileError> {
        let mut zone = ZoneRules {
            spec: spec.clone(),
            sources: spec.sources.clone(),
            ..ZoneRules::default()
        };
        for pattern in &spec.private {
            zone.private.insert(pattern, ());
        }
        if spec.connected {
            let connected = self
                .links
                .matching(&spec.interfaces)
                .flat_map(|(_, link)| &link.addresses);
            zone.sources.extend(connected.map(IpNet::trunc));
            zone.sources.sort_unstable();
            zone.sources.dedup();
        }
        let catalogue_rows = self.catalogue_rows();
        let first_rule = self.sets.len();
        self.sets.extend(spec.rules.iter().map(|set| Row {
            catalogue: spec.name.clone(),
            set: set.clone(),
        }));
        self.sets.extend(self.intent.observed.iter().map(|by| Row {
            catalogue: observed::CATALOGUE.to_owned(),
            set: by.set(),
        }));
        let exceptions = self.intent.exceptions.iter();
        self.sets.extend(
            exceptions
                .filter(|exception| exception.wanted.zone == spec.name)
                .map(|exception| Row {
                    catalogue: exceptions::CATALOGUE.to_owned(),
                    set: exception.set(),
                }),
        );
        let ids = (0u32..)
            .zip(&self.sets)
            .map(|(index, row)| (SetId(index), row));
        let mut allowed = Vec::new();
        for (index, (id, row)) in ids.enumerate() {
            let of_catalogue = index < catalogue_rows;
            let own = index >= first_rule;
            let chosen = |selectors: &[Selector]| {
                of_catalogue
                    && selectors
                        .iter()
                        .any(|s| s.selects(&row.catalogue, &row.set))
            };
            if chosen(&spec.deny) {
                row.set
                    .patterns
                    .iter()
                    .for_each(|p| zone.denied_names.insert(p, id));
                zone.denied_networks.extend(&row.set.networks);
            }
            if own || (chosen(&spec.allow) && row.set.scope.meets(&spec.scope)) {
                allowed.push((id, row, own));
            }
        }
        for (id, row, own) in allowed {
            zone.sets.push(id);
            if row.set.ports.is_empty()
                || (row.set.patterns.is_empty() && row.set.networks.is_empty())
            {
                continue;
            }
            let class = classes.class_of(&row.set.ports)?;
            *used = used.with(class);
            for pattern in &row.set.patterns {
                let accepted = own || spec.accepts(pattern);
                if accepted {
                    zone.names.insert(
                        pattern,
                        Listing {
                            set: id,
                            class,
                            pattern: pattern.clone(),
                        },
                    );
                } else {
                    zone.inert.push((id, pattern.clone()));
                }
            }
            for &written in &row.set.networks {
                let parts = cut(written, &zone.denied_networks);
                zone.networks
                    .extend(parts.into_iter().map(|network| NetworkListing {
                        network,
                        written,
                        set: id,
                        class,
                    }));
            }
        }
        zone.reach = reach(&zone.networks);
        Ok(zone)
    }

    fn catalogue_rows(&self) -> usize {
        self.intent
            .catalogues
            .iter()
            .map(|catalogue| catalogue.sets.len())
            .sum()
    }

    /// The interfaces these rules were compiled for.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// What they were compiled from.
    #[must_use]
    pub fn intent(&self) -> &Arc<Intent> {
        &self.intent
    }

    /// The zones, by number.
    pub fn zones(&self) -> impl Iterator<Item = (ZoneId, &ZoneRules)> {
        self.zones.iter().map(|(id, zone)| (*id, zone))
    }

    /// One zone.
    #[must_use]
    pub fn zone(&self, zone: ZoneId) -> Option<&ZoneRules> {
        self.zones.get(&zone)
    }

    /// A set and its catalogue.
    #[must_use]
    pub fn row(&self, set: SetId) -> &Row {
        &self.sets[usize::try_from(set.0).expect("an index fits")]
    }

    /// The zone of a client: by the interface its packet entered and its source address. The most
    /// specific source wins among zones on one interface.
    #[must_use]
    pub fn zone_of(&self, interface: u32, source: IpAddr) -> Option<ZoneId> {
        let claims = self.by_interface.get(&interface)?;
        claims
            .iter()
            .find(|(net, _)| net.is_none_or(|net| net.contains(&source)))
            .map(|(_, zone)| *zone)
    }

    /// Whether any zone has the interface with this index: what the gateway sends there is not judged.
    #[must_use]
    pub fn is_zoned(&self, interface: u32) -> bool {
        self.by_interface.contains_key(&interface)
    }

    /// The zone of what the gateway itself sends; `None` where that is not judged.
    #[must_use]
    pub fn local(&self) -> Option<ZoneId> {
        self.local
    }

    /// The name of a zone; empty for a number that no zone has.
    #[must_use]
    pub fn zone_name(&self, zone: ZoneId) -> &str {
        self.zones.get(&zone).map_or("", |zone| &zone.spec.name)
    }

    /// Whether clients of `zone` may ask for `name`.
    #[must_use]
    pub fn ask(&self, zone: ZoneId, name: &Name) -> Ask {
        match self.zones.get(&zone) {
            Some(zone) if zone.denied_names.lists(name) => Ask::Refuse(Refusal::Denied),
            Some(zone) if zone.names.lists(name) => Ask::Forward,
            Some(_) | None => Ask::Refuse(Refusal::Unlisted),
        }
    }

    /// The classes that `name` opens for `zone`: the union over the sets that list it.
    #[must_use]
    pub fn mask(&self, zone: ZoneId, name: &Name) -> ClassMask {
        self.reach_of(zone, name, |_| {})
    }

    /// As [`Rules::mask`], and tells each of those sets.
    pub fn reach_of(&self, zone: ZoneId, name: &Name, mut tell: impl FnMut(SetId)) -> ClassMask {
        match self.zones.get(&zone) {
            Some(zone) if !zone.denied_names.lists(name) => {
                let listings = zone.names.find(name);
                listings.fold(ClassMask::NONE, |mask, listing| {
                    tell(listing.set);
                    mask.with(listing.class)
                })
            }
            Some(_) | None => ClassMask::NONE,
        }
    }

    /// The listings of `name` in `zone`.
    pub fn listings<'a>(
        &'a self,
        zone: ZoneId,
        name: &'a Name,
    ) -> impl Iterator<Item = &'a Listing> {
        self.zones
            .get(&zone)
            .into_iter()
            .flat_map(|zone| zone.names.find(name))
    }

    /// The `deny` sets that list `name` in `zone`.
    pub fn denials<'a>(&'a self, zone: ZoneId, name: &'a Name) -> impl Iterator<Item = SetId> + 'a {
        self.zones
            .get(&zone)
            .into_iter()
            .flat_map(|zone| zone.denied_names.find(name))
            .copied()
    }

    /// Whether a `deny` set of `zone` holds all of `network`.
    #[must_use]
    pub fn denies_network(&self, zone: ZoneId, network: &IpNet) -> bool {
        self.zones
            .get(&zone)
            .is_some_and(|zone| zone.denied_networks.iter().any(|d| d.contains(network)))
    }

    /// The classes that catalogue networks open towards `address`.
    #[must_use]
    pub fn network_mask(&self, zone: ZoneId, address: IpAddr) -> ClassMask {
        let Some(zone) = self.zones.get(&zone) else {
            return ClassMask::NONE;
        };
        let host = IpNet::from(address);
        (0..=host.max_prefix_len())
            .rev()
            .filter_map(|length| IpNet::new(address, length).ok())
            .find_map(|net| zone.reach.get(&net.trunc()))
            .copied()
            .unwrap_or(ClassMask::NONE)
    }

    /// What the planes enforce of the zones; the caller adds what was learned.
    #[must_use]
    pub fn image(&self, numbers: &Numbers) -> Image {
        let zones = self.zones.iter().map(|(id, zone)| ZoneImage {
            id: *id,
            name: zone.spec.name.clone(),
            interfaces: zone.spec.interfaces.clone(),
            sources: zone.clients(),
            mode: zone.spec.mode,
            inbound: zone.spec.inbound,
            refusal: zone.spec.refusal,
            serves: zone.spec.serves.clone(),
            redirect: zone.spec.redirect.clone(),
            networks: zone.reach.iter().map(|(net, mask)| (*net, *mask)).collect(),
        });
        Image {
            links: self.links.clone(),
            upstream: self.intent.upstream.clone(),
            internal: self.intent.internal.clone(),
            unzoned: self.intent.unzoned,
            observed: self.intent.observed.clone(),
            own: self.local.map(|zone| Own {
                zone,
                resolvers: self.intent.resolvers.clone(),
            }),
            classes: numbers
                .classes
                .iter()
                .map(|(id, set)| (id, set.clone()))
                .collect(),
            zones: zones.collect(),
            referred: self.intent.limits.referred,
            ..Image::default()
        }
    }
}

/// What is left of `network` when `denied` is taken away, as prefixes.
fn cut(network: IpNet, denied: &[IpNet]) -> Vec<IpNet> {
    let mut left = Vec::new();
    let mut todo = vec![network.trunc()];
    while let Some(net) = todo.pop() {
        if denied.iter().any(|d| d.contains(&net)) {
            continue;
        }
        match net.subnets(net.prefix_len() + 1) {
            Ok(halves) if denied.iter().any(|d| net.contains(d)) => todo.extend(halves),
            Ok(_) | Err(_) => left.push(net),
        }
    }
    left.sort_unstable();
    left
}

/// Each prefix with its classes and those of the prefixes around it.
fn reach(networks: &[NetworkListing]) -> BTreeMap<IpNet, ClassMask> {
    let mut reach: BTreeMap<IpNet, ClassMask> = BTreeMap::new();
    for listing in networks {
        let mask = reach.entry(listing.network).or_default();
        *mask = mask.with(listing.class);
    }
    // In `IpNet`'s order a prefix stands before everything inside it.
    let mut around: Vec<(IpNet, ClassMask)> = Vec::new();
    for (net, mask) in &mut reach {
        while around.last().is_some_and(|(outer, _)| !outer.contains(net)) {
            around.pop();
        }
        *mask = mask.union(around.last().map_or(ClassMask::NONE, |(_, outer)| *outer));
        around.push((*net, *mask));
    }
    reach
}

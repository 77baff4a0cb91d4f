//! The policy as a whole: what is learned, how it ends, what a replacement keeps.

use super::answer::Answer;
use super::catalogue::{Catalogue, EndpointSet, Scope};
use super::explain::{Subject, Verdict};
use super::grant::{Admission, Cap, Policy};
use super::image::Change;
use super::links::{InterfacePattern, Link, Links, Stack};
use super::name::{Name, Pattern};
use super::port::{ClassMask, PortSet, Service};
use super::rules::{Ask, Intent, Limits, Refusal, Unfit};
use super::zone::{Selector, ZoneSpec};
use super::{Moment, ZoneId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const LAN: u32 = 2;

pub(crate) fn links() -> Links {
    let link = |name: &str, addresses: &[&str]| Link {
        name: name.to_owned(),
        up: true,
        mac: vec![2, 0, 0, 0, 0, 1],
        ethernet: true,
        stack: Stack::default(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    Links(BTreeMap::from([
        (LAN, link("lan0", &["10.20.0.1/16", "2001:db8:20::1/48"])),
        (3, link("wan0", &["51.1.1.2/30"])),
    ]))
}

fn set(id: &str, patterns: &[&str], ports: &[Service], networks: &[&str]) -> EndpointSet {
    EndpointSet {
        id: id.to_owned(),
        area: format!("area-{id}"),
        required: true,
        patterns: patterns
            .iter()
            .map(|p| Pattern::parse(p).unwrap())
            .collect(),
        networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        ports: PortSet::new(ports.iter().copied()),
        ..EndpointSet::default()
    }
}

pub(crate) fn intent(allow: &[&str], deny: &[&str]) -> Intent {
    let selectors = |texts: &[&str]| texts.iter().map(|t| Selector::parse(t).unwrap()).collect();
    Intent {
        upstream: vec![InterfacePattern::parse("wan0").unwrap()],
        internal: vec!["10.0.0.0/8".parse().unwrap()],
        catalogues: vec![Catalogue {
            name: "c".to_owned(),
            sets: vec![
                set(
                    "web",
                    &["*.a.example", "b.example"],
                    &[Service::tcp(443)],
                    &["52.0.0.0/16"],
                ),
                set(
                    "time",
                    &["t.a.example", "b.example"],
                    &[Service::udp(123)],
                    &[],
                ),
                set("shared", &["*.azureedge.net"], &[Service::tcp(443)], &[]),
                set(
                    "hole",
                    &["bad.a.example"],
                    &[Service::tcp(443)],
                    &["52.0.128.0/24"],
                ),
            ],
            ..Catalogue::default()
        }],
        zones: vec![ZoneSpec {
            name: "z".to_owned(),
            interfaces: vec![InterfacePattern::parse("lan*").unwrap()],
            sources: vec!["10.20.0.0/16".parse().unwrap()],
            allow: selectors(allow),
            deny: selectors(deny),
            ..ZoneSpec::default()
        }],
        ..Intent::default()
    }
}

fn policy(allow: &[&str], deny: &[&str]) -> (Policy, ZoneId) {
    let policy = Policy::new(Arc::new(intent(allow, deny)), links()).unwrap();
    let zone = policy.rules().zone_of(LAN, ip("10.20.3.4")).unwrap();
    (policy, zone)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn answer(asked: &str, addresses: &[&str], ttl: u32) -> Answer {
    Answer {
        name: name(asked),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        ttl,
    }
}

fn changes(admission: Admission) -> Vec<Change> {
    let Admission::Admitted { changes, .. } = admission else {
        panic!("not admitted: {admission:?}");
    };
    changes
}

#[test]
fn questions() {
    fn check(allow: &[&str], deny: &[&str], asked: &str, expected: Ask) {
        let (policy, zone) = policy(allow, deny);
        assert_eq!(policy.rules().ask(zone, &name(asked)), expected, "{asked}");
    }
    const UNLISTED: Ask = Ask::Refuse(Refusal::Unlisted);
    check(&["c"], &[], "x.a.example", Ask::Forward);
    check(&["c"], &[], "a.example", UNLISTED);
    check(&["c/web"], &[], "B.Example", Ask::Forward);
    check(&["c/area-time"], &[], "x.a.example", UNLISTED);
    check(&["c:required"], &[], "x.a.example", Ask::Forward);
    check(
        &["c"],
        &["c/hole"],
        "bad.a.example",
        Ask::Refuse(Refusal::Denied),
    );
    check(&["c"], &[], "tenant.azureedge.net", UNLISTED);
}

#[test]
fn a_shared_wildcard_needs_the_operators_word() {
    let mut intent = intent(&["c"], &[]);
    intent.zones[0].shared = vec!["*.AzureEdge.net".to_owned()];
    let policy = Policy::new(Arc::new(intent), links()).unwrap();
    assert_eq!(
        policy.rules().ask(ZoneId(0), &name("x.azureedge.net")),
        Ask::Forward
    );
}

#[test]
fn a_scope_leaves_sets_out() {
    let mut intent = intent(&["c"], &[]);
    intent.catalogues[0].sets[0].scope = Scope {
        regions: vec!["na".into()],
        ..Scope::default()
    };
    intent.zones[0].scope = Scope {
        regions: vec!["EU".into()],
        ..Scope::default()
    };
    let policy = Policy::new(Arc::new(intent), links()).unwrap();
    assert_eq!(
        policy.rules().ask(ZoneId(0), &name("x.a.example")),
        Ask::Refuse(Refusal::Unlisted)
    );
    assert_eq!(
        policy.rules().ask(ZoneId(0), &name("b.example")),
        Ask::Forward
    );
}

#[test]
fn what_an_answer_may_teach() {
    fn check(address: &str, expected: Result<(), Unfit>) {
        let (policy, zone) = policy(&["c"], &["c/hole"]);
        let got = policy.rules().fit(zone, &name("b.example"), ip(address));
        assert_eq!(got, expected, "{address}");
    }
    check("20.1.2.3", Ok(()));
    check("52.0.1.1", Ok(()));
    check("52.0.128.9", Err(Unfit::Denied));
    check("10.20.0.1", Err(Unfit::Own));
    check("51.1.1.1", Err(Unfit::Connected));
}

#[test]
fn ports_are_the_union_of_the_sets_that_list_the_asked_name() {
    let (mut policy, zone) = policy(&["c"], &[]);
    policy.admit(zone, &answer("b.example", &["20.0.0.1"], 60), Moment(0));
    policy.admit(zone, &answer("x.a.example", &["20.0.0.2"], 60), Moment(0));
    let open = |address, service: Service| {
        let wanted = policy
            .numbers()
            .classes
            .mask_of(service.protocol, service.first);
        policy
            .grant(zone, ip(address))
            .is_some_and(|grant| grant.mask.meets(wanted))
    };
    assert!(open("20.0.0.1", Service::tcp(443)) && open("20.0.0.1", Service::udp(123)));
    assert!(open("20.0.0.2", Service::tcp(443)) && !open("20.0.0.2", Service::udp(123)));
}

#[test]
fn a_class_closes_with_its_last_reason() {
    let (mut policy, zone) = policy(&["c"], &[]);
    let grace = u64::from(Limits::default().grace);
    policy.admit(zone, &answer("x.a.example", &["20.0.0.1"], 60), Moment(0));
    let wider = changes(policy.admit(zone, &answer("t.a.example", &["20.0.0.1"], 600), Moment(0)));
    assert_eq!(wider.len(), 1);
    assert_eq!(policy.expire(Moment(0).after_seconds(59 + grace)), []);
    // `t.a.example` is listed for TCP 443 too, so nothing closes when the first name's reason ends.
    assert_eq!(policy.expire(Moment(0).after_seconds(60 + grace)), []);
    let closed = policy.expire(Moment(0).after_seconds(600 + grace));
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].now, ClassMask::NONE);
    assert_eq!(policy.grants().count(), 0);
    assert_eq!(policy.next_deadline(), None);
}

#[test]
fn an_answer_that_changes_nothing_belongs_to_the_state_of_its_addresses() {
    let (mut policy, zone) = policy(&["c"], &[]);
    let first = policy.admit(zone, &answer("x.a.example", &["20.0.0.1"], 60), Moment(0));
    let Admission::Admitted { revision, .. } = first else {
        panic!("{first:?}")
    };
    let again = policy.admit(zone, &answer("x.a.example", &["20.0.0.1"], 60), Moment(5));
    assert_eq!(
        again,
        Admission::Admitted {
            changes: vec![],
            revision
        }
    );
}

#[test]
fn a_grant_in_use_is_kept() {
    let (mut policy, zone) = policy(&["c"], &[]);
    policy.admit(zone, &answer("x.a.example", &["20.0.0.1"], 0), Moment(0));
    let over = Moment(0).after_seconds(960);
    assert_eq!(policy.due(over), [(zone, ip("20.0.0.1"))]);
    policy.keep(zone, ip("20.0.0.1"), over.after_seconds(180));
    assert_eq!(policy.expire(over), []);
    assert_eq!(policy.expire(over.after_seconds(180)).len(), 1);
}

#[test]
fn caps_refuse_and_never_evict() {
    let mut intent = intent(&["c"], &[]);
    intent.limits = Limits {
        learned: 2,
        per_name: 2,
        per_answer: 2,
        ..Limits::default()
    };
    let mut policy = Policy::new(Arc::new(intent), links()).unwrap();
    let mut check = |asked: &str, addresses: &[&str], expected: Option<Cap>| {
        let admission = policy.admit(ZoneId(0), &answer(asked, addresses, 60), Moment(0));
        let cap = if let Admission::Full(cap) = admission {
            Some(cap)
        } else {
            None
        };
        assert_eq!(cap, expected, "{asked} {addresses:?}");
    };
    check(
        "b.example",
        &["20.0.0.1", "20.0.0.2", "20.0.0.3"],
        Some(Cap::Answer),
    );
    check("b.example", &["20.0.0.1", "20.0.0.2"], None);
    check("b.example", &["20.0.0.3"], Some(Cap::Name));
    check("b.example", &["20.0.0.2"], None);
    check("x.a.example", &["20.0.0.3"], Some(Cap::Total));
    check("x.a.example", &["2600::1"], None);
    assert_eq!(policy.learned(), [2, 1]);
}

#[test]
fn d7_a_zone_has_its_share_and_networks_stand() {
    let mut intent = intent(&["c"], &[]);
    intent.limits = Limits {
        learned: 10,
        per_zone: 5,
        ..Limits::default()
    };
    let mut policy = Policy::new(Arc::new(intent), links()).unwrap();
    let zone = ZoneId(0);
    let networks = |policy: &Policy| policy.image().zones[0].networks.clone();
    let before = networks(&policy);
    let fill = |policy: &Policy| [None, Some(zone)].map(|zone| policy.fill(zone).percent());
    let mut admit = |last: u8| {
        let address = format!("20.0.0.{last}");
        let answer = answer(&format!("x{last}.a.example"), &[&address], 60);
        let fresh = policy.fresh(zone, &answer);
        let admission = policy.admit(zone, &answer, Moment(0));
        (fresh, admission, fill(&policy))
    };
    for last in 1..=5 {
        let (fresh, admission, full) = admit(last);
        let percent = usize::from(last) * 10;
        assert!(matches!(admission, Admission::Admitted { .. }), "{last}");
        assert_eq!((fresh, full), (1, [percent, 2 * percent]));
    }
    let (fresh, admission, _) = admit(6);
    assert_eq!((fresh, admission), (1, Admission::Full(Cap::Zone)));
    // What is granted already may be told again, and renewed.
    let (fresh, admission, full) = admit(5);
    assert!(matches!(admission, Admission::Admitted { .. }));
    assert_eq!((fresh, full), (0, [50, 100]));
    // What the catalogue lists as networks is in no learned set, however full those are.
    assert!(!before.is_empty());
    assert_eq!(networks(&policy), before);
    // What ends makes room.
    let over = Moment(0).after_seconds(60 * 60);
    assert_eq!(policy.expire(over).len(), 5);
    assert_eq!(policy.fill(Some(zone)).percent(), 0);
}

#[test]
fn a_replacement_keeps_what_the_new_rules_list() {
    let (mut policy, zone) = policy(&["c"], &[]);
    policy.admit(zone, &answer("x.a.example", &["20.0.0.1"], 60), Moment(0));
    policy.admit(zone, &answer("b.example", &["20.0.0.2"], 60), Moment(0));
    let changes = policy
        .replace(Arc::new(intent(&["c/time"], &[])), links())
        .unwrap();
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(policy.grant(zone, ip("20.0.0.1")).is_none());
    assert!(policy.grant(zone, ip("20.0.0.2")).is_some());
    let (before, _) = (policy.image(), ());
    assert!(
        policy
            .replace(Arc::new(intent(&["c/time"], &[])), links())
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        policy.image().grants,
        before.grants,
        "masks must not move on an equal replacement"
    );
}

#[test]
fn a_wide_network_does_not_speak_for_special_addresses() {
    fn check(network: &str, address: &str, fit: bool) {
        let mut intent = intent(&["c"], &[]);
        let rule = set("rule", &[], &[Service::udp(123)], &[network]);
        intent.zones[0].rules = vec![rule];
        let policy = Policy::new(Arc::new(intent), links()).unwrap();
        let got = policy
            .rules()
            .fit(ZoneId(0), &name("b.example"), ip(address));
        assert_eq!(got.is_ok(), fit, "{network} {address}: {got:?}");
    }
    check("0.0.0.0/0", "169.254.169.254", false);
    check("0.0.0.0/0", "10.1.2.3", false);
    check("0.0.0.0/0", "51.1.1.1", false);
    check("192.168.7.0/24", "192.168.7.9", true);
    check("10.1.2.0/24", "10.1.2.3", true);
}

#[test]
fn a_zone_whose_connected_interface_has_no_address_claims_nobody() {
    let mut intent = intent(&["c"], &[]);
    intent.zones[0].sources = Vec::new();
    intent.zones[0].connected = true;
    let mut bare = links();
    bare.0.get_mut(&LAN).unwrap().addresses.clear();
    let policy = Policy::new(Arc::new(intent), bare).unwrap();
    assert_eq!(policy.rules().zone_of(LAN, ip("10.20.3.4")), None);
    let sources = &policy.image().zones[0].sources;
    assert!(
        !sources.is_empty(),
        "the planes take an empty list for everyone"
    );
    assert!(!sources.iter().any(|net| net.contains(&ip("10.20.3.4"))));
}

#[test]
fn upstream_is_never_a_zone() {
    let mut intent = intent(&["c"], &[]);
    intent.zones[0].interfaces = vec![InterfacePattern::parse("*").unwrap()];
    let policy = Policy::new(Arc::new(intent), links()).unwrap();
    assert_eq!(policy.rules().zone_of(3, ip("10.20.3.4")), None);
    assert_eq!(
        policy.rules().zone_of(LAN, ip("10.20.3.4")),
        Some(ZoneId(0))
    );
}

#[test]
fn names_that_share_an_address_do_not_pile_up() {
    let (mut policy, zone) = policy(&["c"], &[]);
    for n in 0..1000u64 {
        policy.admit(
            zone,
            &answer(&format!("r{n}.a.example"), &["20.0.0.1"], 60),
            Moment(n),
        );
    }
    let grant = policy.grant(zone, ip("20.0.0.1")).unwrap();
    assert!(grant.lessons.len() <= 64, "{}", grant.lessons.len());
    assert!(
        policy
            .addresses_of(zone, &name("r0.a.example"))
            .next()
            .is_none()
    );
    assert!(
        policy
            .addresses_of(zone, &name("r999.a.example"))
            .next()
            .is_some()
    );
    assert_eq!(
        policy.expire(Moment(998).after_seconds(960)),
        [],
        "the last name still holds it"
    );
    assert_eq!(policy.expire(Moment(999).after_seconds(960)).len(), 1);
}

#[test]
fn denied_networks_are_cut_out_and_nested_ones_add_up() {
    let (policy, zone) = policy(&["c"], &["c/hole"]);
    let open = |address| !policy.rules().network_mask(zone, ip(address)).is_empty();
    assert!(open("52.0.127.255") && open("52.0.129.0"));
    assert!(!open("52.0.128.0") && !open("52.0.128.255") && !open("52.1.0.0"));
}

#[test]
fn explanations() {
    fn check(subject: &str, port: Option<(u8, u16)>, expected: Verdict) {
        let (mut policy, zone) = policy(&["c"], &["c/hole"]);
        policy.admit(zone, &answer("x.a.example", &["20.0.0.1"], 60), Moment(0));
        let subject = match subject.parse() {
            Ok(address) => Subject::Address(address),
            Err(_) => Subject::Name(name(subject)),
        };
        let explanation = policy.explain(zone, &subject, port);
        assert_eq!(explanation.verdict, expected, "{subject:?} {port:?}");
        let closed = expected != Verdict::Open && expected != Verdict::NotEgress;
        assert_eq!(
            closed,
            !explanation.remedies.is_empty(),
            "{subject:?}: {explanation:?}"
        );
    }
    check("20.0.0.1", None, Verdict::Open);
    check("20.0.0.1", Some((6, 443)), Verdict::Open);
    check("20.0.0.1", Some((17, 123)), Verdict::WrongPort);
    check("20.0.0.9", None, Verdict::NotLearned);
    check("52.0.1.1", Some((6, 443)), Verdict::Open);
    check("10.1.1.1", None, Verdict::NotEgress);
    check("x.a.example", Some((6, 443)), Verdict::Open);
    check("y.a.example", None, Verdict::NotAsked);
    check("bad.a.example", None, Verdict::Denied);
    check("t.azureedge.net", None, Verdict::Unlisted);
    check("nowhere.example", None, Verdict::Unlisted);
}

#[test]
fn a_redirected_port_is_explained() {
    let mut intent = intent(&["c"], &[]);
    intent.zones[0].redirect = vec!["10.20.0.1:53".parse().unwrap()];
    let policy = Policy::new(Arc::new(intent), links()).unwrap();
    let zone = policy.rules().zone_of(LAN, ip("10.20.3.4")).unwrap();
    let check = |address: &str, protocol, port, expected: Verdict| {
        let subject = Subject::Address(ip(address));
        let found = policy.explain(zone, &subject, Some((protocol, port)));
        assert_eq!(found.verdict, expected, "{address} {protocol} {port}");
    };
    check("9.9.9.9", 17, 53, Verdict::Redirected);
    check("9.9.9.9", 6, 53, Verdict::Redirected);
    check("52.0.1.1", 17, 53, Verdict::Redirected);
    check("9.9.9.9", 17, 853, Verdict::NotLearned);
    check("9.9.9.9", 132, 53, Verdict::NotLearned);
    check("10.1.1.1", 17, 53, Verdict::NotEgress);
    // Nobody listens over IPv6.
    check("2620:fe::fe", 17, 53, Verdict::NotLearned);
}

#[derive(Clone, Debug)]
enum Step {
    Admit(usize, Vec<u8>, u32),
    Pass(u64),
    Withdraw(u8),
    Replace(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..4, prop::collection::vec(0u8..6, 0..4), 0u32..2000)
            .prop_map(|(name, addresses, ttl)| Step::Admit(name, addresses, ttl)),
        3 => (1u64..1500).prop_map(Step::Pass),
        1 => (0u8..6).prop_map(Step::Withdraw),
        1 => any::<bool>().prop_map(Step::Replace),
    ]
}

proptest! {
    /// Whatever the order of answers, endings, withdrawals and reloads: the grants equal those
    /// recomputed from scratch, and the changes handed out, applied one by one, lead to the same.
    #[test]
    fn interleavings_equal_recomputation(steps in prop::collection::vec(step(), 1..60)) {
        const NAMES: [&str; 4] = ["b.example", "x.a.example", "t.a.example", "bad.a.example"];
        let (mut policy, zone) = policy(&["c"], &[]);
        let limits = Limits::default();
        let mut now = Moment(0);
        let mut denying = false;
        let mut truth: BTreeMap<(usize, IpAddr), Moment> = BTreeMap::new();
        let mut plane: BTreeMap<IpAddr, ClassMask> = BTreeMap::new();
        for step in steps {
            let changes = match step {
                Step::Admit(which, addresses, ttl) => {
                    let addresses: Vec<_> = addresses.iter().map(|a| IpAddr::from([20, 0, 0, *a])).collect();
                    let answer = Answer { name: name(NAMES[which]), addresses: addresses.clone(), ttl };
                    if let Admission::Admitted { changes, .. } = policy.admit(zone, &answer, now) {
                        let end = now.after_seconds(u64::from(ttl.max(limits.ttl_floor) + limits.grace));
                        for address in addresses {
                            let slot = truth.entry((which, address)).or_default();
                            *slot = (*slot).max(end);
                        }
                        changes
                    } else {
                        prop_assert!(denying && which == 3);
                        vec![]
                    }
                }
                Step::Pass(seconds) => {
                    now = now.after_seconds(seconds);
                    truth.retain(|_, end| *end > now);
                    policy.expire(now)
                }
                Step::Withdraw(last) => {
                    let address = IpAddr::from([20, 0, 0, last]);
                    truth.retain(|(_, held), _| *held != address);
                    policy.withdraw(&[(zone, address)])
                }
                Step::Replace(deny) => {
                    denying = deny;
                    truth.retain(|(which, _), _| !(deny && *which == 3));
                    let deny: &[&str] = if deny { &["c/hole"] } else { &[] };
                    policy.replace(Arc::new(intent(&["c"], deny)), links()).unwrap()
                }
            };
            for change in changes {
                prop_assert_eq!(plane.get(&change.address).copied().unwrap_or_default(), change.was);
                if change.now.is_empty() { plane.remove(&change.address); }
                else { plane.insert(change.address, change.now); }
            }
            let mut expected: BTreeMap<IpAddr, ClassMask> = BTreeMap::new();
            for (which, address) in truth.keys() {
                let mask = expected.entry(*address).or_default();
                *mask = mask.union(policy.rules().mask(zone, &name(NAMES[*which])));
            }
            let held: BTreeMap<_, _> = policy.image().grants.into_iter().map(|(_, a, m)| (a, m)).collect();
            prop_assert_eq!(&held, &expected);
            prop_assert_eq!(&plane, &expected);
        }
    }
}

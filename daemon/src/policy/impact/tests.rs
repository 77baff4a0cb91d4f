use super::*;
use crate::policy::Moment;
use crate::policy::catalogue::Catalogue;
use crate::policy::grant::Policy;
use crate::policy::port::{TCP, UDP};
use crate::policy::rules::Intent;
use crate::policy::tests::{answer, intent, ip, links, name};
use proptest::prelude::*;

const ZONE: ZoneId = ZoneId(0);

/// `b.example` and `x.a.example` share an address; `t.a.example` has one of its own.
fn learned() -> Policy {
    let mut policy = Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap();
    for (name, addresses) in [
        ("b.example", &["20.0.0.1", "20.0.0.2"][..]),
        ("x.a.example", &["20.0.0.2"]),
        ("t.a.example", &["20.0.0.3"]),
    ] {
        policy.admit(ZONE, &answer(name, addresses, 60), Moment(0));
    }
    policy
}

fn held(policy: &Policy) -> Vec<Held> {
    policy.grants().map(Held::of).collect()
}

fn preview(policy: &Policy, intent: Intent, flows: &[LiveFlow], wishes: &[Wish]) -> Impact {
    let mut numbers = policy.numbers().clone();
    let rules = Rules::compile(Arc::new(intent), links(), &mut numbers).unwrap();
    let now = View {
        rules: policy.rules(),
        numbers: policy.numbers(),
    };
    let candidate = View {
        rules: &rules,
        numbers: &numbers,
    };
    let times = Times { count: 3, ago: 60 };
    let wishes: Vec<_> = wishes.iter().map(|wish| (wish.clone(), times)).collect();
    impact(now, candidate, &held(policy), flows, &wishes)
}

fn without(ids: &[&str]) -> Intent {
    let mut intent = intent(&["c"], &[]);
    let sets = &mut intent.catalogues[0].sets;
    sets.retain(|set| !ids.contains(&&*set.id));
    intent
}

fn flow(destination: &str, protocol: u8, port: u16) -> LiveFlow {
    LiveFlow {
        zone: Some(ZONE),
        source: ip("10.20.0.9"),
        destination: ip(destination),
        protocol,
        port,
        evades: false,
    }
}

fn lines(impact: &Impact) -> Vec<String> {
    let regrant = |sign: &str, of: &Regrant| {
        format!("{sign} {} -[{}] +[{}]", of.address, of.closes, of.opens)
    };
    let names = |names: &[Arc<Name>]| {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    let opened = |of: &Opened| {
        let target = of
            .wish
            .target
            .map(|to| format!(" {} {}", to.address, to.port));
        let name = of.wish.name.as_ref().map(ToString::to_string);
        format!(
            "+ {}{}",
            name.unwrap_or_default(),
            target.unwrap_or_default()
        )
    };
    let cut = |of: &Cut| {
        format!(
            "x {} {} {}",
            of.flow.destination,
            of.flow.port,
            names(&of.names)
        )
    };
    (impact.ends.list.iter().map(|of| regrant("-", of)))
        .chain(impact.changes.list.iter().map(|of| regrant("~", of)))
        .chain(impact.cuts.list.iter().map(cut))
        .chain(impact.opens.list.iter().map(opened))
        .chain(impact.zones.iter().cloned())
        .collect()
}

#[test]
fn grants_and_flows() {
    fn check(intent: Intent, expected: &[&str]) {
        let flows = [
            flow("20.0.0.1", TCP, 443),
            flow("20.0.0.2", TCP, 443),
            flow("20.0.0.3", UDP, 123),
            flow("52.0.3.3", TCP, 443),
        ];
        let found = preview(&learned(), intent, &flows, &[]);
        assert_eq!(lines(&found), expected);
    }
    check(intent(&["c"], &[]), &[]);
    // `*.a.example` and `b.example` on tcp/443, and a network.
    check(
        without(&["web"]),
        &[
            "~ 20.0.0.1 -[tcp/443] +[]",
            "~ 20.0.0.2 -[tcp/443] +[]",
            "~ 20.0.0.3 -[tcp/443] +[]",
            "x 20.0.0.1 443 b.example",
            "x 20.0.0.2 443 b.example x.a.example",
            "x 52.0.3.3 443 ",
        ],
    );
    check(
        without(&["time"]),
        &[
            "~ 20.0.0.1 -[udp/123] +[]",
            "~ 20.0.0.2 -[udp/123] +[]",
            "~ 20.0.0.3 -[udp/123] +[]",
            "x 20.0.0.3 123 t.a.example",
        ],
    );
    let all = [
        "- 20.0.0.1 -[tcp/443, udp/123] +[]",
        "- 20.0.0.2 -[tcp/443, udp/123] +[]",
        "- 20.0.0.3 -[tcp/443, udp/123] +[]",
        "x 20.0.0.1 443 b.example",
        "x 20.0.0.2 443 b.example x.a.example",
        "x 20.0.0.3 123 t.a.example",
        "x 52.0.3.3 443 ",
    ];
    check(without(&["web", "time"]), &all);
    // What is audited is not cut.
    let mut audited = without(&["web", "time"]);
    audited.zones[0].mode = Mode::Audit;
    check(audited, &all[..3]);
    let mut moved = intent(&["c"], &[]);
    moved.zones[0].name = "y".to_owned();
    let found = preview(&learned(), moved, &[], &[]);
    assert_eq!(lines(&found)[3..], ["zone z is gone", "zone y is new"]);
}

#[test]
fn a_flow_of_no_zone_and_one_past_the_redirect_are_cut() {
    let nowhere = LiveFlow {
        zone: None,
        ..flow("20.0.0.1", TCP, 443)
    };
    let evades = LiveFlow {
        evades: true,
        ..flow("20.0.0.2", TCP, 443)
    };
    let found = preview(&learned(), intent(&["c"], &[]), &[nowhere, evades], &[]);
    assert_eq!(
        lines(&found),
        ["x 20.0.0.1 443 ", "x 20.0.0.2 443 b.example x.a.example"]
    );
}

#[test]
fn what_was_refused_and_opens() {
    let question = |text: &str| Wish {
        zone: ZONE,
        name: Some(name(text)),
        target: None,
    };
    let packet = |text: Option<&str>, address: &str, port: u16| Wish {
        zone: ZONE,
        name: text.map(name),
        target: Some(Target {
            address: ip(address),
            protocol: TCP,
            port,
        }),
    };
    let wishes = [
        question("new.example"),
        question("other.example"),
        packet(Some("new.example"), "20.5.0.1", 443),
        packet(Some("new.example"), "20.5.0.1", 80),
        // Of no name, but listed as a network.
        packet(None, "20.6.0.1", 443),
        // Known, and on another port than before.
        packet(None, "20.0.0.1", 8443),
        // Learned from a name, but never to be taught.
        packet(Some("new.example"), "10.3.0.1", 443),
        // Listed before: it passes today, once it is asked.
        question("b.example"),
    ];
    let mut wider = intent(&["c"], &[]);
    let mut more = wider.catalogues[0].sets[0].clone();
    more.id = "more".to_owned();
    more.patterns = vec![crate::policy::name::Pattern::parse("new.example").unwrap()];
    more.networks = vec!["20.6.0.0/16".parse().unwrap()];
    let mut odd = more.clone();
    odd.patterns = vec![crate::policy::name::Pattern::parse("b.example").unwrap()];
    odd.networks.clear();
    odd.ports = PortSet::new([crate::policy::port::Service::tcp(8443)]);
    wider.catalogues[0].sets.extend([more, odd]);
    let found = preview(&learned(), wider, &[], &wishes);
    assert_eq!(
        lines(&found),
        [
            "~ 20.0.0.1 -[] +[tcp/8443]",
            "~ 20.0.0.2 -[] +[tcp/8443]",
            "+ new.example",
            "+ new.example 20.5.0.1 443",
            "+  20.6.0.1 443",
            "+  20.0.0.1 8443",
        ]
    );
    assert_eq!(found.opens.list[0].times, Times { count: 3, ago: 60 });
}

#[test]
fn lists_are_bounded_and_totals_exact() {
    let mut policy = Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap();
    for host in 0..250 {
        let address = format!("20.0.0.{host}");
        policy.admit(ZONE, &answer("b.example", &[&address], 60), Moment(0));
    }
    let flows = vec![flow("20.0.0.7", TCP, 443); 300];
    let wish = Wish {
        zone: ZONE,
        name: Some(name("b.example")),
        target: None,
    };
    let found = preview(&policy, without(&["web", "time"]), &flows, &[wish]);
    assert_eq!((found.ends.list.len(), found.ends.total), (MOST, 250));
    assert_eq!((found.cuts.list.len(), found.cuts.total), (MOST, 300));
    assert_eq!(found.opens.total, 0);
}

proptest! {
    /// What is told beforehand is what a replacement then does.
    #[test]
    fn the_preview_is_what_happens(
        sets in prop::collection::vec(any::<bool>(), 4),
        denies in any::<bool>(),
        ports in prop::collection::vec(1u16..4, 4),
        taught in prop::collection::vec((0usize..4, 1u8..6), 0..12),
    ) {
        const NAMES: [&str; 4] = ["b.example", "x.a.example", "t.a.example", "bad.a.example"];
        let mut policy = Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap();
        for (which, host) in taught {
            let address = format!("52.0.128.{host}");
            policy.admit(ZONE, &answer(NAMES[which], &[&address], 60), Moment(0));
        }
        let mut other = intent(&["c"], if denies { &["c/hole"] } else { &[] });
        let Catalogue { sets: all, .. } = &mut other.catalogues[0];
        for ((set, port), kept) in all.iter_mut().zip(ports).zip(sets) {
            if port > 1 {
                set.ports = PortSet::new([crate::policy::port::Service::tcp(440 + port)]);
            }
            if !kept {
                set.patterns.clear();
            }
        }
        let found = preview(&policy, other.clone(), &[], &[]);
        let changes = policy.replace(Arc::new(other), links()).unwrap();
        let ended: Vec<_> = changes.iter().filter(|c| c.now.is_empty()).map(|c| c.address).collect();
        let told: Vec<_> = found.ends.list.iter().map(|of| of.address).collect();
        prop_assert_eq!(ended, told);
        let changed: Vec<_> = changes.iter().filter(|c| !c.now.is_empty()).map(|c| c.address).collect();
        let told: Vec<_> = found.changes.list.iter().map(|of| of.address).collect();
        prop_assert_eq!(changed, told);
    }
}

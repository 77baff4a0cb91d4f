//! PURE: the rules of observe mode. Questions and answers are copied behind defragmentation and after
//! conntrack has judged them: what the copies carry are whole packets with the clients' own addresses.

use super::build::count;
use super::{ANSWERS, Action, FORWARD, Family, Part, Rule, Ruleset, Way};
use crate::policy::image::Image;
use crate::policy::observed::{DNS, Observed};
use crate::policy::port::UDP;
use ipnet::IpNet;

const CHAIN: &str = "dns";
const SET: &str = "resolvers";

/// Adds to `ruleset`, whose forward chain is there, what `image` says about observing.
pub(super) fn add(ruleset: &mut Ruleset, image: &Image) {
    let Some(observed) = &image.observed else {
        return;
    };
    let resolvers: Vec<IpNet> = (observed.resolvers.iter().copied())
        .map(IpNet::from)
        .collect();
    ruleset.network_set(SET, &resolvers);
    let families: Vec<(Family, String)> = (ruleset.networks.iter())
        .map(|set| (set.family, set.name.clone()))
        .collect();
    ruleset.chain(CHAIN, copies(image, observed, &families));
    let head = vec![Part::Port(DNS), Part::Jump(CHAIN.to_owned())];
    for chain in &mut ruleset.chains {
        if chain.name == FORWARD {
            // Before what is established passes.
            chain.rules.insert(0, head.clone());
        }
    }
    if observed.delay {
        ruleset.chain(ANSWERS, untracked(&families));
    }
}

fn copies(image: &Image, observed: &Observed, families: &[(Family, String)]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (family, set) in families {
        rules.push(vec![
            Part::Way(Way::Original),
            Part::Asked(*family, set.clone()),
            Part::To(*family, set.clone()),
            Part::Copy(Way::Original, observed.group),
        ]);
        for interface in &image.upstream {
            let answer = [
                Part::Entered(interface.clone()),
                // To a question that went out: conntrack knows no reply without one.
                Part::Established,
                Part::Way(Way::Reply),
                Part::Asked(*family, set.clone()),
                Part::From(*family, set.clone()),
            ];
            rules.push([&answer[..], &[Part::Copy(Way::Reply, observed.group)]].concat());
            if observed.delay {
                // Sent on by egressd itself, once its addresses are in force.
                let held = [
                    Part::Protocol(UDP),
                    count(None, Action::Pass, "held"),
                    Part::Drop,
                ];
                rules.push([&answer[..], &held].concat());
            }
        }
    }
    rules
}

/// Behind a masquerading gateway the answer that egressd sends would, to conntrack, clash with the
/// client's own flow, and get another source port.
fn untracked(families: &[(Family, String)]) -> Vec<Rule> {
    let rule = |(family, set): &(Family, String)| {
        vec![
            Part::Protocol(UDP),
            Part::SourcePort(DNS),
            Part::From(*family, set.clone()),
            Part::Untracked,
        ]
    };
    families.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use crate::plane::ruleset::{Generation, Ruleset};
    use crate::policy::image::Image;
    use crate::policy::links::InterfacePattern;
    use crate::policy::observed::Observed;

    fn check(delay: bool, expected: &[&str]) {
        let image = Image {
            upstream: vec![InterfacePattern::parse("wan*").unwrap()],
            observed: Some(Observed {
                resolvers: ["9.9.9.9", "2620:fe::fe", "9.9.9.10"]
                    .map(|address| address.parse().unwrap())
                    .to_vec(),
                delay,
                group: 78,
            }),
            ..Image::default()
        };
        let text = Ruleset::new(&image, Generation::B).to_string();
        let wanted = ["resolvers", "copy", "held", "notrack", "dns", "output"];
        let found: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| wanted.iter().any(|word| line.contains(word)))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    const SETS: [&str; 2] = [
        "set resolvers_4_b { type ipv4_addr; flags interval; elements = { 9.9.9.9-9.9.9.10 } }",
        "set resolvers_6_b { type ipv6_addr; flags interval; elements = { 2620:fe::fe } }",
    ];
    const HEAD: [&str; 2] = ["ct original proto-dst 53 jump dns_b", "chain dns_b {"];
    const QUESTIONS: [&str; 2] = [
        "ct direction original ct original ip daddr @resolvers_4_b ip daddr @resolvers_4_b log prefix \"egressd copy original\" group 78",
        "ct direction original ct original ip6 daddr @resolvers_6_b ip6 daddr @resolvers_6_b log prefix \"egressd copy original\" group 78",
    ];
    const ANSWERED: [&str; 2] = [
        "iifname \"wan*\" ct state established ct direction reply ct original ip daddr @resolvers_4_b ip saddr @resolvers_4_b",
        "iifname \"wan*\" ct state established ct direction reply ct original ip6 daddr @resolvers_6_b ip6 saddr @resolvers_6_b",
    ];

    #[test]
    fn answers_are_copied() {
        let copy = |answer| format!("{answer} log prefix \"egressd copy reply\" group 78");
        let copies = ANSWERED.map(copy);
        let rules = [QUESTIONS[0], &*copies[0], QUESTIONS[1], &*copies[1]];
        check(false, &[&SETS[..], &HEAD, &rules].concat());
    }

    #[test]
    fn with_delay_answers_over_udp_stay_back() {
        let copy = |answer| format!("{answer} log prefix \"egressd copy reply\" group 78");
        let held = |answer| format!("{answer} meta l4proto 17 counter name \"any_pass_held\" drop");
        let (copies, holds) = (ANSWERED.map(copy), ANSWERED.map(held));
        let rules = [
            QUESTIONS[0],
            &*copies[0],
            &*holds[0],
            QUESTIONS[1],
            &*copies[1],
            &*holds[1],
            "type filter hook output priority raw; policy accept;",
            "meta l4proto 17 th sport 53 ip saddr @resolvers_4_b notrack",
            "meta l4proto 17 th sport 53 ip6 saddr @resolvers_6_b notrack",
        ];
        let counter = ["counter any_pass_held { }"];
        check(true, &[&counter[..], &SETS, &HEAD, &rules].concat());
    }
}

//! Taking back what was learned, before its end and whatever uses it.

use super::ZoneId;
use super::grant::Policy;
use super::image::Change;
use super::name::Name;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// What the answers for this name gave. What another name gave as well stays.
    Name(Name),
    /// Every learned address in this network; a host is its /32 or /128.
    Network(IpNet),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Network(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Network(net) => net.fmt(f),
        }
    }
}

/// What a revocation took back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// What the planes must do.
    pub changes: Vec<Change>,
    /// The reasons that ended.
    pub ended: Vec<(ZoneId, Arc<Name>, IpAddr)>,
    /// How many (zone, address)es lost a reason.
    pub addresses: usize,
}

impl Policy {
    /// Ends at once what was learned of `target`, in `zone` or in all of them. Catalogue networks stay:
    /// they are not learned. The next answer may teach again.
    pub fn revoke(&mut self, zone: Option<ZoneId>, target: &Target) -> Revocation {
        let zones: Vec<ZoneId> = match zone {
            Some(zone) => vec![zone],
            None => self.rules().zones().map(|(zone, _)| zone).collect(),
        };
        let meant: Vec<(ZoneId, IpAddr)> = match target {
            Target::Name(name) => (zones.iter())
                .flat_map(|zone| {
                    self.addresses_of(*zone, name)
                        .map(|address| (*zone, address))
                })
                .collect(),
            Target::Network(net) => self
                .grants()
                .filter(|(zone, address, _)| zones.contains(zone) && net.contains(address))
                .map(|(zone, address, _)| (zone, address))
                .collect(),
        };
        let mut ended = Vec::new();
        let stays = |asked: &Name| match target {
            Target::Name(name) => asked != name,
            Target::Network(_) => false,
        };
        let changes = self.prune(
            &meant,
            |lesson| stays(&lesson.name),
            |zone, address, lesson| {
                ended.push((zone, lesson.name, address));
            },
        );
        Revocation {
            changes,
            ended,
            addresses: meant.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Moment;
    use crate::policy::tests::{answer, intent, links};

    const ZONE: ZoneId = ZoneId(0);

    fn learned() -> Policy {
        let mut policy = Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap();
        for (name, addresses) in [
            ("b.example", ["20.0.0.1", "20.0.0.2"]),
            ("x.a.example", ["20.0.0.2", "20.0.0.3"]),
            ("y.a.example", ["20.0.1.1", "2001:4860::1"]),
        ] {
            policy.admit(ZONE, &answer(name, &addresses, 60), Moment(0));
        }
        policy
    }

    #[test]
    fn exactly_what_is_meant_ends() {
        fn check(zone: Option<ZoneId>, target: Target, changed: &[&str], left: &[&str]) {
            let mut policy = learned();
            let before = policy.revision();
            let revoked = policy.revoke(zone, &target);
            let addresses: Vec<_> = revoked
                .changes
                .iter()
                .map(|c| c.address.to_string())
                .collect();
            assert_eq!(addresses, changed, "{target}");
            let grants: Vec<_> = policy.grants().map(|(_, a, _)| a.to_string()).collect();
            assert_eq!(grants, left, "{target}");
            assert_eq!(policy.revision() > before, !changed.is_empty(), "{target}");
            assert_eq!(policy.learned().iter().sum::<usize>(), left.len());
        }
        let name = |text: &str| Target::Name(text.parse().unwrap());
        let net = |text: &str| Target::Network(text.parse().unwrap());
        let all = [
            "20.0.0.1",
            "20.0.0.2",
            "20.0.0.3",
            "20.0.1.1",
            "2001:4860::1",
        ];
        // The address that another name gave too stays, on that name's ports alone.
        check(
            None,
            name("b.example"),
            &["20.0.0.1", "20.0.0.2"],
            &all[1..],
        );
        // Its ports are all among those of the other name.
        let two = ["20.0.0.1", "20.0.0.2", "20.0.1.1", "2001:4860::1"];
        check(None, name("x.a.example"), &["20.0.0.3"], &two);
        check(Some(ZONE), name("c.example"), &[], &all);
        check(Some(ZoneId(7)), name("b.example"), &[], &all);
        check(None, net("20.0.0.0/24"), &all[..3], &all[3..]);
        check(
            None,
            net("20.0.0.2/32"),
            &["20.0.0.2"],
            &["20.0.0.1", "20.0.0.3", "20.0.1.1", "2001:4860::1"],
        );
        check(None, net("::/0"), &["2001:4860::1"], &all[..4]);
    }

    #[test]
    fn the_next_answer_teaches_again() {
        let mut policy = learned();
        policy.revoke(None, &Target::Network("0.0.0.0/0".parse().unwrap()));
        policy.admit(ZONE, &answer("b.example", &["20.0.0.1"], 60), Moment(0));
        assert!(policy.grant(ZONE, "20.0.0.1".parse().unwrap()).is_some());
    }
}

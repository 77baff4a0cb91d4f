//! PURE: the static closed table, which stands alone beside the plane's: while it is there nothing is
//! forwarded, whatever any other table accepts. It knows no grant and no flow.

use super::{Action, Chain, FORWARD, Part, Rule, Ruleset, Tally};
use crate::policy::image::Unzoned;
use crate::policy::links::InterfacePattern;
use crate::policy::rules::Intent;
use std::fmt;

/// Name of the table, in family `inet`.
pub const LOCKDOWN_TABLE: &str = "egressd_lockdown";

const FROM: &str = "locked_from";
const TO: &str = "locked_to";

/// What the table closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whatever is forwarded.
    Everything,
    /// What enters or leaves by an interface of a zone; others share the gateway.
    Zones {
        /// The zones' interfaces.
        interfaces: Vec<InterfacePattern>,
        /// Never a zone's, however wide a zone's pattern is.
        upstream: Vec<InterfacePattern>,
    },
}

impl Scope {
    /// What a policy of this intent could have to close.
    #[must_use]
    pub fn of(intent: &Intent) -> Self {
        match intent.unzoned {
            // Interfaces of no zone are closed by the policy itself.
            Unzoned::Drop => Self::Everything,
            Unzoned::Accept => {
                let zones = intent.zones.iter();
                let mut interfaces: Vec<_> =
                    zones.flat_map(|zone| zone.interfaces.clone()).collect();
                interfaces.sort_unstable();
                interfaces.dedup();
                Self::Zones {
                    interfaces,
                    upstream: intent.upstream.clone(),
                }
            }
        }
    }

    /// The count of what the table dropped.
    #[must_use]
    pub fn tally() -> Tally {
        Tally {
            zone: None,
            action: Action::Drop,
            reason: "locked",
        }
    }

    /// The table. Its forward chain drops by policy as well.
    #[must_use]
    pub fn ruleset(&self) -> Ruleset {
        let drop = || [Part::Count(Self::tally()), Part::Drop];
        let chain = |name: &str, rules| Chain {
            name: name.to_owned(),
            rules,
        };
        let chains = match self {
            Self::Everything => vec![chain(FORWARD, vec![drop().to_vec()])],
            Self::Zones {
                interfaces,
                upstream,
            } => {
                let rules = |at: fn(InterfacePattern) -> Part| -> Vec<Rule> {
                    let others = upstream.iter().cloned().map(at);
                    let others = others.map(|part| vec![part, Part::Return]);
                    let zones = interfaces.iter().cloned().map(at);
                    let zones = zones.map(|part| std::iter::once(part).chain(drop()).collect());
                    others.chain(zones).collect()
                };
                vec![
                    chain(
                        FORWARD,
                        vec![
                            vec![Part::Jump(FROM.to_owned())],
                            vec![Part::Jump(TO.to_owned())],
                            vec![Part::Accept],
                        ],
                    ),
                    chain(FROM, rules(Part::Entered)),
                    chain(TO, rules(Part::Leaves)),
                ]
            }
        };
        Ruleset {
            tallies: vec![Self::tally()],
            chains,
            ..Ruleset::default()
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything that is forwarded"),
            Self::Zones { interfaces, .. } => {
                f.write_str("what is forwarded from and to ")?;
                for (number, interface) in interfaces.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(f, "{comma}{interface}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::intent;

    fn patterns(texts: &[&str]) -> Vec<InterfacePattern> {
        let parse = |text: &&str| InterfacePattern::parse(text).unwrap();
        texts.iter().map(parse).collect()
    }

    #[test]
    fn what_is_closed_follows_from_who_else_shares_the_gateway() {
        let mut wanted = intent(&["c"], &[]);
        wanted.unzoned = Unzoned::Drop;
        assert_eq!(Scope::of(&wanted), Scope::Everything);
        wanted.unzoned = Unzoned::Accept;
        wanted.upstream = patterns(&["wan0"]);
        wanted.zones[0].interfaces = patterns(&["lan*", "lan0", "lan*"]);
        let scope = Scope::of(&wanted);
        assert_eq!(
            scope.to_string(),
            "what is forwarded from and to lan0, lan*"
        );
    }

    #[test]
    fn nothing_goes_past_it() {
        fn check(scope: &Scope, expected: &[(&str, &[&str])]) {
            let ruleset = scope.ruleset();
            let found: Vec<(&str, Vec<String>)> = (ruleset.chains.iter())
                .map(|chain| {
                    let text = |rule: &Rule| {
                        let parts: Vec<String> = rule.iter().map(Part::to_string).collect();
                        parts.join(" ")
                    };
                    (&*chain.name, chain.rules.iter().map(text).collect())
                })
                .collect();
            let expected: Vec<(&str, Vec<String>)> = expected
                .iter()
                .map(|(name, rules)| (*name, rules.iter().map(|&r| r.to_owned()).collect()))
                .collect();
            assert_eq!(found, expected, "{scope}");
        }
        check(
            &Scope::Everything,
            &[("forward", &["counter name \"any_drop_locked\" drop"])],
        );
        check(
            &Scope::Zones {
                interfaces: patterns(&["lan*", "wg0"]),
                upstream: patterns(&["wan0"]),
            },
            &[
                ("forward", &["jump locked_from", "jump locked_to", "accept"]),
                (
                    "locked_from",
                    &[
                        "iifname \"wan0\" return",
                        "iifname \"lan*\" counter name \"any_drop_locked\" drop",
                        "iifname \"wg0\" counter name \"any_drop_locked\" drop",
                    ],
                ),
                (
                    "locked_to",
                    &[
                        "oifname \"wan0\" return",
                        "oifname \"lan*\" counter name \"any_drop_locked\" drop",
                        "oifname \"wg0\" counter name \"any_drop_locked\" drop",
                    ],
                ),
            ],
        );
    }
}

//! PURE. The types of `Revoke`, and what people read.

use super::text::clean;
use serde::{Deserialize, Serialize};
use zlink::introspect::Type;

/// What to revoke.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct RevokeParameters {
    /// A domain name, an IP address, or a network in CIDR form.
    pub what: String,
    /// Only in the zone of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// What a revocation did, once it is in force and live flows were judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Revoked {
    /// What was revoked.
    pub what: String,
    /// Policy revision in force.
    pub revision: u64,
    /// Learned addresses that lost a reason, counted once per zone.
    pub addresses: u64,
    /// Those of them that closed or have fewer open ports now; something else grants the rest.
    pub closed: u64,
    /// Live flows that were cut since.
    pub cut: u64,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// `egressctl revoke`.
#[must_use]
pub fn text(revoked: &Revoked) -> String {
    let Revoked {
        revision,
        addresses,
        closed,
        cut,
        ..
    } = revoked;
    let what = clean(&revoked.what);
    let mut text = if *addresses == 0 {
        format!("nothing was learned of {what}\n")
    } else {
        format!(
            "revoked {what}: {addresses} learned addresses, {closed} of them closed, {cut} live flows \
             cut, revision {revision} in force\n"
        )
    };
    for note in &revoked.notes {
        text.push_str(&format!("note: {}\n", clean(note)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        fn check(revoked: &Revoked, expected: &str) {
            assert_eq!(text(revoked), expected);
        }
        let none = Revoked {
            what: "a.example".to_owned(),
            ..Revoked::default()
        };
        check(&none, "nothing was learned of a.example\n");
        let some = Revoked {
            revision: 7,
            addresses: 3,
            closed: 2,
            cut: 1,
            notes: vec!["x\u{1b}".to_owned()],
            ..none
        };
        check(
            &some,
            "revoked a.example: 3 learned addresses, 2 of them closed, 1 live flows cut, revision 7 in \
             force\nnote: x\\u{1b}\n",
        );
    }
}

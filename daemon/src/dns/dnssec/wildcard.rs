//! Whether a wildcard may stand for a name, by the NSEC records that come along (RFC 4035 §5.3.4).
//! The library asks for a second record, which servers leave out where the first says it all. Pure.

use super::chain::{Piece, signature};
use hickory_net::proto::dnssec::rdata::{DNSSECRData, NSEC};
use hickory_net::proto::op::Message;
use hickory_net::proto::rr::{Name, RData, Record};

/// Whether the proven NSEC records of `message` say, for every wildcard that `piece` is made of, that
/// there is nothing nearer to its name.
pub(super) fn stands(piece: &Piece, message: &Message) -> bool {
    let name = piece.query.name();
    let wild = piece.message.answers.iter().filter_map(signature);
    let mut labels = wild
        .map(|rrsig| rrsig.input().num_labels)
        .filter(|labels| *labels < name.num_labels())
        .peekable();
    labels.peek().is_some()
        && labels.all(|labels| {
            let nearer = name.trim_to(usize::from(labels) + 1);
            let mut nsecs = message.authorities.iter().filter_map(proven);
            nsecs.any(|(owner, nsec)| excludes(owner, nsec, name, &nearer))
        })
}

fn proven(record: &Record) -> Option<(&Name, &NSEC)> {
    if let RData::DNSSEC(DNSSECRData::NSEC(nsec)) = &record.data
        && record.proof.is_secure()
    {
        Some((&record.name, nsec))
    } else {
        None
    }
}

/// Whether there is no `name`, and no `nearer` between it and the wildcard, if only as what the names
/// around are below of.
fn excludes(owner: &Name, nsec: &NSEC, name: &Name, nearer: &Name) -> bool {
    let next = nsec.next_domain_name();
    // The last record of a zone leads back to its apex.
    let last = next <= owner && next.zone_of(name);
    // The other side of a zone's cut says nothing about what is below (RFC 6840 §4.1).
    let above = nsec.is_ancestor_delegation() && owner.zone_of(name);
    let between = owner < name && (name < next || last);
    between && !above && !nearer.zone_of(owner) && !nearer.zone_of(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_net::proto::rr::RecordType;

    #[test]
    fn what_excludes_a_name() {
        fn check(owner: &str, next: &str, kinds: &[RecordType], expected: bool) {
            let name = |text| Name::from_ascii(text).unwrap();
            let nsec = NSEC::new(name(next), kinds.iter().copied());
            let (asked, nearer) = (name("x.m.w.example."), name("m.w.example."));
            let got = excludes(&name(owner), &nsec, &asked, &nearer);
            assert_eq!(got, expected, "{owner} {next}");
        }
        check("*.w.example.", "z.example.", &[RecordType::A], true);
        check("c.w.example.", "example.", &[RecordType::A], true);
        check("l.w.example.", "n.w.example.", &[], true);
        // The name itself, a neighbour, or something below it is there.
        check("x.m.w.example.", "z.example.", &[], false);
        check("*.w.example.", "z.m.w.example.", &[], false);
        check("m.w.example.", "z.example.", &[], false);
        check("a.m.w.example.", "z.example.", &[], false);
        check("*.w.example.", "a.x.m.w.example.", &[], false);
        // It does not reach as far, or begins behind.
        check("*.w.example.", "l.w.example.", &[], false);
        check("n.w.example.", "z.example.", &[], false);
        check("n.w.example.", "example.", &[], false);
        check("c.w.example.", "a.example.", &[], false);
        // The parent's side of a cut.
        check("w.example.", "z.example.", &[RecordType::NS], false);
        let apex = [RecordType::NS, RecordType::SOA];
        check("w.example.", "z.example.", &apex, true);
    }
}

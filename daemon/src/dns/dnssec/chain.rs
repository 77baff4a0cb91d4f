//! A message cut into what can be proven one by one: each link of its chain of aliases, and what its
//! end has not. Only what is reachable from the asked name is kept. Pure.

use hickory_net::proto::dnssec::rdata::{DNSSECRData, RRSIG};
use hickory_net::proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_net::proto::rr::{Name, RData, Record, RecordType};
use hickory_net::proto::serialize::binary::BinDecodable;

/// Most aliases that are followed, as for what an answer teaches.
const MOST_LINKS: usize = 16;

/// Something that has a proof of its own.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// The question that `message` answers.
    pub(super) query: Query,
    /// The records of one owner, with signatures; or none, with what denies them.
    pub(super) message: Message,
    /// An alias that a DNAME makes: it follows from the piece before, unsigned (RFC 6672 §5.3.1).
    pub(super) made: Vec<Record>,
}

impl Piece {
    /// Whether it says that something is not there.
    pub(super) fn denies(&self) -> bool {
        self.message.answers.is_empty()
    }

    /// A denial without anything that could prove it: good only where nothing is signed.
    pub(super) fn unproven(&self) -> Self {
        let mut bare = self.clone();
        bare.message.authorities.clear();
        bare
    }

    /// The zones that claim to have signed it, the nearest to the root first.
    pub(super) fn signers(&self) -> Vec<Name> {
        let mut signers: Vec<Name> = self
            .message
            .all_sections()
            .filter_map(signature)
            .map(|rrsig| rrsig.input().signer_name.to_lowercase())
            .filter(|signer| signer.zone_of(self.query.name()))
            .collect();
        signers.sort_by_key(Name::num_labels);
        signers.dedup();
        signers
    }
}

/// The signature in `record`, if it is one.
pub(super) fn signature(record: &Record) -> Option<&RRSIG> {
    if let RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) = &record.data {
        Some(rrsig)
    } else {
        None
    }
}

/// Cuts `message` into pieces, along its chain. `None` where that is a loop, too long, or ambiguous.
pub(super) fn cut(message: &Message) -> Option<Vec<Piece>> {
    let query = message.queries.first()?;
    let kind = query.query_type();
    let mut at = query.name().clone();
    let mut pieces = Vec::new();
    for _ in 0..=MOST_LINKS {
        let own = records(message, &at, kind);
        if !own.is_empty() {
            pieces.push(positive(message, &at, kind, own));
            return Some(pieces);
        }
        let aliases = records(message, &at, RecordType::CNAME);
        let Some(target) = one_target(&aliases) else {
            pieces.push(denial(message, &at, kind));
            return aliases.is_empty().then_some(pieces);
        };
        let signed = aliases.iter().any(|alias| signature(alias).is_some());
        match redirection(message, &at, &target).filter(|_| !signed) {
            Some(owner) => {
                let own = records(message, &owner, RecordType::DNAME);
                let mut piece = positive(message, &owner, RecordType::DNAME, own);
                piece.made = aliases;
                pieces.push(piece);
            }
            None => pieces.push(positive(message, &at, RecordType::CNAME, aliases)),
        }
        at = target;
    }
    None
}

/// The records of the answer section with this owner and type, with their signatures.
fn records(message: &Message, owner: &Name, kind: RecordType) -> Vec<Record> {
    let of = |record: &&Record| record.name == *owner && covers(record, kind);
    let found: Vec<Record> = message.answers.iter().filter(of).cloned().collect();
    let bare = found.iter().all(|record| signature(record).is_some());
    if bare { Vec::new() } else { found }
}

/// Whether `record` is of type `kind`, or a signature of such.
fn covers(record: &Record, kind: RecordType) -> bool {
    let covered = signature(record).map(|rrsig| rrsig.input().type_covered);
    covered.unwrap_or_else(|| record.record_type()) == kind
}

fn one_target(aliases: &[Record]) -> Option<Name> {
    let mut targets = aliases.iter().filter_map(|record| {
        if let RData::CNAME(cname) = &record.data {
            Some(&cname.0)
        } else {
            None
        }
    });
    let target = targets.next()?;
    targets.next().is_none().then(|| target.clone())
}

/// The owner of the DNAME in `message` that makes `at` an alias of `target` (RFC 6672 §2.2).
fn redirection(message: &Message, at: &Name, target: &Name) -> Option<Name> {
    message.answers.iter().find_map(|record| {
        // There is no type of its own for its data.
        let (RecordType::DNAME, RData::Unknown { rdata, .. }) =
            (record.record_type(), &record.data)
        else {
            return None;
        };
        let to = Name::from_bytes(&rdata.anything).ok()?;
        let below = record.name != *at && record.name.zone_of(at);
        let prefix = at.num_labels().checked_sub(record.name.num_labels())?;
        let labels = at.iter().take(usize::from(prefix)).chain(to.iter());
        let made = Name::from_labels(labels).ok()?;
        (below && made == *target).then(|| record.name.clone())
    })
}

fn begin(query: &Query, code: ResponseCode) -> Message {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(query.clone());
    message
}

/// What is there. Denials come along only where a wildcard made it, and only of the same signer
/// (RFC 4035 §5.3.4): records of another zone could pass for a reason to want no proof.
fn positive(message: &Message, owner: &Name, kind: RecordType, own: Vec<Record>) -> Piece {
    let query = Query::query(owner.clone(), kind);
    let mut piece = begin(&query, ResponseCode::NoError);
    let wild = own.iter().filter_map(signature).find_map(|rrsig| {
        let input = rrsig.input();
        (input.num_labels < owner.num_labels()).then(|| input.signer_name.clone())
    });
    if let Some(signer) = wild {
        piece.authorities = denials(message, &signer);
    }
    piece.answers = own;
    Piece {
        query,
        message: piece,
        made: Vec::new(),
    }
}

/// What is not there: with the SOA, and the denials of the nearest zone that signs any.
fn denial(message: &Message, at: &Name, kind: RecordType) -> Piece {
    let query = Query::query(at.clone(), kind);
    let mut piece = begin(&query, message.metadata.response_code);
    let signers = message.authorities.iter().filter_map(|record| {
        let input = signature(record)?.input();
        let denies = matches!(input.type_covered, RecordType::NSEC | RecordType::NSEC3);
        let above = input.signer_name.zone_of(at);
        (denies && above).then_some(&input.signer_name)
    });
    if let Some(signer) = signers.max_by_key(|name| name.num_labels()).cloned() {
        let of = |record: &&Record| record.name == signer && covers(record, RecordType::SOA);
        piece
            .authorities
            .extend(message.authorities.iter().filter(of).cloned());
        piece.authorities.extend(denials(message, &signer));
    } else {
        let of =
            |record: &&Record| record.record_type() == RecordType::SOA && record.name.zone_of(at);
        piece
            .authorities
            .extend(message.authorities.iter().filter(of).cloned());
    }
    Piece {
        query,
        message: piece,
        made: Vec::new(),
    }
}

/// The NSEC and NSEC3 records that `signer` signed, with those signatures.
fn denials(message: &Message, signer: &Name) -> Vec<Record> {
    let signed = |owner: &Name, kind: RecordType| {
        message.authorities.iter().any(|record| {
            let of = |rrsig: &RRSIG| {
                let input = rrsig.input();
                input.type_covered == kind && input.signer_name == *signer
            };
            record.name == *owner && signature(record).is_some_and(of)
        })
    };
    let kinds = [RecordType::NSEC, RecordType::NSEC3];
    let wanted = |record: &&Record| match signature(record) {
        Some(rrsig) => {
            let input = rrsig.input();
            kinds.contains(&input.type_covered) && input.signer_name == *signer
        }
        None => kinds.contains(&record.record_type()) && signed(&record.name, record.record_type()),
    };
    message.authorities.iter().filter(wanted).cloned().collect()
}

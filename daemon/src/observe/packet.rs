//! A refused packet in words and fields.

use super::{Told, zone_name};
use crate::plane::RefusedPacket;
use crate::policy::name::Name;
use crate::policy::port::{SCTP, Service, TCP, UDP};

/// A refused packet, and what the policy knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As the plane reported it.
    pub packet: RefusedPacket,
    /// Name of the interface it entered on, if there is such.
    pub interface: Option<String>,
    /// The name that its client, or another one of its zone, last asked for and that led there.
    pub name: Option<Name>,
    /// What comes nearest to allowing it, in words; endpoint sets by their labels, no domain names.
    pub nearest: Option<String>,
}

impl Refused {
    /// In words and fields.
    pub(super) fn tell(&self) -> Told {
        let packet = &self.packet;
        let service = if [TCP, UDP, SCTP].contains(&packet.protocol) {
            Service {
                protocol: packet.protocol,
                first: packet.port,
                last: packet.port,
            }
        } else {
            Service::whole(packet.protocol)
        };
        let text = if packet.audited {
            "packet would be refused"
        } else {
            "packet refused"
        };
        Told {
            word: "packet",
            text: text.to_owned(),
            zone: packet.zone.map(zone_name),
            client: Some(packet.source),
            address: Some(packet.destination),
            service: Some(service.to_string()),
            plane: Some(packet.plane),
            reason: Some(packet.reason.clone()),
            audited: Some(packet.audited),
            interface: self.interface.clone(),
            name: self.name.as_ref().map(ToString::to_string),
            nearest: self.nearest.clone(),
        }
    }
}

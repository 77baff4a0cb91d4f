//! `[dns] mode = "observe"` as a value: whose answers teach as they pass through the gateway, and the
//! endpoint set that lets clients ask them.

use super::catalogue::EndpointSet;
use super::port::{PortSet, Service};
use ipnet::IpNet;
use std::net::IpAddr;

/// Port of DNS over UDP and TCP (RFC 1035 §4.2).
pub const DNS: u16 = 53;

/// The catalogue that the set of resolvers stands in. With its space it is no name that a configuration
/// may give a catalogue or a zone.
pub const CATALOGUE: &str = "[dns] observe";

/// Whose answers teach as they pass through the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The resolvers that every zone may ask, and whose answers teach.
    pub resolvers: Vec<IpAddr>,
    /// Whether answers over UDP stay back until the planes hold their addresses.
    pub delay: bool,
    /// The NFLOG group that questions and answers are copied to.
    pub group: u16,
}

impl Observed {
    /// The endpoint set that every zone may reach.
    #[must_use]
    pub fn set(&self) -> EndpointSet {
        EndpointSet {
            id: "resolvers".to_owned(),
            area: "dns".to_owned(),
            service: "the resolvers whose answers teach".to_owned(),
            required: true,
            networks: self.resolvers.iter().copied().map(IpNet::from).collect(),
            ports: PortSet::new([Service::udp(DNS), Service::tcp(DNS)]),
            origin: "[dns] resolvers".to_owned(),
            ..EndpointSet::default()
        }
    }
}

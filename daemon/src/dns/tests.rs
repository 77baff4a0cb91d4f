//! The edge over real sockets on loopback, against an upstream that plays a script.
#![expect(
    clippy::disallowed_methods,
    reason = "tests open sockets and read the clock"
)]

use super::*;
use crate::config::{Local, Transport, Unlisted, Upstream};
use crate::policy::catalogue::{Catalogue, EndpointSet};
use crate::policy::links::{InterfacePattern, Link, Links};
use crate::policy::name::Pattern;
use crate::policy::port::{PortSet, Service};
use crate::policy::rules::{Intent, Numbers};
use crate::policy::zone::{Selector, ZoneSpec};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name as HickoryName, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::mpsc;

/// Loopback without its address, so that the tests are clients and not the gateway itself.
fn rules() -> Arc<ArcSwap<Rules>> {
    let lo = Link {
        name: "lo".to_owned(),
        up: true,
        mac: vec![],
        ethernet: true,
        addresses: vec![],
    };
    let set = |id: &str, names: &[&str]| EndpointSet {
        id: id.to_owned(),
        patterns: names.iter().map(|n| Pattern::parse(n).unwrap()).collect(),
        ports: PortSet::new([Service::tcp(443)]),
        ..EndpointSet::default()
    };
    let intent = Intent {
        catalogues: vec![Catalogue {
            name: "c".to_owned(),
            sets: vec![
                set("web", &["*.a.example", "b.example"]),
                set("bad", &["bad.a.example"]),
            ],
            ..Catalogue::default()
        }],
        zones: vec![ZoneSpec {
            name: "z".to_owned(),
            interfaces: vec![InterfacePattern::parse("lo").unwrap()],
            sources: vec!["127.0.0.0/8".parse().unwrap()],
            allow: vec![Selector::parse("c").unwrap()],
            deny: vec![Selector::parse("c/bad").unwrap()],
            ..ZoneSpec::default()
        }],
        ..Intent::default()
    };
    let links = Links(BTreeMap::from([(1, lo)]));
    let rules = Rules::compile(Arc::new(intent), links, &mut Numbers::default()).unwrap();
    Arc::new(ArcSwap::from_pointee(rules))
}

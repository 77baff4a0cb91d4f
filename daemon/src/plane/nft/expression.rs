//! A rule's parts as nf_tables expressions.
#![expect(unsafe_code, reason = "libnftnl builds the expressions")]

use super::transaction::{COUNTER, c, octets, out_of_memory};
use crate::plane::ruleset::{
    COPY_PREFIX, Delivery, Family, MapKey, Part, REJECTS_PER_SECOND, REPORTS_PER_SECOND, Rule, Way,
    Word,
};
use crate::policy::links::InterfacePattern;
use crate::policy::port::TCP;
use ipnet::IpNet;
use nftnl::nftnl_sys as sys;
use std::ffi::{CStr, CString};
use std::net::SocketAddr;
use std::ptr::NonNull;

/// One expression: libnftnl's name for its kind, and its fields.
pub(super) struct Expression {
    kind: &'static CStr,
    fields: Vec<(u32, Field)>,
}

enum Field {
    Byte(u8),
    Short(u16),
    Number(u32),
    Wide(u64),
    Text(CString),
    Bytes(Vec<u8>),
}

const REGISTER: u32 = libc::NFT_REG_1 as u32;
const SECOND_REGISTER: u32 = libc::NFT_REG_2 as u32;
const VERDICT_REGISTER: u32 = libc::NFT_REG_VERDICT as u32;
// `NF_CT_STATE_BIT` of the kernel's connection states.
const STATE_ESTABLISHED: u32 = 1 << 1;
const STATE_RELATED: u32 = 1 << 2;
/// Length of an interface name in a register, padded with zeros.
const INTERFACE_NAME: usize = 16;
/// Bytes of a refused packet that are reported: the longest headers we read, and some more.
const REPORTED_BYTES: u32 = 128;

/// The expressions of a rule; `None` for a report when there is nowhere to report to.
pub(super) fn of_rule(parts: &Rule, log_group: Option<u16>) -> Option<Vec<Expression>> {
    let mut all = Vec::new();
    for part in parts {
        match part {
            Part::Established => all.extend(state(STATE_ESTABLISHED)),
            Part::Related => all.extend(state(STATE_RELATED)),
            Part::Protocol(number) => {
                all.extend([meta(libc::NFT_META_L4PROTO), equals(vec![*number])]);
            }
            Part::Midstream => all.extend(midstream()),
            Part::Way(way) => all.extend(direction(*way)),
            Part::From(family, set) => all.extend(present(*family, [12, 8], set)),
            Part::To(family, set) => all.extend(present(*family, [16, 24], set)),
            Part::SourcePort(port) => {
                let wanted = equals(port.to_be_bytes().to_vec());
                all.extend([payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2), wanted]);
            }
            Part::MessageType(number) => {
                let wanted = equals(vec![*number]);
                all.extend([payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1), wanted]);
            }
            Part::HopLimit(hops) => {
                // RFC 8200 §3: the hop limit stands in the 8th byte of the header.
                let wanted = equals(vec![*hops]);
                all.extend([payload(libc::NFT_PAYLOAD_NETWORK_HEADER, 7, 1), wanted]);
            }
            Part::Marked(mark) => {
                all.extend([meta(libc::NFT_META_MARK), equals(mark.to_ne_bytes().into())]);
            }
            Part::Copy(way, group) => all.push(copy(*way, *group)),
            Part::Untracked => all.push(Expression {
                kind: c"notrack",
                fields: Vec::new(),
            }),
            Part::Entered(pattern) => all.extend(interface(libc::NFT_META_IIFNAME, pattern)),
            Part::Leaves(pattern) => all.extend(interface(libc::NFT_META_OIFNAME, pattern)),
            Part::Port(port) => all.extend([
                original(libc::NFT_CT_PROTO_DST),
                equals(port.to_be_bytes().into()),
            ]),
            Part::Version(family) => all.extend(version(*family)),
            Part::Delivered(delivery) => all.extend(delivered(*delivery)),
            Part::Source(net) => all.extend(address(*net, [12, 8])),
            Part::Destination(net) => all.extend(address(*net, [16, 24])),
            Part::Asked(family, set) => {
                let key = match family {
                    Family::V4 => libc::NFT_CT_DST_IP,
                    Family::V6 => libc::NFT_CT_DST_IP6,
                };
                all.extend([original(key), lookup(set, None)]);
            }
            Part::Map(key, map) => {
                let load = match key {
                    MapKey::Protocol => meta(libc::NFT_META_L4PROTO),
                    MapKey::Port => original(libc::NFT_CT_PROTO_DST),
                    MapKey::PresentPort => payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2),
                };
                all.extend([load, lookup(map, Some(VERDICT_REGISTER))]);
            }
            Part::Count(tally) => all.push(Expression {
                kind: c"objref",
                fields: vec![
                    (sys::NFTNL_EXPR_OBJREF_IMM_TYPE, Field::Number(COUNTER)),
                    (
                        sys::NFTNL_EXPR_OBJREF_IMM_NAME,
                        Field::Text(c(&tally.to_string())),
                    ),
                ],
            }),
            Part::Report(tally) => {
                let group = log_group?;
                all.extend([limit(REPORTS_PER_SECOND), log(group, &tally.prefix())]);
            }
            Part::Goto(chain) => all.push(verdict(libc::NFT_GOTO, Some(chain))),
            Part::Jump(chain) => all.push(verdict(libc::NFT_JUMP, Some(chain))),
            Part::Return => all.push(verdict(libc::NFT_RETURN, None)),
            Part::Accept => all.push(verdict(libc::NF_ACCEPT, None)),
            Part::Drop => all.push(verdict(libc::NF_DROP, None)),
            Part::Seldom => all.push(limit(REJECTS_PER_SECOND)),
            Part::Reject(word) => all.push(reject(*word)),
            Part::Redirect(listener) => all.extend(redirect(*listener)),
            Part::RedirectHere(port) => all.extend(redirect_here(*port)),
        }
    }
    Some(all)
}

fn state(bit: u32) -> [Expression; 3] {
    let load = Expression {
        kind: c"ct",
        fields: vec![
            (sys::NFTNL_EXPR_CT_DREG, Field::Number(REGISTER)),
            (
                sys::NFTNL_EXPR_CT_KEY,
                Field::Number(libc::NFT_CT_STATE as u32),
            ),
        ],
    };
    let differs = compare(libc::NFT_CMP_NEQ, vec![0; 4]);
    [load, mask(bit.to_ne_bytes().to_vec()), differs]
}

fn interface(key: i32, pattern: &InterfacePattern) -> Vec<Expression> {
    match pattern {
        InterfacePattern::Exact(name) => {
            let mut padded = name.as_bytes().to_vec();
            padded.resize(INTERFACE_NAME, 0);
            vec![meta(key), equals(padded)]
        }
        // Every interface: nothing to compare.
        InterfacePattern::Prefix(stem) if stem.is_empty() => Vec::new(),
        InterfacePattern::Prefix(stem) => vec![meta(key), equals(stem.as_bytes().to_vec())],
    }
}

/// Compares the flags of a TCP segment.
fn midstream() -> [Expression; 5] {
    // RFC 9293 §3.1: the flags stand in the 14th byte of the header.
    const FLAGS: u32 = 13;
    const FIN_SYN_RST_ACK: u8 = 0x17;
    const SYN: u8 = 0x02;
    [
        meta(libc::NFT_META_L4PROTO),
        equals(vec![TCP]),
        payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, FLAGS, 1),
        mask(vec![FIN_SYN_RST_ACK]),
        compare(libc::NFT_CMP_NEQ, vec![SYN]),
    ]
}

fn payload(base: i32, offset: u32, length: u32) -> Expression {
    Expression {
        kind: c"payload",
        fields: vec![
            (sys::NFTNL_EXPR_PAYLOAD_DREG, Field::Number(REGISTER)),
            (sys::NFTNL_EXPR_PAYLOAD_BASE, Field::Number(base as u32)),
            (sys::NFTNL_EXPR_PAYLOAD_OFFSET, Field::Number(offset)),
            (sys::NFTNL_EXPR_PAYLOAD_LEN, Field::Number(length)),
        ],
    }
}

/// Compares an address of the packet; `offsets` are where it stands in an IPv4 and an IPv6 header.
fn address(net: IpNet, offsets: [u32; 2]) -> Vec<Expression> {
    let offset = match net {
        IpNet::V4(_) => offsets[0],
        IpNet::V6(_) => offsets[1],
    };
    let mut all = Vec::from(version(Family::of_net(net)));
    if net.prefix_len() == 0 {
        return all;
    }
    let wanted = octets(net.network());
    all.push(payload(
        libc::NFT_PAYLOAD_NETWORK_HEADER,
        offset,
        wanted.len() as u32,
    ));
    if net.prefix_len() < net.max_prefix_len() {
        all.push(mask(octets(net.netmask())));
    }
    all.push(equals(wanted));
    all
}

fn version(family: Family) -> [Expression; 2] {
    let number = protocol_family(family) as u8;
    [meta(libc::NFT_META_NFPROTO), equals(vec![number])]
}

const fn protocol_family(family: Family) -> i32 {
    match family {
        Family::V4 => libc::NFPROTO_IPV4,
        Family::V6 => libc::NFPROTO_IPV6,
    }
}

/// Asks the routing table about the destination address.
fn delivered(delivery: Delivery) -> [Expression; 2] {
    // `NFT_FIB_RESULT_ADDRTYPE` and `NFTA_FIB_F_DADDR` of nf_tables.h.
    const ADDRESS_TYPE: u32 = 3;
    const DESTINATION: u32 = 1 << 1;
    // `RTN_…` of rtnetlink.h.
    let kind = match delivery {
        Delivery::Local => libc::RTN_LOCAL,
        Delivery::Broadcast => libc::RTN_BROADCAST,
        Delivery::Anycast => libc::RTN_ANYCAST,
        Delivery::Multicast => libc::RTN_MULTICAST,
    };
    let load = Expression {
        kind: c"fib",
        fields: vec![
            (sys::NFTNL_EXPR_FIB_DREG, Field::Number(REGISTER)),
            (sys::NFTNL_EXPR_FIB_RESULT, Field::Number(ADDRESS_TYPE)),
            (sys::NFTNL_EXPR_FIB_FLAGS, Field::Number(DESTINATION)),
        ],
    };
    [load, equals(u32::from(kind).to_ne_bytes().into())]
}

// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED` of nf_nat.h.
const NAT_ADDRESS: u32 = 1;
const NAT_PORT: u32 = 2;

/// Translates the destination of the flow.
fn redirect(listener: SocketAddr) -> [Expression; 3] {
    let family = protocol_family(Family::of(listener.ip())) as u32;
    let translate = Expression {
        kind: c"nat",
        fields: vec![
            (
                sys::NFTNL_EXPR_NAT_TYPE,
                Field::Number(libc::NFT_NAT_DNAT as u32),
            ),
            (sys::NFTNL_EXPR_NAT_FAMILY, Field::Number(family)),
            (sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, Field::Number(REGISTER)),
            (
                sys::NFTNL_EXPR_NAT_REG_PROTO_MIN,
                Field::Number(SECOND_REGISTER),
            ),
            (
                sys::NFTNL_EXPR_NAT_FLAGS,
                Field::Number(NAT_ADDRESS | NAT_PORT),
            ),
        ],
    };
    [
        put(octets(listener.ip()), REGISTER),
        put(listener.port().to_be_bytes().into(), SECOND_REGISTER),
        translate,
    ]
}

fn redirect_here(port: u16) -> [Expression; 2] {
    let translate = Expression {
        kind: c"redir",
        fields: vec![
            (sys::NFTNL_EXPR_REDIR_REG_PROTO_MIN, Field::Number(REGISTER)),
            (sys::NFTNL_EXPR_REDIR_FLAGS, Field::Number(NAT_PORT)),
        ],
    };
    [put(port.to_be_bytes().into(), REGISTER), translate]
}

/// Puts `data` into a register.
fn put(data: Vec<u8>, register: u32) -> Expression {
    Expression {
        kind: c"immediate",
        fields: vec![
            (sys::NFTNL_EXPR_IMM_DREG, Field::Number(register)),
            (sys::NFTNL_EXPR_IMM_DATA, Field::Bytes(data)),
        ],
    }
}

fn meta(key: i32) -> Expression {
    Expression {
        kind: c"meta",
        fields: vec![
            (sys::NFTNL_EXPR_META_DREG, Field::Number(REGISTER)),
            (sys::NFTNL_EXPR_META_KEY, Field::Number(key as u32)),
        ],
    }
}

/// Loads what the first packet of the flow carried, before any NAT.
fn original(key: i32) -> Expression {
    const ORIGINAL: u8 = 0;
    Expression {
        kind: c"ct",
        fields: vec![
            (sys::NFTNL_EXPR_CT_DREG, Field::Number(REGISTER)),
            (sys::NFTNL_EXPR_CT_KEY, Field::Number(key as u32)),
            (sys::NFTNL_EXPR_CT_DIR, Field::Byte(ORIGINAL)),
        ],
    }
}

fn lookup(set: &str, into: Option<u32>) -> Expression {
    let mut fields = vec![
        (sys::NFTNL_EXPR_LOOKUP_SREG, Field::Number(REGISTER)),
        (sys::NFTNL_EXPR_LOOKUP_SET, Field::Text(c(set))),
    ];
    fields.extend(into.map(|register| (sys::NFTNL_EXPR_LOOKUP_DREG, Field::Number(register))));
    Expression {
        kind: c"lookup",
        fields,
    }
}

fn direction(way: Way) -> [Expression; 2] {
    let load = Expression {
        kind: c"ct",
        fields: vec![
            (sys::NFTNL_EXPR_CT_DREG, Field::Number(REGISTER)),
            (
                sys::NFTNL_EXPR_CT_KEY,
                Field::Number(libc::NFT_CT_DIRECTION as u32),
            ),
        ],
    };
    // `enum ip_conntrack_dir`.
    let number = match way {
        Way::Original => 0,
        Way::Reply => 1,
    };
    [load, equals(vec![number])]
}

/// Looks up an address of the packet; `offsets` are where it stands in an IPv4 and an IPv6 header.
fn present(family: Family, offsets: [u32; 2], set: &str) -> [Expression; 4] {
    let (protocol, offset, length) = match family {
        Family::V4 => (libc::NFPROTO_IPV4, offsets[0], 4),
        Family::V6 => (libc::NFPROTO_IPV6, offsets[1], 16),
    };
    [
        meta(libc::NFT_META_NFPROTO),
        equals(vec![protocol as u8]),
        payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length),
        lookup(set, None),
    ]
}

/// Logs the packet as long as the reader's socket takes it: no length of our own.
fn copy(way: Way, group: u16) -> Expression {
    let prefix = c(&format!("{COPY_PREFIX} {}", way.word()));
    Expression {
        kind: c"log",
        fields: vec![
            (sys::NFTNL_EXPR_LOG_GROUP, Field::Short(group)),
            (sys::NFTNL_EXPR_LOG_PREFIX, Field::Text(prefix)),
        ],
    }
}

fn equals(data: Vec<u8>) -> Expression {
    compare(libc::NFT_CMP_EQ, data)
}

fn compare(operation: i32, data: Vec<u8>) -> Expression {
    Expression {
        kind: c"cmp",
        fields: vec![
            (sys::NFTNL_EXPR_CMP_SREG, Field::Number(REGISTER)),
            (sys::NFTNL_EXPR_CMP_OP, Field::Number(operation as u32)),
            (sys::NFTNL_EXPR_CMP_DATA, Field::Bytes(data)),
        ],
    }
}

fn mask(mask: Vec<u8>) -> Expression {
    Expression {
        kind: c"bitwise",
        fields: vec![
            (sys::NFTNL_EXPR_BITWISE_SREG, Field::Number(REGISTER)),
            (sys::NFTNL_EXPR_BITWISE_DREG, Field::Number(REGISTER)),
            (
                sys::NFTNL_EXPR_BITWISE_LEN,
                Field::Number(mask.len() as u32),
            ),
            (
                sys::NFTNL_EXPR_BITWISE_XOR,
                Field::Bytes(vec![0; mask.len()]),
            ),
            (sys::NFTNL_EXPR_BITWISE_MASK, Field::Bytes(mask)),
        ],
    }
}

fn limit(per_second: u32) -> Expression {
    const SECOND: u64 = 1;
    const PACKETS: u32 = 0;
    Expression {
        kind: c"limit",
        fields: vec![
            (sys::NFTNL_EXPR_LIMIT_RATE, Field::Wide(per_second.into())),
            (sys::NFTNL_EXPR_LIMIT_UNIT, Field::Wide(SECOND)),
            (sys::NFTNL_EXPR_LIMIT_BURST, Field::Number(per_second)),
            (sys::NFTNL_EXPR_LIMIT_TYPE, Field::Number(PACKETS)),
        ],
    }
}

/// Types and codes of `linux/netfilter/nf_tables.h`.
fn reject(word: Word) -> Expression {
    const TCP_RST: u32 = 1;
    const ICMPX_UNREACH: u32 = 2;
    const ICMPX_ADMIN_PROHIBITED: u8 = 3;
    let (kind, code) = match word {
        Word::Reset => (TCP_RST, 0),
        Word::Prohibited => (ICMPX_UNREACH, ICMPX_ADMIN_PROHIBITED),
    };
    Expression {
        kind: c"reject",
        fields: vec![
            (sys::NFTNL_EXPR_REJECT_TYPE, Field::Number(kind)),
            (sys::NFTNL_EXPR_REJECT_CODE, Field::Byte(code)),
        ],
    }
}

fn log(group: u16, prefix: &str) -> Expression {
    Expression {
        kind: c"log",
        fields: vec![
            (sys::NFTNL_EXPR_LOG_GROUP, Field::Short(group)),
            (sys::NFTNL_EXPR_LOG_SNAPLEN, Field::Number(REPORTED_BYTES)),
            (sys::NFTNL_EXPR_LOG_PREFIX, Field::Text(c(prefix))),
        ],
    }
}

fn verdict(verdict: i32, chain: Option<&str>) -> Expression {
    let mut fields = vec![
        (sys::NFTNL_EXPR_IMM_DREG, Field::Number(VERDICT_REGISTER)),
        (sys::NFTNL_EXPR_IMM_VERDICT, Field::Number(verdict as u32)),
    ];
    fields.extend(chain.map(|chain| (sys::NFTNL_EXPR_IMM_CHAIN, Field::Text(c(chain)))));
    Expression {
        kind: c"immediate",
        fields,
    }
}

impl nftnl::expr::Expression for Expression {
    fn to_expr(&self, _rule: &nftnl::Rule<'_>) -> NonNull<sys::nftnl_expr> {
        // SAFETY: the kind is NUL-terminated; libnftnl returns a live expression or null.
        let Some(made) = NonNull::new(unsafe { sys::nftnl_expr_alloc(self.kind.as_ptr()) }) else {
            out_of_memory();
        };
        let raw = made.as_ptr();
        for (number, field) in &self.fields {
            let number = *number as u16;
            // SAFETY: the expression is live, every field has the type libnftnl documents for it,
            // and libnftnl copies texts and bytes, whose length is passed along.
            unsafe {
                match field {
                    Field::Byte(value) => sys::nftnl_expr_set_u8(raw, number, *value),
                    Field::Short(value) => sys::nftnl_expr_set_u16(raw, number, *value),
                    Field::Number(value) => sys::nftnl_expr_set_u32(raw, number, *value),
                    Field::Wide(value) => sys::nftnl_expr_set_u64(raw, number, *value),
                    Field::Text(value) => {
                        sys::nftnl_expr_set_str(raw, number, value.as_ptr());
                    }
                    Field::Bytes(value) => {
                        let length = value.len() as u32;
                        sys::nftnl_expr_set(raw, number, value.as_ptr().cast(), length);
                    }
                }
            }
        }
        made
    }
}

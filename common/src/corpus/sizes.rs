//! P9: frames larger than a page, whose last bytes lie in further buffers.

use super::fragments::{v4, v6};
use super::plan::{CLOSED, GRANTED, REFUSED};
use super::{Promise, Rule, Sheet};
use crate::samples::{self, SYN};
use core::net::IpAddr;
use std::format;

/// The largest frame, with its Ethernet header.
const LARGEST: usize = 9014;

pub(super) fn add(sheet: &mut Sheet) {
    for to in [GRANTED, REFUSED].into_iter().flatten() {
        for size in [1500, 2000, 3000, 3500, 4000, 4096, 5000, 8192, LARGEST - 14] {
            for (protocol, port) in [(6, 443), (17, 443), (6, CLOSED)] {
                let open = GRANTED.contains(&to) && port == 443;
                let rule = if open { Rule::Open } else { Rule::Closed };
                let header = if to.is_ipv4() { 20 } else { 40 };
                let payload = size - header;
                let body = if protocol == 6 {
                    let mut segment = samples::tcp(40_000, port, SYN);
                    segment.resize(payload, 0);
                    segment
                } else {
                    samples::udp(40_000, port, u16::try_from(payload - 8).expect("small"))
                };
                let name = format!("protocol {protocol} of {size} to {to} port {port}");
                sheet.add(Promise::P9, name.as_str(), rule, |c| match to {
                    IpAddr::V4(to) => v4(c, to, 0x4000, protocol, &body),
                    IpAddr::V6(to) => v6(c, to, &[], protocol, &body),
                });
                sheet.add(Promise::P9, format!("{name} but one"), Rule::Closed, |c| {
                    let mut frame = match to {
                        IpAddr::V4(to) => v4(c, to, 0x4000, protocol, &body),
                        IpAddr::V6(to) => v6(c, to, &[], protocol, &body),
                    };
                    frame.pop();
                    frame
                });
            }
        }
        // Ports behind a chain of headers that fills a page.
        if let IpAddr::V6(to) = to {
            for units in [200, 255] {
                let rest = std::vec![0; 8 * units + 6];
                for count in [1, 2, 4] {
                    let chain = std::vec![(60, rest.clone()); count];
                    let open = GRANTED.contains(&IpAddr::V6(to));
                    let rule = if open { Rule::Held } else { Rule::Closed };
                    let name = format!("{count} headers of {units} to {to}");
                    sheet.add(Promise::P9, name, rule, |c| {
                        v6(c, to, &chain, 6, &samples::tcp(40_000, 443, SYN))
                    });
                }
            }
        }
    }
}

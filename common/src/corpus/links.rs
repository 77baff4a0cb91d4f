//! P5: tagged frames and PPPoE sessions get the verdict of the packet inside, or a stricter one.

use super::plan::{GRANTED, REFUSED};
use super::{Promise, Rule, Sheet};
use crate::samples::{self, SYN};
use std::format;
use std::vec::Vec;

/// 802.1Q, 802.1ad, and what some switches send as the outer tag.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// Every chain of this many tags.
fn chains(length: usize) -> Vec<Vec<u16>> {
    let mut chains = std::vec![Vec::new()];
    for _ in 0..length {
        chains = chains
            .iter()
            .flat_map(|chain| TAGS.map(|tag| [chain.as_slice(), &[tag]].concat()))
            .collect();
    }
    chains
}

/// What stands between PPPoE's header and the packet.
const PROTOCOLS: [(&str, [&[u8]; 2], bool); 4] = [
    ("plain", [&[0x00, 0x21], &[0x00, 0x57]], true),
    ("compressed", [&[0x21], &[0x57]], true),
    ("link control", [&[0xc0, 0x21], &[0xc0, 0x21]], false),
    ("address control", [&[0x80, 0x21], &[0x80, 0x57]], false),
];

pub(super) fn add(sheet: &mut Sheet) {
    let p5 = Promise::P5;
    for (to, family, granted) in [
        (GRANTED[0], 0, true),
        (GRANTED[1], 1, true),
        (REFUSED[0], 0, false),
        (REFUSED[1], 1, false),
    ] {
        let inner = if granted { Rule::Held } else { Rule::Closed };
        let packet = |client: super::Client| {
            samples::packet(client.beside(to), to, 6, &samples::tcp(40_000, 443, SYN))
        };
        for tags in (1..=3).flat_map(chains) {
            // In which zone a tagged frame is, is for its device to say; no tag opens anything.
            sheet.add(p5, format!("tags {tags:04x?} to {to}"), inner, |c| {
                samples::ethernet(&tags, &packet(c))
            });
        }
        for tags in [4, 5].map(|count| std::vec![0x8100; count]) {
            let name = format!("{} tags to {to}", tags.len());
            sheet.add(p5, name, Rule::Closed, |c| {
                samples::ethernet(&tags, &packet(c))
            });
        }
        for control in [0x0000u16, 0xe000, 0x1000, 0x0001, 0x0fff, 0xffff] {
            sheet.add(
                p5,
                format!("tag control {control:#06x} to {to}"),
                inner,
                |c| {
                    let mut frame = samples::ethernet(&[0x8100], &packet(c));
                    frame[14..16].copy_from_slice(&control.to_be_bytes());
                    frame
                },
            );
        }
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
            for (name, protocols, carries) in PROTOCOLS {
                let rule = if carries { inner } else { Rule::Stack };
                let name = format!("pppoe {name} behind {tags:04x?} to {to}");
                sheet.add(p5, name, rule, |c| {
                    let inside = [protocols[family], &packet(c)].concat();
                    let length = u16::try_from(inside.len()).expect("small").to_be_bytes();
                    let session = [&[0x11, 0, 0, 9][..], &length, &inside].concat();
                    samples::framed(tags, 0x8864, &session)
                });
            }
        }
    }
    for tags in [&[][..], &[0x8100]] {
        for code in [0x09, 0x07, 0x19, 0x65, 0xa7] {
            let name = format!("pppoe discovery {code:#04x} behind {tags:04x?}");
            sheet.add(p5, name, Rule::Stack, |_| {
                samples::framed(tags, 0x8863, &[0x11, code, 0, 0, 0, 4, 1, 1, 0, 0])
            });
        }
    }
}

//! Just enough of RFC 1035 to ask and answer a million times: messages as bytes, no names but whole
//! ones. The tests that look at an answer closely use a library instead.

use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;

/// Bytes before the question.
pub const HEADER: usize = 12;
/// Type A.
pub const A: u16 = 1;
/// Class IN.
pub const IN: u16 = 1;
/// NOERROR.
pub const NO_ERROR: u8 = 0;

const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;

/// What an authority says to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Seconds.
    pub ttl: u32,
    /// One A record each.
    pub addresses: Vec<Ipv4Addr>,
    /// Over UDP only says that the answer is to be had over TCP.
    pub truncated: bool,
}

/// The question for the A records of `name`, recursion desired.
///
/// # Errors
/// When `name` has an empty label or one over 63 bytes.
pub fn question(id: u16, name: &str) -> Result<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend(id.to_be_bytes());
    message.extend([RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..64).contains(n));
        message.push(length.with_context(|| format!("a label of {name}"))?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(A.to_be_bytes());
    message.extend(IN.to_be_bytes());
    Ok(message)
}

/// The asked name in lower case without its final dot, the type, and where the question ends.
///
/// # Errors
/// When the message does not hold one plain question.
pub fn asked(message: &[u8]) -> Result<(String, u16, usize)> {
    ensure!(
        message.get(4..6) == Some(&[0, 1]),
        "not one question: {message:02x?}"
    );
    let (mut at, mut name) = (HEADER, String::new());
    loop {
        let length = usize::from(*message.get(at).context("a name's end")?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = message.get(at..at + length).context("a label's end")?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
    let kind = message.get(at..at + 4).context("type and class")?;
    Ok((name, u16::from_be_bytes([kind[0], kind[1]]), at + 4))
}

/// The response to `question`, which [`asked`] must have read: its own bytes, then `reply` in the
/// answer section.
#[must_use]
pub fn response(question: &[u8], end: usize, reply: &Reply, stream: bool) -> Vec<u8> {
    let truncated = reply.truncated && !stream;
    let told: &[Ipv4Addr] = if truncated { &[] } else { &reply.addresses };
    let mut message = question[..end].to_vec();
    message[2] = RESPONSE | RECURSION_DESIRED | if truncated { TRUNCATED } else { 0 };
    message[3] = RECURSION_AVAILABLE;
    let count = u16::try_from(told.len()).unwrap_or(u16::MAX).to_be_bytes();
    message[6..HEADER].copy_from_slice(&[count[0], count[1], 0, 0, 0, 0]);
    for address in told.iter().take(usize::from(u16::MAX)) {
        record(&mut message, reply.ttl, *address);
    }
    message
}

/// Appends an A record of the asked name.
pub fn record(message: &mut Vec<u8>, ttl: u32, address: Ipv4Addr) {
    message.extend([0xC0, 12, 0, 1, 0, 1]);
    message.extend(ttl.to_be_bytes());
    message.extend([0, 4]);
    message.extend(address.octets());
}

/// What a response says: its id, its code, and the A records of its answer section with the smallest
/// TTL among them.
///
/// # Errors
/// When it cannot be read.
pub fn told(message: &[u8]) -> Result<(u16, u8, Reply)> {
    let word = |at: usize| -> Result<u16> {
        let bytes = message.get(at..at + 2).context("a message's end")?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    ensure!(word(2)? & 0x8000 != 0, "no response: {message:02x?}");
    let (_, _, mut at) = asked(message)?;
    let (mut ttl, mut addresses) = (u32::MAX, Vec::new());
    for _ in 0..word(6)? {
        at = after_name(message, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = message
            .get(at + 10..at + 10 + length)
            .context("a record's data")?;
        if let (A, Ok(address)) = (kind, <[u8; 4]>::try_from(data)) {
            addresses.push(address.into());
            ttl = ttl.min(u32::from(word(at + 4)?) << 16 | u32::from(word(at + 6)?));
        }
        at += 10 + length;
    }
    let reply = Reply {
        ttl,
        addresses,
        truncated: word(2)? & 0x0200 != 0,
    };
    Ok((word(0)?, message[3] & 15, reply))
}

fn after_name(message: &[u8], mut at: usize) -> Result<usize> {
    loop {
        let length = *message.get(at).context("a name's end")?;
        match length {
            0 => return Ok(at + 1),
            0xC0.. => return Ok(at + 2),
            _ => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Message;
    use hickory_proto::rr::RData;

    #[test]
    fn a_library_reads_the_same() {
        let asking = question(77, "n1.Vendor.example").unwrap();
        let (name, kind, end) = asked(&asking).unwrap();
        assert_eq!(
            (name.as_str(), kind, end),
            ("n1.vendor.example", A, asking.len())
        );
        let reply = Reply {
            ttl: 70_000,
            addresses: vec![[52, 96, 0, 1].into(), [52, 96, 0, 2].into()],
            truncated: false,
        };
        let bytes = response(&asking, end, &reply, false);
        assert_eq!(told(&bytes).unwrap(), (77, NO_ERROR, reply.clone()));

        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.queries[0].name().to_ascii(), "n1.Vendor.example.");
        let seen: Vec<_> = message
            .answers
            .iter()
            .map(|record| (record.ttl, record.data.clone()))
            .collect();
        let expected = reply
            .addresses
            .iter()
            .map(|&a| (reply.ttl, RData::A(a.into())));
        assert_eq!(seen, expected.collect::<Vec<_>>());
    }

    #[test]
    fn refuses_what_is_cut_off() {
        let asking = question(1, "a.example").unwrap();
        for end in 0..asking.len() {
            assert!(asked(&asking[..end]).is_err(), "{end}");
        }
        assert!(question(1, "a..example").is_err());
    }
}

//! The parameters of HTTPS and SVCB records (RFC 9460), read by taking them apart.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that a record hints at; `None` where it is malformed. An alias hints at nothing.
pub(super) fn hints(data: &[u8]) -> Option<Vec<IpAddr>> {
    let (priority, mut rest) = data.split_first_chunk::<2>()?;
    let mut target = 0;
    loop {
        let (length, after) = rest.split_first()?;
        target += 1 + usize::from(*length);
        if *length > 63 || target > 255 {
            return None;
        }
        rest = after.get(usize::from(*length)..)?;
        if *length == 0 {
            break;
        }
    }
    let mut parameters = BTreeMap::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_first_chunk::<2>()?;
        let (length, after) = after.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let key = u16::from_be_bytes(*key);
        let highest = parameters.last_key_value().map(|(key, _)| *key);
        if highest.is_some_and(|highest| highest >= key) || after.len() < length {
            return None;
        }
        let (value, after) = after.split_at(length);
        parameters.insert(key, value);
        rest = after;
    }
    let whole = |key, unit| {
        let value: Option<&&[u8]> = parameters.get(&key);
        value.is_none_or(|value| !value.is_empty() && value.len().is_multiple_of(unit))
    };
    if !(whole(0, 2) && whole(4, 4) && whole(6, 16)) {
        return None;
    }
    if *priority == [0, 0] {
        return Some(Vec::new());
    }
    let mut found: Vec<IpAddr> = Vec::new();
    for bytes in parameters
        .get(&4)
        .into_iter()
        .flat_map(|value| value.chunks(4))
    {
        found.push(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
    }
    for bytes in parameters
        .get(&6)
        .into_iter()
        .flat_map(|value| value.chunks(16))
    {
        found.push(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into());
    }
    Some(found)
}

//! The data of HTTPS and SVCB records (RFC 9460): which addresses it hints at, and the same data
//! without hints or Encrypted Client Hello.

use super::Malformed;
use super::wire::short;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Keys of parameters (RFC 9460 §14.3.2; 5: RFC 9848).
mod key {
    pub(super) const MANDATORY: u16 = 0;
    pub(super) const IPV4HINT: u16 = 4;
    pub(super) const ECH: u16 = 5;
    pub(super) const IPV6HINT: u16 = 6;
}

/// What becomes of Encrypted Client Hello configurations in HTTPS and SVCB records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ech {
    /// They are none of the gateway's business.
    #[default]
    Keep,
    /// They are taken out, so that the server's name stays visible on the wire.
    Strip,
}

/// What is taken out of a record's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) hints: bool,
    pub(super) ech: bool,
}

impl Cut {
    fn takes(self, key: u16) -> bool {
        match key {
            key::IPV4HINT | key::IPV6HINT => self.hints,
            key::ECH => self.ech,
            _ => false,
        }
    }
}

/// A record's data whose form was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service<'m> {
    data: &'m [u8],
    /// Where the parameters begin.
    parameters: usize,
}

impl<'m> Service<'m> {
    /// Checks the form (RFC 9460 §2.2): an uncompressed target, keys in strictly ascending order,
    /// lengths that fit, hints that are whole addresses, at least one each.
    pub(super) fn read(data: &'m [u8]) -> Result<Self, Malformed> {
        let mut at = 2;
        loop {
            match *data.get(at).ok_or(Malformed::Data)? {
                0 => break,
                length @ 1..=63 => at += 1 + usize::from(length),
                64.. => return Err(Malformed::Data),
            }
        }
        let parameters = at + 1;
        if parameters - 2 > 255 {
            return Err(Malformed::Name);
        }
        let mut last = None;
        let mut at = parameters;
        while at < data.len() {
            let (key, end) = parameter(data, at).ok_or(Malformed::Data)?;
            if last.is_some_and(|last| key <= last) {
                return Err(Malformed::Data);
            }
            let length = end - at - 4;
            let unit = match key {
                key::MANDATORY => 2,
                key::IPV4HINT => 4,
                key::IPV6HINT => 16,
                _ => 0,
            };
            if unit > 0 && (length == 0 || length % unit != 0) {
                return Err(Malformed::Data);
            }
            last = Some(key);
            at = end;
        }
        Ok(Self { data, parameters })
    }

    /// Whether clients must not look at its parameters (AliasMode, RFC 9460 §2.4.2).
    pub(super) fn is_alias(self) -> bool {
        self.data[..2] == [0, 0]
    }

    /// The addresses it hints at.
    pub(super) fn hints(self) -> impl Iterator<Item = IpAddr> {
        self.parameters().flat_map(|(key, parameter)| {
            let value = &parameter[4..];
            let v4 = if key == key::IPV4HINT { value } else { &[] };
            let v6 = if key == key::IPV6HINT { value } else { &[] };
            let v4 = v4.as_chunks().0.iter();
            let v6 = v6.as_chunks().0.iter();
            v4.map(|bytes: &[u8; 4]| IpAddr::from(Ipv4Addr::from(*bytes)))
                .chain(v6.map(|bytes: &[u8; 16]| IpAddr::from(Ipv6Addr::from(*bytes))))
        })
    }

    /// Appends the data without what `cut` takes; `false`, with nothing appended, when the record
    /// says that some of that is mandatory.
    pub(super) fn write(self, cut: Cut, out: &mut Vec<u8>) -> bool {
        let demanded = self.parameters().any(|(key, parameter)| {
            let mut listed = parameter[4..].as_chunks().0.iter();
            key == key::MANDATORY && listed.any(|key| cut.takes(u16::from_be_bytes(*key)))
        });
        if demanded {
            return false;
        }
        out.extend(&self.data[..self.parameters]);
        for (key, parameter) in self.parameters() {
            if !cut.takes(key) {
                out.extend(parameter);
            }
        }
        true
    }

    /// The parameters, key and length bytes included.
    fn parameters(self) -> impl Iterator<Item = (u16, &'m [u8])> {
        let mut at = self.parameters;
        std::iter::from_fn(move || {
            let (key, end) = parameter(self.data, at)?;
            let bytes = &self.data[at..end];
            at = end;
            Some((key, bytes))
        })
    }
}

/// The key of the parameter at `at`, and where it ends; `None` when it does not fit.
fn parameter(data: &[u8], at: usize) -> Option<(u16, usize)> {
    let (key, length) = (short(data, at).ok()?, short(data, at + 2).ok()?);
    let end = at + 4 + usize::from(length);
    (end <= data.len()).then_some((key, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Cut = Cut {
        hints: false,
        ech: false,
    };
    const HINTS: Cut = Cut {
        hints: true,
        ech: false,
    };
    const ECH: Cut = Cut {
        hints: false,
        ech: true,
    };

    /// Priority 1, target `.`, and parameters.
    fn data(parameters: &[(u16, &[u8])]) -> Vec<u8> {
        let mut data = vec![0, 1, 0];
        for (key, value) in parameters {
            data.extend(key.to_be_bytes());
            data.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            data.extend(*value);
        }
        data
    }

    #[test]
    fn what_is_cut() {
        fn check(parameters: &[(u16, &[u8])], cut: Cut, expected: Option<&[(u16, &[u8])]>) {
            let bytes = data(parameters);
            let mut out = vec![9];
            let whole = Service::read(&bytes).unwrap().write(cut, &mut out);
            let expected = expected.map_or_else(Vec::new, data);
            assert_eq!((whole, &out[1..]), (!expected.is_empty(), &expected[..]));
        }
        let all: &[(u16, &[u8])] = &[
            (1, b"\x02h2"),
            (4, &[93, 0, 0, 1]),
            (5, b"ech"),
            (6, &[1; 16]),
        ];
        check(all, NONE, Some(all));
        check(all, HINTS, Some(&[(1, b"\x02h2"), (5, b"ech")]));
        check(
            all,
            ECH,
            Some(&[(1, b"\x02h2"), (4, &[93, 0, 0, 1]), (6, &[1; 16])]),
        );
        let four: &[(u16, &[u8])] = &[(0, &[0, 1, 0, 4]), (1, b"\x02h2"), (4, &[93, 0, 0, 1])];
        check(four, NONE, Some(four));
        check(four, ECH, Some(four));
        check(four, HINTS, None);
        check(&[(0, &[0, 6]), (6, &[1; 16])], HINTS, None);
        check(&[(0, &[0, 5]), (5, b"ech")], ECH, None);
        check(
            &[(0, &[0, 5]), (5, b"ech")],
            HINTS,
            Some(&[(0, &[0, 5]), (5, b"ech")]),
        );
        check(&[], HINTS, Some(&[]));
    }

    #[test]
    fn malformed() {
        fn check(bytes: &[u8], good: bool) {
            assert_eq!(Service::read(bytes).is_ok(), good, "{bytes:?}");
        }
        check(&data(&[(4, &[1, 2, 3, 4]), (6, &[0; 32])]), true);
        check(&data(&[(4, &[])]), false);
        check(&data(&[(4, &[1, 2, 3])]), false);
        check(&data(&[(4, &[1, 2, 3, 4, 5])]), false);
        check(&data(&[(6, &[0; 15])]), false);
        check(&data(&[(6, &[])]), false);
        check(&data(&[(0, &[])]), false);
        check(&data(&[(0, &[0])]), false);
        // Not ascending.
        check(&data(&[(6, &[0; 16]), (4, &[1, 2, 3, 4])]), false);
        check(&data(&[(4, &[1, 2, 3, 4]), (4, &[1, 2, 3, 4])]), false);
        // Lying lengths.
        check(&[0, 1, 0, 0, 4, 0, 5, 1, 2, 3, 4], false);
        check(&[0, 1, 0, 0, 4, 0, 4, 1, 2, 3], false);
        check(&[0, 1, 0, 0, 4, 0], false);
        check(&[0, 1, 0, 9], false);
        // Targets.
        check(&[0, 1, 1, b'a', 0], true);
        check(&[0, 1], false);
        check(&[0], false);
        check(&[], false);
        check(&[0, 1, 1, b'a'], false);
        check(&[0, 1, 0xc0, 12], false);
        check(&[&[0, 1][..], &[1, b'a'].repeat(127), &[0]].concat(), true);
        check(&[&[0, 1][..], &[1, b'a'].repeat(128), &[0]].concat(), false);
    }
}

//! PURE: netlink's bytes. Messages out of datagrams, attributes out of messages, requests from
//! their parts (Linux `include/uapi/linux/netlink.h`, `nfnetlink.h`).

use super::Refusal;
use nix::errno::Errno;

const HEADER: usize = 16;
/// `struct nfgenmsg` after the header of every netfilter message.
const FAMILY_HEADER: usize = 4;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;
const TEXT: u16 = 1;
const OFFSET: u16 = 2;

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// The sequence number of the request it answers.
    pub sequence: u32,
    /// What follows the netlink header.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// What an end-of-dump, acknowledgement or error message says; `None` for every other message.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<(), Refusal>> {
        let (errno, attributes) = match i32::from(self.kind) {
            libc::NLMSG_DONE => (self.integer().unwrap_or(0), self.payload.get(4..)),
            libc::NLMSG_ERROR => {
                // A message too short for its error number still is an error.
                let errno = self.integer().unwrap_or(-libc::EPROTO);
                (errno, self.payload.get(4 + HEADER..))
            }
            _ => return None,
        };
        if errno == 0 {
            return Some(Ok(()));
        }
        let mut refusal = Refusal {
            errno: Errno::from_raw(-errno),
            sequence: self.sequence,
            offset: None,
            text: None,
        };
        for (kind, value) in Attributes::new(attributes.unwrap_or_default()) {
            match kind {
                TEXT => refusal.text = Some(text(value)),
                OFFSET => refusal.offset = value.first_chunk().copied().map(u32::from_ne_bytes),
                _ => {}
            }
        }
        Some(Err(refusal))
    }

    fn integer(&self) -> Option<i32> {
        self.payload.first_chunk().copied().map(i32::from_ne_bytes)
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .trim_end_matches('\0')
        .to_owned()
}

/// The messages of a datagram, up to the first whose length lies.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header: [u8; HEADER] = *datagram.first_chunk()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let payload = datagram.get(HEADER..length)?;
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        })
    })
}

/// The attributes of a message or nest: type (without flag bits) and value. Ends at the first whose
/// length lies.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Of a nest, or of any plain run of attributes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Of the payload of a netfilter message.
    #[must_use]
    pub fn of_netfilter(payload: &'a [u8]) -> Self {
        Self(payload.get(FAMILY_HEADER..).unwrap_or_default())
    }

    /// The value of the first attribute of this type.
    #[must_use]
    pub fn get(mut self, wanted: u16) -> Option<&'a [u8]> {
        self.find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    }

    /// The attributes inside the first attribute of this type; none if there is no such.
    #[must_use]
    pub fn nest(self, wanted: u16) -> Self {
        Self(self.get(wanted).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = *self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value))
    }
}

/// A big-endian 32-bit attribute value, the way netfilter writes numbers.
#[must_use]
pub fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// A big-endian 64-bit attribute value.
#[must_use]
pub fn wide_number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

/// One request, built from its parts.
#[derive(Clone, Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// A message of netfilter subsystem `subsystem` for address family `family` (`NFPROTO_*`);
    /// `resource` is what that subsystem means by it, mostly 0.
    #[must_use]
    pub fn new(subsystem: u8, kind: u8, family: u8, resource: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&u16::from_le_bytes([kind, subsystem]).to_ne_bytes());
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        Self(bytes)
    }

    /// A message of this kind that begins with `header`, whose length is a multiple of four: any
    /// but netfilter's.
    #[must_use]
    pub fn plain(kind: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(header);
        Self(bytes)
    }

    /// Appends an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.0, kind, value);
        self
    }

    /// Appends a text attribute with its NUL.
    #[must_use]
    pub fn with_text(self, kind: u16, value: &str) -> Self {
        self.with(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends a nest of attributes.
    #[must_use]
    pub fn with_nest(self, kind: u16, inner: Nest) -> Self {
        self.with(kind | NESTED, &inner.0)
    }

    /// The message's bytes.
    #[must_use]
    pub fn finish(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a request is far below 4 GiB");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// Attributes inside an attribute.
#[derive(Clone, Debug, Default)]
pub struct Nest(Vec<u8>);

impl Nest {
    /// Appends an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.0, kind, value);
        self
    }

    /// Appends a nest of attributes.
    #[must_use]
    pub fn with_nest(self, kind: u16, inner: Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("our attributes are far below 64 KiB");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        Request::new(10, 1, 2, 0)
            .with_text(1, "abc")
            .with_nest(3, Nest::default().with(2, &7u32.to_be_bytes()))
            .finish(9, 0)
    }

    #[test]
    fn what_is_built_reads_back() {
        let bytes = sample();
        let all: Vec<_> = messages(&bytes).collect();
        let [message] = all[..] else {
            panic!("one message, not {}", all.len())
        };
        assert_eq!((message.kind, message.sequence), (10 << 8 | 1, 9));
        assert!(message.outcome().is_none());
        let attributes = Attributes::of_netfilter(message.payload);
        assert_eq!(attributes.get(1), Some(&b"abc\0"[..]));
        assert_eq!(attributes.nest(3).get(2).and_then(number), Some(7));
        assert_eq!(attributes.get(4), None);
    }

    #[test]
    fn cut_anywhere_nothing_panics_and_no_message_is_invented() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert_eq!(messages(&bytes[..end]).count(), 0, "cut at {end}");
            let attributes = Attributes::of_netfilter(&bytes[16..end.max(16)]);
            assert!(attributes.count() <= 2);
        }
    }

    #[test]
    fn a_length_of_zero_ends_the_walk() {
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(Attributes::new(&[0; 64]).count(), 0);
    }

    #[test]
    fn outcomes() {
        fn check(kind: i32, errno: i32, expected: Option<Result<(), Errno>>) {
            let mut payload = errno.to_ne_bytes().to_vec();
            payload.resize(20, 0);
            put(&mut payload, TEXT, b"why\0");
            let message = Message {
                kind: kind as u16,
                flags: 0,
                sequence: 3,
                payload: &payload,
            };
            let got = message.outcome();
            if let Some(Err(refusal)) = &got {
                assert_eq!(refusal.text.as_deref(), Some("why"));
            }
            assert_eq!(got.map(|o| o.map_err(|refusal| refusal.errno)), expected);
        }
        check(libc::NLMSG_ERROR, 0, Some(Ok(())));
        check(libc::NLMSG_ERROR, -libc::EEXIST, Some(Err(Errno::EEXIST)));
        check(libc::NLMSG_MIN_TYPE, -1, None);
    }
}

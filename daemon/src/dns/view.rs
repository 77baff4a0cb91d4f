//! A reply made ready for every client of one zone: what an upstream said, hygiene done. Writing it
//! out for one client needs no parsing. Pure.

use super::message::{self, Asked, Extended};
use crate::policy::answer::wire::{HEADER, answers_end, lifetime};
use crate::policy::answer::{Malformed, Reading, Shape};

/// A reply for whoever asks the same.
#[derive(Debug)]
pub(super) struct View {
    code: u16,
    authentic: bool,
    counts: [u16; 2],
    /// The answer and authority sections. Their compression pointers count on a header and a
    /// question of the same length before them.
    records: Box<[u8]>,
    /// Where TTLs stand, from the reply's first byte on.
    ttls: Box<[u16]>,
    /// How long it may be told again, in seconds.
    lifetime: u32,
    /// The TTL that is told, whatever the records say.
    fixed: Option<u32>,
    extended: Option<Extended<'static>>,
}

impl View {
    /// What clients may see of `reading`. The bit AD stays only where nothing was changed.
    pub(super) fn taught(
        reading: &Reading<'_>,
        message: &[u8],
        question: usize,
        struck: bool,
        shape: Shape,
    ) -> Result<Self, Malformed> {
        let mut whole = message[..HEADER + question].to_vec();
        let written = reading.write(&mut whole, shape)?;
        let counts = [written.answers, written.authority];
        let mut view = Self::of(message, whole, question, counts, shape.ceiling)?;
        if struck {
            view.authentic = false;
            view.extended = Some(Extended::prohibited("addresses were removed"));
        }
        Ok(view)
    }

    /// An upstream's `message` as it is, up to the additional section, for clients whose look-ups
    /// teach nothing.
    pub(super) fn passed(message: &[u8], question: usize, ceiling: u32) -> Result<Self, Malformed> {
        let whole = message[..answers_end(message)?].to_vec();
        let count = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        Self::of(message, whole, question, [count(6), count(8)], ceiling)
    }

    /// `whole` is a header, a question and sections with these counts of records.
    fn of(
        message: &[u8],
        mut whole: Vec<u8>,
        question: usize,
        counts: [u16; 2],
        ceiling: u32,
    ) -> Result<Self, Malformed> {
        for (at, count) in [6, 8].into_iter().zip(counts) {
            whole[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
        let life = lifetime(&whole)?;
        for at in &life.places {
            if let Some(bytes) = whole[*at..].first_chunk_mut() {
                let ttl = u32::from_be_bytes(*bytes);
                // One with the high bit set is 0 (RFC 2181 §8).
                let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
                *bytes = ttl.min(ceiling).to_be_bytes();
            }
        }
        let ttls = life.places.into_iter().map(u16::try_from);
        Ok(Self {
            code: message::code(message),
            authentic: message::is_authentic(message),
            counts,
            records: whole.split_off(HEADER + question).into(),
            // Over 64 KiB nobody could be told.
            ttls: ttls
                .collect::<Result<_, _>>()
                .map_err(|_| Malformed::Records)?,
            lifetime: life.seconds.min(ceiling),
            fixed: None,
            extended: None,
        })
    }

    /// Nobody vouches for it any more.
    pub(super) fn doubt(&mut self) {
        self.authentic = false;
    }

    /// How long it may be told again, in seconds.
    pub(super) fn lifetime(&self) -> u32 {
        self.lifetime
    }

    /// Makes it one that is too old and is told all the same, with TTLs of `seconds` (RFC 8767 §4).
    /// It must not be kept.
    pub(super) fn make_stale(&mut self, seconds: u32) {
        self.lifetime = 0;
        self.extended = Some(Extended::STALE);
        self.fixed = Some(seconds);
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.records.len() + 2 * self.ttls.len()
    }

    /// Writes the reply to `asked`, the view being `age` seconds old.
    pub(super) fn write(&self, asked: &Asked<'_>, age: u32, limit: usize, out: &mut Vec<u8>) {
        asked.begin(self.code, self.authentic, self.counts, out);
        out.extend(&*self.records);
        for at in self.ttls.iter().map(|at| usize::from(*at)) {
            if let Some(bytes) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                let aged = || u32::from_be_bytes(*bytes).saturating_sub(age);
                *bytes = self.fixed.unwrap_or_else(aged).to_be_bytes();
            }
        }
        asked.finish(self.extended, limit, out);
    }
}

//! One way in for the fuzzer. Pure.

use super::message::{Asked, Extended, rcode};

/// Reads a client's message and writes a refusal to it, as the edge does: the asked name in wire form,
/// the type and the reply; `None` where the message is no question.
#[must_use]
pub fn fuzz_question(message: &[u8]) -> Option<(Vec<u8>, u16, Vec<u8>)> {
    let asked = Asked::read(message).ok()?;
    let kept = asked.keep().ok()?;
    let mut out = Vec::new();
    let why = Some(Extended::prohibited("not listed"));
    asked.bare(rcode::REFUSED, why, asked.udp_limit(), &mut out);
    Some((kept.name.wire().to_vec(), kept.kind, out))
}

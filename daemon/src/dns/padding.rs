//! Padding of questions on encrypted lines, so that their length says little. Pure.

use crate::policy::answer::wire::{HEADER, kind};

/// The option (RFC 7830 §3), and the block that questions fill (RFC 8467 §4.1).
const PADDING: u16 = 12;
const BLOCK: usize = 128;

/// Bytes of a record before its data, after a root owner: type, class, TTL, length.
const FIXED: usize = 10;

/// `question` filled up to a whole block, if its one additional record is OPT and comes last; else as
/// it is.
pub(super) fn pad(question: &[u8]) -> Vec<u8> {
    let mut padded = question.to_vec();
    let Some(data) = opt_data(question) else {
        return padded;
    };
    let option = question.len() + 4;
    let fill = option.next_multiple_of(BLOCK) - option;
    let (Ok(fill), Ok(length)) = (
        u16::try_from(fill),
        u16::try_from(question.len() - data + 4 + fill),
    ) else {
        return padded;
    };
    padded[data - 2..data].copy_from_slice(&length.to_be_bytes());
    padded.extend(PADDING.to_be_bytes());
    padded.extend(fill.to_be_bytes());
    padded.resize(padded.len() + usize::from(fill), 0);
    padded
}

/// Where the data of the OPT record begins, when that record ends the message.
fn opt_data(question: &[u8]) -> Option<usize> {
    if question.get(4..HEADER)? != [0, 1, 0, 0, 0, 0, 0, 1] {
        return None;
    }
    let mut at = HEADER;
    while let length @ 1..=63 = usize::from(*question.get(at)?) {
        at += 1 + length;
    }
    // The root label, type and class; then the root owner of OPT.
    let fixed: &[u8; FIXED] = question.get(at + 6..)?.first_chunk()?;
    let data = at + 6 + FIXED;
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let is_opt = question[at + 5] == 0 && fixed[..2] == kind::OPT.to_be_bytes();
    (is_opt && data + length == question.len()).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::opt::EdnsOption;
    use hickory_proto::rr::{Name, RecordType};

    #[test]
    fn questions_fill_blocks() {
        fn check(name: &str, options: &[(u16, &[u8])], expected: usize) {
            let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
            message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
            let mut edns = Edns::new();
            for (code, bytes) in options {
                edns.options_mut()
                    .insert(EdnsOption::Unknown(*code, bytes.to_vec()));
            }
            message.set_edns(edns);
            let padded = pad(&message.to_vec().unwrap());
            assert_eq!(padded.len(), expected, "{name}");
            let read = Message::from_vec(&padded).unwrap();
            assert_eq!(read.queries, message.queries);
            let count = read.edns.unwrap().options().as_ref().len();
            assert_eq!(count, options.len() + 1);
        }
        check("a.example.", &[], 128);
        check(".", &[], 128);
        check("a.example.", &[(65_001, &[7; 20])], 128);
        check("a.example.", &[(65_001, &[7; 100])], 256);
        let long = format!("{}.{}.", "a".repeat(63), "b".repeat(63));
        check(&long, &[], 256);
    }

    #[test]
    fn anything_else_stays() {
        fn check(message: &[u8]) {
            assert_eq!(pad(message), message);
        }
        let header = [0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        let question = [&header[..], &[1, b'a', 0, 0, 1, 0, 1]].concat();
        let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0];
        assert_eq!(pad(&[&question[..], &opt].concat()).len(), 128);
        check(&[]);
        check(&header);
        check(&question);
        let mut other = opt;
        other[2] = 42;
        check(&[&question[..], &other].concat());
        other = opt;
        other[10] = 1;
        check(&[&question[..], &other].concat());
        check(&[&question[..], &opt, &[0]].concat());
    }
}

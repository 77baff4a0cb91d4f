//! What is wrong with a forged reply: one thing each, all else is as the true one.

use super::super::chance::Chance;
use crate::lab::wire::{self, HEADER};
use std::fmt;
use std::net::Ipv4Addr;

/// The one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// From another resolver's address.
    SourceAddress,
    /// From another port of the upstream.
    SourcePort,
    /// Another id.
    Id,
    /// Another name of the same length, under the same wildcard.
    Name,
    /// The case of one letter of the name.
    Case,
    /// Type AAAA in the question, an A record in the answer.
    Type,
    /// Class CH in the question.
    Class,
    /// No question at all.
    NoQuestion,
    /// The question twice.
    TwoQuestions,
    /// Another operation than a query.
    Opcode,
    /// A question that carries an answer.
    NoResponse,
    /// Right in all, but to another of the daemon's sockets.
    Socket,
    /// Right in all, but after the true reply.
    Late,
    /// Of one who does not see the question: id, port and case are guesses.
    Blind,
    /// Truncated, with an address all the same; the rest is right.
    Truncated,
    /// The true reply, with other addresses in its authority and additional sections.
    Bait,
    /// Nothing: it must be learned, or this test sees nothing.
    Nothing,
}

impl Field {
    /// What is sent many times for each question, in this order.
    pub(super) const MANY: [Self; 14] = [
        Self::SourceAddress,
        Self::SourcePort,
        Self::Id,
        Self::Name,
        Self::Case,
        Self::Type,
        Self::Class,
        Self::NoQuestion,
        Self::TwoQuestions,
        Self::Opcode,
        Self::NoResponse,
        Self::Socket,
        Self::Blind,
        Self::Late,
    ];

    /// The reply to `question`, which ends at `end`, that tells of `address`.
    pub(super) fn forge(
        self,
        question: &[u8],
        end: usize,
        address: Ipv4Addr,
        chance: &mut Chance,
    ) -> Vec<u8> {
        let reply = wire::Reply {
            ttl: 3600,
            addresses: vec![address],
            truncated: false,
        };
        let mut message = wire::response(question, end, &reply, false);
        match self {
            Self::SourceAddress | Self::SourcePort | Self::Socket | Self::Late | Self::Nothing
            // The true reply carries it.
            | Self::Bait => {}
            Self::Id => {
                let other = 1 + chance.below(0xFFFF);
                let [_, _, high, low] = other.to_be_bytes();
                message[0] ^= high;
                message[1] ^= low;
            }
            // A digit: the name's first label is `v` and digits.
            Self::Name => message[HEADER + 2] = other_digit(message[HEADER + 2]),
            Self::Case => {
                let letters: Vec<usize> = (HEADER..end - 4)
                    .filter(|at| message[*at].is_ascii_alphabetic())
                    .collect();
                let count = u32::try_from(letters.len()).expect("names are short");
                message[letters[chance.below(count) as usize]] ^= 0x20;
            }
            Self::Type => message[end - 3] = 28,
            Self::Class => message[end - 1] = 3,
            Self::NoQuestion => {
                message[5] = 0;
                // The owner stands in the answer itself.
                let name = question[HEADER..end - 4].to_vec();
                message.splice(HEADER..end + 2, name);
            }
            Self::TwoQuestions => {
                message[5] = 2;
                message.splice(end..end, question[HEADER..end].to_vec());
            }
            Self::Opcode => message[2] |= 4 << 3,
            Self::NoResponse => message[2] &= 0x7F,
            Self::Blind => {
                let [a, b, c, ..] = chance.next().to_be_bytes();
                message[..2].copy_from_slice(&[a, b]);
                message[HEADER + 1] ^= c & 0x20;
            }
            Self::Truncated => message[2] |= 2,
        }
        message
    }
}

fn other_digit(digit: u8) -> u8 {
    if digit == b'0' { b'1' } else { b'0' }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceAddress => "source address",
            Self::SourcePort => "source port",
            Self::Id => "id",
            Self::Name => "name",
            Self::Case => "case",
            Self::Type => "type",
            Self::Class => "class",
            Self::NoQuestion => "no question",
            Self::TwoQuestions => "two questions",
            Self::Opcode => "opcode",
            Self::NoResponse => "QR",
            Self::Socket => "socket",
            Self::Late => "too late",
            Self::Blind => "blind",
            Self::Truncated => "truncated",
            Self::Bait => "bait",
            Self::Nothing => "nothing",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Message;

    #[test]
    fn each_differs_from_the_true_reply_where_it_says() {
        let question = wire::question(7, "v12.victim.example").unwrap();
        let end = question.len();
        let mut chance = Chance::new(3);
        let mut forge =
            |field: Field| field.forge(&question, end, Ipv4Addr::new(52, 200, 0, 1), &mut chance);
        let right = forge(Field::Nothing);
        for field in Field::MANY {
            let forged = forge(field);
            let as_true = matches!(
                field,
                Field::SourceAddress | Field::SourcePort | Field::Socket | Field::Late
            );
            assert_eq!(forged == right, as_true, "{field}");
            // All of them are messages that a library reads.
            let message = Message::from_vec(&forged).unwrap_or_else(|e| panic!("{field}: {e}"));
            assert_eq!(message.answers.len(), 1, "{field}");
            let questions =
                usize::from(field != Field::NoQuestion) + usize::from(field == Field::TwoQuestions);
            assert_eq!(message.queries.len(), questions, "{field}");
        }
    }
}

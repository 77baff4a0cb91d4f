//! Messages that keep changing, and what must hold for each. Guided by what the readers say of a
//! message, not by coverage: a message that leads to a new outcome joins the corpus.

mod catalogues;
mod json;

use crate::differential::judge;
use crate::oracle::generate::{Dice, damage, response};
use hickory_proto::op::Message;
use std::collections::BTreeSet;

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The reducer of answers, against the oracle.
    Answers,
    /// The reader of clients' questions.
    Question,
    /// The reader of rendered tables.
    Tables,
    /// The reader of plain lists.
    List,
    /// The reader of comma-separated values.
    Csv,
    /// The reader of the web service's sets.
    WebService,
    /// The reader of Azure's service tags.
    ServiceTags,
    /// The reader of Amazon's address ranges.
    Aws,
    /// The reader of GitHub's `/meta`.
    GitHub,
    /// The reader of egressd's own catalogues.
    CatalogueToml,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Answers,
        Self::Question,
        Self::Tables,
        Self::List,
        Self::Csv,
        Self::WebService,
        Self::ServiceTags,
        Self::Aws,
        Self::GitHub,
        Self::CatalogueToml,
    ];

    /// Its word: the folder of its corpus under `tests/corpus`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Question => "question",
            Self::Tables => "tables",
            Self::List => "list",
            Self::Csv => "csv",
            Self::WebService => "webservice",
            Self::ServiceTags => "service-tags",
            Self::Aws => "aws",
            Self::GitHub => "github",
            Self::CatalogueToml => "catalogue-toml",
        }
    }

    /// Judges one message: a short word for what it led to, the same for messages that are alike.
    ///
    /// # Errors
    /// When something that must hold does not, with what.
    pub fn judge(self, message: &[u8]) -> Result<String, String> {
        match self {
            Self::Answers => answers(message),
            Self::Question => question(message),
            Self::Tables
            | Self::List
            | Self::Csv
            | Self::WebService
            | Self::ServiceTags
            | Self::Aws
            | Self::GitHub
            | Self::CatalogueToml => catalogues::judge(message),
        }
    }

    /// A message to begin with.
    #[must_use]
    pub fn seed(self, dice: &mut Dice) -> Vec<u8> {
        if let Some(text) = catalogues::seed(self, dice) {
            return text;
        }
        let mut message = response(dice);
        match self {
            Self::Answers
            | Self::Tables
            | Self::List
            | Self::Csv
            | Self::WebService
            | Self::ServiceTags
            | Self::Aws
            | Self::GitHub
            | Self::CatalogueToml => {}
            Self::Question => {
                // The same question, asked: a header, the name, perhaps EDNS.
                message.resize(message.len().max(12), 0);
                let root = message[12..].iter().position(|byte| *byte == 0);
                message.truncate(12 + root.unwrap_or(0) + 5);
                message[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
                if dice.chance(600) {
                    message[11] = 1;
                    let options: &[u8] = if dice.chance(500) {
                        &[]
                    } else {
                        &[0, 10, 0, 2, 1, 1]
                    };
                    message.extend([0, 0, 41, 4, 208, 0, 0, 128, 0, 0]);
                    message.push(options.len() as u8);
                    message.extend(options);
                }
            }
        }
        message
    }
}

fn answers(message: &[u8]) -> Result<String, String> {
    use egressd::policy::answer::Reading;
    let digest = message
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
    let tally = judge(message, digest & (digest >> 7));
    if !tally.is_clean() {
        return Err(tally.to_string());
    }
    Ok(match Reading::of(message) {
        Err(error) => error.to_string(),
        Ok(reading) => {
            let kind = if reading.found().iter().any(|found| found.hint) {
                "hints"
            } else {
                "addresses"
            };
            let (found, chain) = (reading.found().len(), reading.dangling());
            let size = found.checked_ilog2().map_or(0, |log| log + 1);
            let rest = (chain.is_some(), reading.ttl() == 0, tally.unwritten);
            format!("{kind} {size} {rest:?} {}", message[3] & 0xf)
        }
    })
}

fn question(message: &[u8]) -> Result<String, String> {
    let Some((name, kind, reply)) = egressd::dns::fuzz_question(message) else {
        let by_flags = message.get(2).map(|flags| flags & 0xf8);
        return Ok(format!(
            "no question {by_flags:?} {}",
            message.len().min(13)
        ));
    };
    if reply.len() > 1232 {
        return Err(format!("a reply of {} bytes", reply.len()));
    }
    let sent = Message::from_vec(&reply).map_err(|error| format!("the reply: {error}"))?;
    let asked = sent.queries.first().ok_or("a reply without question")?;
    let wire = message.get(12..12 + name.len()).unwrap_or_default();
    if !wire.eq_ignore_ascii_case(&name) {
        return Err("another name than was asked".to_owned());
    }
    if u16::from(asked.query_type) != kind || reply[..2] != message[..2] {
        return Err("a reply to another question".to_owned());
    }
    Ok(format!(
        "{} {} {:?}",
        name.len().ilog2(),
        kind.checked_ilog2().unwrap_or(0),
        (sent.edns.is_some(), reply.len().ilog2())
    ))
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Harvest {
    /// One message for each outcome.
    pub corpus: Vec<Vec<u8>>,
    /// What was said of them.
    pub outcomes: BTreeSet<String>,
}

impl Harvest {
    /// Judges `message` and keeps it if nothing like it was seen.
    ///
    /// # Errors
    /// As [`Target::judge`].
    pub fn try_one(&mut self, target: Target, message: Vec<u8>) -> Result<(), String> {
        let outcome = target.judge(&message)?;
        if message.len() <= 4096 && self.outcomes.insert(outcome) {
            self.corpus.push(message);
        }
        Ok(())
    }

    /// The next message: one of the corpus, changed, or joined with another; or a new one.
    #[must_use]
    pub fn next(&self, target: Target, dice: &mut Dice) -> Vec<u8> {
        if self.corpus.is_empty() || dice.chance(100) {
            return target.seed(dice);
        }
        let mut message = self.corpus[dice.below(self.corpus.len())].clone();
        if dice.chance(150) && !message.is_empty() {
            let other = &self.corpus[dice.below(self.corpus.len())];
            message.truncate(dice.below(message.len()));
            message.extend(other.iter().skip(dice.below(other.len() + 1)));
        }
        if dice.chance(500)
            && let Some(changed) = json::change(&message, dice)
        {
            return changed;
        }
        damage(&mut message, dice);
        message
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read the corpus")]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_holds() {
        for target in Target::ALL {
            let folder = format!("{}/corpus/{}", env!("CARGO_MANIFEST_DIR"), target.word());
            let (mut count, mut outcomes) = (0, BTreeSet::new());
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let message = std::fs::read(&path).unwrap();
                let outcome = target.judge(&message);
                outcomes.insert(outcome.unwrap_or_else(|why| panic!("{path:?}: {why}")));
                count += 1;
            }
            assert!(count >= 20 && outcomes.len() >= 10, "{folder}: {count}");
        }
    }

    #[test]
    fn a_short_run_finds_nothing() {
        for target in Target::ALL {
            let (mut harvest, mut dice) = (Harvest::default(), Dice::new(7));
            for round in 0..3000 {
                let message = harvest.next(target, &mut dice);
                let copy = message.clone();
                if let Err(why) = harvest.try_one(target, message) {
                    panic!("{target:?}, round {round}: {why}\n{copy:?}");
                }
            }
            assert!(harvest.corpus.len() > 10, "{target:?}");
        }
    }
}

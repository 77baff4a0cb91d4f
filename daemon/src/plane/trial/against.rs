//! Verdicts held against each other: the corpus's, the model's, the programs'.

use super::{Trial, TrialHook, image};
use crate::plane::model::ModelPlane;
use egressd_common::corpus::{Expected, Mutator, Promise, Vector, World};
use egressd_common::layout::{COUNTERS, counter_index};
use egressd_common::verdict::{Action, Reason};
use std::collections::BTreeMap;

/// The index by which the kernel knows the interface of a trial.
const LAN: u32 = 1;
const WAN: u32 = 2;
/// Wrong verdicts told in words; the rest are only counted.
const TOLD: usize = 20;

/// Frames judged and judged wrongly.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Judged, by promise.
    pub judged: BTreeMap<Promise, u64>,
    /// Frames that could not be tried.
    pub skipped: u64,
    /// Let pass, and should not have been.
    pub open: u64,
    /// Cut, and should not have been.
    pub cut: u64,
    /// The first of them, in words.
    pub words: Vec<String>,
}

impl Tally {
    /// Frames judged.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.judged.values().sum()
    }

    /// Counts one verdict.
    pub fn note(&mut self, vector: &Vector, passed: bool, must: bool, more: &str) {
        *self.judged.entry(vector.promise).or_default() += 1;
        if passed == must {
            return;
        }
        if passed {
            self.open += 1;
        } else {
            self.cut += 1;
        }
        if self.words.len() < TOLD {
            let what = if passed { "passed" } else { "was cut" };
            self.words
                .push(format!("{} {} {what}: {more}", vector.promise, vector.name));
        }
    }
}

/// The frame of a vector as `world` has it.
fn frame(vector: &Vector, world: World) -> Option<&[u8]> {
    if world.ethernet() {
        Some(&vector.frame)
    } else {
        vector.bare()
    }
}

/// Holds the model against the corpus in one world.
#[must_use]
pub fn corpus_on_model(vectors: &[Vector], world: World) -> Tally {
    let model = ModelPlane::of(&image(world, LAN, WAN), world.nft_behind());
    let mut tally = Tally::default();
    for vector in vectors {
        let Some(frame) = frame(vector, world) else {
            tally.skipped += 1;
            continue;
        };
        let expected = vector.rule.within(world);
        let verdict = model.judge(LAN, frame);
        let passed = match (expected, verdict.action) {
            // In audit mode what would be refused must be told apart from what passes.
            (Expected::Audited, Action::Pass) => false,
            (Expected::Forwarded | Expected::Passed | Expected::NotForwarded, Action::Audit) => {
                false
            }
            (
                Expected::Forwarded
                | Expected::Passed
                | Expected::NotForwarded
                | Expected::Audited
                | Expected::Refused,
                action,
            ) => action.passes(),
        };
        let more = format!("{expected:?} in {world:?}, {verdict:?}");
        tally.note(vector, passed, expected.passes(), &more);
    }
    tally
}

/// Holds a program against the corpus in one world.
///
/// # Errors
/// When the program cannot be loaded or tried.
pub fn corpus_on_program(
    vectors: &[Vector],
    world: World,
    hook: TrialHook,
) -> anyhow::Result<Tally> {
    let mut trial = Trial::new(&image(world, LAN, WAN), world.nft_behind(), hook)?;
    let mut tally = Tally::default();
    for vector in vectors {
        let passed = match frame(vector, world).filter(|frame| frame.len() >= 14) {
            Some(frame) => trial.passes(frame)?,
            None => None,
        };
        let Some(passed) = passed else {
            tally.skipped += 1;
            continue;
        };
        let expected = vector.rule.within(world);
        let more = format!("{expected:?} in {world:?} by {hook}");
        tally.note(vector, passed, expected.passes(), &more);
    }
    Ok(tally)
}

/// Random frames on a program and on the model, in one world.
pub struct Random {
    trial: Trial,
    model: ModelPlane,
    mutator: Mutator,
    world: World,
    hook: TrialHook,
    frame: Vec<u8>,
    expected: Vec<u64>,
    /// Frames judged by both.
    pub judged: u64,
    /// Frames of which the kernel makes no socket buffer.
    pub skipped: u64,
    /// Let pass by the program alone.
    pub open: u64,
    /// Cut by the program alone.
    pub cut: u64,
    /// The first of them, in words.
    pub words: Vec<String>,
}

impl Random {
    /// Loads the program of `hook`; frames are mutations of `vectors`, the same for the same `seed`.
    ///
    /// # Errors
    /// When the program cannot be loaded.
    pub fn new(
        vectors: Vec<Vector>,
        world: World,
        hook: TrialHook,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let image = image(world, LAN, WAN);
        Ok(Self {
            trial: Trial::new(&image, world.nft_behind(), hook)?,
            model: ModelPlane::of(&image, world.nft_behind()),
            mutator: Mutator::new(vectors, seed),
            world,
            hook,
            frame: Vec::new(),
            expected: vec![0; COUNTERS],
            judged: 0,
            skipped: 0,
            open: 0,
            cut: 0,
            words: Vec::new(),
        })
    }

    /// Tries `count` more frames.
    ///
    /// # Errors
    /// When the kernel refuses a trial.
    pub fn run(&mut self, count: u64) -> anyhow::Result<()> {
        for _ in 0..count {
            self.one()?;
        }
        Ok(())
    }

    fn one(&mut self) -> anyhow::Result<()> {
        self.mutator.next(&mut self.frame);
        let frame = if self.world.ethernet() {
            self.frame.as_slice()
        } else {
            // At least what the kernel takes for an Ethernet header.
            self.frame
                .get(14..)
                .filter(|rest| rest.len() >= 14)
                .unwrap_or(&self.frame)
        };
        let Some(passed) = self.trial.passes(frame)? else {
            self.skipped += 1;
            return Ok(());
        };
        let verdict = self.model.judge(LAN, frame);
        self.judged += 1;
        self.expected[usize::try_from(counter_index(verdict))?] += 1;
        if passed == verdict.action.passes() {
            return Ok(());
        }
        if passed {
            self.open += 1;
        } else {
            self.cut += 1;
        }
        if self.words.len() < TOLD {
            self.words.push(format!(
                "{} in {:?}: passed {passed}, the model says {verdict:?}: {frame:02x?}",
                self.hook, self.world
            ));
        }
        Ok(())
    }

    /// Frames by reason, as the model has them.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for (index, frames) in self
            .expected
            .iter()
            .enumerate()
            .filter(|(_, frames)| **frames > 0)
        {
            let number = index % egressd_common::verdict::REASONS;
            let word = u8::try_from(number)
                .ok()
                .and_then(Reason::of)
                .map_or("unknown", Reason::word);
            *sums.entry(word).or_default() += frames;
        }
        sums
    }

    /// How many frames the program counted under another zone, action or reason than the model.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn miscounted(&self) -> anyhow::Result<u64> {
        let counted = self.trial.counters()?;
        let pairs = counted.iter().zip(&self.expected);
        Ok(pairs
            .map(|(counted, expected)| counted.saturating_sub(*expected))
            .sum())
    }
}

//! What this process put in force, and the difference to what should be. PURE.

use super::kernel::TableState;
use super::transaction::{Step, StepKind};
use crate::plane::Holdings;
use crate::plane::ruleset::Ruleset;
use crate::policy::image::Image;
use crate::policy::port::ClassMask;

/// The table this process put in force.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) ruleset: Ruleset,
    pub(super) held: Holdings,
    pub(super) table: TableState,
    pub(super) rules: usize,
    /// Generation of the namespace's rules when the table was last seen to be whole.
    pub(super) generation: u32,
    /// Whether the kernel lacked an element that it should have held.
    pub(super) drifted: bool,
}

impl Standing {
    /// Remembers steps that the kernel took.
    pub(super) fn hold(&mut self, steps: &[Step]) {
        for step in steps {
            let key = (step.set.zone, step.address);
            let mask = self.held.get(&key).copied().unwrap_or_default();
            let class = ClassMask::of(step.set.class);
            let mask = match step.kind {
                StepKind::Add => mask.union(class),
                StepKind::Remove => mask.without(class),
            };
            if mask.is_empty() {
                self.held.remove(&key);
            } else {
                self.held.insert(key, mask);
            }
        }
    }
}

/// The steps from one set of holdings to another, sorted.
pub(super) fn steps(
    old: &Holdings,
    old_ruleset: &Ruleset,
    new: &Holdings,
    new_ruleset: &Ruleset,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (&(zone, address), &mask) in old {
        let gone = mask.without(new.get(&(zone, address)).copied().unwrap_or_default());
        for set in old_ruleset.learned_in(zone, address, gone) {
            steps.push(Step {
                set,
                kind: StepKind::Remove,
                address,
            });
        }
    }
    for (&(zone, address), &mask) in new {
        let fresh = mask.without(old.get(&(zone, address)).copied().unwrap_or_default());
        for set in new_ruleset.learned_in(zone, address, fresh) {
            steps.push(Step {
                set,
                kind: StepKind::Add,
                address,
            });
        }
    }
    steps.sort_unstable();
    steps
}

/// The grants of an image, without classes that the image does not explain.
pub(super) fn holdings(image: &Image, ruleset: &Ruleset) -> Holdings {
    let mut held = Holdings::new();
    for &(zone, address, mask) in &image.grants {
        let known = ruleset
            .learned_in(zone, address, mask)
            .fold(ClassMask::NONE, |mask, set| mask.with(set.class));
        if !known.is_empty() {
            held.insert((zone, address), known);
        }
    }
    held
}

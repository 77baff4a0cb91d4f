//! What an operator should know about a policy that is not wrong. Pure; prints nothing.

mod catalogue;
mod never;
mod redirect;
mod zone;

#[cfg(test)]
mod tests;

pub use catalogue::catalogue;
pub use never::never_seen;
pub use zone::{denies, is_inert, links, taken_away, zone};

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name, which stays the same between releases: `shared-inert`.
    pub id: &'static str,
    /// How much it matters.
    pub weight: Weight,
    /// What is so, as a sentence.
    pub sentence: String,
    /// What to do about it; empty where nothing needs doing.
    pub remedy: String,
    /// What it is about, one thing each.
    pub items: Vec<String>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Somebody may reach more or less than the operator thinks.
    Warning,
    /// Good to know.
    Notice,
}

/// A finding about `items` in the order of the alphabet, or none where there are none.
fn about(
    id: &'static str,
    weight: Weight,
    sentence: impl Into<String>,
    remedy: impl Into<String>,
    mut items: Vec<String>,
) -> Option<Finding> {
    items.sort();
    (!items.is_empty()).then(|| Finding {
        id,
        weight,
        sentence: sentence.into(),
        remedy: remedy.into(),
        items,
    })
}

//! What a catalogue lists and nobody uses.

use super::{Finding, Weight, about};

/// The names and wildcards of `catalogue` that no client asked for in `days` watched days; `items` say each with
/// its zone.
#[must_use]
pub fn never_seen(catalogue: &str, days: u64, items: Vec<String>) -> Option<Finding> {
    about(
        "never-seen",
        Weight::Notice,
        format!(
            "No client was ever told an address of these names of `{catalogue}`; egressd watched for {days} days."
        ),
        if days < 30 {
            "Wait longer before you take anything out: some services are needed once in a month."
        } else {
            "Leave out of the zone's `allow` what its clients do not use."
        },
        items,
    )
}

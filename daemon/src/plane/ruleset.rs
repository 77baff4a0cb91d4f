//! ruleset.

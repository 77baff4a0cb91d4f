//! conntrack.

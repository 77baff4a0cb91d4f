//! egressd.
fn main() {}

//! A small internet in network namespaces: clients, a gateway that runs the real `egressd`, and
//! servers on every address. The demo and the namespace tests are its users. It shares no code with
//! the daemon, so that a mistake there cannot hide here; only `differential` and `fuzz` call the
//! daemon's readers of messages, to hold them against others.

pub mod bench;
pub mod demo;
pub mod differential;
pub mod fuzz;
pub mod lab;
pub mod oracle;
pub mod soak;
#[cfg(test)]
mod units;

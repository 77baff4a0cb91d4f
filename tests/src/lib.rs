//! A small internet in network namespaces: clients, a gateway that runs the real `egressd`, and
//! servers on every address. The demo and the namespace tests are its users. It shares no code with
//! the daemon, so that a mistake there cannot hide here; `differential` alone calls the daemon's
//! reducer of answers, to hold it against the oracle.

pub mod bench;
pub mod demo;
pub mod differential;
pub mod lab;
pub mod oracle;

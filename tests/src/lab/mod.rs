//! Namespaces, links, processes and servers as guards: what a guard made is gone when it is dropped.

mod authority;
mod daemon;
mod deadline;
mod echo;
mod faults;
mod feed;
mod flood;
mod namespace;
mod probe;
mod process;
mod scripted;
mod store;
mod sweep;
mod topology;
mod web;
pub mod wire;
mod witness;

pub use authority::{Authority, Record, Zone};
pub use daemon::{Binaries, Daemon, Outcome, Planes};
pub(crate) use deadline::nothing_yet;
pub use deadline::{unbroken, until};
pub use echo::Echo;
pub use faults::{Class, Fault, Faults};
pub use feed::Feed;
pub use flood::{Fared, allow_sockets, ask_madly, ask_politely, hold_slowly, question};
pub use namespace::Namespace;
pub use probe::{Answer, Flow, ask, tcp, udp, udp_of};
pub use process::{Process, last_words};
pub use scripted::{Script, Scripted};
pub use sweep::{sweep, sweep_on_signal};
pub use topology::{Lab, plan};
pub use web::{WEB_PORTS, Web};
pub use witness::{Sighting, Witness};

//! The gateway of the packet corpus as an image, and runners that hold the planes against the corpus.
//! For tests and soaks; never part of a daemon.

mod against;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod tests;
mod world;

pub use super::ebpf::trial::{Trial, TrialHook};
pub use against::{Random, Tally, corpus_on_model, corpus_on_program};
pub use world::image;

//! The loop: owns `Policy` and the planes and knows the clock. Nothing else does.

pub mod engine;
#[cfg(test)]
mod engine_tests;
pub mod planes;
pub mod state;

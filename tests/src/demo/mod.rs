//! The demo: what is asked, granted, allowed and refused, attempted by real clients and judged twice:
//! by what the client got, and by what arrived on the internet.

pub mod catalogue;
pub mod client;
pub mod explain;
pub mod judge;
pub mod plan;
pub mod report;
pub mod world;

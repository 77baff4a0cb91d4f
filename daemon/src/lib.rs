//! egressd: endpoint catalogues in, kernel grants out. `ARCHITECTURE.md` draws the map.

pub mod catalogue_import;
pub mod check;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dns;
pub mod document;
pub mod fetch;
pub mod links;
pub mod lockdown;
pub mod logging;
pub mod observe;
pub mod plane;
pub mod policy;
mod seldom;
pub mod watch;

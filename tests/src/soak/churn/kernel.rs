//! What the kernel and the daemon say is granted, held against what was ever answered.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: asks nft and egressctl, and times itself"
)]

use super::clients::locked;
use super::ledger::Ledger;
use super::names::is_probed;
use crate::lab::{Daemon, Lab};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The sum of all comparisons.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Reads of the kernel's sets, and of the daemon's grants.
    pub(super) reads: [u64; 2],
    /// Reads that failed: no table after a flush, no daemon after a kill.
    pub(super) absent: [u64; 2],
    /// Elements compared, of both.
    pub(super) elements: [u64; 2],
    /// Those that no answer had given.
    pub(super) extra: BTreeSet<String>,
    /// Elements that nobody used, compared before the first kill.
    pub(super) unused: u64,
    /// The longest that one of them was there after the last answer with it had ended.
    pub(super) overstay: Duration,
    /// What the daemon and the ledger know of the first that was there for [`LONG`].
    pub(super) example: Option<String>,
}

/// No grant should be there so long after its end.
const LONG: Duration = Duration::from_secs(10);

impl Comparison {
    /// Reads both once.
    pub(super) fn read(
        &mut self,
        lab: &Lab,
        daemon: &Daemon<'_>,
        ledger: &Mutex<Ledger>,
    ) -> Result<()> {
        let began = Instant::now();
        let mut list = Command::new("nft");
        list.args(["-j", "list", "table", "inet", "egressd"]);
        let held = match lab.gateway.output(&mut list) {
            Ok(text) => Some(in_sets(&text)?),
            Err(_) => None,
        };
        self.compare(0, held.as_deref(), began, ledger);
        let began = Instant::now();
        let told = daemon.ctl(&["grants"])?;
        let held = told.status.success().then(|| in_grants(&told.json));
        let examined = self.example.is_some();
        self.compare(1, held.as_deref(), began, ledger);
        if let (false, Some(example)) = (examined, &mut self.example) {
            let of = |grant: &&Value| {
                grant["address"]
                    .as_str()
                    .is_some_and(|a| example.contains(&format!("{a},")))
            };
            let grants = told.json["grants"]
                .as_array()
                .or_else(|| told.json.as_array());
            let known: Vec<String> = grants
                .into_iter()
                .flatten()
                .filter(of)
                .map(Value::to_string)
                .collect();
            example.push_str(&format!("; {}", known.join(" ")));
        }
        Ok(())
    }

    fn compare(
        &mut self,
        source: usize,
        held: Option<&[(usize, Ipv4Addr)]>,
        began: Instant,
        ledger: &Mutex<Ledger>,
    ) {
        let Some(held) = held else {
            self.absent[source] += 1;
            return;
        };
        self.reads[source] += 1;
        self.elements[source] += held.len() as u64;
        let ledger = locked(ledger);
        let strict = ledger.strict();
        for (zone, address) in held {
            if !ledger.knows(*zone, *address) {
                self.extra.insert(format!("zone {zone} {address}"));
            }
            if strict && !is_probed(*address) {
                self.unused += 1;
                let over = ledger.over(*zone, *address, began).unwrap_or_default();
                self.overstay = self.overstay.max(over);
                if source == 1 && over > LONG && self.example.is_none() {
                    self.example = Some(format!(
                        "zone {zone} {address}, {over:.1?} after its end: {}",
                        ledger.circumstances(began)
                    ));
                }
            }
        }
    }
}

/// The elements of `z<zone>_c<class>_…` in what `nft -j` prints.
fn in_sets(text: &str) -> Result<Vec<(usize, Ipv4Addr)>> {
    let list: Value = serde_json::from_str(text)?;
    let items = list["nftables"].as_array().context("nft prints an array")?;
    let mut held = Vec::new();
    for set in items.iter().map(|item| &item["set"]) {
        let zone = set["name"].as_str().and_then(|name| {
            let (zone, _) = name.strip_prefix('z')?.split_once("_c")?;
            zone.parse::<usize>().ok()
        });
        let (Some(zone), Some(elements)) = (zone, set["elem"].as_array()) else {
            continue;
        };
        let addresses = elements.iter().filter_map(|element| {
            let text = element
                .as_str()
                .or_else(|| element["elem"]["val"].as_str())?;
            text.parse().ok()
        });
        held.extend(addresses.map(|address| (zone, address)));
    }
    Ok(held)
}

fn in_grants(list: &Value) -> Vec<(usize, Ipv4Addr)> {
    let grants = list["grants"].as_array().or_else(|| list.as_array());
    let grant = |grant: &Value| {
        let zone = super::ZONES
            .iter()
            .position(|(zone, _, _)| Some(*zone) == grant["zone"].as_str())?;
        Some((zone, grant["address"].as_str()?.parse().ok()?))
    };
    grants.into_iter().flatten().filter_map(grant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sets_of_both_zones() {
        let text = r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "z0_c3_4", "elem": ["52.110.0.1"]}},
            {"set": {"name": "z1_c3_4", "elem": ["52.110.0.1", {"elem": {"val": "52.110.0.2"}}]}},
            {"set": {"name": "own_a", "elem": ["10.20.0.1"]}}, {"set": {"name": "z1_c4_4"}}]}"#;
        let held = in_sets(text).unwrap();
        let address = |last| Ipv4Addr::new(52, 110, 0, last);
        assert_eq!(held, [(0, address(1)), (1, address(1)), (1, address(2))]);
    }
}

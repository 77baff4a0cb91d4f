//! How the upstreams do: written by the edge's thread, read by anyone. Decides nothing.

use super::stats::Count;
use crate::config::Upstream;
use crate::observe::{Happening, record};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How one upstream did since the edge started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamState {
    /// 0 for one of `[dns] upstreams`, `n` for one of the `n`th `[[dns.forward]]`.
    pub group: usize,
    /// Which.
    pub upstream: Upstream,
    /// Questions sent to it, repetitions included.
    pub asked: u64,
    /// Replies from it that answer a question.
    pub answered: u64,
    /// Questions it did not answer in time, or with an error without a question; and connections that
    /// failed.
    pub failed: u64,
    /// Whether it is asked before those that are not well.
    pub well: bool,
    /// What went wrong last, and what to do; for people.
    pub trouble: Option<Arc<String>>,
}

/// All upstreams, in the order of their groups.
#[derive(Debug, Default)]
pub(super) struct Health(Vec<Row>);

#[derive(Debug)]
struct Row {
    group: usize,
    upstream: Upstream,
    asked: Count,
    answered: Count,
    failed: Count,
    unwell: AtomicBool,
    trouble: ArcSwapOption<String>,
}

impl Health {
    pub(super) fn new(groups: &[Vec<Upstream>]) -> Self {
        let row = |group, upstream: &Upstream| Row {
            group,
            upstream: upstream.clone(),
            asked: Count::default(),
            answered: Count::default(),
            failed: Count::default(),
            unwell: AtomicBool::new(false),
            trouble: ArcSwapOption::empty(),
        };
        let of_group = |(group, upstreams): (usize, &Vec<Upstream>)| {
            let rows = upstreams.iter().map(|upstream| row(group, upstream));
            rows.collect::<Vec<_>>()
        };
        Self(groups.iter().enumerate().flat_map(of_group).collect())
    }

    pub(super) fn read(&self) -> Vec<UpstreamState> {
        let state = |row: &Row| UpstreamState {
            group: row.group,
            upstream: row.upstream.clone(),
            asked: row.asked.get(),
            answered: row.answered.get(),
            failed: row.failed.get(),
            well: !row.unwell.load(Relaxed),
            trouble: row.trouble.load_full(),
        };
        self.0.iter().map(state).collect()
    }

    pub(super) fn asked(&self, index: usize) {
        if let Some(row) = self.0.get(index) {
            row.asked.add(1);
        }
    }

    /// It answered a question: all is well.
    pub(super) fn answered(&self, index: usize) {
        let Some(row) = self.0.get(index) else { return };
        row.answered.add(1);
        if row.unwell.load(Relaxed) {
            row.unwell.store(false, Relaxed);
            record(Happening::Upstream {
                upstream: row.upstream.address,
                what: "upstream answers again".to_owned(),
                well: true,
            });
        }
    }

    /// It failed; `out` says whether others are asked first from now on.
    pub(super) fn failed(&self, index: usize, out: bool) {
        let Some(row) = self.0.get(index) else { return };
        row.failed.add(1);
        if !out || row.unwell.load(Relaxed) {
            return;
        }
        row.unwell.store(true, Relaxed);
        let trouble = row.trouble.load();
        let why = trouble
            .as_ref()
            .map_or("no answer in time", |why| why.as_str());
        record(Happening::Upstream {
            upstream: row.upstream.address,
            what: format!("upstream does not answer: {why}"),
            well: false,
        });
    }

    /// Keeps what went wrong, for [`Health::failed`] and for people.
    pub(super) fn trouble(&self, index: usize, what: &str) {
        if let Some(row) = self.0.get(index) {
            let same = row
                .trouble
                .load()
                .as_ref()
                .is_some_and(|known| **known == what);
            if !same {
                row.trouble.store(Some(Arc::new(what.to_owned())));
            }
        }
    }
}

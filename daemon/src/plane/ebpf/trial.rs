//! The kernel's programs on frames of one's choice, by `BPF_PROG_TEST_RUN`: nothing is attached and no
//! packet moves. For tests and soaks.

use super::generation::Generation;
use super::tables;
use crate::policy::image::Image;
use anyhow::Context as _;
use aya::programs::{TestRun as _, TestRunOptions};
use std::fmt;
use std::path::Path;

/// Most learned addresses of a trial.
const LEARNED: u32 = 1000;

/// The longest frame of which the kernel makes a socket buffer for a trial on every kernel.
const LINEAR: usize = 3000;

/// A hook that a program is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrialHook {
    /// XDP.
    Xdp,
    /// TCX.
    Tcx,
}

impl TrialHook {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Xdp, Self::Tcx];
}

impl fmt::Display for TrialHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
        })
    }
}

/// A program with its maps filled from an image. The kernel calls the loopback device, whose index is 1,
/// the interface that frames enter on.
pub struct Trial {
    generation: Generation,
    hook: TrialHook,
}

impl Trial {
    /// Loads the program of `hook`.
    ///
    /// # Errors
    /// When this binary has no eBPF object, or the kernel refuses it.
    pub fn new(image: &Image, nft_behind: bool, hook: TrialHook) -> anyhow::Result<Self> {
        let compiled = tables::compile(image, nft_behind)?;
        let mut generation = Generation::load(image, &compiled, LEARNED, nft_behind)?;
        match hook {
            TrialHook::Xdp => generation.xdp().map(drop)?,
            TrialHook::Tcx => generation.tcx().map(drop)?,
        }
        Ok(Self { generation, hook })
    }

    /// Whether the program lets `frame` pass; `None` where the kernel cannot make a socket buffer of it
    /// (a frame type of IP with less than an IP header behind, or more than a page).
    ///
    /// # Errors
    /// When the kernel refuses the trial, or the program returns what it should not know.
    pub fn passes(&mut self, frame: &[u8]) -> anyhow::Result<Option<bool>> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        let result = match self.hook {
            TrialHook::Xdp => self.generation.xdp()?.test_run(options),
            TrialHook::Tcx => self.generation.tcx()?.test_run(options),
        };
        let code = match (self.hook, result) {
            (TrialHook::Xdp | TrialHook::Tcx, Ok(result)) => result.return_value,
            (TrialHook::Tcx, Err(_)) if frame.len() < 14 + 40 || frame.len() > LINEAR => {
                return Ok(None);
            }
            (TrialHook::Xdp | TrialHook::Tcx, Err(error)) => {
                return Err(error).with_context(|| format!("{} on {frame:02x?}", self.hook));
            }
        };
        // XDP_DROP and XDP_PASS; TCX_DROP and TCX_NEXT, which is -1.
        match (self.hook, code.cast_signed()) {
            (TrialHook::Xdp, 1) | (TrialHook::Tcx, 2) => Ok(Some(false)),
            (TrialHook::Xdp, 2) | (TrialHook::Tcx, -1) => Ok(Some(true)),
            (TrialHook::Xdp | TrialHook::Tcx, other) => {
                anyhow::bail!("{} returned {other}", self.hook)
            }
        }
    }

    /// Packets so far, by `egressd_common::layout::counter_index`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn counters(&self) -> anyhow::Result<Vec<u64>> {
        Ok(self.generation.counts()?.packets)
    }

    /// Pins the maps, each under its own name, into a directory on a bpffs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pin_maps(&self, directory: &Path) -> anyhow::Result<()> {
        self.generation.pin_maps(directory)
    }
}

//! The memory of an array map, shared with the kernel. Words are read and written whole, so that
//! no program ever meets half of one; nothing here knows what they mean.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: maps memory and reads what the kernel says of it"
)]
#![expect(
    unsafe_code,
    reason = "the programs read the same memory; a system call per word would be a hundred times slower"
)]

use anyhow::Context as _;
use aya::maps::Map;
use memmap2::{MmapOptions, MmapRaw};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::AtomicU64;

/// The words of an array map that was made with `BPF_F_MMAPABLE`. They stay as long as this does,
/// also when the map's descriptor is closed.
#[derive(Debug)]
pub(super) struct Memory {
    mapped: MmapRaw,
    words: usize,
}

impl Memory {
    /// Maps all of `map`, whose values are whole words.
    ///
    /// # Errors
    /// When `map` is no array, or the kernel refuses.
    pub(super) fn of(map: &Map) -> anyhow::Result<Self> {
        let Map::Array(data) = map else {
            anyhow::bail!("not an array map");
        };
        let info = data.info().context("ask for the map's size")?;
        let bytes = usize::try_from(info.value_size())?.next_multiple_of(size_of::<u64>())
            * usize::try_from(info.max_entries())?;
        let mapped = MmapOptions::new()
            .len(bytes)
            .map_raw(data.fd().as_fd().as_raw_fd())
            .context("map an array map's memory")?;
        let words = bytes / size_of::<u64>();
        Ok(Self { mapped, words })
    }
}

/// Bytes of kernel memory that `map` takes, as the kernel counts them.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn footprint(map: &Map) -> anyhow::Result<u64> {
    let (Map::Array(data) | Map::PerCpuArray(data) | Map::HashMap(data) | Map::LpmTrie(data)) = map
    else {
        return Ok(0);
    };
    let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))
        .with_context(|| format!("no memlock in {path}"))?;
    Ok(line.trim().parse()?)
}

impl AsRef<[AtomicU64]> for Memory {
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: `words` words are mapped for reading and writing from the beginning of a page on,
        // for as long as `self` lives. They are never accessed but as atomics here, and by single
        // loads and stores in the kernel; any bits are a valid number.
        unsafe { std::slice::from_raw_parts(self.mapped.as_ptr().cast(), self.words) }
    }
}

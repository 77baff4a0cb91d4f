//! Which of a daemon's calls to the kernel fail and what its wall clock says, by way of a library that is
//! preloaded into it.

use super::Lab;
use anyhow::{Context, Result};
use nix::errno::Errno;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Calls of one kind, as the library numbers them: the commands of bpf(2), then netlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(pub usize);

/// The first of netlink.
const NETLINK: usize = 64;

/// Whom netlink speaks to, three calls each, four numbers apart.
const PARTNERS: [&str; 5] = ["nft", "conntrack", "nflog", "route", "other"];

/// Commands of bpf(2) by number (linux/bpf.h).
const COMMANDS: [(usize, &str); 30] = [
    (0, "map create"),
    (1, "map lookup"),
    (2, "map update"),
    (3, "map delete"),
    (4, "map next key"),
    (5, "program load"),
    (6, "object pin"),
    (7, "object get"),
    (8, "program attach"),
    (9, "program detach"),
    (10, "program test run"),
    (11, "program next id"),
    (12, "map next id"),
    (13, "program of id"),
    (14, "map of id"),
    (15, "info of descriptor"),
    (16, "program query"),
    (17, "tracepoint open"),
    (18, "btf load"),
    (19, "btf of id"),
    (20, "task query"),
    (21, "map take"),
    (22, "map freeze"),
    (24, "batch lookup"),
    (25, "batch take"),
    (26, "batch update"),
    (27, "batch delete"),
    (28, "link create"),
    (29, "link update"),
    (34, "link detach"),
];

impl Class {
    /// Every class there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let netlink =
            (0..PARTNERS.len()).flat_map(|of| (0..3).map(move |op| NETLINK + 4 * of + op));
        (0..36).chain(netlink).map(Self)
    }

    /// Whether it is netlink's.
    #[must_use]
    pub fn is_netlink(self) -> bool {
        self.0 >= NETLINK
    }

    /// Whether it sends over netlink.
    #[must_use]
    pub fn sends(self) -> bool {
        self.is_netlink() && self.0 % 4 == 1
    }

    /// Whether it receives over netlink.
    #[must_use]
    pub fn receives(self) -> bool {
        self.is_netlink() && self.0 % 4 == 2
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.0.checked_sub(NETLINK) {
            let call = ["socket", "send", "receive"].get(number % 4);
            // To whom a new socket will speak is not known.
            let with = match number {
                0 => Some(&"netfilter"),
                _ => PARTNERS.get(number / 4),
            };
            return f.pad(&format!(
                "{} {}",
                with.unwrap_or(&"?"),
                call.unwrap_or(&"?")
            ));
        }
        match COMMANDS.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.pad(&format!("bpf {name}")),
            None => f.pad(&format!("bpf command {}", self.0)),
        }
    }
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Calls of this class.
    pub class: Class,
    /// The first that fails, from 1.
    pub first: u64,
    /// How many fail one after the other.
    pub count: u64,
    /// With this error.
    pub errno: Errno,
    /// Over netlink: the request is taken, and the kernel's answer is the error.
    pub refused: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.refused { "refused: " } else { "" };
        let which = if self.count == 1 { "" } else { " and later" };
        let (class, first, errno) = (self.class, self.first, self.errno);
        write!(f, "{class} #{first}{which}: {how}{errno:?}")
    }
}

/// Slots of the shared file, eight bytes each; the library has the same.
const CLASS: u64 = 0;
const HITS: u64 = 5;
const FAILED: u64 = 6;
const AHEAD: u64 = 7;
const CALLS: u64 = 16;
const ALL: u64 = 128;

/// The hand on the library's switch.
#[derive(Debug)]
pub struct Faults {
    file: File,
    path: PathBuf,
    library: PathBuf,
}

impl Faults {
    /// Nothing fails yet. `library` is what `cargo build --package egressd-shim` made.
    ///
    /// # Errors
    /// When there is no such library, or no file for it.
    pub fn new(lab: &Lab, library: &Path) -> Result<Self> {
        let library = library
            .canonicalize()
            .with_context(|| format!("{}: build the package egressd-shim", library.display()))?;
        let path = lab.dir().join("faults");
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)?;
        file.set_len(ALL * 8)?;
        Ok(Self {
            file,
            path,
            library,
        })
    }

    /// What a daemon's environment must have for it.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, OsString)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library.clone().into()),
            ("EGRESSD_SHIM".to_owned(), self.path.clone().into()),
        ]
    }

    /// Lets calls fail from now on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn arm(&self, fault: Fault) -> Result<()> {
        self.disarm()?;
        let numbers = [
            fault.first,
            fault.count,
            u64::try_from(fault.errno as i32)?,
            if fault.refused { 2 } else { 0 },
            0,
            0,
        ];
        for (slot, number) in (1..).zip(numbers) {
            self.set(slot, number)?;
        }
        self.set(CLASS, fault.class.0 as u64 + 1)
    }

    /// No call fails any more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn disarm(&self) -> Result<()> {
        self.set(CLASS, 0)
    }

    /// Moves the daemon's wall clock, and no other, ahead of the machine's.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn wall_clock_ahead(&self, seconds: i64) -> Result<()> {
        self.set(AHEAD, seconds.cast_unsigned())
    }

    /// Calls of the armed class since it was armed, and how many of them failed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn seen(&self) -> Result<[u64; 2]> {
        Ok([self.get(HITS)?, self.get(FAILED)?])
    }

    /// All calls of a class so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn calls(&self, class: Class) -> Result<u64> {
        self.get(CALLS + class.0 as u64)
    }

    fn set(&self, slot: u64, number: u64) -> Result<()> {
        Ok(self.file.write_all_at(&number.to_ne_bytes(), slot * 8)?)
    }

    fn get(&self, slot: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, slot * 8)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_name_of_its_own() {
        fn check(class: usize, expected: &str) {
            assert_eq!(Class(class).to_string(), expected);
        }
        check(5, "bpf program load");
        check(29, "bpf link update");
        check(64, "netfilter socket");
        check(65, "nft send");
        check(66, "nft receive");
        check(76, "route socket");
        let names: std::collections::BTreeSet<String> =
            Class::all().map(|class| class.to_string()).collect();
        assert_eq!(names.len(), Class::all().count());
    }
}

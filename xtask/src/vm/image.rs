//! An initial file system: the programs of a virtual machine with the libraries they need, as a
//! `cpio` archive (format "newc", Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).

use crate::shell::{capture, command};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;
/// Major and minor number of `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);
const LAST: &str = "TRAILER!!!";

/// Files of an archive by their absolute paths.
#[derive(Debug, Default)]
pub(super) struct Image {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Image {
    /// Adds a file.
    pub(super) fn add(&mut self, path: impl Into<PathBuf>, content: Vec<u8>) {
        self.files.insert(path.into(), content);
    }

    /// Adds a program of this machine as `path`, without its debug information, and every shared
    /// library it names.
    ///
    /// # Errors
    /// When it or a library cannot be read.
    pub(super) fn program(&mut self, program: &Path, path: impl Into<PathBuf>) -> Result<()> {
        self.program_below(Path::new("/"), program, path)
    }

    /// The same for a system below `root`: that is where the libraries go.
    ///
    /// # Errors
    /// When it or a library cannot be read.
    pub(super) fn program_below(
        &mut self,
        root: &Path,
        program: &Path,
        path: impl Into<PathBuf>,
    ) -> Result<()> {
        let linked = capture(command("ldd").arg(program))
            .with_context(|| format!("what {} is linked with", program.display()))?;
        for library in libraries(&linked) {
            let place = root.join(name(library));
            if !self.files.contains_key(&place) {
                self.add(place, content(library)?);
            }
        }
        let slim = crate::shell::target().join("vm/slim");
        capture(command("strip").arg("-o").arg(&slim).arg(program))?;
        self.add(path, content(&slim)?);
        Ok(())
    }

    /// The archive.
    pub(super) fn archive(&self) -> Vec<u8> {
        let mut archive = Archive::default();
        let directories: BTreeSet<&Path> = self
            .files
            .keys()
            .flat_map(|path| path.ancestors().skip(1))
            .chain([Path::new("/dev")])
            .filter(|path| path.parent().is_some())
            .collect();
        for directory in directories {
            archive.entry(&name(directory), DIRECTORY, (0, 0), &[]);
        }
        // Process 1 has no standard output without it.
        archive.entry("dev/console", DEVICE, CONSOLE, &[]);
        for (path, content) in &self.files {
            archive.entry(&name(path), FILE, (0, 0), content);
        }
        archive.entry(LAST, 0, (0, 0), &[]);
        archive.bytes
    }
}

fn content(path: &Path) -> Result<Vec<u8>> {
    crate::shell::bytes_of(path)
}

/// Names in an archive are relative.
fn name(path: &Path) -> String {
    path.strip_prefix("/").unwrap_or(path).display().to_string()
}

/// The files in what `ldd` prints.
fn libraries(linked: &str) -> impl Iterator<Item = &Path> {
    linked.lines().filter_map(|line| {
        let found = line.split_once("=> ").map_or(line, |(_, found)| found);
        let path = found.split_whitespace().next()?;
        path.starts_with('/').then(|| Path::new(path))
    })
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).expect("files are far below 4 GiB");
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length(content.len()),
            0,
            0,
            device.0,
            device.1,
            length(name.len() + 1),
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found() {
        fn check(line: &str, expected: Option<&str>) {
            assert_eq!(libraries(line).next(), expected.map(Path::new), "{line}");
        }
        check("\tlinux-vdso.so.1 (0x00007ffc)", None);
        check(
            "\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f)",
            Some("/lib/x86_64-linux-gnu/libmnl.so.0"),
        );
        check(
            "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)",
            Some("/lib64/ld-linux-x86-64.so.2"),
        );
        check("\tlibgone.so.1 => not found", None);
    }

    #[test]
    fn archives_are_what_the_kernel_reads() {
        let mut image = Image::default();
        image.add("/a/b", b"hello".to_vec());
        let bytes = image.archive();
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<&str> = text
            .split("070701")
            .skip(1)
            .filter_map(|entry| entry.get(13 * 8..)?.split('\0').next())
            .collect();
        assert_eq!(names, ["a", "dev", "dev/console", "a/b", LAST]);
        assert_eq!(bytes.len() % 4, 0);
        let content = text.find("hello").expect("the file's content");
        assert_eq!(content % 4, 0);
    }
}

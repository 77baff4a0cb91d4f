//! Debian's kernels and QEMU out of its archive, unpacked below `target/`: apt, with a list of
//! sources of its own, finds, fetches and verifies them; nothing is installed.

use crate::shell::{age, capture, command, exists, on_path, run, say, target, text_of, write};
use anyhow::{Context, Result, bail, ensure};
use std::cmp::Reverse;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Each has kernels of another series.
const SUITES: &[&str] = &[
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
    "sid",
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where QEMU's own libraries land.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// How old package lists may be.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// Debian's archive, as this machine's apt reaches it.
#[derive(Debug)]
pub(super) struct Archive {
    dir: PathBuf,
}

/// A kernel, unpacked.
#[derive(Debug)]
pub(super) struct Kernel {
    /// `6.1.0-50-cloud-amd64`.
    pub(super) release: String,
    /// What QEMU boots.
    pub(super) image: PathBuf,
    /// The directory that all its modules are below.
    pub(super) modules: PathBuf,
}

/// An emulator, and how it finds its parts.
#[derive(Debug)]
pub(super) struct Emulator {
    program: PathBuf,
    /// The root of what was unpacked; `None` for one that is installed.
    unpacked: Option<PathBuf>,
}

impl Emulator {
    /// A command that starts it.
    pub(super) fn command(&self) -> Command {
        let mut emulator = command(&self.program);
        if let Some(root) = &self.unpacked {
            let libraries = LIBRARIES.map(|part| root.join(part).display().to_string());
            emulator.env("LD_LIBRARY_PATH", libraries.join(":"));
            for data in ["usr/share/qemu", "usr/share/seabios"] {
                emulator.arg("-L").arg(root.join(data));
            }
        }
        emulator
    }
}

impl Archive {
    /// Opens it and sees to it that the package lists are there and at most a day old.
    ///
    /// # Errors
    /// When this is no Debian system, or its mirror cannot be reached.
    pub(super) fn open() -> Result<Self> {
        ensure!(
            on_path("apt-get").is_some() && on_path("dpkg-deb").is_some(),
            "kernels come as Debian packages, and this machine has no apt"
        );
        let dir = target().join("vm");
        let archive = Self { dir };
        let stamp = archive.dir.join("lists/fetched");
        if age(&stamp).is_some_and(|age| age < FRESH) {
            return Ok(archive);
        }
        let signed = if exists(KEYRING) {
            format!("[arch=amd64 signed-by={KEYRING}]")
        } else {
            "[arch=amd64]".to_owned()
        };
        let mirror = mirror()?;
        let sources: Vec<String> = SUITES
            .iter()
            .map(|suite| format!("deb {signed} {mirror} {suite} main\n"))
            .collect();
        write(archive.dir.join("sources.list"), sources.concat())?;
        for part in ["lists/partial", "cache/archives/partial"] {
            write(archive.dir.join(part).join(".keep"), "")?;
        }
        write(archive.dir.join("apt.conf"), archive.configuration())?;
        say("fetching the package lists of the kernel matrix");
        run(archive.apt("apt-get").args(["-q", "update"]))?;
        write(stamp, "")?;
        Ok(archive)
    }

    fn configuration(&self) -> String {
        let dir = self.dir.display();
        format!(
            "Dir::Etc::sourcelist \"{dir}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State::lists \"{dir}/lists\";\n\
             Dir::Cache \"{dir}/cache\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             APT::Sandbox::User \"\";\n"
        )
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = command(program);
        apt.env("APT_CONFIG", self.dir.join("apt.conf"));
        apt.env("LC_ALL", "C");
        apt
    }

    /// The newest kernel whose version begins with `wanted` (`6.1`), or of all (`newest`); `None`
    /// where the archive has no such.
    ///
    /// # Errors
    /// When it cannot be fetched, verified or unpacked.
    pub(super) fn kernel(&self, wanted: &str) -> Result<Option<Kernel>> {
        const CLOUD: &str = "^linux-image-[0-9].*-cloud-amd64$";
        let names = capture(
            self.apt("apt-cache")
                .args(["search", "--names-only", CLOUD]),
        )?;
        let Some(release) = newest(&names, wanted) else {
            return Ok(None);
        };
        let root = self.dir.join("kernels").join(&release);
        // Newer packages have it in parts.
        let parts = ["linux-image", "linux-binary", "linux-modules"];
        let packages: Vec<String> = parts
            .iter()
            .map(|part| format!("{part}-{release}"))
            .filter(|name| {
                let mut show = self.apt("apt-cache");
                capture(show.args(["show", name])).is_ok_and(|text| !text.trim().is_empty())
            })
            .collect();
        self.unpack(&packages, &root)?;
        let image = [
            root.join(format!("boot/vmlinuz-{release}")),
            root.join(format!("usr/lib/modules/{release}/vmlinuz")),
        ];
        let image = image.into_iter().find(|path| exists(path));
        let modules = ["lib", "usr/lib"].map(|lib| root.join(lib).join("modules").join(&release));
        let modules = modules.into_iter().find(|path| exists(path));
        Ok(Some(Kernel {
            image: image.with_context(|| format!("the package of {release} has no kernel"))?,
            modules: modules.with_context(|| format!("the package of {release} has no modules"))?,
            release,
        }))
    }

    /// The installed emulator, or one unpacked below `target/`.
    ///
    /// # Errors
    /// When it cannot be fetched or unpacked.
    pub(super) fn emulator(&self) -> Result<Emulator> {
        const NAME: &str = "qemu-system-x86_64";
        if let Some(program) = on_path(NAME) {
            return Ok(Emulator {
                program,
                unpacked: None,
            });
        }
        let codename = codename()?;
        // What an installation would bring in, and is not on this machine.
        let mut plan = self.apt("apt-get");
        plan.args(["-o", &format!("APT::Default-Release={codename}")])
            .args(["install", "-s", "-q", "--no-install-recommends"])
            .arg("qemu-system-x86");
        let plan = capture(&mut plan).context("what QEMU needs")?;
        let root = self.dir.join("qemu");
        self.unpack(&packages(&plan, &codename), &root)?;
        Ok(Emulator {
            program: root.join("usr/bin").join(NAME),
            unpacked: Some(root),
        })
    }

    /// Fetches packages and unpacks them into `root`, once.
    fn unpack(&self, packages: &[String], root: &PathBuf) -> Result<()> {
        let stamp = root.join(".unpacked");
        if exists(&stamp) {
            return Ok(());
        }
        ensure!(!packages.is_empty(), "no package for {}", root.display());
        // A run that was stopped leaves half of it.
        run(command("rm").arg("-rf").arg(root))?;
        let fetched = root.join(".packages");
        write(fetched.join(".keep"), "")?;
        let mut fetch = self.apt("apt-get");
        run(fetch
            .current_dir(&fetched)
            .args(["-q", "download"])
            .args(packages))?;
        let list = capture(command("find").arg(&fetched).args(["-name", "*.deb"]))?;
        for package in list.lines() {
            run(command("dpkg-deb").args(["-x", package]).arg(root))?;
        }
        run(command("rm").arg("-r").arg(&fetched))?;
        write(stamp, "")
    }
}

/// The address of the mirror of Debian that this machine uses.
fn mirror() -> Result<String> {
    let targets = capture(command("apt-get").args([
        "indextargets",
        "--format",
        "$(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let found = targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian "))
        .map(str::to_owned);
    found.context("apt names no mirror of Debian; run `apt-get update` first")
}

fn codename() -> Result<String> {
    let release = text_of("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let Some(name) = name.filter(|name| SUITES.contains(name)) else {
        bail!("this is none of Debian's {}", SUITES.join(", "));
    };
    Ok(name.to_owned())
}

/// The packages that a simulated installation would install, with their release.
fn packages(plan: &str, codename: &str) -> Vec<String> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next())
        .map(|name| format!("{name}/{codename}"))
        .collect()
}

/// Of `linux-image-… - description` lines the newest release that begins with `wanted`.
fn newest(names: &str, wanted: &str) -> Option<String> {
    names
        .lines()
        .filter_map(|line| line.split(' ').next()?.strip_prefix("linux-image-"))
        .filter(|release| wanted == "newest" || belongs(release, wanted))
        .min_by_key(|release| Reverse(numbers(release)))
        .map(str::to_owned)
}

/// `6.1` is not the beginning of `6.12`.
fn belongs(release: &str, series: &str) -> bool {
    release
        .strip_prefix(series)
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_found() {
        const NAMES: &str = "linux-image-6.1.0-9-cloud-amd64 - a\n\
            linux-image-6.1.0-50-cloud-amd64 - b\n\
            linux-image-6.12.9+deb13-cloud-amd64 - c\n\
            linux-image-6.12.107+deb13-cloud-amd64 - c\n";
        fn check(wanted: &str, expected: Option<&str>) {
            assert_eq!(newest(NAMES, wanted).as_deref(), expected, "{wanted}");
        }
        check("6.1", Some("6.1.0-50-cloud-amd64"));
        check("6.12", Some("6.12.107+deb13-cloud-amd64"));
        check("6", Some("6.12.107+deb13-cloud-amd64"));
        check("newest", Some("6.12.107+deb13-cloud-amd64"));
        check("5.15", None);
    }

    #[test]
    fn a_plan_names_packages() {
        let plan = "Remv a [1]\nInst libx (1 Debian:12/oldstable [amd64])\nConf libx (1)\n";
        assert_eq!(packages(plan, "bookworm"), ["libx/bookworm"]);
    }
}

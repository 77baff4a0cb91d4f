#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads what the kernel says of its links, waits until one is gone"
)]
//! The links between programs and interfaces: attaches, pins, adopts, swaps and checks them.
//! A pinned link outlives the process, and swapping its program is one atomic step.

use super::clsact;
use super::generation::Generation;
use super::interfaces::Wanted;
use crate::plane::drift::{Found, Word};
use anyhow::Context as _;
use aya::programs::links::{FdLink, LinkOrder, LinkType, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{SchedClassifier, TcAttachType, XdpMode};
use nix::sys::statfs::{BPF_FS_MAGIC, fstatfs};
use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The word of [`Hook::Clsact`] in the names of pins, which are empty directories: its filters live
/// on without one, and this says where they are.
const CLSACT: &str = "clsact";

/// Longer than the kernel takes to detach a link that nothing holds any more.
const DETACHED: Duration = Duration::from_millis(500);

/// Where in the kernel's receive path a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    /// In the driver.
    XdpNative,
    /// XDP after the driver; slow.
    XdpGeneric,
    /// At traffic control's ingress.
    Tcx,
    /// The same before Linux 6.6, without a link.
    Clsact,
    /// At traffic control's egress, for what the gateway itself sends.
    TcxEgress,
}

impl Hook {
    /// The word in the names of pins.
    const fn word(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tcx => "tcx",
            Self::Clsact => CLSACT,
            Self::TcxEgress => "tcx-egress",
        }
    }

    /// `None` where it has none.
    const fn link_type(self) -> Option<LinkType> {
        match self {
            Self::XdpNative | Self::XdpGeneric => Some(LinkType::Xdp),
            Self::Tcx | Self::TcxEgress => Some(LinkType::Tcx),
            Self::Clsact => None,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XdpNative => "xdp native",
            Self::XdpGeneric => "xdp generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact (this kernel has no TCX)",
            Self::TcxEgress => "tcx egress",
        })
    }
}

/// A program attached to an interface through a pinned link.
#[derive(Debug)]
pub(super) struct Attached {
    /// The interface's index.
    pub(super) index: u32,
    /// The interface's name when it was attached.
    pub(super) name: String,
    /// Where.
    pub(super) hook: Hook,
    /// `None` for [`Hook::Clsact`].
    link: Option<FdLink>,
    pin: PathBuf,
    /// Where the link was last found among the descriptors of this process.
    descriptor: Cell<Option<u32>>,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    program: u32,
    /// 0 once the interface is gone or the link was detached by force.
    interface: u32,
}

impl Attached {
    /// Attaches the program of `generation` anew and pins the link below `directory`.
    pub(super) fn attach(
        generation: &mut Generation,
        (index, wanted): (u32, &Wanted),
        hook: Hook,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        if hook == Hook::Clsact {
            return Self::attach_filter(generation, (index, wanted), directory);
        }
        // A device runs XDP in one place only: what an earlier configuration chose must go first.
        let mut removed = false;
        for other in [Hook::XdpNative, Hook::XdpGeneric] {
            if [Hook::XdpNative, Hook::XdpGeneric].contains(&hook) && hook != other {
                removed |= remove_if_there(&pin_path(directory, &wanted.name, other))?;
            }
        }
        let mut attach = || match hook {
            Hook::XdpNative => attach_xdp(generation, index, XdpMode::Driver),
            Hook::XdpGeneric => attach_xdp(generation, index, XdpMode::Skb),
            Hook::Tcx => attach_tcx(generation.tcx()?, &wanted.name, TcAttachType::Ingress),
            Hook::TcxEgress => attach_tcx(generation.sent()?, &wanted.name, TcAttachType::Egress),
            Hook::Clsact => anyhow::bail!("clsact has no links"),
        };
        let mut link = attach();
        // The kernel detaches a link whose last pin went a moment later, on a work queue.
        let deadline = Instant::now() + DETACHED;
        while removed && link.as_ref().is_err_and(is_taken) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            link = attach();
        }
        let link = link?;
        let facts = facts(&link, &Cell::default())?;
        anyhow::ensure!(
            facts.interface == index,
            "{} is interface {} now, not {index}",
            wanted.name,
            facts.interface
        );
        let pin = pin_path(directory, &wanted.name, hook);
        remove_if_there(&pin)?;
        let link = link
            .pin(&pin)
            .with_context(|| format!("pin the link at {}; is it on a bpffs?", pin.display()))?;
        Ok(Self {
            index,
            name: wanted.name.clone(),
            hook,
            link: Some(link.into()),
            pin,
            descriptor: Cell::default(),
        })
    }

    fn attach_filter(
        generation: &mut Generation,
        (index, wanted): (u32, &Wanted),
        directory: &Path,
    ) -> anyhow::Result<Self> {
        // Behind TCX a program of others could let a packet pass for good.
        anyhow::ensure!(lacks_tcx(&wanted.name), "this kernel has TCX");
        let attached = Self::of_filter((index, wanted), directory)?;
        let program = generation.tcx()?.fd()?;
        clsact::create(index, program.as_fd())?;
        Ok(attached)
    }

    /// Marks the filter of an interface.
    fn of_filter((index, wanted): (u32, &Wanted), directory: &Path) -> anyhow::Result<Self> {
        let pin = pin_path(directory, &wanted.name, Hook::Clsact);
        make_if_not_there(&pin)?;
        Ok(Self {
            index,
            name: wanted.name.clone(),
            hook: Hook::Clsact,
            link: None,
            pin,
            descriptor: Cell::default(),
        })
    }

    /// Takes up a link that an earlier process pinned, if it is what its name says: a link of this
    /// kind, on the interface with this index. Any other pin of that name is removed.
    pub(super) fn adopt(
        (index, wanted): (u32, &Wanted),
        hook: Hook,
        directory: &Path,
    ) -> anyhow::Result<Option<Self>> {
        let pin = pin_path(directory, &wanted.name, hook);
        let Some(link_type) = hook.link_type() else {
            // The filter tells more than its mark, which may have gone with the bpffs.
            return match clsact::find(index)? {
                Some(_) => Self::of_filter((index, wanted), directory).map(Some),
                None => Ok(None),
            };
        };
        if !pin.exists() {
            return Ok(None);
        }
        // Only what is known to be something else goes: with the pin of a link goes its program.
        let read = || -> anyhow::Result<(FdLink, bool)> {
            let link = FdLink::from(PinnedLink::from_pin(&pin)?);
            let is_ours = link.info()?.link_type().is_ok_and(|kind| kind == link_type)
                && facts(&link, &Cell::default())?.interface == index;
            Ok((link, is_ours))
        };
        match read() {
            Ok((link, true)) => {
                return Ok(Some(Self {
                    index,
                    name: wanted.name.clone(),
                    hook,
                    link: Some(link),
                    pin,
                    descriptor: Cell::default(),
                }));
            }
            Ok((_, false)) => {}
            Err(error) if is_no_link(&error) => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", pin.display())),
        }
        log::warn!(target: "ebpf", "{} is not a link of {}: removed", pin.display(), wanted.name);
        remove_if_there(&pin)?;
        Ok(None)
    }

    /// Puts the program of `generation` in the place of the one that runs, between two packets.
    pub(super) fn swap(&mut self, generation: &mut Generation) -> anyhow::Result<()> {
        if self.hook == Hook::Clsact {
            return clsact::replace(self.index, generation.tcx()?.fd()?.as_fd());
        }
        // aya takes the link by value and closes it on an error: give it a second descriptor, if the
        // pin is there.
        let second = match PinnedLink::from_pin(&self.pin) {
            Ok(pinned) => FdLink::from(pinned),
            Err(error) => {
                let held = self.link.take();
                held.ok_or(error)
                    .with_context(|| format!("open the pinned link {}", self.pin.display()))?
            }
        };
        self.descriptor.set(None);
        let link = match self.hook {
            Hook::XdpNative | Hook::XdpGeneric => {
                let program = generation.xdp()?;
                let id = program.attach_to_link(XdpLink::try_from(second)?)?;
                program.take_link(id)?.try_into()?
            }
            Hook::TcxEgress => {
                let program = generation.sent()?;
                let id = program.attach_to_link(SchedClassifierLink::try_from(second)?)?;
                program.take_link(id)?.try_into()?
            }
            Hook::Tcx | Hook::Clsact => {
                let program = generation.tcx()?;
                let id = program.attach_to_link(SchedClassifierLink::try_from(second)?)?;
                program.take_link(id)?.try_into()?
            }
        };
        self.link = Some(link);
        Ok(())
    }

    /// Whether the link is still pinned, attached to its interface, and runs the program of
    /// `generation`.
    pub(super) fn look(&self, generation: &mut Generation) -> Result<(), Found> {
        let name = &self.name;
        let unknown = |error| Found::new(Word::Unknown, format!("{name}: {error:#}"));
        let program = self.program(generation).map_err(unknown)?;
        let facts = self.facts().map_err(unknown)?;
        if facts.interface != self.index {
            let word = match self.hook {
                Hook::XdpNative | Hook::XdpGeneric => Word::XdpDetached,
                Hook::Tcx | Hook::Clsact | Hook::TcxEgress => Word::TcxDetached,
            };
            let what = format!("{name}: the link is no longer attached");
            return Err(Found::new(word, what));
        }
        if facts.program != program {
            let what = format!("{name}: another program runs");
            return Err(Found::new(Word::ForeignProgram, what));
        }
        if !self.pin.exists() {
            let what = format!("{name}: the link's pin is gone");
            return Err(Found::new(Word::PinMissing, what));
        }
        Ok(())
    }

    fn program(&self, generation: &mut Generation) -> anyhow::Result<u32> {
        Ok(match self.hook {
            Hook::XdpNative | Hook::XdpGeneric => generation.xdp()?.info()?.id(),
            Hook::Tcx | Hook::Clsact => generation.tcx()?.info()?.id(),
            Hook::TcxEgress => generation.sent()?.info()?.id(),
        })
    }

    /// Whether it is pinned as the link of an interface called `name`.
    pub(super) fn is_pinned(&self, name: &str, directory: &Path) -> bool {
        self.pin == pin_path(directory, name, self.hook) && self.pin.exists()
    }

    /// Whether the link has lost its interface, so that only a new one helps.
    pub(super) fn is_dead(&self) -> bool {
        !self
            .facts()
            .is_ok_and(|facts| facts.interface == self.index)
    }

    fn facts(&self) -> anyhow::Result<Facts> {
        let Some(link) = &self.link else {
            if self.hook != Hook::Clsact {
                return Ok(Facts::default());
            }
            let program = clsact::find(self.index)?;
            return Ok(Facts {
                program: program.unwrap_or_default(),
                interface: program.map_or(0, |_| self.index),
            });
        };
        facts(link, &self.descriptor)
    }

    /// Whether VLAN tags that the card took off are still known here.
    pub(super) const fn sees_tags(&self) -> bool {
        match self.hook {
            Hook::XdpNative | Hook::XdpGeneric => false,
            Hook::Tcx | Hook::Clsact | Hook::TcxEgress => true,
        }
    }

    /// Pins the link again if someone removed the pin, or where the interface is called `name` now: a
    /// new one may soon have its old name.
    pub(super) fn keep_pinned(self, name: &str, directory: &Path) -> anyhow::Result<Self> {
        let wanted = pin_path(directory, name, self.hook);
        if self.pin == wanted && wanted.exists() {
            return Ok(self);
        }
        let Self {
            index,
            hook,
            link,
            pin,
            ..
        } = self;
        let link = match link {
            Some(link) => {
                // Of another interface that had this name before; its own link is held by descriptor.
                remove_if_there(&wanted)?;
                let link = link
                    .pin(&wanted)
                    .with_context(|| format!("pin {} again", wanted.display()))?;
                Some(link.into())
            }
            None => {
                // Only the mark has a name: the filter stays where it is.
                make_if_not_there(&wanted)?;
                if pin != wanted {
                    unmark(&pin)?;
                }
                None
            }
        };
        Ok(Self {
            index,
            name: name.to_owned(),
            hook,
            link,
            pin: wanted,
            descriptor: Cell::default(),
        })
    }

    /// Removes the pin and closes the link, which detaches the program.
    pub(super) fn detach(self) -> anyhow::Result<()> {
        remove_if_there(&self.pin).map(drop)
    }
}

fn attach_xdp(generation: &mut Generation, index: u32, mode: XdpMode) -> anyhow::Result<FdLink> {
    let program = generation.xdp()?;
    let id = program.attach_to_if_index(index, mode)?;
    // Where links are refused aya attaches by netlink instead, which ends with the process or with
    // anyone's `ip link set … xdp off`. Dropping what it made detaches it again.
    FdLink::try_from(program.take_link(id)?)
        .context("the kernel refused a BPF link, and nothing less outlives this process")
}

fn attach_tcx(
    program: &mut SchedClassifier,
    interface: &str,
    way: TcAttachType,
) -> anyhow::Result<FdLink> {
    // First, because a program before ours could let a packet pass for good.
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, way, options)?;
    FdLink::try_from(program.take_link(id)?).context("the kernel refused a TCX link")
}

/// Whether traffic control knows no links, as before Linux 6.6. In doubt it does.
fn lacks_tcx(interface: &str) -> bool {
    let asked = SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
    asked.is_err_and(|error| has_code(&error.into(), &[libc::EINVAL]))
}

/// bpffs reserves dots in names; interfaces may have them, but never a colon.
fn pin_path(directory: &Path, interface: &str, hook: Hook) -> PathBuf {
    directory.join(format!("{}:{}", interface.replace('.', "::"), hook.word()))
}

/// The interface of a mark of [`Hook::Clsact`]; `None` for all other pins.
fn marked(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(CLSACT)?;
    Some(name.strip_suffix(':')?.replace("::", "."))
}

/// Removes every pin in `directory` that is not of `kept`, and returns how many those were; a link
/// that nothing else holds is detached by that. A pin that stays does not keep the others.
pub(super) fn sweep<'a>(
    directory: &Path,
    kept: impl Iterator<Item = &'a Attached>,
) -> anyhow::Result<usize> {
    let kept: Vec<&Path> = kept.map(|attached| attached.pin.as_path()).collect();
    let mut removed = 0;
    let mut outcome = Ok(());
    for entry in std::fs::read_dir(directory).context("list the pinned links")? {
        let path = entry?.path();
        if kept.contains(&path.as_path()) {
            continue;
        }
        log::info!(target: "ebpf", "detach the left-over link {}", path.display());
        match remove_if_there(&path) {
            Ok(there) => removed += usize::from(there),
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome.map(|()| removed)
}

/// Removes every pin in `directory`, which another user may own: root follows no link from there, and removes
/// nothing but what lies on a bpffs. Returns how many there were.
///
/// # Errors
/// When it cannot be looked into, or a pin stays; the others are gone all the same.
pub(super) fn sweep_all(directory: &Path) -> anyhow::Result<usize> {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(directory);
    let opened = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        opened => opened.with_context(|| format!("look into {}", directory.display()))?,
    };
    if fstatfs(&opened)?.filesystem_type() != BPF_FS_MAGIC {
        log::warn!(
            target: "ebpf",
            "{} is not on a bpffs: nothing in it is a pin, and nothing is removed", directory.display()
        );
        return Ok(0);
    }
    // Whatever takes the directory's place meanwhile, this is the one that was looked at.
    let descriptor = opened.as_raw_fd();
    sweep(
        &PathBuf::from(format!("/proc/self/fd/{descriptor}")),
        std::iter::empty(),
    )
}

/// Whether an attach failed because another XDP program is on the device: in the same mode
/// (`EBUSY`) or in the other one (`EEXIST`), see `dev_xdp_attach` in Linux `net/core/dev.c`.
pub(super) fn is_taken(error: &anyhow::Error) -> bool {
    has_code(error, &[libc::EBUSY, libc::EEXIST])
}

/// Whether an attach failed because the interface is not there.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    has_code(error, &[libc::ENODEV])
}

/// Whether what was opened is no link, or no more there.
fn is_no_link(error: &anyhow::Error) -> bool {
    has_code(error, &[libc::EINVAL, libc::ENOENT])
}

fn has_code(error: &anyhow::Error, codes: &[i32]) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error())
        .any(|code| codes.contains(&code))
}

fn make_if_not_there(mark: &Path) -> anyhow::Result<()> {
    match std::fs::create_dir(mark) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("make {}", mark.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a mark of clsact alone.
fn unmark(mark: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir(mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", mark.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Tells whether it was there. With a mark of clsact the filter goes, too.
fn remove_if_there(path: &Path) -> anyhow::Result<bool> {
    let removed = match marked(path) {
        Some(interface) => {
            // Without the interface there is no filter either.
            if let Ok(index) = nix::net::if_::if_nametoindex(interface.as_str()) {
                clsact::remove(index)?;
            }
            std::fs::remove_dir(path)
        }
        None => std::fs::remove_file(path),
    };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

/// Reads what the kernel says of a link. By descriptor and through procfs, because aya tells no
/// interface, and asking the kernel by id takes CAP_SYS_ADMIN.
///
/// It is where it was last time; else all descriptors are read, and there may be many.
fn facts(link: &FdLink, descriptor: &Cell<Option<u32>>) -> anyhow::Result<Facts> {
    const FOLDER: &str = "/proc/self/fdinfo";
    let id = link.info()?.id();
    // A descriptor of another thread may close meanwhile.
    let of = |path: PathBuf| read_facts(id, &std::fs::read_to_string(path).ok()?);
    if let Some(known) = descriptor.get()
        && let Some(facts) = of(Path::new(FOLDER).join(known.to_string()))
    {
        return Ok(facts);
    }
    for entry in std::fs::read_dir(FOLDER)? {
        let entry = entry?;
        if let Some(facts) = of(entry.path()) {
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            descriptor.set(number);
            return Ok(facts);
        }
    }
    anyhow::bail!("link {id} is not among the descriptors of this process")
}

/// What the text of a descriptor says of the link with this id, if it is that link's.
fn read_facts(id: u32, text: &str) -> Option<Facts> {
    if number(text, "link_id") != Some(id) {
        return None;
    }
    Some(Facts {
        program: number(text, "prog_id")?,
        interface: number(text, "ifindex")?,
    })
}

/// The number after `key:` in the text of a descriptor.
fn number(text: &str, key: &str) -> Option<u32> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOKS: [Hook; 5] = [
        Hook::XdpNative,
        Hook::XdpGeneric,
        Hook::Tcx,
        Hook::Clsact,
        Hook::TcxEgress,
    ];

    #[test]
    fn marks_name_their_interface() {
        fn check(name: &str) {
            for hook in HOOKS {
                let expected = (hook == Hook::Clsact).then(|| name.to_owned());
                assert_eq!(marked(&pin_path(Path::new("/p"), name, hook)), expected);
            }
        }
        check("lan0");
        check("lan0.5");
        check("clsact");
    }

    #[test]
    fn descriptors_are_read() {
        let text =
            "pos:\t0\nlink_type:\txdp\nlink_id:\t12\nprog_tag:\tab\nprog_id:\t7\nifindex:\t3\n";
        assert_eq!(number(text, "link_id"), Some(12));
        assert_eq!(number(text, "prog_id"), Some(7));
        assert_eq!(number(text, "ifindex"), Some(3));
        assert_eq!(number(text, "link"), None);
    }

    #[test]
    fn pins_have_no_dots_and_never_collide() {
        let names = ["lan0", "lan0.5", "lan0.xdp", "lan0.5.6", "lan0-5"];
        let mut paths: Vec<PathBuf> = names
            .iter()
            .flat_map(|name| HOOKS.map(|hook| pin_path(Path::new("/p"), name, hook)))
            .collect();
        assert!(
            paths
                .iter()
                .all(|path| !path.to_string_lossy().contains('.'))
        );
        let count = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}

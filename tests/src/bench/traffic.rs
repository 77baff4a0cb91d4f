//! Frames made and counted by the kernel, as no user-space sender keeps up with XDP.
#![expect(clippy::disallowed_methods, reason = "shell: times itself")]

use super::forwarder::PORT;
use super::measure::Family;
use crate::lab::Namespace;
use anyhow::{Context, Result};
use aya::maps::{Array, PerCpuArray};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRun, TestRunAttrs, TestRunOptions};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes of a frame.
const FRAME: usize = 64;

/// Frames per call into the kernel, and per visit to the receiver's queue.
const CALL: u32 = 500_000;
const BATCH: u32 = 64;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// The sender's address.
    pub(super) source: IpAddr,
    /// The first destination.
    pub(super) destination: IpAddr,
    /// How many destinations there are.
    pub(super) span: u32,
    /// Whether a destination keeps its source port, so that each is one flow.
    pub(super) flows: bool,
    /// Whether destinations come one after the other, or at random.
    pub(super) in_order: bool,
}

/// A loaded generator of one stream, sending from one namespace.
#[derive(Debug)]
pub(super) struct Generator<'a> {
    namespace: &'a Namespace,
    ebpf: Ebpf,
    first: [u8; FRAME],
    device: u32,
}

impl<'a> Generator<'a> {
    /// Loads one that sends out of `eth0` of `from` to the router `to`, an interface of `via`.
    ///
    /// # Errors
    /// When the kernel refuses the program.
    pub(super) fn load(
        object: &Path,
        from: &'a Namespace,
        (via, to): (&Namespace, &str),
        stream: Stream,
    ) -> Result<Self> {
        let (sender, router) = (Device::read(from, "eth0")?, Device::read(via, to)?);
        let first = frame(router.mac, sender.mac, stream);
        let template: Vec<u32> = first
            .as_chunks()
            .0
            .iter()
            .map(|word| u32::from_ne_bytes(*word))
            .collect();
        let version: u8 = if stream.destination.is_ipv4() { 4 } else { 6 };
        let (flows, in_order) = (u8::from(stream.flows), u8::from(stream.in_order));
        let mut ebpf = EbpfLoader::new()
            .override_global("TEMPLATE", template.as_slice(), true)
            .override_global("VERSION", &version, true)
            .override_global("SPAN", &stream.span, true)
            .override_global("IN_ORDER", &in_order, true)
            .override_global("FIXED_PORTS", &flows, true)
            .load_file(object)
            .with_context(|| format!("load {}", object.display()))?;
        program(&mut ebpf, "generate")?.load()?;
        Ok(Self {
            namespace: from,
            ebpf,
            first,
            device: sender.index,
        })
    }

    /// Sends for about `time`, in whole calls; how many frames, in how long.
    ///
    /// # Errors
    /// When the kernel ends a run early.
    pub(super) fn send_for(&mut self, time: Duration) -> Result<(u64, Duration)> {
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < time {
            self.send(CALL)?;
            sent += u64::from(CALL);
        }
        Ok((sent, began.elapsed()))
    }

    /// Sends `frames`.
    ///
    /// # Errors
    /// When the kernel ends the run early.
    pub(super) fn send(&mut self, frames: u32) -> Result<()> {
        // struct xdp_md: no metadata, the frame's length, and the device it is sent out of.
        let length = u32::try_from(FRAME)?;
        let context = [0, length, 0, self.device, 0, 0]
            .map(u32::to_ne_bytes)
            .concat();
        let xdp = program(&mut self.ebpf, "generate")?;
        let first = &self.first;
        let run = || -> Result<()> {
            pin()?;
            xdp.test_run(TestRunOptions {
                data_in: Some(first),
                ctx_in: Some(&context),
                repeat: frames,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            })?;
            Ok(())
        };
        self.namespace.enter(run)?.context("send frames")
    }
}

/// Keeps the calling thread on the last core: whatever a frame sets off happens there, too.
fn pin() -> Result<()> {
    let own = Pid::from_raw(0);
    let all = sched_getaffinity(own)?;
    let last = (0..CpuSet::count()).rfind(|core| all.is_set(*core).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("a core to run on")?)?;
    Ok(sched_setaffinity(own, &one)?)
}

/// Counts and ends what arrives at `eth0` of a namespace, as long as it lives.
#[derive(Debug)]
pub(super) struct Sink(Ebpf);

impl Sink {
    /// Attaches one.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn attach(object: &Path, to: &Namespace) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global("PORT", &PORT, true)
            .load_file(object)
            .with_context(|| format!("load {}", object.display()))?;
        attach(&mut ebpf, "sink", to, "eth0")?;
        Ok(Self(ebpf))
    }

    /// Whether frames are sent back instead of ended.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub(super) fn reflect(&mut self, reflect: bool) -> Result<()> {
        let map = self.0.map_mut("REFLECT").context("the map REFLECT")?;
        Ok(Array::<_, u32>::try_from(map)?.set(0, u32::from(reflect), 0)?)
    }

    /// How many frames arrived so far.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub(super) fn arrived(&self) -> Result<u64> {
        let map = self.0.map("ARRIVED").context("the map ARRIVED")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?;
        Ok(counts.iter().sum())
    }
}

/// Attaches the program that drops everything; it stays as long as what is returned.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn bare_drop(object: &Path, to: &Namespace, device: &str) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load_file(object).with_context(|| format!("load {}", object.display()))?;
    attach(&mut ebpf, "bare_drop", to, device)?;
    Ok(ebpf)
}

fn attach(ebpf: &mut Ebpf, name: &str, to: &Namespace, device: &str) -> Result<()> {
    let xdp = program(ebpf, name)?;
    xdp.load()?;
    to.enter(|| xdp.attach(device, XdpMode::Driver))?
        .with_context(|| format!("attach {name} to {device}"))?;
    Ok(())
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

/// A device as frames name it.
struct Device {
    index: u32,
    mac: [u8; 6],
}

impl Device {
    fn read(namespace: &Namespace, name: &str) -> Result<Self> {
        let mut show = Command::new("ip");
        let printed = namespace.output(show.args(["-j", "link", "show", name]))?;
        let json: serde_json::Value = serde_json::from_str(&printed)?;
        let text = || format!("what ip says of {name}: {printed}");
        let index = json[0]["ifindex"].as_u64().with_context(text)?;
        let address = json[0]["address"].as_str().with_context(text)?;
        let bytes = address.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let bytes = bytes.collect::<Result<Vec<u8>, _>>().with_context(text)?;
        Ok(Self {
            index: u32::try_from(index)?,
            mac: bytes.try_into().ok().with_context(text)?,
        })
    }
}

/// The first frame of `stream`: UDP without checksums.
fn frame(to: [u8; 6], from: [u8; 6], stream: Stream) -> [u8; FRAME] {
    const UDP: u8 = 17;
    let mut bytes = [to, from].concat();
    let room = |taken: usize| {
        u16::try_from(FRAME - taken)
            .expect("a frame is short")
            .to_be_bytes()
    };
    match (stream.source, stream.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend([0x08, 0x00, 0x45, 0]);
            bytes.extend(room(14));
            bytes.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        (source, destination) => {
            let wide = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(room(14 + 40));
            bytes.extend([UDP, 64]);
            bytes.extend(wide(source).octets());
            bytes.extend(wide(destination).octets());
        }
    }
    bytes.extend([0, 0]);
    bytes.extend(PORT.to_be_bytes());
    bytes.extend(room(bytes.len() - 4));
    bytes.resize(FRAME, 0);
    bytes.try_into().expect("resized one line above")
}

impl Stream {
    /// A stream of `family` from `source`.
    pub(super) fn new(family: Family, source: [IpAddr; 2], destination: IpAddr, span: u32) -> Self {
        let source = match family {
            Family::V4 => source[0],
            Family::V6 => source[1],
        };
        Self {
            source,
            destination,
            span,
            flows: false,
            in_order: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_fill_their_lengths() {
        fn check(source: &str, destination: &str, length: usize, at: usize, udp: usize) {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let stream = Stream::new(Family::V4, [source, source], destination, 1);
            let frame = frame([1; 6], [2; 6], stream);
            let short = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
            assert_eq!(frame[..12], [[1; 6], [2; 6]].concat());
            assert_eq!(short(at), length);
            assert_eq!(short(udp + 2), usize::from(PORT));
            assert_eq!(short(udp + 4), FRAME - udp);
        }
        check("10.20.0.2", "52.97.0.0", FRAME - 14, 16, 34);
        check("2001:db8::2", "2603::1", FRAME - 54, 18, 54);
    }
}

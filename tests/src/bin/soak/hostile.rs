//! Responses made to be slow or large: time and memory to read and write each (D12).
#![expect(clippy::disallowed_methods, reason = "shell: times itself")]
#![expect(unsafe_code, reason = "counting what is allocated needs an allocator")]

use clap::Args;
use egressd::policy::answer::wire::{HEADER, question_end};
use egressd::policy::answer::{Reading, Shape};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What D12 allows one message.
const MOST_TIME: Duration = Duration::from_millis(1);
const MOST_MEMORY: usize = 128 << 10;

#[derive(Args)]
pub(crate) struct Options {
    /// How often each message is read.
    #[arg(long, default_value_t = 2000)]
    count: usize,
}

#[global_allocator]
static COUNTED: Counted = Counted;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and how many bytes it holds.
struct Counted;

// SAFETY: every call goes to the system's allocator as it came; the counters are not memory.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: it came from `alloc` above, so from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How many messages were over a bound.
pub(crate) fn soak(options: &Options) -> usize {
    println!(
        "{:34} {:>6} {:>9} {:>9} {:>9} {:>9}  outcome",
        "message", "bytes", "p50", "p99", "worst", "memory"
    );
    let mut over = 0;
    for (name, message) in messages() {
        let (mut times, mut memory) = (Vec::with_capacity(options.count), 0);
        let mut outcome = String::new();
        for round in 0..options.count {
            let before = HELD.load(Ordering::Relaxed);
            PEAK.store(before, Ordering::Relaxed);
            let began = Instant::now();
            let done = read(&message);
            times.push(began.elapsed());
            memory = memory.max(PEAK.load(Ordering::Relaxed) - before);
            if round == 0 {
                outcome = done;
            }
        }
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        println!(
            "{name:34} {:>6} {:>9.1?} {:>9.1?} {:>9.1?} {:>6} KiB  {outcome}",
            message.len(),
            at(50),
            at(99),
            at(100),
            memory.div_ceil(1024)
        );
        // The worst of thousands is the machine's, not the message's: one that is slow is slow always.
        over += usize::from(at(99) > MOST_TIME || memory > MOST_MEMORY);
    }
    over
}

/// What the dns edge does with a reply: everything but the kernel.
fn read(message: &[u8]) -> String {
    let mut reading = match Reading::of(message) {
        Ok(reading) => reading,
        Err(error) => return error.to_string(),
    };
    let found = reading.found().to_vec();
    for one in found.iter().step_by(2) {
        reading.refuse(one);
    }
    let Ok(end) = question_end(message) else {
        return "no question".to_owned();
    };
    let mut out = Vec::with_capacity(HEADER + 512);
    out.extend(&message[..end]);
    let shape = Shape {
        dnssec: true,
        ceiling: 86_400,
        ..Shape::default()
    };
    match reading.write(&mut out, shape) {
        Ok(written) => format!("{} found, {} written", found.len(), written.answers),
        Err(error) => format!("{} found; {error}", found.len()),
    }
}

/// Names and messages.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let long = [&[63; 1][..], &[b'a'; 63]].concat().repeat(3);
    let long = [&long[..], &[61], &[b'b'; 61], &[0]].concat();
    let www: &[u8] = b"\x03www\x01a\x07example\0";
    let pointed = |count| {
        let mut message = head(www, 1, count);
        for n in 0..count {
            record(
                &mut message,
                &[0xc0, 12],
                1,
                &[93, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]],
            );
        }
        message
    };
    let mut pointers = head(www, 1, 0);
    // One name made of pointers to pointers, and records that begin at its last.
    let tower = pointers.len();
    record(&mut pointers, &[0], 10, &[]);
    let mut last = tower;
    for _ in 0..126 {
        let at = pointers.len();
        pointers.extend((0xc000 | last as u16).to_be_bytes());
        last = at;
    }
    let inside = pointers.len() - tower - 11;
    pointers[tower + 9..tower + 11].copy_from_slice(&(inside as u16).to_be_bytes());
    for _ in 0..511 {
        let owner = (0xc000 | last as u16).to_be_bytes();
        record(&mut pointers, &owner, 1, &[93, 0, 0, 1]);
    }
    counted(&mut pointers, 512);
    let chain = |hops: u16, name: &dyn Fn(u16) -> Vec<u8>| {
        let mut message = head(&name(0), 1, hops + 1);
        // The last first, so that each step looks through all.
        for hop in (0..hops).rev() {
            record(&mut message, &name(hop), 5, &name(hop + 1));
        }
        record(&mut message, &name(hops), 1, &[93, 0, 0, 1]);
        message
    };
    let short_name = |hop: u16| [&[2][..], &hop.to_be_bytes(), b"\x07example\0"].concat();
    let long_name = |hop: u16| {
        let mut name = long.clone();
        name[1..3].copy_from_slice(&hop.to_be_bytes());
        name
    };
    let mut dnames = head(
        &[1, 97]
            .repeat(127)
            .into_iter()
            .chain([0])
            .collect::<Vec<_>>(),
        1,
        32,
    );
    for labels in 1..=32 {
        let owner: Vec<u8> = [1, 97].repeat(labels).into_iter().chain([0]).collect();
        record(&mut dnames, &owner, 39, &owner);
    }
    let mut services = head(www, 65, 0);
    let mut count = 0;
    while services.len() < 63_500 {
        let hints: Vec<u8> = (0..400u16)
            .flat_map(|n| [93, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]])
            .collect();
        let data = [
            &[0, 1, 0, 0, 4][..],
            &(hints.len() as u16).to_be_bytes(),
            &hints,
        ]
        .concat();
        record(&mut services, &[0xc0, 12], 65, &data);
        count += 1;
    }
    counted(&mut services, count);
    let mut parameters = vec![0, 1, 0];
    for key in 0u16..15_000 {
        parameters.extend([&(key + 100).to_be_bytes()[..], &[0, 0]].concat());
    }
    let mut keys = head(www, 65, 1);
    record(&mut keys, &[0xc0, 12], 65, &parameters);
    let mut swelling = head(&long, 33, 512);
    for _ in 0..512 {
        record(
            &mut swelling,
            &[0xc0, 12],
            33,
            &[0, 1, 0, 1, 0, 1, 0xc0, 12],
        );
    }
    let mut signed = head(www, 1, 2);
    record(&mut signed, &[0xc0, 12], 1, &[93, 0, 0, 1]);
    let room = 65_535 - signed.len() - 12;
    record(&mut signed, &[0xc0, 12], 46, &vec![7; room]);
    let mut garbage = head(www, 1, 512);
    garbage.extend((0..65_535 - garbage.len()).map(|n| (n * 7919) as u8));
    vec![
        ("512 addresses", pointed(512)),
        ("4,000 records", pointed(4000)),
        ("512 owners behind 127 pointers", pointers),
        ("chain of 16", chain(16, &short_name)),
        ("chain of 17", chain(17, &short_name)),
        ("chain of 32 long names", chain(32, &long_name)),
        ("chain of 120 long names", chain(120, &long_name)),
        ("32 DNAMEs over 127 labels", dnames),
        ("65,000 bytes of hints", services),
        ("15,000 parameters", keys),
        ("512 names of 255 bytes from 2", swelling),
        ("65,535 bytes, one signature", signed),
        ("65,535 bytes of anything", garbage),
    ]
}

fn head(asked: &[u8], kind: u16, records: u16) -> Vec<u8> {
    let mut message = vec![0, 7, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(asked);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    counted(&mut message, records);
    message
}

fn counted(message: &mut [u8], records: u16) {
    message[6..8].copy_from_slice(&records.to_be_bytes());
}

fn record(message: &mut Vec<u8>, owner: &[u8], kind: u16, data: &[u8]) {
    message.extend(owner);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1, 0, 0, 1, 44]);
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}

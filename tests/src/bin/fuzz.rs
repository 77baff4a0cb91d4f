//! `cargo xtask fuzz`: mutates messages until the time is up. What fails is written down, so is the
//! message that was in work when something panics.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads and writes the corpus and a clock"
)]

use anyhow::{Context, Result};
use clap::Parser;
use egressd_tests::fuzz::{Harvest, Target};
use egressd_tests::oracle::generate::Dice;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Options {
    /// `answers`, `question`, `tables`, `list`, `csv`, `webservice`, `service-tags`, `aws`, `github` or
    /// `catalogue-toml`; all if none is named.
    target: Option<String>,
    /// How long each is fuzzed.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the corpora are.
    #[arg(long, default_value = "tests/corpus")]
    corpus: PathBuf,
    /// Add messages with new outcomes to the corpus.
    #[arg(long)]
    grow: bool,
}

thread_local! {
    static IN_WORK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn main() -> ExitCode {
    match fuzz(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn fuzz(options: &Options) -> Result<bool> {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        IN_WORK.with_borrow(|message| eprintln!("in work: {message:?}"));
    }));
    let named = |target: &Target| {
        options
            .target
            .as_deref()
            .is_none_or(|word| word == target.word())
    };
    let targets: Vec<Target> = Target::ALL.into_iter().filter(named).collect();
    anyhow::ensure!(
        !targets.is_empty(),
        "there is no such target; write one of `{}`",
        Target::ALL.map(Target::word).join("`, `")
    );
    let mut good = true;
    for target in targets {
        good &= one(target, options)?;
    }
    Ok(good)
}

fn one(target: Target, options: &Options) -> Result<bool> {
    let folder = options.corpus.join(target.word());
    let mut harvest = Harvest::default();
    let mut known = 0;
    for entry in std::fs::read_dir(&folder).into_iter().flatten() {
        let path = entry?.path();
        let message = std::fs::read(&path)?;
        known += 1;
        if let Err(why) = harvest.try_one(target, message) {
            println!("{}: {why}", path.display());
            return Ok(false);
        }
    }
    let before = harvest.corpus.len();
    let began = Instant::now();
    let seed = u64::from(std::process::id()) << 32;
    let mut dice = Dice::new(seed);
    let mut count = 0u64;
    while began.elapsed() < Duration::from_secs(options.seconds) {
        for _ in 0..1000 {
            let message = harvest.next(target, &mut dice);
            IN_WORK.with_borrow_mut(|work| work.clone_from(&message));
            count += 1;
            if let Err(why) = harvest.try_one(target, message) {
                let message = IN_WORK.take();
                println!("{}: {why}\n{message:?}", target.word());
                keep(&folder, "found", count, &message)?;
                return Ok(false);
            }
        }
    }
    println!(
        "{}: {count} messages in {} s, none wrong; {} outcomes, of which {} are new; corpus {known}",
        target.word(),
        options.seconds,
        harvest.outcomes.len(),
        harvest.corpus.len() - before
    );
    if options.grow {
        for (number, message) in harvest.corpus.iter().enumerate().skip(before) {
            keep(&folder, "seed", number as u64, message)?;
        }
    }
    Ok(true)
}

fn keep(folder: &Path, word: &str, number: u64, message: &[u8]) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{word}-{number:04}"));
    std::fs::write(&path, message).with_context(|| format!("write {}", path.display()))
}

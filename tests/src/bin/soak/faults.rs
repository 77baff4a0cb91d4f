//! Every call that the planes make to the kernel fails, under traffic.

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::faults::{Plan, Scene, run};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// At most so many calls of each kind, spread over all there are.
    #[arg(long, default_value_t = 200)]
    most: u64,
    /// One error for each kind of call.
    #[arg(long)]
    quick: bool,
    /// Only while it does this: `learn`, `reload`, `revoke`, `repair`, `start`.
    #[arg(long)]
    only: Vec<String>,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
    /// What lets calls fail; beside this program where it is not said.
    #[arg(long, env = "EGRESSD_SHIM_LIB")]
    library: Option<PathBuf>,
}

/// How much leaked, was lost, differed or did not come back.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    let chosen = |scene: &Scene| {
        options.only.is_empty() || options.only.iter().any(|word| word == scene.word())
    };
    let beside = || std::env::current_exe().map(|own| own.with_file_name("libegressd_shim.so"));
    let plan = Plan {
        library: options.library.clone().map_or_else(beside, Ok)?,
        scenes: Scene::ALL.into_iter().filter(chosen).collect(),
        most: options.most,
        quick: options.quick,
    };
    let seen = run(&Binaries(options.binaries.clone()), options.planes, &plan)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&seen.json())?);
    } else {
        println!("{}{}", seen.table(), seen.wrong.join("\n"));
    }
    if seen.failures() > 0 {
        eprintln!("last words of egressd:\n{}", seen.words);
    }
    Ok(usize::try_from(seen.failures())?)
}

//! The corpus on the model and on both programs, in every world; then random frames.

mod frames;
mod layout;
mod policies;
mod swaps;

use super::*;
use egressd_common::corpus::{World, all, per_promise};

/// Whether the kernel's programs can be loaded here; says loudly if not. Any other failure to load them
/// fails the test.
fn can_run(test: &str) -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "not root".to_owned()
    } else {
        match Trial::new(&image(World::Alone, 1, 2), false, TrialHook::Xdp) {
            Ok(_) => return true,
            Err(error) if error.to_string().contains("without the eBPF object") => {
                error.to_string()
            }
            Err(error) => panic!("{error:#}"),
        }
    };
    eprintln!("SKIPPED {test}: {why}");
    false
}

#[track_caller]
fn check(what: &str, tally: &Tally) {
    let Tally {
        open, cut, words, ..
    } = tally;
    println!(
        "{what}: {} wrong of {} ({} not tried)",
        open + cut,
        tally.total(),
        tally.skipped
    );
    assert_eq!((*open, *cut), (0, 0), "{what}: {words:#?}");
}

#[test]
fn the_model_keeps_the_promises() {
    let vectors = all();
    println!("vectors: {:?}", per_promise(&vectors));
    for world in World::ALL {
        let tally = corpus_on_model(&vectors, world);
        assert!(tally.total() > 5000);
        check(&format!("model, {world:?}"), &tally);
    }
}

#[test]
fn the_programs_keep_the_promises() {
    if !can_run("the_programs_keep_the_promises") {
        return;
    }
    let vectors = all();
    for world in World::ALL {
        for hook in TrialHook::ALL {
            let tally = corpus_on_program(&vectors, world, hook).unwrap();
            assert!(tally.total() > 5000);
            check(&format!("{hook}, {world:?}"), &tally);
        }
    }
}

#[test]
fn programs_and_model_agree_on_random_frames() {
    if !can_run("programs_and_model_agree_on_random_frames") {
        return;
    }
    for (seed, world) in (1..).zip(World::ALL) {
        for hook in TrialHook::ALL {
            let mut random = Random::new(all(), world, hook, seed).unwrap();
            random.run(5000).unwrap();
            let wrong = (random.open, random.cut, random.miscounted().unwrap());
            assert_eq!(wrong, (0, 0, 0), "{world:?} {hook}: {:#?}", random.words);
            assert!(random.judged > 4000, "{} judged", random.judged);
            assert!(random.reasons().len() > 12, "{:?}", random.reasons());
        }
    }
}

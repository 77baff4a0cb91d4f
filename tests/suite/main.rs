//! Promises, tested with the real daemon in network namespaces. Which planes enforce comes from
//! `EGRESSD_PLANES`, the daemon from `EGRESSD_BIN_DIR`; without them the tests are ignored and counted.

mod bench;
mod canary;
mod clients;
mod crash;
mod dnssec;
mod edges;
mod faults;
mod feeds;
mod floods;
mod flows;
mod fragments;
mod grants;
mod impact;
mod late;
mod local;
mod lockdown;
mod modes;
mod observe;
mod refused;
mod rejects;
mod reload;
mod revoke;
mod soaks;
mod steer;
mod tamper;
mod upstreams;

use bench::Bench;
use egressd_tests::lab::last_words;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tests = [
        canary::TESTS,
        grants::TESTS,
        impact::TESTS,
        floods::TESTS,
        flows::TESTS,
        fragments::TESTS,
        late::TESTS,
        lockdown::TESTS,
        edges::TESTS,
        local::TESTS,
        modes::TESTS,
        observe::TESTS,
        refused::TESTS,
        rejects::TESTS,
        reload::TESTS,
        revoke::TESTS,
        crash::TESTS,
        clients::TESTS,
        dnssec::TESTS,
        faults::TESTS,
        feeds::TESTS,
        soaks::TESTS,
        steer::TESTS,
        tamper::TESTS,
        upstreams::TESTS,
    ];
    let trials = tests.concat().into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// One test: its name and its body.
type Test = (&'static str, Body);

/// A test's body.
#[derive(Clone, Copy)]
enum Body {
    /// It needs namespaces alone.
    Lab(fn() -> anyhow::Result<()>),
    /// It needs the daemon.
    Daemon(fn(&Bench) -> anyhow::Result<Verdict>),
}

/// How a test that ran ended.
enum Verdict {
    /// The promise held.
    Held,
    /// It is not made for these planes; says why.
    NotPromised(&'static str),
}

fn trial((name, body): Test) -> Trial {
    Trial::ignorable_test(name, move || {
        let _of_an_earlier_test = last_words();
        let failed = |error: anyhow::Error| Failed::from(format!("{error:#}\n{}", last_words()));
        if let Some(reason) = bench::lacking() {
            return Ok(Completion::ignored_with(reason));
        }
        match body {
            Body::Lab(test) => test().map_err(failed)?,
            Body::Daemon(test) => match Bench::from_env().map_err(failed)? {
                Ok(bench) => match test(&bench).map_err(failed)? {
                    Verdict::Held => {}
                    Verdict::NotPromised(why) => return Ok(Completion::ignored_with(why)),
                },
                Err(reason) => return Ok(Completion::ignored_with(reason)),
            },
        }
        Ok(Completion::Completed)
    })
}

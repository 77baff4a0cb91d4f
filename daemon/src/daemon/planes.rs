//! The planes' own thread: kernel calls block here, so that the loop never does.

#![expect(
    clippy::disallowed_methods,
    reason = "shell: paces the collection of refused packets"
)]

use super::engine::{Event, Outcome};
use crate::plane::drift::{Drift, Outcome as Mending};
use crate::plane::{Plane, RefusedPacket};
use crate::policy::image::{Change, Image};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often refused packets are collected.
const POLL: Duration = Duration::from_millis(100);

/// How often the planes are looked at, asked or not: not everything that happens to them is told.
/// A look costs some ten microseconds for the table and as much for each link.
const PULSE: Duration = Duration::from_millis(25);

/// The same after a look that found something: who tampers without end must not have all of this thread.
const TAMPERED: Duration = Duration::from_millis(50);

type Planes = Vec<Box<dyn Plane>>;

/// A question against the planes; it reports by itself.
pub type Question = Box<dyn FnOnce(&mut [Box<dyn Plane>]) + Send>;

/// Work for the thread. Jobs run in order.
pub enum Job {
    /// Put an image in force in every plane, then report.
    Replace(Arc<Image>),
    /// Apply changes to every plane, then report.
    Apply(Vec<Change>),
    /// Look whether every plane is in place, then report.
    Verify,
    /// Run a question.
    Ask(Question),
}

/// The thread's handle; dropping it ends the thread once its work is done.
pub struct PlaneThread {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl PlaneThread {
    /// Hands `planes` to a thread of their own, which tells what happens through `report`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(planes: Planes, report: impl Fn(Event) + Send + 'static) -> std::io::Result<Self> {
        let (jobs, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("planes".to_owned())
            .spawn(move || work(planes, &inbox, &report))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Queues a job. After the thread has died nothing is in force for new answers: they time out.
    pub fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_err()
        {
            log::error!(target: "plane", "the planes' thread is gone");
        }
    }

    /// Queues a question against the planes.
    pub fn ask(&self, question: impl FnOnce(&mut [Box<dyn Plane>]) + Send + 'static) {
        self.send(Job::Ask(Box::new(question)));
    }
}

impl Drop for PlaneThread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(target: "plane", "the planes' thread panicked");
        }
    }
}

fn work(mut planes: Planes, inbox: &Receiver<Job>, report: &impl Fn(Event)) {
    let mut polled = Instant::now();
    let mut watch = Watch::default();
    loop {
        let rest = POLL.saturating_sub(polled.elapsed()).min(watch.rest());
        match inbox.recv_timeout(rest) {
            Ok(Job::Replace(image)) => {
                let outcome = replace(&mut planes, &image);
                watch.replaced(&outcome);
                report(Event::Committed(outcome));
            }
            Ok(Job::Apply(changes)) => {
                let outcome = apply(&mut planes, changes);
                watch.applied(&outcome);
                report(Event::Committed(outcome));
            }
            Ok(Job::Verify) => report(Event::Verified(watch.look(&mut planes))),
            Ok(Job::Ask(question)) => question(&mut planes),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if watch.rest().is_zero() {
            let known = watch.waiting;
            let drifts = watch.look(&mut planes);
            if watch.waiting != known || drifts.len() > watch.waiting {
                report(Event::Drifted(drifts));
            }
        }
        if polled.elapsed() >= POLL {
            polled = Instant::now();
            let refused = collect(&mut planes);
            if !refused.is_empty() {
                report(Event::Refused(refused));
            }
        }
    }
}

/// What the planes refused. Whether one may leave packets to another is found out each time.
fn collect(planes: &mut Planes) -> Vec<RefusedPacket> {
    // A look costs time that commits wait for: only at a plane that the one behind it relies on.
    let refers: Vec<bool> = planes.iter().map(|plane| plane.refers()).collect();
    let mut in_place = false;
    let mut refused = Vec::new();
    for (number, plane) in planes.iter_mut().enumerate() {
        plane.rely(in_place);
        refused.extend(plane.refused());
        let relied_on = refers.get(number + 1).is_some_and(|refers| *refers);
        in_place = relied_on && plane.stands_firm();
    }
    refused
}

/// In order: the first plane (nft, the authority) closes before the next one changes.
fn replace(planes: &mut Planes, image: &Image) -> Outcome {
    for plane in planes {
        if let Err(error) = plane.replace(image) {
            return Outcome::Failed(format!("{}: {error:#}", plane.name()));
        }
    }
    Outcome::Replaced
}

/// What one plane refused is not sent to the next; the engine withdraws it from all.
fn apply(planes: &mut Planes, mut changes: Vec<Change>) -> Outcome {
    let mut refused = Vec::new();
    for plane in planes {
        match plane.apply(&changes) {
            Ok(not_in_force) => {
                changes.retain(|change| !not_in_force.contains(change));
                refused.extend(not_in_force);
            }
            Err(error) => return Outcome::Failed(format!("{}: {error:#}", plane.name())),
        }
    }
    Outcome::Applied(refused)
}

/// When the planes are looked at, and whether there is any use in it.
struct Watch {
    /// Not before the first replacement, nor while one is due.
    in_force: bool,
    at: Instant,
    /// From one look to the next.
    pause: Duration,
    /// How many drifts were found last that cannot be put right.
    waiting: usize,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            in_force: false,
            at: Instant::now(),
            pause: PULSE,
            waiting: 0,
        }
    }
}

impl Watch {
    /// Until the next look.
    fn rest(&self) -> Duration {
        if self.in_force {
            self.pause.saturating_sub(self.at.elapsed())
        } else {
            PULSE
        }
    }

    fn replaced(&mut self, outcome: &Outcome) {
        self.in_force = matches!(outcome, Outcome::Replaced);
    }

    fn applied(&mut self, outcome: &Outcome) {
        self.in_force &= !matches!(outcome, Outcome::Failed(_));
    }

    /// Looks, lets the planes put right what they can, and returns what was found.
    fn look(&mut self, planes: &mut Planes) -> Vec<Drift> {
        self.at = Instant::now();
        if !self.in_force {
            return Vec::new();
        }
        let drifts: Vec<Drift> = planes.iter_mut().flat_map(|plane| plane.mend()).collect();
        let count = |of: fn(&Mending) -> bool| drifts.iter().filter(|d| of(&d.outcome)).count();
        self.waiting = count(|outcome| matches!(outcome, Mending::Waits(_)));
        self.pause = if drifts.is_empty() { PULSE } else { TAMPERED };
        self.in_force = count(|outcome| matches!(outcome, Mending::Replace(_))) == 0;
        drifts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::Holdings;
    use crate::policy::ZoneId;
    use crate::policy::port::ClassMask;
    use std::net::IpAddr;
    use std::sync::{Arc, Mutex};

    /// A plane that stands or not, relies on others or not, and says what it was told.
    struct Fake {
        stands: bool,
        refers: bool,
        told: Arc<Mutex<Vec<bool>>>,
    }

    impl Plane for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn replace(&mut self, _: &Image) -> anyhow::Result<()> {
            Ok(())
        }

        fn apply(&mut self, _: &[Change]) -> anyhow::Result<Vec<Change>> {
            Ok(Vec::new())
        }

        fn read(&mut self) -> anyhow::Result<Holdings> {
            Ok(Holdings::new())
        }

        fn holds(&mut self, _: ZoneId, _: IpAddr) -> anyhow::Result<ClassMask> {
            Ok(ClassMask::NONE)
        }

        fn verify(&mut self) -> anyhow::Result<()> {
            anyhow::ensure!(self.stands, "gone");
            Ok(())
        }

        fn refers(&self) -> bool {
            self.refers
        }

        fn rely(&mut self, in_place: bool) {
            self.told.lock().unwrap().push(in_place);
        }

        fn describe(&self) -> Vec<String> {
            Vec::new()
        }
    }

    #[test]
    fn nothing_is_left_to_a_plane_that_is_not_found_in_place() {
        fn check(before: Option<bool>, refers: bool, expected: bool) {
            let fake = |stands, refers| {
                let told = Arc::default();
                let plane = Fake {
                    stands,
                    refers,
                    told: Arc::clone(&told),
                };
                (Box::new(plane) as Box<dyn Plane>, told)
            };
            let (last, told) = fake(true, refers);
            let first = before.map(|stands| fake(stands, false).0);
            let mut planes: Planes = first.into_iter().chain([last]).collect();
            collect(&mut planes);
            assert_eq!(*told.lock().unwrap(), [expected], "{before:?} {refers}");
        }
        check(Some(true), true, true);
        check(Some(false), true, false);
        check(None, true, false);
        check(Some(true), false, false);
    }
}

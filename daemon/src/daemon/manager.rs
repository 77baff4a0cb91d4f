//! Words for the service manager (sd_notify(3)). Waits for nobody.

use sd_notify::NotifyState;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::LazyLock;

/// Tells the service manager, in order.
pub(super) fn notify(states: &[NotifyState<'static>]) {
    tell(Keep {
        states: states.to_vec(),
        descriptor: None,
    });
}

/// As [`notify`], with a descriptor. On a thread of its own: the manager's socket blocks while it is full, and
/// the loop must not wait for a manager that does not read.
pub(super) fn tell(news: Keep) {
    static TELLER: LazyLock<std::sync::mpsc::Sender<Keep>> = LazyLock::new(|| {
        let (sender, told) = std::sync::mpsc::channel::<Keep>();
        let tell = move || {
            for Keep { states, descriptor } in told {
                // Without a service manager there is nobody to tell.
                let _ = match descriptor {
                    None => sd_notify::notify(&states),
                    Some(descriptor) => sd_notify::notify_with_fds(&states, &[descriptor.as_fd()]),
                };
            }
        };
        if let Err(error) = std::thread::Builder::new()
            .name("notify".to_owned())
            .spawn(tell)
        {
            log::error!(target: "daemon", "the service manager cannot be told: {error}");
        }
        sender
    });
    // Closed: there was no thread, and that was said.
    let _ = TELLER.send(news);
}

/// What the manager is to be told, with a descriptor that goes along.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) states: Vec<NotifyState<'static>>,
    pub(super) descriptor: Option<OwnedFd>,
}

//! How calls fail.

use crate::lab::Class;
use nix::errno::Errno;

/// How each class fails: the errors, and whether they are the kernel's answer to a request.
pub(super) fn errors(class: Class) -> &'static [(Errno, bool)] {
    use Errno::{E2BIG, EAGAIN, EBUSY, EINTR, EINVAL, EMFILE, ENOBUFS, ENOMEM, ENOSPC, EPERM};
    if class.sends() {
        &[
            (ENOMEM, true),
            (ENOBUFS, false),
            (ENOSPC, true),
            (EPERM, true),
            (EINTR, false),
        ]
    } else if class.receives() {
        &[(ENOBUFS, false), (EAGAIN, false), (EINTR, false)]
    } else if class.is_netlink() {
        &[(EMFILE, false), (ENOBUFS, false)]
    } else {
        match class.0 {
            0 | 5 => &[
                (ENOMEM, false),
                (EPERM, false),
                (E2BIG, false),
                (EAGAIN, false),
            ],
            1..=4 | 24..=27 => &[
                (ENOMEM, false),
                (E2BIG, false),
                (ENOSPC, false),
                (EPERM, false),
            ],
            28 | 29 | 8 | 34 => &[
                (ENOMEM, false),
                (EBUSY, false),
                (EPERM, false),
                (EINVAL, false),
            ],
            _ => &[(ENOMEM, false), (EPERM, false), (EINTR, false)],
        }
    }
}

//! How busy the machine is with other things.
#![expect(clippy::disallowed_methods, reason = "shell: reads /proc")]

/// The load averages, as the kernel writes them.
pub(super) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

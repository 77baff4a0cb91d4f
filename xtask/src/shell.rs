//! The only file that touches the world: commands, paths, the words on standard error.
#![expect(clippy::disallowed_methods, reason = "shell: runs commands")]

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Says what is being done, or what was found.
pub(crate) fn say(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// Where everything is built.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A command in the workspace's root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Cargo, building into [`target`]. What an outer cargo told this process about its own package is
/// not handed on.
pub(crate) fn cargo() -> Command {
    let mut command = command("cargo");
    command.env("CARGO_TARGET_DIR", target());
    command
}

/// A command as root: as it is, through sudo, or not at all.
///
/// # Errors
/// When this is not root and there is no sudo; says what to run instead.
pub(crate) fn as_root(program: impl AsRef<OsStr>, why: &str) -> Result<Command> {
    let program = program.as_ref();
    if is_root() {
        return Ok(command(program));
    }
    if on_path("sudo").is_none() {
        bail!("{why} needs root, and there is no sudo: run this command as root");
    }
    let mut sudo = command("sudo");
    // Names that sudo would drop and that the lab's programs read.
    sudo.arg("--preserve-env=EGRESSD_BIN_DIR,EGRESSD_PLANES,EGRESSD_COST_OBJECT,EGRESSD_COST_REPORT,RUST_BACKTRACE")
        .arg(program);
    Ok(sudo)
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    capture(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Shows and runs `command`.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    if !succeeds(command)? {
        bail!("failed: {}", words(command));
    }
    Ok(())
}

/// Shows and runs `command`; whether it succeeded.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    say(format!("$ {}", words(command)));
    let status = command
        .status()
        .with_context(|| format!("start {}", words(command)))?;
    Ok(status.success())
}

/// Shows and runs `command`, passing on its output and giving each line to `read`; whether it
/// succeeded.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn follow(command: &mut Command, mut read: impl FnMut(&str)) -> Result<bool> {
    say(format!("$ {}", words(command)));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", words(command)))?;
    let output = child.stdout.take().context("its output is a pipe")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        read(&line);
    }
    Ok(child.wait()?.success())
}

/// What `command` prints, silently.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let bytes = capture_bytes(command)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The bytes that `command` prints, silently.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn capture_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .output()
        .with_context(|| format!("start {}", words(command)))?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            words(command),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

/// Where `program` is on the PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// The PATH with `dir` in front.
///
/// # Errors
/// When `dir` has a colon in it.
pub(crate) fn path_with(dir: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(dir.to_owned()).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(dirs)?)
}

/// Whether `path` is there.
pub(crate) fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().exists()
}

/// A file's text, if it is there and readable.
pub(crate) fn text_of(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// A file's bytes.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn bytes_of(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// Writes a file whole, and the directories above it.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    let path = path.as_ref();
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    std::fs::write(path, content).with_context(|| format!("write {}", path.display()))
}

/// How long ago a file was written, if it is there.
pub(crate) fn age(path: impl AsRef<Path>) -> Option<Duration> {
    let written = path.as_ref().metadata().ok()?.modified().ok()?;
    SystemTime::now().duration_since(written).ok()
}

/// The command as one could type it, with the variables it sets that matter.
pub(crate) fn words(command: &Command) -> String {
    let quoted = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains([' ', '\'', '"', '$']) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    };
    let set = command
        .get_envs()
        .filter(|(key, _)| *key != "PATH")
        .filter_map(|(key, value)| Some(format!("{}={}", key.to_string_lossy(), quoted(value?))));
    let program = std::iter::once(quoted(command.get_program()));
    set.chain(program)
        .chain(command.get_args().map(quoted))
        .collect::<Vec<_>>()
        .join(" ")
}

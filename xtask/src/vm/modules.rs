//! The modules of an extracted kernel: finds what is wanted, with all it depends on, in an order
//! in which it can be loaded. (`modules.dep` is made at installation, and there is none here.)

use crate::shell::{bytes_of, capture_bytes, command};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What the kernel parts of egressd and its tests use and Debian builds as modules. What a kernel
/// does not have, or has built in, is left out.
const WANTED: &[&str] = &[
    "8021q",
    "act_gact",
    "br_netfilter",
    "bridge",
    "cls_bpf",
    "dummy",
    "ifb",
    "macvlan",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_log_syslog",
    "nf_nat",
    "nf_tables",
    "nfnetlink",
    "nfnetlink_log",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_limit",
    "nft_log",
    "nft_counter",
    "nft_masq",
    "nft_nat",
    "nft_objref",
    "nft_redir",
    "nft_reject",
    "nft_reject_inet",
    "nft_set_hash",
    "nft_set_rbtree",
    "nft_socket",
    "nft_tproxy",
    "sch_ingress",
    "tun",
    "veth",
];

/// A module to be loaded.
#[derive(Debug)]
pub(super) struct Module {
    /// Its name, with underscores.
    pub(super) name: String,
    /// Its bytes, not compressed.
    pub(super) content: Vec<u8>,
}

/// What is wanted of the modules below `directory`, in the order of loading.
///
/// # Errors
/// When a module cannot be read.
pub(super) fn wanted(directory: &Path) -> Result<Vec<Module>> {
    let list = capture(directory)?;
    let files: BTreeMap<String, PathBuf> = list
        .lines()
        .map(PathBuf::from)
        .filter_map(|path| Some((name_of(&path)?, path)))
        .collect();
    let mut order = Order {
        files: &files,
        begun: BTreeSet::new(),
        loaded: Vec::new(),
    };
    for name in WANTED {
        order.load(name)?;
    }
    Ok(order.loaded)
}

fn capture(directory: &Path) -> Result<String> {
    let mut find = command("find");
    crate::shell::capture(find.arg(directory).args(["-name", "*.ko*"]))
}

struct Order<'a> {
    files: &'a BTreeMap<String, PathBuf>,
    begun: BTreeSet<String>,
    loaded: Vec<Module>,
}

impl Order<'_> {
    fn load(&mut self, name: &str) -> Result<()> {
        let Some(path) = self.files.get(name) else {
            return Ok(());
        };
        if !self.begun.insert(name.to_owned()) {
            return Ok(());
        }
        let content = read(path).with_context(|| format!("read {}", path.display()))?;
        for needed in depends(&content) {
            self.load(&needed)?;
        }
        self.loaded.push(Module {
            name: name.to_owned(),
            content,
        });
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => capture_bytes(command("xz").arg("-dc").arg(path)),
        Some("zst") => capture_bytes(command("zstd").args(["-q", "-dc"]).arg(path)),
        Some(_) | None => bytes_of(path),
    }
}

/// `nf_tables` of `…/nf-tables.ko.xz`.
fn name_of(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

/// The names in the `depends=` of a module's information.
fn depends(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = content.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let rest = &content[at + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    let names = String::from_utf8_lossy(&rest[..end]);
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        fn check(content: &[u8], expected: &[&str]) {
            assert_eq!(depends(content), expected);
        }
        check(b"x\0depends=nf_tables,nf-nat\0y", &["nf_tables", "nf_nat"]);
        check(b"x\0depends=\0y", &[]);
        check(b"nothing", &[]);
    }

    #[test]
    fn names_are_the_kernels() {
        fn check(path: &str, expected: Option<&str>) {
            assert_eq!(name_of(Path::new(path)).as_deref(), expected, "{path}");
        }
        check("/a/nf_tables.ko", Some("nf_tables"));
        check("/a/sch-ingress.ko.xz", Some("sch_ingress"));
        check("/a/README", None);
    }
}

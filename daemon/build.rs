//! Embeds the kernel programs that `EGRESSD_EBPF_OBJECT` names, or nothing: the binary is then
//! complete but for the ebpf plane, which says so.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=EGRESSD_EBPF_OBJECT");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let embedded = PathBuf::from(out).join("egressd.bpf.o");
    let copied = match std::env::var_os("EGRESSD_EBPF_OBJECT").filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            std::fs::copy(&path, embedded)
                .map(drop)
                .map_err(|error| format!("EGRESSD_EBPF_OBJECT={}: {error}", path.display()))
        }
        None => std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(embedded)
            .map(drop)
            .map_err(|error| error.to_string()),
    };
    if let Err(error) = copied {
        println!("cargo::error={error}");
    }
}

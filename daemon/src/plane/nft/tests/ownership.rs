//! Whose the table is that a plane finds when it opens: one test a case.

use super::*;
use std::os::fd::OwnedFd;

fn open_with(lab: &Lab, kept: Option<OwnedFd>) -> anyhow::Result<NftPlane> {
    lab.within(Place::Gateway, || NftPlane::open_with(5, kept))
}

/// A plane with its table, or `None` (said aloud) on a kernel where nothing can be owned.
fn owner(lab: &Lab) -> Option<NftPlane> {
    let mut plane = plane(lab);
    assert_eq!(plane.found, Ownership::Absent);
    assert!(plane.keepsake().is_some(), "it may be of use");
    plane.replace(&image()).unwrap();
    if plane.standing.as_ref().unwrap().table.owner.is_none() {
        let line = &plane.describe()[0];
        assert!(line.contains("not owned (no-persist)"), "{line}");
        assert!(plane.keepsake().is_none(), "it is of no use");
        eprintln!("SKIPPED: the kernel is older than 6.9, nothing is owned");
        return None;
    }
    Some(plane)
}

fn told(plane: &NftPlane, word: &str) {
    let line = &plane.describe()[0];
    assert!(line.contains(", owned by port"), "{line}");
    assert!(line.ends_with(&format!("it was {word}")), "{line}");
}

#[test]
fn a_plain_table_is_replaced() {
    let Some(lab) = Lab::new() else { return };
    lab.gateway("nft add table inet egressd", "");
    let mut plane = plane(&lab);
    assert_eq!(plane.found, Ownership::Plain);
    plane.replace(&image()).unwrap();
    plane.verify().unwrap();
    if plane.ownable == Some(true) {
        told(&plane, "plain");
    }
}

#[test]
fn an_ownerless_table_is_replaced() {
    let Some(lab) = Lab::new() else { return };
    let Some(first) = owner(&lab) else { return };
    drop(first);
    let mut second = plane(&lab);
    assert_eq!(second.found, Ownership::Ownerless);
    second.replace(&image()).unwrap();
    second.verify().unwrap();
    told(&second, "ownerless");
}

#[test]
fn a_foreign_table_is_left_alone() {
    let Some(lab) = Lab::new() else { return };
    let Some(mut first) = owner(&lab) else { return };
    let refused = open_with(&lab, None).unwrap_err().to_string();
    assert!(refused.starts_with("foreign-owned: "), "{refused}");
    let removed = lab.within(Place::Gateway, remove);
    assert!(
        removed
            .unwrap_err()
            .to_string()
            .starts_with("foreign-owned: ")
    );
    first.verify().unwrap();
}

#[test]
fn a_kept_socket_never_lets_go() {
    let Some(lab) = Lab::new() else { return };
    let Some(mut first) = owner(&lab) else { return };
    let kept = first.keepsake().expect("it is owned");
    let (port, handle) = (
        first.socket.port(),
        first.standing.as_ref().unwrap().table.handle,
    );
    // A dump that nobody reads to its end, as a kill leaves it.
    first
        .apply(
            &(0..2000_u32)
                .map(|n| {
                    change(
                        &std::net::Ipv4Addr::from(0x0800_0000 + n).to_string(),
                        &[WEB],
                    )
                })
                .collect::<Vec<_>>(),
        )
        .unwrap();
    let dump = crate::plane::netlink::Request::new(
        libc::NFNL_SUBSYS_NFTABLES as u8,
        libc::NFT_MSG_GETSETELEM as u8,
        libc::NFPROTO_INET as u8,
        0,
    )
    .with_text(1, TABLE)
    .with_text(2, "z0_c0_4");
    first
        .socket
        .send(&dump.finish(1, libc::NLM_F_DUMP as u16))
        .unwrap();
    drop(first);
    lab.tcp("203.0.113.1:80", false);
    // The kernel keeps others out while no process runs.
    let refused = lab.gateway_fails("nft delete table inet egressd");
    assert!(refused.contains("Operation not permitted"), "{refused}");
    lab.gateway("nft flush ruleset", "");
    let mut second = open_with(&lab, Some(kept)).unwrap();
    assert_eq!(second.found, Ownership::Ours);
    assert_eq!(second.socket.port(), port);
    second.replace(&image()).unwrap();
    second.verify().unwrap();
    told(&second, "kept");
    assert_ne!(
        second.standing.as_ref().unwrap().table.handle,
        handle,
        "it is made anew, in one transaction"
    );
    assert_eq!(second.read().unwrap(), Holdings::new());
}

#[test]
fn a_kept_socket_of_no_use_is_let_go() {
    let Some(lab) = Lab::new() else { return };
    let other = || OwnedFd::from(std::os::unix::net::UnixDatagram::unbound().unwrap());
    let netlink = || {
        let socket = lab.within(Place::Gateway, || Socket::open(1).unwrap());
        socket.as_fd().try_clone_to_owned().unwrap()
    };
    for kept in [other(), netlink()] {
        let mut plane = open_with(&lab, Some(kept)).unwrap();
        plane.replace(&image()).unwrap();
        plane.verify().unwrap();
        plane.remove().unwrap();
    }
}

#[test]
fn what_is_switched_off_is_removed_through_the_kept_socket() {
    let Some(lab) = Lab::new() else { return };
    let Some(first) = owner(&lab) else { return };
    let kept = first.keepsake();
    drop(first);
    lab.within(Place::Gateway, || {
        assert!(!remove_left_behind(None).unwrap(), "it is owned");
        assert!(remove_left_behind(kept).unwrap());
    });
    assert_eq!(lab.gateway("nft list tables", ""), "");
}

#[test]
fn a_table_open_to_others_is_not_kept() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab).open_to_others();
    plane.replace(&image()).unwrap();
    assert!(plane.keepsake().is_none());
    let line = &plane.describe()[0];
    assert!(line.contains("not owned: others can change it"), "{line}");
    drop(plane);
    assert_eq!(open_with(&lab, None).unwrap().found, Ownership::Plain);
}

#[test]
fn a_kernel_without_persist_is_named() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    // What `recreate` finds out before Linux 6.9.
    (plane.ownable, plane.too_old) = (Some(false), true);
    plane.replace(&image()).unwrap();
    plane.verify().unwrap();
    let line = &plane.describe()[0];
    assert!(line.contains("not owned (no-persist)"), "{line}");
}

#[test]
fn each_loss_of_the_owner_has_its_word() {
    use crate::plane::drift::Word;
    let Some(lab) = Lab::new() else { return };
    let mut other = plane(&lab);
    let Some(mut first) = owner(&lab) else { return };
    let check = |plane: &mut NftPlane, flags: u32, expected: Word| {
        let found = kernel::table(&mut plane.socket).unwrap().unwrap();
        let standing = plane.standing.as_mut().unwrap();
        // As if this plane had made the table that is there.
        (standing.table.handle, standing.table.flags) = (found.handle, flags);
        standing.table.owner = Some(plane.socket.port());
        assert_eq!(plane.check().unwrap_err().word, expected);
    };
    other.standing = first.standing.take();
    check(&mut other, OWNER | PERSIST, Word::ForeignOwner);
    drop(first);
    check(&mut other, OWNER | PERSIST, Word::Ownerless);
    lab.gateway("nft flush ruleset", "");
    lab.gateway("nft add table inet egressd", "");
    check(&mut other, OWNER | PERSIST, Word::Plain);
}

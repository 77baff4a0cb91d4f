#![expect(clippy::disallowed_methods, reason = "damages files")]

use super::*;
use crate::policy::update::Rules;
use tempfile::TempDir;

const NOW: Moment = Moment(1_000_000_000);

fn url() -> Endpoint {
    Endpoint::parse("https://v.example/list").unwrap()
}

fn rules() -> Rules {
    Rules {
        hold: 30 * 86_400_000,
        shrink_percent: 30,
        needs: None,
    }
}

/// Takes these lists, one after the other, as the daemon does.
fn taken(store: &Store, lists: &[&str]) -> Kept {
    let mut kept = Kept {
        fetched: Some(5),
        error: Some("\"of before\"\n".to_owned()),
        memory: Memory {
            etag: Some("\"e\"".to_owned()),
            public_key: Some("K".to_owned()),
            ..Memory::default()
        },
        ..Kept::default()
    };
    for (n, list) in lists.iter().enumerate() {
        store.put("c", &url(), list.as_bytes()).unwrap();
        let name = format!("v{n}");
        let version = version(list.as_bytes(), &url(), Some(&name)).unwrap();
        let print = version.print.clone();
        kept.standing
            .take(version, (NOW.0, 7), &rules(), true)
            .unwrap();
        kept.remember(Past {
            name,
            print,
            taken: 7,
        });
    }
    kept
}

fn save(store: &Store, kept: &Kept) {
    store
        .draft("c", &url(), kept, NOW)
        .unwrap()
        .write()
        .unwrap();
}

/// What is read back at the same moment. The clock of this run of the machine is an argument.
fn load(store: &Store) -> (Kept, Option<String>) {
    store.load("c", &url(), NOW)
}

const WITH_PORTS: [&str; 2] = [
    r#"[{"id": 1, "serviceArea": "MEM", "urls": ["a.v.example", "*.b.v.example"], "tcpPorts": "80,443", "required": true},
        {"id": 2, "serviceArea": "MEM", "ips": ["192.0.2.0/24", "2001:db8::/32"], "udpPorts": "3478-3481"}]"#,
    r#"[{"id": 1, "serviceArea": "MEM", "urls": ["a.v.example"], "tcpPorts": "443", "required": true}]"#,
];

#[test]
fn what_is_kept_is_read_as_the_same() {
    fn check(lists: &[&str], held: usize) {
        let folder = TempDir::new().unwrap();
        let store = Store::new(folder.path());
        let mut kept = taken(&store, lists);
        assert_eq!(kept.standing.held.len(), held, "{lists:?}");
        save(&store, &kept);
        assert_eq!(load(&store), (kept.clone(), None));
        kept.standing.barred = Some("x".to_owned());
        kept.standing.pinned = Some(kept.standing.newest.clone());
        for held in &mut kept.standing.held {
            held.set.source = "of \"somebody\"".to_owned();
        }
        save(&store, &kept);
        assert_eq!(load(&store), (kept, None));
    }
    check(&WITH_PORTS, 3);
    // Lists that tell no ports.
    check(
        &["a.v.example\n192.0.2.0/24\nb.v.example", "a.v.example"],
        1,
    );
    check(
        &[
            "id,name,port\n1,a.v.example,sctp/5000\n1,b.v.example,443",
            "id,name,port\n1,b.v.example,443",
        ],
        1,
    );
}

#[test]
fn holds_end_when_they_would_have() {
    let folder = TempDir::new().unwrap();
    let store = Store::new(folder.path());
    let kept = taken(&store, &WITH_PORTS);
    save(&store, &kept);
    let (later, _) = store.load("c", &url(), NOW.after_seconds(3600));
    assert_eq!(later.standing.next_end(), kept.standing.next_end());
    let ended = NOW.after_seconds(31 * 86_400);
    let (mut over, _) = store.load("c", &url(), ended);
    assert_eq!(over.standing.expire(ended.0), 3);
}

#[test]
fn a_pinned_version_outlives_ten_others() {
    let folder = TempDir::new().unwrap();
    let store = Store::new(folder.path());
    let mut kept = taken(&store, &["a.v.example"]);
    kept.standing.pinned = Some(kept.standing.newest.clone());
    for n in 0..15 {
        let list = format!("a.v.example\nb{n}.v.example");
        store.put("c", &url(), list.as_bytes()).unwrap();
        let version = version(list.as_bytes(), &url(), Some(&format!("w{n}"))).unwrap();
        let (name, print) = (version.name.clone(), version.print.clone());
        kept.standing
            .take(version, (NOW.0, 7), &rules(), true)
            .unwrap();
        kept.remember(Past {
            name,
            print,
            taken: 7,
        });
        save(&store, &kept);
    }
    assert_eq!(kept.history.len(), MOST_VERSIONS + 1);
    assert_eq!(load(&store), (kept, None));
}

/// A file that is gone or damaged opens nothing that was not open.
#[test]
fn without_its_list_a_pin_holds() {
    let folder = TempDir::new().unwrap();
    let store = Store::new(folder.path());
    let mut kept = taken(&store, &WITH_PORTS);
    let oldest = kept.history[1].clone();
    kept.standing.pinned = Some(store.version("c", &url(), &oldest).unwrap());
    save(&store, &kept);
    let list = store.list("c", &url(), &oldest.print);
    for damage in [Some("x"), None] {
        match damage {
            Some(text) => fs::write(&list, text).unwrap(),
            None => fs::remove_file(&list).unwrap(),
        }
        let (found, trouble) = load(&store);
        assert!(trouble.unwrap().starts_with("version v0: "));
        // As if it was never had: a configuration that names its parts is right all the same.
        assert_eq!(found.in_force(NOW), None);
        assert_eq!(found.standing.pinned.unwrap().name, "v0");
        assert_eq!(found.standing.newest, kept.standing.newest);
    }
}

#[test]
fn a_pin_needs_no_newest() {
    let folder = TempDir::new().unwrap();
    let store = Store::new(folder.path());
    let mut kept = taken(&store, &WITH_PORTS);
    let oldest = store.version("c", &url(), &kept.history[1]).unwrap();
    kept.standing.pinned = Some(oldest.clone());
    save(&store, &kept);
    fs::remove_file(store.list("c", &url(), &kept.standing.newest.print)).unwrap();
    assert_eq!(store.in_force("c", &url(), NOW), Some(oldest.catalogue));
}

/// Any flip, cut or foreign content: what was kept, or nothing that could be open, never a panic.
#[test]
fn damage_opens_nothing() {
    let folder = TempDir::new().unwrap();
    let store = Store::new(folder.path());
    let kept = taken(&store, &WITH_PORTS);
    save(&store, &kept);
    let path = store.file("c", &url());
    let list = store.list("c", &url(), &kept.standing.newest.print);
    let mut chance = 1_u64;
    let mut below = |end: usize| {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(chance >> 33).unwrap() % end
    };
    let (mut same, mut less) = (0, 0);
    for file in [&path, &list] {
        let whole = fs::read(file).unwrap();
        for _ in 0..5000 {
            let mut bytes = whole.clone();
            match below(3) {
                0 => bytes.truncate(below(whole.len())),
                1 => bytes[below(whole.len())] ^= 1 << below(8),
                _ => {
                    let at = below(whole.len());
                    bytes.splice(at..at, std::iter::repeat_n(b'9', 1 + below(20)));
                }
            }
            fs::write(file, &bytes).unwrap();
            let (found, trouble) = load(&store);
            if found == kept {
                same += 1;
            } else {
                less += 1;
                assert!(
                    trouble.is_some(),
                    "said nothing of {}",
                    String::from_utf8_lossy(&bytes)
                );
                let open = found.standing.in_force(NOW.0).sets;
                let was = kept.standing.in_force(NOW.0).sets;
                assert!(open.iter().all(|set| was.contains(set)), "{open:?}");
                assert_eq!(
                    found.memory,
                    Memory::default(),
                    "the server must be asked for all of it"
                );
            }
        }
        fs::write(file, &whole).unwrap();
        assert_eq!(load(&store), (kept.clone(), None));
    }
    println!("{same} read as they were, {less} less");
}

#[test]
fn a_number_of_ones_own() {
    let folder = TempDir::new().unwrap();
    let store = Store::new(folder.path());
    let (id, trouble) = store.client_id();
    assert_eq!((trouble, store.client_id()), (None, (id.clone(), None)));
    assert_eq!((id.len(), &id[14..15]), (36, "4"));
    let path = folder.path().join(FOLDER).join("client-id.json");
    for damage in ["", "x", &"0".repeat(37), "\u{e9}"] {
        fs::write(&path, damage).unwrap();
        let (other, trouble) = store.client_id();
        assert!(trouble.is_none() && other != id && store.client_id().0 == other);
    }
}

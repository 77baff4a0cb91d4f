//! The state file: what is written is read, and nothing else.

use super::*;
use crate::policy::tests::{answer, intent, links};

fn policy() -> Policy {
    Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap()
}

fn restored(directory: &Path) -> Vec<String> {
    let mut policy = policy();
    let (state, trouble) = Store::new(directory).load();
    assert_eq!(trouble, None);
    restore(&mut policy, &state, Moment(0));
    policy
        .grants()
        .map(|(_, address, _)| address.to_string())
        .collect()
}

#[test]
fn a_snapshot_in_pieces_is_whole() {
    let mut policy = policy();
    for last in 0..10 {
        let address = format!("20.0.0.{last}");
        policy.admit(
            ZoneId(0),
            &answer("b.example", &[address.as_str()], 60),
            Moment(0),
        );
    }
    let addresses =
        |state: State| -> Vec<IpAddr> { state.answers.iter().map(|kept| kept.address).collect() };
    for most in [1, 3, 5, 10, 11] {
        let mut draft = Draft::default();
        let pieces = (1..)
            .find(|_| draft.advance(&policy, Moment(0), most))
            .unwrap();
        assert_eq!(pieces, 10 / most + 1);
        assert_eq!(
            addresses(draft.finish()),
            addresses(snapshot(&policy, Moment(0)))
        );
    }
}

#[test]
fn snapshot_and_journal_come_back_and_a_cut_line_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("made");
    let mut policy = policy();
    let mut store = Store::new(&directory);
    policy.admit(
        ZoneId(0),
        &answer("b.example", &["20.0.0.1"], 60),
        Moment(0),
    );
    Store::save(&directory, &snapshot(&policy, Moment(0))).unwrap();
    let name = "x.a.example".parse().unwrap();
    let learned = |address: &str| ("z", &name, address.parse().unwrap());
    store
        .append([learned("20.0.0.2"), learned("20.0.0.3")].into_iter())
        .unwrap();
    assert_eq!(restored(&directory), ["20.0.0.1", "20.0.0.2", "20.0.0.3"]);
    let journal = fs::read(directory.join("journal")).unwrap();
    fs::write(directory.join("journal"), &journal[..journal.len() - 5]).unwrap();
    assert_eq!(restored(&directory), ["20.0.0.1", "20.0.0.2"]);
    let mut store = Store::new(&directory);
    store.append([learned("20.0.0.4")].into_iter()).unwrap();
    assert_eq!(restored(&directory), ["20.0.0.1", "20.0.0.2", "20.0.0.4"]);
    store.turn_page().unwrap();
    store.append([learned("20.0.0.5")].into_iter()).unwrap();
    assert_eq!(restored(&directory).len(), 4, "both pages are read");
    Store::save(&directory, &snapshot(&policy, Moment(0))).unwrap();
    assert_eq!(
        restored(&directory),
        ["20.0.0.1", "20.0.0.5"],
        "lines since the page stay"
    );
}

#[test]
fn what_was_revoked_stays_revoked_over_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mut policy = policy();
    for name in ["b.example", "x.a.example"] {
        policy.admit(
            ZoneId(0),
            &answer(name, &["20.0.0.1", "20.0.0.2"], 60),
            Moment(0),
        );
    }
    Store::save(folder.path(), &snapshot(&policy, Moment(0))).unwrap();
    let mut store = Store::new(folder.path());
    let (b, x) = ("b.example".parse().unwrap(), "x.a.example".parse().unwrap());
    let mut note = |name, address: &str, revoked| {
        let news = [("z", name, address.parse().unwrap(), revoked)];
        store.note(news.into_iter()).unwrap();
    };
    note(&b, "20.0.0.1", true);
    assert_eq!(
        restored(folder.path()),
        ["20.0.0.1", "20.0.0.2"],
        "by the other name"
    );
    note(&x, "20.0.0.1", true);
    assert_eq!(restored(folder.path()), ["20.0.0.2"]);
    note(&b, "20.0.0.1", false);
    assert_eq!(
        restored(folder.path()),
        ["20.0.0.1", "20.0.0.2"],
        "taught again"
    );
    note(&b, "20.0.0.1", true);
    Store::new(folder.path()).turn_page().unwrap();
    assert_eq!(
        restored(folder.path()),
        ["20.0.0.2"],
        "in the old journal too"
    );
}

#[test]
fn what_is_no_longer_listed_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::new(folder.path());
    let (gone, bad) = (
        "gone.example".parse().unwrap(),
        "b.example".parse().unwrap(),
    );
    let learned = [
        ("z", &gone, "20.0.0.1"),
        ("other", &bad, "20.0.0.1"),
        ("z", &bad, "10.20.0.1"),
    ];
    let learned = learned.map(|(zone, name, address)| (zone, name, address.parse().unwrap()));
    store.append(learned.into_iter()).unwrap();
    assert_eq!(restored(folder.path()), [""; 0]);
}

/// Journals are read though the snapshot cannot be, and the next snapshot is written.
#[test]
fn six_broken_kinds() {
    fn check(break_it: impl FnOnce(&Path), word: Option<&str>, mended: bool) {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("state");
        let mut policy = policy();
        policy.admit(
            ZoneId(0),
            &answer("b.example", &["20.0.0.1"], 60),
            Moment(0),
        );
        let state = snapshot(&policy, Moment(0));
        Store::save(&directory, &state).unwrap();
        let (name, address) = ("x.a.example".parse().unwrap(), "20.0.0.2".parse().unwrap());
        let mut store = Store::new(&directory);
        store.append([("z", &name, address)].into_iter()).unwrap();
        break_it(&directory);
        let mut store = Store::new(&directory);
        let (_, trouble) = store.load();
        match (&trouble, word) {
            (None, None) => {}
            (Some(why), Some(word)) if why.contains(word) => {}
            _ => panic!("{word:?}: {trouble:?}"),
        }
        let saved = Store::save(&directory, &state);
        assert_eq!(saved.is_ok(), mended, "{word:?}: {saved:?}");
        store.health.saved(saved);
        assert_eq!(store.health.trouble().is_none(), mended);
        if mended {
            assert!(restored(&directory).contains(&"20.0.0.1".to_owned()));
        }
    }
    let spoil = |change: fn(Vec<u8>) -> Vec<u8>| {
        move |directory: &Path| {
            let path = directory.join("state.json");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, change(bytes)).unwrap();
        }
    };
    check(|_| {}, None, true);
    check(
        |directory| fs::remove_dir_all(directory).unwrap(),
        None,
        true,
    );
    check(
        spoil(|bytes| bytes[..bytes.len() / 2].to_vec()),
        Some("checksum"),
        true,
    );
    check(spoil(|_| Vec::new()), Some("checksum"), true);
    let flip = |bytes: Vec<u8>| {
        String::from_utf8(bytes)
            .unwrap()
            .replace("20.0.0.1", "20.0.0.9")
            .into()
    };
    check(spoil(flip), Some("checksum"), true);
    check(
        spoil(|_| b"{\"version\":9,\"more\":[]}\n".to_vec()),
        Some("version 9"),
        true,
    );
    let unreadable = |directory: &Path| {
        fs::remove_file(directory.join("state.json")).unwrap();
        fs::create_dir(directory.join("state.json")).unwrap();
    };
    check(unreadable, Some("read "), false);
    let pipe = |directory: &Path| {
        fs::remove_file(directory.join("state.json")).unwrap();
        let rights = nix::sys::stat::Mode::S_IRUSR;
        nix::unistd::mkfifo(&directory.join("state.json"), rights).unwrap();
    };
    check(pipe, Some("no regular file"), true);
    // A disk without room.
    let full = |directory: &Path| {
        std::os::unix::fs::symlink("/dev/full", directory.join("state.json.new")).unwrap();
    };
    check(full, None, false);
    // As a directory that nobody may write, also for root.
    let closed = |directory: &Path| {
        fs::remove_dir_all(directory).unwrap();
        fs::write(directory, b"").unwrap();
    };
    check(closed, Some("read "), false);
}

#[test]
fn a_snapshot_of_the_first_version_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        r#"{"version":1,"answers":[{"zone":"z","name":"b.example","address":"20.0.0.1","end":0}]}"#;
    fs::write(folder.path().join("state.json"), text).unwrap();
    assert_eq!(restored(folder.path()), ["20.0.0.1"]);
}

#[test]
fn the_disk_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::new(folder.path());
    let name = "b.example".parse().unwrap();
    let learned = || [("z", &name, "20.0.0.1".parse().unwrap())].into_iter();
    let journal = folder.path().join(JOURNAL);
    std::os::unix::fs::symlink("/dev/full", &journal).unwrap();
    let failed = store.append(learned());
    assert!(failed.is_err());
    store.health.note(failed);
    assert!(
        store
            .health
            .trouble()
            .is_some_and(|why| why.contains("journal"))
    );
    fs::remove_file(&journal).unwrap();
    store.append(learned()).unwrap();
    store.health.note(Ok(()));
    assert!(
        store.health.trouble().is_some(),
        "what failed is in no file yet"
    );
    store
        .health
        .saved(Store::save(folder.path(), &State::default()));
    assert_eq!(store.health.trouble(), None);
}

/// The snapshot was written before the clock jumped, the journal after it.
#[test]
fn what_is_in_the_journal_lives_for_the_grace_whatever_the_wall_clock_says() {
    for years in [-10, 10] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::new(folder.path());
        let (name, address) = ("x.a.example".parse().unwrap(), "20.0.0.2".parse().unwrap());
        store.append([("z", &name, address)].into_iter()).unwrap();
        let (mut state, _) = store.load();
        let mut stamp = Stamp::now(Moment(0));
        stamp.wall = stamp.wall.saturating_add_signed(years * 365 * 86_400_000);
        state.stamp = Some(stamp);
        let mut back = policy();
        restore(&mut back, &state, Moment(0));
        let grants: Vec<_> = back.grants().collect();
        let end = grants[0].2.lessons[0].end.seconds_from(Moment(0));
        assert_eq!(end, RESTORE_GRACE, "{years}");
    }
}

#[test]
fn ends_do_not_follow_the_wall_clock() {
    const YEARS: i64 = 10 * 365 * 86_400_000;
    fn check(same_boot: bool, wall: i64, expected: u64) {
        let mut policy = policy();
        policy.admit(
            ZoneId(0),
            &answer("b.example", &["20.0.0.1"], 3600),
            Moment(0),
        );
        let mut state = snapshot(&policy, Moment(0));
        let stamp = state.stamp.as_mut().unwrap();
        // The other way round: the present stands still.
        let moved = stamp.wall.saturating_add_signed(-wall);
        let by = i128::from(moved) - i128::from(stamp.wall);
        stamp.wall = moved;
        for kept in &mut state.answers {
            kept.end = u64::try_from(i128::from(kept.end) + by).unwrap();
        }
        if !same_boot {
            stamp.boot = "another".to_owned();
        }
        let mut back = self::policy();
        restore(&mut back, &state, Moment(1_000));
        let grants: Vec<_> = back.grants().collect();
        let end = grants[0].2.lessons[0].end.seconds_from(Moment(1_000));
        assert!(end.abs_diff(expected) <= 2, "{same_boot} {wall}: {end}");
    }
    for wall in [0, YEARS, -YEARS] {
        check(true, wall, 4499);
    }
    check(false, 0, 4500);
    check(false, -YEARS, 4500);
    check(false, YEARS, RESTORE_GRACE);
}

//! The corpus is what it says: enough of it, each vector itself, and each client found again.

use super::*;
use std::collections::BTreeSet;

#[test]
fn every_promise_has_vectors_and_each_has_its_own_name() {
    let vectors = all();
    let counts = per_promise(&vectors);
    std::println!("{} vectors: {counts:?}", vectors.len());
    assert!(vectors.len() >= 2000, "only {}", vectors.len());
    assert_eq!(counts.len(), 10, "{counts:?}");
    for (promise, count) in counts {
        assert!(count >= 30, "{promise} has {count}");
    }
    let names: BTreeSet<_> = vectors.iter().map(|v| (v.promise, &v.name)).collect();
    assert_eq!(names.len(), vectors.len(), "names that are there twice");
    for vector in &vectors {
        assert!(vector.frame.len() >= 14, "{}", vector.name);
        assert!(vector.frame.len() <= 9014, "{}", vector.name);
    }
}

#[test]
fn clients_are_found_by_their_addresses() {
    for number in [0, 1, 255, 256, 4711, 57_343] {
        let client = Client::of(number);
        assert_eq!(Client::number(client.v4.into()), Some(number));
        assert_eq!(Client::number(client.v6.into()), Some(number));
    }
    assert_eq!(Client::number([10, 20, 1, 1].into()), None);
    assert_eq!(Client::number([192, 168, 16, 1].into()), None);
}

#[test]
fn header_checksums_are_right() {
    // A header with its checksum sums up to all ones (RFC 1071).
    let vectors = all();
    let vector = vectors.iter().find(|v| v.frame[12..14] == [8, 0]).unwrap();
    let sum: u32 = vector.frame[14..34]
        .as_chunks::<2>()
        .0
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
}

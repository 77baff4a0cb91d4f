//! Texts that are a little wrong, or right in another way: bytes, lines, tokens and values change.

use crate::soak::chance::Chance;

/// Values that configurations are written with, and some that none should be.
const VALUES: [&str; 40] = [
    "\"lan0\"",
    "\"lan*\"",
    "\"wan0\"",
    "[\"lan0\"]",
    "[]",
    "\"enforce\"",
    "\"audit\"",
    "\"allow\"",
    "\"deny\"",
    "\"vendor\"",
    "\"vendor/1\"",
    "[\"vendor/2\"]",
    "[\"nosuch\"]",
    "\"intune\"",
    "[\"10.20.0.0/16\"]",
    "[\"10.20.0.0/24\"]",
    "[\"0.0.0.0/0\"]",
    "[\"52.98.0.0/24\"]",
    "[\"52.97.0.0/16\"]",
    "[\"52.96.0.0/12\", \"2600:97::/32\"]",
    "[\"::/0\"]",
    "[\"10.20.0.0/33\"]",
    "[443]",
    "[9000]",
    "[\"1-65535\"]",
    "[\"9000-8000\"]",
    "[65536]",
    "[0]",
    "-1",
    "9000",
    "true",
    "false",
    "1979-05-27",
    "\"\"",
    "\"*\"",
    "[\"*.vendor.example\"]",
    "[\"*\"]",
    "[\"a..b\"]",
    "{}",
    "\"\\u0000\"",
];

/// `text` with one to three changes.
pub(super) fn mutated(text: &str, chance: &mut Chance) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=chance.below(3) {
        change(&mut bytes, chance);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, chance: &mut Chance) {
    match chance.below(10) {
        0 => byte(bytes, chance),
        1 => {
            let at = place(bytes.len(), chance);
            bytes.truncate(at);
        }
        2..=4 => lines(bytes, chance),
        5 | 6 => token(bytes, chance),
        _ => value(bytes, chance),
    }
}

/// One below `length`, or 0.
fn place(length: usize, chance: &mut Chance) -> usize {
    let end = u32::try_from(length).unwrap_or(u32::MAX).max(1);
    chance.below(end) as usize
}

fn byte(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let at = place(bytes.len(), chance);
    let any = chance.next().to_be_bytes()[0];
    match (chance.below(3), bytes.get_mut(at)) {
        (0, Some(one)) => *one ^= 1 << (any % 8),
        (1, Some(_)) => {
            bytes.remove(at);
        }
        _ => bytes.insert(at, any),
    }
}

/// A line goes, comes twice, or changes places with another.
fn lines(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let mut lines: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let [one, other] = [0, 0].map(|_: u8| place(lines.len(), chance));
    match chance.below(3) {
        0 => {
            lines.remove(one);
        }
        1 => {
            let line = lines[one].clone();
            lines.insert(other, line);
        }
        _ => lines.swap(one, other),
    }
    *bytes = lines.join(&b'\n');
}

/// A digit or a letter of a word becomes another of its kind.
fn token(bytes: &mut [u8], chance: &mut Chance) {
    let start = place(bytes.len(), chance);
    let found = bytes
        .iter_mut()
        .skip(start)
        .find(|b| b.is_ascii_alphanumeric());
    let Some(one) = found else { return };
    let next = u8::try_from(chance.below(26)).expect("below 26");
    *one = if one.is_ascii_digit() {
        b'0' + next % 10
    } else {
        b'a' + next
    };
}

/// What is behind an equals sign becomes something else.
fn value(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let mut lines: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let at = place(lines.len(), chance);
    let mut sets = lines.iter_mut().skip(at);
    if let Some(line) = sets.find(|line| line.contains(&b'='))
        && let Some(equals) = line.iter().position(|b| *b == b'=')
    {
        line.truncate(equals + 1);
        line.push(b' ');
        line.extend(VALUES[place(VALUES.len(), chance)].bytes());
    }
    *bytes = lines.join(&b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_changes_and_the_same_seed_changes_the_same() {
        let text = "[[zone]]\nname = \"a\"\ninterfaces = [\"lan0\"]\n";
        let all = |seed| -> Vec<Vec<u8>> {
            let mut chance = Chance::new(seed);
            (0..200).map(|_| mutated(text, &mut chance)).collect()
        };
        let once = all(1);
        assert_eq!(once, all(1));
        let different = once
            .iter()
            .filter(|bytes| bytes.as_slice() != text.as_bytes());
        assert!(different.count() > 150);
    }
}

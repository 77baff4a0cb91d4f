//! Bytes to text: UTF-8 and UTF-16, with byte order mark or without. Guesses no other character set.

use crate::document::{self, Problems};
use std::borrow::Cow;

/// The most a catalogue may hold, in bytes.
pub const LIMIT: usize = 64 << 20;

/// The text of a file that problems will call `file`, without its byte order mark. UTF-16 without a
/// mark is known by its first bytes: every other one is 0.
///
/// # Errors
/// When it is over [`LIMIT`] bytes, or with the place of the first byte that belongs to no character.
pub fn decode<'b>(bytes: &'b [u8], file: &str) -> Result<Cow<'b, str>, Problems> {
    if bytes.len() > LIMIT {
        return Err(Problems::with_file(
            file,
            format!("it is larger than {} MB; split it", LIMIT >> 20),
        ));
    }
    let Some((unit, bytes, skipped)) = utf16(bytes) else {
        let text = document::text(bytes, file)?;
        return Ok(Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)));
    };
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(bytes.len());
    let mut at = skipped;
    let wrong = |at: usize, what: &str| {
        let what = format!("{what} at byte {at}; save the file again, as UTF-8");
        Problems::with_file(file, what)
    };
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        let Ok(character) = character else {
            return Err(wrong(at, "this is UTF-16 with half a character"));
        };
        at += 2 * character.len_utf16();
        text.push(character);
    }
    if rest.is_empty() {
        Ok(Cow::Owned(text))
    } else {
        Err(wrong(at, "this is UTF-16 cut inside a character"))
    }
}

/// How two bytes make a unit of UTF-16.
type Unit = fn([u8; 2]) -> u16;

/// How the units of UTF-16 are written, what follows the mark, and how long the mark is.
fn utf16(bytes: &[u8]) -> Option<(Unit, &[u8], usize)> {
    if let Some(rest) = bytes.strip_prefix(b"\xff\xfe") {
        return Some((u16::from_le_bytes, rest, 2));
    }
    if let Some(rest) = bytes.strip_prefix(b"\xfe\xff") {
        return Some((u16::from_be_bytes, rest, 2));
    }
    match bytes {
        [a, 0, b, 0, ..] if *a != 0 && *b != 0 => Some((u16::from_le_bytes, bytes, 0)),
        [0, a, 0, b, ..] if *a != 0 && *b != 0 => Some((u16::from_be_bytes, bytes, 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_sets() {
        fn check(bytes: &[u8], expected: Result<&str, &str>) {
            let got = decode(bytes, "c").map_err(|problems| problems.to_string());
            assert_eq!(
                got.as_deref().map_err(String::as_str),
                expected,
                "{bytes:?}"
            );
        }
        check(b"a\xc3\xa4", Ok("aä"));
        check(b"\xef\xbb\xbfa", Ok("a"));
        check(b"", Ok(""));
        check(b"\xff\xfea\0\x01\x30\x3d\xd8\0\xde", Ok("a、\u{1F600}"));
        check(b"\xfe\xff\0a\x30\x01", Ok("a、"));
        check(b"I\0D\0", Ok("ID"));
        check(b"\0I\0D", Ok("ID"));
        check(
            b"\xff\xfea\0\x3d\xd8b\0",
            Err("c: this is UTF-16 with half a character at byte 4; save the file again, as UTF-8"),
        );
        check(
            b"I\0D\0\0\xde",
            Err("c: this is UTF-16 with half a character at byte 4; save the file again, as UTF-8"),
        );
        check(
            b"\xff\xfea\0b",
            Err(
                "c: this is UTF-16 cut inside a character at byte 4; save the file again, as UTF-8",
            ),
        );
        check(
            b"ok\n\xff",
            Err("c:2:1: the byte 0xff is not UTF-8; write text in that encoding"),
        );
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let bytes = vec![b'\n'; LIMIT + 1];
        let problems = decode(&bytes, "c").unwrap_err();
        assert_eq!(problems.to_string(), "c: it is larger than 64 MB; split it");
    }
}

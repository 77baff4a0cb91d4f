//! Typography that people and browsers put between the words of a list, made plain. Lines stay lines.

/// A text with full-width letters made narrow, every kind of space a space, and without characters
/// that nobody sees.
#[must_use]
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    folded.extend(text.chars().filter_map(character));
    folded
}

/// What stands for a character; `None` when nobody sees it.
#[must_use]
pub(super) fn character(c: char) -> Option<char> {
    match c {
        // Directions, joiners, soft hyphens, byte order marks.
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => None,
        '\u{85}'
        | '\u{a0}'
        | '\u{1680}'
        | '\u{2000}'..='\u{200a}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{202f}'
        | '\u{205f}'
        | '\u{3000}' => Some(' '),
        '\u{2010}' | '\u{2011}' => Some('-'),
        '\u{3001}' | '\u{ff64}' => Some(','),
        // They would become part of the markup.
        '\u{ff06}' | '\u{ff1c}' | '\u{ff1e}' | '\u{ff3c}' | '\u{ff40}' | '\u{ff5c}' => Some(c),
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typography() {
        fn check(text: &str, expected: &str) {
            assert_eq!(fold(text), expected, "{text:?}");
        }
        check("ＴＣＰ：８０、４４３", "TCP:80,443");
        check("a.\u{200b}exam\u{ad}ple\u{a0}b", "a.example b");
        check("a\u{2011}b．example\u{3000}＊．ｘ", "a-b.example *.x");
        check("a｜b\r\n", "a｜b\r\n");
        check("はい", "はい");
    }
}

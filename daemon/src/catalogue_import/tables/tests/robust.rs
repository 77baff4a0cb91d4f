//! What nobody wrote for us: damaged, huge and hostile pages.

use super::{nothing_is_lost, pages, read};

/// A pseudo-random sequence (splitmix64): the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap_or_default()
    }
}

const PIECES: &[&str] = &[
    "|",
    "\n",
    "\n---|---|\n",
    "<table>",
    "</table>",
    "<tr>",
    "<td>",
    "<td colspan=9999999999 rowspan=1000>",
    "<th>",
    "<!--",
    "-->",
    "<",
    ">",
    "&",
    "&#0;",
    "&#x110000;",
    "`",
    "(",
    ")",
    "*",
    "**",
    "\\",
    "\u{200b}",
    "、",
    "é",
    "\"",
    "'",
    "443",
    "TCP:",
    "/",
    ".",
    "-",
    "*.a.example",
    "10.0.0.0/8",
    "::/0",
    "<script>",
    "\r",
    "\t",
    ";",
    ",",
    "#",
    "[",
    "](",
    "```",
    "=",
    "\u{10ffff}",
];

fn mutate(seed: &str, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.as_bytes().to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() + 1);
        match dice.roll(4) {
            0 => bytes.truncate(at),
            1 => {
                let end = (at + dice.roll(40)).min(bytes.len());
                bytes.drain(at..end);
            }
            2 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            _ => {
                let piece = PIECES[dice.roll(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes
}

/// 10,000 changes of `seeds`: nothing panics, every account balances, and reading twice gives the same.
pub(in crate::catalogue_import) fn check(seeds: &[&str]) {
    let mut dice = Dice(7);
    let (mut read_well, mut refused) = (0, 0);
    for round in 0..10_000 {
        let bytes = mutate(seeds[round % seeds.len()], &mut dice);
        let first = read(&bytes, "page");
        if round % 8 == 0 {
            assert_eq!(first, read(&bytes, "page"));
        }
        match first {
            Ok(catalogue) => {
                let account = &catalogue.account;
                assert_eq!(account.tokens, account.imported + account.reported.len());
                read_well += 1;
            }
            Err(problems) => {
                assert!(!problems.list().is_empty());
                refused += 1;
            }
        }
    }
    assert!(read_well > 1000 && refused > 100, "{read_well} {refused}");
}

#[test]
fn damaged_tables() {
    check(&[pages::SMALL_MARKDOWN, pages::SMALL_HTML, pages::SMALL_PLAIN]);
}

#[test]
fn damaged_lists() {
    check(&[
        "# x\na.example.com\n*.b.example.com, 10.0.0.0/8\n2001:db8::/32\n.c.example.com\n||d.example.com^\n",
    ]);
}

#[test]
fn damaged_values() {
    check(&[
        "id,name,ip,tcp,ports,x\n1,\"a.example.com b.example.com\",10.0.0.0/8,\"80,443\",53/udp,y\n2,*.c.example.com,,443,,\n",
    ]);
}

/// Much of one thing: each is read or refused in one pass. A reading that goes back again and
/// again would not end.
#[test]
fn huge_pages_take_one_pass() {
    const SIZE: usize = 1 << 17;
    let head = "ID | Addresses | Ports |\n---|---|---|\n";
    for piece in [
        "|",
        "<td>",
        "<div><b>",
        "*",
        "<",
        "<!--",
        "a.b ",
        "1 | a |\n",
        "\\|",
        "&",
        "`",
        "(",
        "x\n",
    ] {
        for start in ["", head, "<table><tr>"] {
            let page = start.to_owned() + &piece.repeat(SIZE / piece.len());
            let got = read(page.as_bytes(), "page");
            if let Ok(catalogue) = got {
                let account = &catalogue.account;
                assert_eq!(account.tokens, account.imported + account.reported.len());
            }
        }
    }
}

#[test]
fn seeds_are_read_whole() {
    for seed in [pages::SMALL_MARKDOWN, pages::SMALL_HTML, pages::SMALL_PLAIN] {
        let catalogue = read(seed.as_bytes(), "page").unwrap();
        nothing_is_lost(seed, &catalogue);
    }
}

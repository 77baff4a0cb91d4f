//! The traps of real pages, in miniature.

use super::{read, shown};
use crate::policy::catalogue::Catalogue;

pub(super) const SMALL_MARKDOWN: &str = "\
<!--Worldwide endpoints version 2026112300-->
# Endpoints of a service

For some tasks, login.example.com and *.cdn.example.net are needed.

## Old

<!--
| ID | Category | ER | Addresses | Ports |
|----|----------|----|-----------|-------|
| 9 | Allow<BR>Required | Yes | `old.example.com` | **TCP:** 80 |
-->

## Mail flow

> | ID | Desc | Category | ER | Addresses | Ports |Notes|
> |----|------|----------|----|-----------|-------|-----|
> | 1 | Mail\\|Web | Allow<BR>Required | Yes | `*.mail.example.com`<BR>`mail.example.com`<BR>`192.0.2.0/24, 198.51.100.0/24,203.0.113.0/24` | **TCP:** 443, 80<BR>**UDP:** 3478, 50000-50059 | |
2 | Consumer example.net | Default<BR>Optional<BR>**Notes:** see [help](https://help.example.com/a) | No | \\*.odd\\_name.example.com, 'https://quoted.example.com', <tenant>.example.com<BR>(Starting in May, moved.example.com takes over) | TCP：４４３
| 3 | Broken | Default | No | 10.0.0.1/8 a.example.com A.example.com *.com see b.example.com for details | 443 |

```
copied.example.com
```
";

pub(super) const SMALL_HTML: &str = "\
<!DOCTYPE html>
<html><head><title>x</title><script>var a = \"hidden.example.com\" < 3;</script></head>
<body class=\"a.b\"><h1>Endpoints &amp; more</h1>
<p>For some tasks, <b>login.example.com</b> is needed; see <a href=\"https://docs.example.com/\">docs</a>.</p>
<table>
<thead><tr><th>ID</th><th>Category</th><th colspan=\"2\">Addresses</th><th>Ports</th></tr></thead>
<tbody>
<tr><td rowspan=2>7</td><td>Optimize<br>Required</td><td><code>*.a.example.com</code>&nbsp;<code>b.exam<wbr>ple.com</code></td><td>c.example.com</td><td><p><strong>TCP:</strong> 443</p></td></tr>
<tr><td>Default<br/>Optional</td><td>&lt;tenant&gt;.example.com d&#46;example.com</td><td></td><td>UDP: 443 &ndash; 445</td>
</tr><tr><td>8<td>Default<td colspan=2><table><tr><td>e.exam&shy;ple.com</td><td>f.example.com</td></tr></table><td>TCP: 80
</table>
<!-- <table><tr><td>old.example.com</td></tr></table> -->
<table><tr><td>Read</td><td>more.example.com</td></tr></table>
</body></html>
";

pub(super) const SMALL_PLAIN: &str = "\
For some tasks, login.example.com、*.cdn.example.net are needed.
ID | 指定 | カテゴリ | ER | アドレス | ポート | メモ |
---|---|---|---|---|---|---|
163 | クライアントとホスト | 許可 必須 |
False | *.a.example.com a.example.com 192.0.2.0/24, 198.51.100.0/24,203.0.113.0/24 |
TCP: 80、443 | |
188 | GCC の依存関係 | 既定値 必須 |
はい | b.example.us |
TCP: 443 |
189 | 一行 | 既定値 | False | c.example.com | UDP: 123 |
190 | 一行 | 既定値 | False | d.example.com | UDP: 123 | e.example.com |
お客様が has.example.com を
ユニット (ASU) | ストレージ名 | CDN | ポート |
---|---|---|---|
UNIT01 UNIT02 UNIT01 |
storepri storesec |
storepri.example.net storesec.example.net |
TCP: 443 |
'https://one.example.net'
";

fn check(text: &str, expected: &[&str], reported: &[(&str, &str, &str)]) -> Catalogue {
    let catalogue = read(text.as_bytes(), "page").unwrap();
    let got: Vec<_> = catalogue.sets.iter().map(shown).collect();
    assert_eq!(got, expected);
    let got: Vec<_> = catalogue
        .account
        .reported
        .iter()
        .map(|r| {
            (
                &*r.origin,
                &*r.token,
                &r.why[..r.why.find([';', ',']).unwrap_or(r.why.len())],
            )
        })
        .collect();
    assert_eq!(got, reported);
    catalogue
}

const PROSE: &str = "prose";
const REMARK: &str = "it stands in a remark";
const BESIDE: &str = "it stands in another column than the addresses";
const TWICE: &str = "its row names it twice";

#[test]
fn markdown() {
    let catalogue = check(
        SMALL_MARKDOWN,
        &[
            "1 [*.mail.example.com mail.example.com] [192.0.2.0/24 198.51.100.0/24 203.0.113.0/24] \
             tcp/80, tcp/443, udp/3478, udp/50000-50059 Allow required er",
            "2 [*.odd_name.example.com quoted.example.com] [] tcp/443 Default",
            "3 [a.example.com] []  Default",
        ],
        &[
            ("line 19", "example.net", BESIDE),
            (
                "line 19",
                "<tenant>.example.com",
                "`<tenant>.example.com` leaves a part to fill in",
            ),
            ("line 19", "moved.example.com", REMARK),
            (
                "line 20",
                "10.0.0.1/8",
                "`10.0.0.1/8` has bits set after its prefix",
            ),
            ("line 20", "A.example.com", TWICE),
            (
                "line 20",
                "*.com",
                "`*.com` would match far too much: at least two labels must follow the `*`",
            ),
            ("line 20", "b.example.com", REMARK),
            ("line 20", "443", "no protocol is written with it"),
            ("line 8", "<!--", "a comment with 1 names and networks"),
            (
                "line 19",
                "https://help.example.com/a",
                "the target of a link",
            ),
            ("line 4", "login.example.com", PROSE),
            ("line 4", "*.cdn.example.net", PROSE),
            ("line 23", "copied.example.com", PROSE),
        ],
    );
    assert_eq!(
        (&*catalogue.title, &*catalogue.version),
        ("Endpoints of a service", "2026112300")
    );
    let set = &catalogue.sets[1];
    assert_eq!(set.area, "mail-flow");
    assert_eq!(
        set.notes,
        "see [help]\nStarting in May moved.example.com takes over"
    );
}

#[test]
fn html() {
    let catalogue = check(
        SMALL_HTML,
        &[
            "7 [*.a.example.com b.example.com c.example.com] [] tcp/443 Optimize required",
            "7 [d.example.com] [] udp/443-445 Default",
            "8 [e.example.com f.example.com] [] tcp/80 Default",
        ],
        &[
            (
                "line 9",
                "<tenant>.example.com",
                "`<tenant>.example.com` leaves a part to fill in",
            ),
            (
                "line 13",
                "more.example.com",
                "its table has no columns of addresses and of ports or ids",
            ),
            ("line 12", "<!--", "a comment with 1 names and networks"),
            (
                "line 4",
                "https://docs.example.com/",
                "the target of a link",
            ),
            ("line 4", "login.example.com", PROSE),
        ],
    );
    assert_eq!(catalogue.title, "Endpoints & more");
}

#[test]
fn plain_text() {
    let catalogue = check(
        SMALL_PLAIN,
        &[
            "163 [*.a.example.com a.example.com] [192.0.2.0/24 198.51.100.0/24 203.0.113.0/24] \
             tcp/80, tcp/443 Allow required",
            "188 [b.example.us] [] tcp/443 Default required er",
            "189 [c.example.com] [] udp/123 Default",
            "190 [d.example.com] [] udp/123 Default",
            "unit01 [storepri.example.net storesec.example.net] [] tcp/443 Default required",
        ],
        &[
            ("line 11", "e.example.com", BESIDE),
            ("line 1", "login.example.com", PROSE),
            ("line 1", "*.cdn.example.net", PROSE),
            ("line 12", "has.example.com", PROSE),
            ("line 19", "https://one.example.net", PROSE),
        ],
    );
    assert_eq!(catalogue.sets[0].origin, "lines 4-6");
    assert_eq!(catalogue.sets[4].scope.scale_units, ["UNIT01", "UNIT02"]);
}

#[test]
fn what_cannot_be_read_is_said_with_its_place() {
    fn check(text: &str, expected: &str) {
        let got = read(text.as_bytes(), "page").map_err(|problems| problems.to_string());
        assert_eq!(got.err().unwrap_or_default(), expected);
    }
    let none = "page: no table of it has a column of addresses and one of ports or ids; \
                write the headings ID, Addresses and Ports, or [[set]] tables";
    check("| Feature | Link |\n|--|--|\n| a | b |\n", none);
    check(
        "| Addresses | Notes |\n|--|--|\n| a.example.com | b |\n",
        none,
    );
    check(
        "a\n<!-- b\n| ID | Addresses |\n|--|--|\n",
        "page:2:1: a comment begins here and never ends; close it with -->",
    );
    check(
        "<table>\n<tr><td>a.example.com<b",
        "page:2:1: a tag begins here and never ends; write > behind it, or &lt; if it is none",
    );
    check(
        &format!("{}\n{}\n", "|a".repeat(70), "|-".repeat(70)),
        "page:1:1: a table has 70 columns; no more than 64 are read",
    );
    check(
        &format!("ID | URL\n---|---\n1 | {}\n", "x".repeat(1 << 20)),
        "page:3:1: a row is longer than 1 MB; it is no table",
    );
}

//! Tags and entities, read forwards once: no tree, nothing that nests. Linear in any input.

use super::super::fold;
use super::building::Building;
use super::page::{Page, Refused};

/// A piece of marked-up text.
#[derive(Debug, PartialEq, Eq)]
enum Token<'t> {
    Text(&'t str),
    /// `<name …>`, or `</name>` with `close`.
    Tag {
        name: &'t str,
        close: bool,
        attributes: &'t str,
    },
    Comment(&'t str),
}

/// Elements that say how a text looks, not what it is.
const INLINE: &[&str] = &[
    "a", "abbr", "b", "bdi", "bdo", "big", "cite", "del", "dfn", "em", "font", "i", "img", "input",
    "ins", "label", "mark", "meta", "link", "nobr", "q", "s", "small", "span", "strike", "strong",
    "sub", "sup", "time", "tt", "u", "var", "wbr", "button", "svg", "path", "use",
];
/// Elements that show their text as it is.
const CODE: &[&str] = &["code", "kbd", "samp"];
/// Elements with a line of their own.
const BLOCK: &[&str] = &[
    "address",
    "article",
    "aside",
    "base",
    "blockquote",
    "body",
    "br",
    "caption",
    "center",
    "col",
    "colgroup",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "li",
    "main",
    "nav",
    "ol",
    "option",
    "p",
    "pre",
    "section",
    "select",
    "summary",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "ul",
];
/// Elements whose text nobody reads.
const HIDDEN: &[&str] = &["script", "style", "template", "noscript"];

/// What a tag does to the text around it: `None` when it is no tag that is known.
fn stands_for(name: &str) -> Option<&'static str> {
    let is = |list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(name));
    if is(CODE) {
        Some("`")
    } else if is(BLOCK) {
        Some("\n")
    } else if is(INLINE) || is(HIDDEN) || name.contains('-') {
        Some("")
    } else {
        None
    }
}

/// The next token of `text`, which is not empty. `long` says whether a tag may span lines and hold `<`.
fn next<'t>(text: &'t str, long: bool) -> Result<(Token<'t>, &'t str), &'static str> {
    let Some(rest) = text.strip_prefix('<') else {
        let end = text.find('<').unwrap_or(text.len());
        return Ok((Token::Text(&text[..end]), &text[end..]));
    };
    let literal = Ok((Token::Text(&text[..1]), rest));
    if let Some(comment) = rest.strip_prefix("!--") {
        if !long {
            return literal;
        }
        let Some(end) = comment.find("-->") else {
            return Err("a comment begins here and never ends; close it with -->");
        };
        return Ok((Token::Comment(&comment[..end]), &comment[end + 3..]));
    }
    let (close, named) = match rest.strip_prefix('/') {
        Some(named) => (true, named),
        None => (false, rest),
    };
    if !named.starts_with(|c: char| c.is_ascii_alphabetic() || (c == '!' && long)) {
        return literal;
    }
    let Some(end) = tag_end(named, long) else {
        return if long {
            Err("a tag begins here and never ends; write > behind it, or &lt; if it is none")
        } else {
            literal
        };
    };
    let inside = &named[..end];
    let word = inside
        .find(|c: char| c.is_ascii_whitespace() || c == '/')
        .unwrap_or(end);
    let (name, attributes) = inside.split_at(word);
    let token = Token::Tag {
        name,
        close,
        attributes,
    };
    Ok((token, &named[end + 1..]))
}

/// Where the `>` of a tag is.
fn tag_end(text: &str, long: bool) -> Option<usize> {
    if !long {
        let end = text.find(['>', '<', '\n'])?;
        return text[end..].starts_with('>').then_some(end);
    }
    let mut quote = None;
    let mut before = b' ';
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') if before == b'=' => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            (None | Some(_), _) => {}
        }
        if !byte.is_ascii_whitespace() {
            before = byte;
        }
    }
    None
}

/// What `name` says among the attributes of a tag.
pub(super) fn attribute<'t>(attributes: &'t str, name: &str) -> Option<&'t str> {
    let mut rest = attributes;
    while let Some((key, behind)) = rest.split_once('=') {
        let behind = behind.trim_start();
        let (value, next) = match behind.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                behind[1..].split_once(quote).unwrap_or((&behind[1..], ""))
            }
            _ => behind
                .split_once(char::is_whitespace)
                .unwrap_or((behind, "")),
        };
        let key = key.rsplit(char::is_whitespace).find(|key| !key.is_empty());
        if key.is_some_and(|key| key.eq_ignore_ascii_case(name)) {
            return Some(value);
        }
        rest = next;
    }
    None
}

/// A marked-up text as text: lines for breaks, back ticks around code, no other tags, no entities.
/// Of links only those to other machines are left, in `links`.
pub(super) fn inline(text: &str, links: &mut Vec<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        // Short tags have no errors.
        let Ok((token, behind)) = next(rest, false) else {
            break;
        };
        match token {
            Token::Text(text) => entities(text, &mut out),
            Token::Tag {
                name, attributes, ..
            } => match stands_for(name) {
                Some(stands) => {
                    out.push_str(stands);
                    links.extend(leads(attributes).map(str::to_owned));
                }
                None => out.push_str(&rest[..rest.len() - behind.len()]),
            },
            Token::Comment(_) => {}
        }
        rest = behind;
    }
    out
}

/// Where a tag leads outside of its page.
fn leads(attributes: &str) -> impl Iterator<Item = &str> {
    let values = ["href", "src"].map(|name| attribute(attributes, name));
    let values = values.into_iter().flatten();
    values.filter(|value| value.contains("://"))
}

/// Appends a text with its entities resolved and folded.
fn entities(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest
            .bytes()
            .take(12)
            .position(|byte| !byte.is_ascii_alphanumeric() && byte != b'#');
        let word = end.map_or("", |end| &rest[..end]);
        match entity(word) {
            Some(c) => {
                out.extend(fold::character(c));
                rest = &rest[word.len()..];
                rest = rest.strip_prefix(';').unwrap_or(rest);
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
}

fn entity(word: &str) -> Option<char> {
    if let Some(number) = word.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return char::from_u32(code.ok()?).filter(|c| !c.is_control());
    }
    Some(match word {
        "amp" | "AMP" => '&',
        "lt" | "LT" => '<',
        "gt" | "GT" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" | "ensp" | "emsp" | "thinsp" => ' ',
        "shy" | "zwnj" | "zwj" => '\u{ad}',
        "ast" => '*',
        "period" => '.',
        "comma" => ',',
        "colon" => ':',
        "semi" => ';',
        "sol" => '/',
        "lowbar" => '_',
        "hyphen" | "dash" => '-',
        "ndash" => '–',
        "mdash" => '—',
        "verbar" | "vert" => '|',
        "grave" => '`',
        "lpar" => '(',
        "rpar" => ')',
        "lbrack" | "lsqb" => '[',
        "rbrack" | "rsqb" => ']',
        "lsquo" | "rsquo" => '\'',
        "ldquo" | "rdquo" => '"',
        _ => return None,
    })
}

/// Reads marked-up text from line `line` on: a whole document, or one table (`only_table`), after
/// which it stops. Returns what is left of the text.
pub(super) fn read<'t>(
    text: &'t str,
    mut line: usize,
    only_table: bool,
    page: &mut Page,
) -> Result<&'t str, Refused> {
    let mut rest = text;
    let mut table: Option<Building> = None;
    let mut hidden: Option<&str> = None;
    let mut prose = (line, String::new());
    let mut heading: Option<String> = None;
    while !rest.is_empty() {
        let (token, behind) = match hidden {
            Some(name) => {
                let behind = &rest[hidden_text(rest, name).len()..];
                (Token::Text(""), behind)
            }
            None => next(rest, true).map_err(|what| Refused::new(line, what))?,
        };
        hidden = None;
        let at = line;
        let raw = &rest[..rest.len() - behind.len()];
        line += raw.matches('\n').count();
        rest = behind;
        match token {
            Token::Comment(comment) => page.comment(at, comment),
            Token::Text(text) => {
                let mut long = false;
                match table.as_mut() {
                    Some(table) => {
                        if let Some(cell) = table.text(line) {
                            entities(text, &mut cell.text);
                            long |= cell.text.len() > super::page::ROW;
                        } else if !text.trim().is_empty() {
                            page.prose(at, text);
                        }
                    }
                    None => entities(text, &mut prose.1),
                }
                if long {
                    let what = "a cell is longer than 1 MB; it is no table";
                    return Err(Refused::new(at, what));
                }
                if let Some(heading) = heading.as_mut()
                    && heading.len() < 256
                {
                    entities(text, heading);
                }
            }
            Token::Tag {
                name,
                close,
                attributes,
            } => {
                let is = |word: &str| name.eq_ignore_ascii_case(word);
                let stands = stands_for(name).unwrap_or(raw);
                if !close && HIDDEN.iter().any(|word| is(word)) {
                    hidden = Some(name);
                }
                for link in leads(attributes) {
                    page.link(at, link);
                }
                if let Some(open) = table.as_mut() {
                    if is("table") && !close {
                        open.inner += 1;
                    } else if is("table") && open.inner > 0 {
                        open.inner -= 1;
                    } else if is("table") {
                        if let Some(done) = table.take() {
                            page.tables.push(done.finish(&page.heading));
                        }
                        prose = (line, String::new());
                        if only_table {
                            return Ok(rest);
                        }
                    } else if open.inner == 0 && is("tr") {
                        page.count(1, at)?;
                        if close {
                            open.end_row();
                        } else {
                            open.row(at);
                        }
                    } else if open.inner == 0 && (is("td") || is("th")) {
                        if close {
                            open.end_cell();
                        } else {
                            open.cell(at, attributes, is("th"));
                            page.count(1 + open.span, at)?;
                        }
                        if open.repeats == 0 {
                            let what = "cells that span rows are repeated too often";
                            return Err(Refused::new(at, what));
                        }
                    } else if let Some(cell) = open.text(at) {
                        cell.text.push_str(stands);
                    }
                } else if is("table") && !close {
                    page.prose(prose.0, &std::mem::take(&mut prose.1));
                    page.count(1, at)?;
                    table = Some(Building::new(at));
                } else {
                    let level = matches!(name.as_bytes(), [b'h' | b'H', b'1'..=b'6']);
                    if level && close {
                        page.head(&heading.take().unwrap_or_default(), is("h1"));
                    } else if level {
                        heading = Some(String::new());
                    }
                    if stands == "\n" && !prose.1.trim().is_empty() {
                        page.prose(prose.0, &std::mem::take(&mut prose.1));
                    }
                    if prose.1.trim().is_empty() {
                        prose = (line, String::new());
                    }
                    if stands != "\n" {
                        prose.1.push_str(stands);
                    }
                }
            }
        }
    }
    page.prose(prose.0, &prose.1);
    if let Some(done) = table {
        page.tables.push(done.finish(&page.heading));
    }
    Ok(rest)
}

/// What stands before `</name`.
fn hidden_text<'t>(text: &'t str, name: &str) -> &'t str {
    let mut from = 0;
    while let Some(at) = text[from..].find("</") {
        let start = from + at;
        let end = text[start + 2..].get(..name.len());
        if end.is_some_and(|end| end.eq_ignore_ascii_case(name)) {
            return &text[..start];
        }
        from = start + 2;
    }
    text
}

//! Rows to endpoint sets. Every name, network and port of a row is imported or reported.

use super::super::endpoint::{self, Word};
use super::super::{TOO_MANY, ports, prose};
use super::columns;
use super::page::{Cell, Row, Table};
use super::words::{self, Role};
use crate::policy::catalogue::{Account, EndpointSet};
use crate::policy::port::PortSet;
use std::collections::BTreeSet;

/// Words between names that do not make a sentence of them.
const JOINERS: &[&str] = &[
    "and",
    "or",
    "und",
    "oder",
    "et",
    "ou",
    "y",
    "o",
    "e",
    "と",
    "および",
    "又は",
    "または",
    "和",
    "及",
    "或",
    "&",
    "+",
    "-",
    "•",
    "–",
    "・",
];

/// The sets of a table; of a table without endpoints, what it names is reported.
pub(super) fn sets(table: &Table, account: &mut Account) -> Vec<EndpointSet> {
    let roles = columns::roles(table);
    let headings = table.header.iter().flatten();
    for heading in headings {
        let why = "it stands in the head of a table; add it with a [[set]] if it is needed";
        prose::report(heading, table.line, why, account);
    }
    let endpoints = columns::has_endpoints(&roles);
    let mut sets = Vec::new();
    for row in &table.rows {
        if account.reported.len() > TOO_MANY {
            break;
        }
        let known = endpoints && row.cells.len() <= roles.len().max(1);
        if known && let Some(set) = set(table, row, &roles, account) {
            sets.push(set);
            continue;
        }
        let why = if endpoints {
            "its row has no address, or more cells than the table has columns; add it with a [[set]] if it is needed"
        } else {
            "its table has no columns of addresses and of ports or ids; add it with a [[set]] if it is needed"
        };
        for cell in &row.cells {
            beside(cell, why, account);
        }
    }
    sets
}

fn set(table: &Table, row: &Row, roles: &[Role], account: &mut Account) -> Option<EndpointSet> {
    let cells = |wanted: fn(&Role) -> bool| {
        let cells = roles.iter().zip(&row.cells);
        cells
            .filter(move |(role, cell)| wanted(role) && !cell.text.trim().is_empty())
            .map(|(role, cell)| (*role, cell))
    };
    let first = |wanted: fn(&Role) -> bool| cells(wanted).next().map(|(_, cell)| &*cell.text);
    let id = first(|role| *role == Role::Id).map(words::slug);
    let id = id.filter(|id| !id.is_empty());
    if cells(|role| *role == Role::Addresses).next().is_none()
        && (id.is_none()
            || cells(|role| matches!(role, Role::Ports(_)))
                .next()
                .is_none())
    {
        return None;
    }
    let mut set = EndpointSet {
        area: area(table),
        origin: row.origin(),
        service: line(first(|role| *role == Role::Service).unwrap_or_default()),
        ..EndpointSet::default()
    };
    let mut notes = Vec::new();
    standing(roles, row, &mut set, &mut notes);
    for (_, cell) in cells(|role| *role == Role::Units) {
        let mut seen = BTreeSet::new();
        let units = cell.text.split([' ', ',', ';', '\n', '`']);
        let units = units.filter(|unit| !unit.is_empty() && seen.insert(*unit));
        set.scope.scale_units.extend(units.map(str::to_owned));
    }
    for (role, cell) in roles.iter().zip(&row.cells) {
        match role {
            Role::Addresses => addresses(cell, &mut set, &mut notes, account),
            Role::Ports(_) | Role::Protocol => {}
            Role::Id
            | Role::Service
            | Role::Category
            | Role::Required
            | Role::ExpressRoute
            | Role::Units
            | Role::Notes
            | Role::Other => {
                let why = "it stands in another column than the addresses; add it with a [[set]] if it is needed";
                beside(cell, why, account);
            }
        }
        if *role == Role::Notes {
            notes.push(line(&cell.text));
        }
    }
    set.ports = ports_of(roles, row, account);
    notes.retain(|note| !note.is_empty());
    set.notes = notes.join("\n");
    set.id = id.unwrap_or_else(|| stand_in(&set));
    Some(set)
}

/// Category, required and express route, with what had to be inferred.
fn standing(roles: &[Role], row: &Row, set: &mut EndpointSet, notes: &mut Vec<String>) {
    let mut required = None;
    let mut category = None;
    for (role, cell) in roles.iter().zip(&row.cells) {
        if *role == Role::Category {
            let read = words::standing(&cell.text);
            if read.unread {
                let words = line(&cell.text);
                set.inferred.push(format!(
                    "category: the words \"{words}\" are not known; taken as default and optional"
                ));
                required = required.or(Some(false));
            }
            category = category.or(read.category);
            required = required.or(read.required);
            notes.push(read.notes);
        } else if *role == Role::Required {
            required = words::flag(&cell.text).or(required);
        } else if *role == Role::ExpressRoute {
            set.express_route = words::flag(&cell.text).unwrap_or_default();
        }
    }
    if category.is_none() {
        set.inferred
            .push("category: the table gives none".to_owned());
    }
    set.category = category.unwrap_or_default();
    let says = |role: &Role| matches!(role, Role::Category | Role::Required);
    if roles.iter().any(says) {
        // Pages leave the word away where a set is optional.
        set.required = required.unwrap_or_default();
    } else {
        set.required = true;
        set.inferred
            .push("required: the table does not say".to_owned());
    }
}

fn ports_of(roles: &[Role], row: &Row, account: &mut Account) -> PortSet {
    let cells = || roles.iter().zip(&row.cells);
    let named = cells().filter(|(role, _)| **role == Role::Protocol);
    let named = named.flat_map(|(_, cell)| cell.text.split(|c: char| !c.is_alphanumeric()));
    let protocols: Vec<u8> = named.filter_map(ports::protocol).collect();
    let mut services = Vec::new();
    for (role, cell) in cells() {
        if let Role::Ports(usual) = role {
            let usual = if usual.is_empty() { &protocols } else { *usual };
            let origin = format!("line {}", cell.line);
            services.extend(ports::read(&cell.text, usual, &origin, account));
        }
    }
    PortSet::new(services)
}

/// Reports what a cell names that lists no endpoints.
fn beside(cell: &Cell, why: &str, account: &mut Account) {
    let origin = format!("line {}", cell.line);
    for (_, word) in prose::words(&cell.text).take(TOO_MANY) {
        account.report(&origin, word, why);
    }
}

/// A word of a cell, and how it stands there.
struct Written<'t> {
    word: &'t str,
    /// Marked as code: never part of a sentence.
    code: bool,
    /// Between brackets.
    aside: bool,
    /// Nothing but blanks between it and the word before.
    close: bool,
}

/// Imports what a cell lists. What stands in brackets or inside a sentence is said of endpoints, and
/// lists none.
fn addresses(cell: &Cell, set: &mut EndpointSet, notes: &mut Vec<String>, account: &mut Account) {
    let written = cut(cell);
    let read: Vec<Word> = written.iter().map(|w| endpoint::read(w.word)).collect();
    let joins = |at: usize| {
        let word = written[at].word.to_lowercase();
        JOINERS.contains(&&*word) || !word.contains(char::is_alphanumeric)
    };
    let sentence = |at: usize| {
        let text = matches!(read[at], Word::Text);
        text && !written[at].aside && !written[at].code && !joins(at)
    };
    let mut free: Vec<&str> = Vec::new();
    let origin = format!("line {}", cell.line);
    for (at, (word, what)) in written.iter().zip(&read).enumerate() {
        let before = word.close && at > 0 && sentence(at - 1);
        let after = written.get(at + 1).is_some_and(|next| next.close) && sentence(at + 1);
        let remark = word.aside || (!word.code && (before || after));
        if remark || matches!(what, Word::Text) {
            free.push(word.word);
        }
        match what {
            Word::Text => {}
            Word::Refused(why) => account.report(&origin, word.word, why.clone()),
            Word::Name(_) | Word::Network(_) if remark => account.report(
                &origin,
                word.word,
                "it stands in a remark; add it with a [[set]] if it is needed",
            ),
            Word::Name(pattern) if set.patterns.contains(pattern) => {
                account.report(&origin, word.word, "its row names it twice; nothing to do");
            }
            Word::Network(network) if set.networks.contains(network) => {
                account.report(&origin, word.word, "its row names it twice; nothing to do");
            }
            Word::Name(pattern) => {
                account.import();
                set.patterns.push(pattern.clone());
            }
            Word::Network(network) => {
                account.import();
                set.networks.push(*network);
            }
        }
    }
    if free.iter().any(|word| word.contains(char::is_alphanumeric)) {
        notes.push(free.join(" "));
    }
}

/// Cuts a cell into words.
fn cut(cell: &Cell) -> Vec<Written<'_>> {
    let mut words = Vec::new();
    let (mut code, mut brackets, mut close) = (false, 0_u32, false);
    let mut start = 0;
    let text = &*cell.text;
    let wide = |c: char| c >= '\u{2e80}';
    let mut before = ' ';
    for (at, c) in text.char_indices().chain([(text.len(), '\n')]) {
        let separates = c.is_whitespace() || matches!(c, ',' | ';' | '`' | '(' | ')' | '（' | '）');
        if separates || wide(c) != wide(before) {
            if start < at {
                words.push(Written {
                    word: &text[start..at],
                    code,
                    aside: brackets > 0,
                    close,
                });
                close = true;
            }
            start = if separates { at + c.len_utf8() } else { at };
        }
        match c {
            '`' => code = !code,
            '(' | '（' => brackets += 1,
            ')' | '）' => brackets = brackets.saturating_sub(1),
            ',' | ';' => close = false,
            '\n' => (code, close) = (false, false),
            _ => {}
        }
        before = if separates { ' ' } else { c };
    }
    words
}

/// What selectors call the part of the page that a table stands in.
fn area(table: &Table) -> String {
    let slug = words::slug(&table.heading);
    if slug.is_empty() {
        "endpoints".to_owned()
    } else {
        slug
    }
}

/// An id for a row that the vendor gave none.
fn stand_in(set: &EndpointSet) -> String {
    let unit = set.scope.scale_units.first().map(|unit| words::slug(unit));
    let service = words::slug(&set.service);
    let name = set.patterns.first().map(|p| words::slug(&p.to_string()));
    let network = set.networks.first().map(|n| words::slug(&n.to_string()));
    let candidates = [unit, Some(service), name, network];
    let mut candidates = candidates.into_iter().flatten();
    candidates
        .find(|id| !id.is_empty())
        .unwrap_or_else(|| "row".to_owned())
}

/// A cell in one line.
fn line(text: &str) -> String {
    let text = text.replace(['`', '*'], "");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

//! Which column holds what: by its heading, and where that says nothing, by its cells.

use super::super::endpoint::{self, Word};
use super::super::ports;
use super::page::{COLUMNS, Table};
use super::words::{self, Role};

/// How many cells of a column are looked at.
const LOOK: usize = 64;

/// What each column of a table holds.
pub(super) fn roles(table: &Table) -> Vec<Role> {
    let width = table.rows.iter().map(|row| row.cells.len()).max();
    let header = table.header.as_deref().unwrap_or_default();
    let width = if header.is_empty() {
        width.unwrap_or(0).min(COLUMNS)
    } else {
        header.len()
    };
    let named: Vec<_> = (0..width)
        .map(|column| header.get(column).and_then(|heading| words::role(heading)))
        .collect();
    let mut roles: Vec<Role> = Vec::with_capacity(width);
    for (column, role) in named.iter().enumerate() {
        let guessed = || {
            let role = guess(table, column)?;
            let taken = named.iter().flatten().chain(&roles);
            let same = |other: &Role| kind(*other) == kind(role);
            (!taken.into_iter().any(same)).then_some(role)
        };
        let role = role.or_else(guessed).unwrap_or(Role::Other);
        roles.push(role);
    }
    roles
}

/// Whether rows can be made of a table with such columns.
pub(super) fn has_endpoints(roles: &[Role]) -> bool {
    let has = |wanted: Role| roles.iter().any(|role| kind(*role) == kind(wanted));
    has(Role::Addresses) && (has(Role::Id) || has(Role::Ports(&[])))
}

fn kind(role: Role) -> std::mem::Discriminant<Role> {
    std::mem::discriminant(&role)
}

/// What the cells of a column say it is.
fn guess(table: &Table, column: usize) -> Option<Role> {
    let cells = table.rows.iter().filter_map(|row| row.cells.get(column));
    let cells: Vec<&str> = cells
        .map(|cell| cell.text.trim())
        .filter(|text| !text.is_empty())
        .take(LOOK)
        .collect();
    let all = |is: fn(&str) -> bool| !cells.is_empty() && cells.iter().all(|cell| is(cell));
    let most = |is: fn(&str) -> bool| {
        let count = cells.iter().filter(|cell| is(cell)).count();
        count * 2 > cells.len()
    };
    if all(|cell| cell.len() < 8 && cell.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(Role::Id)
    } else if most(is_ports) {
        Some(Role::Ports(&[]))
    } else if all(|cell| words::yes_or_no(cell).is_some()) {
        Some(Role::ExpressRoute)
    } else if most(|cell| cell.len() < 1024 && words::standing(cell).category.is_some()) {
        Some(Role::Category)
    } else if all(|cell| cell.len() < 64 && words::flag(cell).is_some()) {
        Some(Role::Required)
    } else if most(is_addresses) {
        Some(Role::Addresses)
    } else {
        None
    }
}

fn is_ports(cell: &str) -> bool {
    let word = cell
        .split(|c: char| !c.is_alphanumeric())
        .find(|word| !word.is_empty());
    let first = word.is_some_and(|word| ports::protocol(word).is_some());
    first && cell.contains(|c: char| c.is_ascii_digit())
}

fn is_addresses(cell: &str) -> bool {
    let mut words = cell
        .split([' ', ',', ';', '\n'])
        .filter(|word| !word.is_empty());
    words.next().is_some_and(|word| match endpoint::read(word) {
        Word::Name(_) | Word::Network(_) | Word::Refused(_) => true,
        Word::Text => false,
    })
}

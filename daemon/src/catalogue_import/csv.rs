//! Tables of comma-separated values with a header: one set a row, columns by name in any order.

use super::endpoint::{self, Word};
use super::{TOO_MANY, fold, ports, prose};
use crate::document::Problems;
use crate::policy::catalogue::{Account, Catalogue, Category, EndpointSet};
use crate::policy::port::{PortSet, Service, TCP, UDP};
use ::csv::{Reader, ReaderBuilder, StringRecord};
use std::collections::BTreeSet;

/// The most bytes a row has.
const ROW: usize = 1 << 20;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Id,
    Area,
    Service,
    Addresses,
    Tcp,
    Udp,
    Ports,
    Protocol,
    Required,
    Category,
    ExpressRoute,
    Notes,
    Unknown,
}

/// Words of headings, lower case.
const HEADINGS: &[(&str, Column)] = &[
    ("id", Column::Id),
    ("area", Column::Area),
    ("servicearea", Column::Area),
    ("service", Column::Service),
    ("description", Column::Service),
    ("name", Column::Addresses),
    ("names", Column::Addresses),
    ("url", Column::Addresses),
    ("urls", Column::Addresses),
    ("host", Column::Addresses),
    ("hosts", Column::Addresses),
    ("hostname", Column::Addresses),
    ("fqdn", Column::Addresses),
    ("domain", Column::Addresses),
    ("domains", Column::Addresses),
    ("address", Column::Addresses),
    ("addresses", Column::Addresses),
    ("network", Column::Addresses),
    ("networks", Column::Addresses),
    ("ip", Column::Addresses),
    ("ips", Column::Addresses),
    ("cidr", Column::Addresses),
    ("tcp", Column::Tcp),
    ("tcpports", Column::Tcp),
    ("udp", Column::Udp),
    ("udpports", Column::Udp),
    ("port", Column::Ports),
    ("ports", Column::Ports),
    ("protocol", Column::Protocol),
    ("required", Column::Required),
    ("category", Column::Category),
    ("expressroute", Column::ExpressRoute),
    ("notes", Column::Notes),
    ("note", Column::Notes),
    ("comment", Column::Notes),
];

fn column(heading: &str) -> Column {
    let heading: String = fold::fold(heading)
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    let known = HEADINGS.iter().find(|(word, _)| *word == heading);
    known.map_or(Column::Unknown, |(_, column)| *column)
}

/// Between what the values of a header stand: at least two columns are known, and one has addresses.
fn delimiter(header: &str) -> Option<u8> {
    let known = |delimiter: &u8| {
        let cells = header.split(char::from(*delimiter));
        let columns: Vec<_> = cells.map(column).collect();
        let known = columns.iter().filter(|column| **column != Column::Unknown);
        columns.contains(&Column::Addresses) && known.count() > 1
    };
    b",;\t".iter().copied().find(known)
}

fn header(text: &str) -> Option<&str> {
    let mut lines = text.lines();
    let line = lines.find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    line.filter(|line| line.len() < 4096)
}

/// Whether a text begins with the header of such a table.
#[must_use]
pub(super) fn is_csv(text: &str) -> bool {
    header(text).and_then(delimiter).is_some()
}

/// Reads such a table: one set a row.
///
/// # Errors
/// When a row cannot be read, or none has an address.
pub fn csv(text: &str, file: &str) -> Result<Catalogue, Problems> {
    let problem = |what: String| Problems::with_file(file, what);
    let Some(delimiter) = header(text).and_then(delimiter) else {
        let what = "it has no header with a column of addresses; write id,name,network,tcp,udp";
        return Err(problem(what.to_owned()));
    };
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .has_headers(false)
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let mut catalogue = Catalogue {
        source: file.to_owned(),
        ..Catalogue::default()
    };
    let mut columns: Vec<Column> = Vec::new();
    let mut record = StringRecord::new();
    while read(&mut reader, &mut record).map_err(problem)? {
        let line = record.position().map_or(0, ::csv::Position::line);
        if columns.is_empty() {
            columns = record.iter().map(column).collect();
            unknown(&record, &columns, line, &mut catalogue.account);
            continue;
        }
        let row = Row {
            columns: &columns,
            record: &record,
            origin: format!("line {line}"),
        };
        catalogue.sets.extend(row.set(&mut catalogue.account));
        if catalogue.account.reported.len() > TOO_MANY {
            return Err(Problems::with_file(
                file,
                format!("more than {TOO_MANY} of its values cannot be used; is it a catalogue?"),
            ));
        }
    }
    if catalogue.sets.is_empty() {
        return Err(problem("no row of it has a name or a network".to_owned()));
    }
    Ok(catalogue)
}

fn read(reader: &mut Reader<&[u8]>, record: &mut StringRecord) -> Result<bool, String> {
    let more = reader.read_record(record).map_err(|e| e.to_string())?;
    if record.as_slice().len() > ROW {
        let line = record.position().map_or(0, ::csv::Position::line);
        return Err(format!(
            "the row of line {line} is longer than 1 MB; is a quotation mark missing?"
        ));
    }
    Ok(more)
}

/// Says once of each column that nothing knows it.
fn unknown(record: &StringRecord, columns: &[Column], line: u64, account: &mut Account) {
    for (heading, column) in record.iter().zip(columns) {
        if *column == Column::Unknown {
            let why = "a column that is not known, not read; its names and networks are reported";
            account.report(&format!("line {line}"), heading, why);
        }
    }
}

struct Row<'r> {
    columns: &'r [Column],
    record: &'r StringRecord,
    origin: String,
}

impl Row<'_> {
    fn cells(&self, wanted: Column) -> impl Iterator<Item = &str> {
        let cells = self.columns.iter().zip(self.record);
        let cells = cells.filter(move |(column, _)| **column == wanted);
        cells
            .map(|(_, cell)| cell.trim())
            .filter(|cell| !cell.is_empty())
    }

    fn text(&self, wanted: Column) -> String {
        let cells: Vec<_> = self.cells(wanted).collect();
        cells.join(" ")
    }

    fn set(&self, account: &mut Account) -> Option<EndpointSet> {
        self.beside(account);
        let required = self.cells(Column::Required).next();
        let mut set = EndpointSet {
            id: word(&self.text(Column::Id)),
            area: word(&self.text(Column::Area)),
            service: self.text(Column::Service),
            notes: self.text(Column::Notes),
            origin: self.origin.clone(),
            express_route: self.cells(Column::ExpressRoute).any(yes),
            required: required.is_none_or(yes),
            ..EndpointSet::default()
        };
        if required.is_none() {
            set.inferred
                .push("required: the row does not say".to_owned());
        }
        match category(&self.text(Column::Category)) {
            Some(category) => set.category = category,
            None => set
                .inferred
                .push("category: the row gives none that is known".to_owned()),
        }
        self.addresses(&mut set, account);
        set.ports = self.ports(account);
        for word in [&mut set.area, &mut set.id] {
            if word.is_empty() {
                "csv".clone_into(word);
            }
        }
        let empty = set.patterns.is_empty() && set.networks.is_empty();
        (!empty || !set.ports.is_empty()).then_some(set)
    }

    fn addresses(&self, set: &mut EndpointSet, account: &mut Account) {
        let mut names = BTreeSet::new();
        let mut networks = BTreeSet::new();
        for cell in self.cells(Column::Addresses) {
            for written in fold::fold(cell).split([' ', ',', ';', '\n', '\r', '\t', '|']) {
                match endpoint::read(written) {
                    Word::Name(pattern) if names.insert(pattern.clone()) => {
                        account.import();
                        set.patterns.push(pattern);
                    }
                    Word::Network(network) if networks.insert(network) => {
                        account.import();
                        set.networks.push(network);
                    }
                    Word::Name(_) | Word::Network(_) => {
                        let why = "its row names it twice; nothing to do";
                        account.report(&self.origin, written, why);
                    }
                    Word::Refused(why) => account.report(&self.origin, written, why),
                    Word::Text if written.is_empty() => {}
                    Word::Text => {
                        let why = "it is neither a name nor a network; move it to the notes";
                        account.report(&self.origin, written, why);
                    }
                }
            }
        }
    }

    fn ports(&self, account: &mut Account) -> PortSet {
        let protocols = self.text(Column::Protocol);
        let protocols = protocols.split(|c: char| !c.is_alphanumeric());
        let protocols: Vec<u8> = protocols.filter_map(ports::protocol).collect();
        let columns = [
            (Column::Tcp, &[TCP][..]),
            (Column::Udp, &[UDP]),
            (Column::Ports, &protocols),
        ];
        let mut services: Vec<Service> = Vec::new();
        for (column, usual) in columns {
            for cell in self.cells(column) {
                let cell = fold::fold(cell);
                services.extend(ports::read(&cell, usual, &self.origin, account));
            }
        }
        PortSet::new(services)
    }

    /// Reports what columns without endpoints name, and values behind the last column.
    fn beside(&self, account: &mut Account) {
        let columns = self.columns.iter().copied();
        let columns = columns.chain(std::iter::repeat(Column::Unknown));
        for (column, cell) in columns.zip(self.record) {
            let why = match column {
                Column::Addresses | Column::Tcp | Column::Udp | Column::Ports => continue,
                Column::Id
                | Column::Area
                | Column::Service
                | Column::Protocol
                | Column::Required
                | Column::Category
                | Column::ExpressRoute
                | Column::Notes => "it stands in another column than the addresses",
                Column::Unknown => "it stands in no column that is known",
            };
            let why = format!("{why}; add it with a [[set]] if it is needed");
            for (_, word) in prose::words(&fold::fold(cell)) {
                account.report(&self.origin, word, why.clone());
            }
        }
    }
}

fn yes(cell: &str) -> bool {
    ["1", "yes", "true", "y", "required"].contains(&&*cell.to_lowercase())
}

fn category(cell: &str) -> Option<Category> {
    match &*cell.to_lowercase() {
        "optimize" => Some(Category::Optimize),
        "allow" => Some(Category::Allow),
        "default" => Some(Category::Default),
        _ => None,
    }
}

/// A word as selectors can write it.
fn word(text: &str) -> String {
    let special = |c: char| c.is_whitespace() || c.is_control() || "/:".contains(c);
    let words: Vec<_> = text
        .split(special)
        .filter(|word| !word.is_empty())
        .collect();
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str], reported: &[&str]) {
        assert!(is_csv(text), "{text}");
        let catalogue = csv(text, "c").unwrap();
        let shown = |set: &EndpointSet| {
            let names: Vec<_> = set.patterns.iter().map(ToString::to_string).collect();
            format!(
                "{}/{} {} {:?} {} {} {:?} {}",
                set.area,
                set.id,
                names.join(","),
                set.networks,
                set.ports,
                set.required,
                set.category,
                set.origin
            )
        };
        let got: Vec<_> = catalogue.sets.iter().map(shown).collect();
        assert_eq!(got, expected, "{text}");
        let account = &catalogue.account;
        let got: Vec<_> = account.reported.iter().map(|r| &*r.token).collect();
        assert_eq!(got, reported, "{text}");
        assert_eq!(account.tokens, account.imported + got.len(), "{text}");
    }

    #[test]
    fn rows_and_columns() {
        check(
            "id,area,url,ip,tcp,udp,required,category,notes\n\
             1,mail,\"a.example.com, *.b.example.com\",192.0.2.0/24,\"80,443\",,yes,Allow,\"two\nlines\"\n\
             2,,c.example.com,,443,3478-3481,no,,see d.example.com\n",
            &[
                "mail/1 a.example.com,*.b.example.com [192.0.2.0/24] tcp/80, tcp/443 true Allow line 2",
                "csv/2 c.example.com [] tcp/443, udp/3478-3481 false Default line 4",
            ],
            &["d.example.com"],
        );
        check(
            "# from the vendor\nPort;Host;Owner\n443/tcp;a.example.com;x\n80;b.example.com;c.example.com\n",
            &[
                "csv/csv a.example.com [] tcp/443 true Default line 3",
                "csv/csv b.example.com []  true Default line 4",
            ],
            &["Owner", "c.example.com", "80"],
        );
        check(
            "cidr\tprotocol\tports\n10.0.0.1/8 10.1.0.0/16\ttcp/udp\t443\textra.example.com\n",
            &["csv/csv  [10.1.0.0/16] tcp/443, udp/443 true Default line 2"],
            &["extra.example.com", "10.0.0.1/8"],
        );
    }

    #[test]
    fn what_cannot_be_read() {
        fn check(text: &str, expected: &str) {
            let got = csv(text, "c").map_err(|problems| problems.to_string());
            assert_eq!(got.err().unwrap_or_default(), expected);
        }
        check(
            "a,b\n1,2",
            "c: it has no header with a column of addresses; write id,name,network,tcp,udp",
        );
        check("id,name\n1,x", "c: no row of it has a name or a network");
        check(
            &format!("id,name\n\"{}", "x\n".repeat(ROW)),
            "c: the row of line 2 is longer than 1 MB; is a quotation mark missing?",
        );
    }

    #[test]
    fn what_is_no_such_table() {
        for text in ["", "a.example.com", "Dear name, hello", "id", "# id,name"] {
            assert!(!is_csv(text), "{text}");
        }
    }
}

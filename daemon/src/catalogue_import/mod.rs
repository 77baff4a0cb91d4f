//! Vendors' formats to [`Catalogue`]s. Pure: bytes in, values or problems out; fetches nothing.

pub mod changes;
pub mod charset;
mod clean;
mod csv;
mod endpoint;
mod fold;
mod json;
#[cfg(test)]
mod json_tests;
mod list;
mod ports;
mod prose;
mod ranges;
mod row;
mod source;
mod tables;
pub mod targets;
mod toml;
pub mod webservice;
mod write;

pub use clean::printable;
pub use csv::csv;
pub use list::list;
pub use tables::tables;
pub use toml::toml;
pub use write::write;

use crate::document::Problems;
use crate::policy::catalogue::Catalogue;
use json::Json;

/// A format that catalogues come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own: `config/catalogues/intune.toml` shows all of it.
    Toml,
    /// Rendered tables: markdown, HTML, or a plain copy of a page.
    Tables,
    /// Names and networks, one a line.
    List,
    /// Comma-separated values with a header.
    Csv,
    /// JSON: what the Microsoft 365 endpoints web service answers, Azure's service tags, Amazon's
    /// `ip-ranges.json` or GitHub's `/meta`.
    Json,
}

/// The most tokens that may be reported: what has more is no catalogue.
const TOO_MANY: usize = 100_000;

/// The catalogue that is there without naming it: Microsoft Intune.
#[must_use]
pub fn builtin() -> Catalogue {
    let text = include_str!("../../../config/catalogues/intune.toml");
    toml(text, "intune.toml").expect("the text is part of the program, and a test reads it")
}

/// Catalogues of other vendors that are part of the program too, for zones that ask for them.
#[must_use]
pub fn library() -> Vec<Catalogue> {
    let texts = [
        include_str!("../../../config/catalogues/apple.toml"),
        include_str!("../../../config/catalogues/azure-front-door.toml"),
        include_str!("../../../config/catalogues/google.toml"),
        include_str!("../../../config/catalogues/windows-update.toml"),
    ];
    let read =
        |text| toml(text, "library").expect("the text is part of the program, and a test reads it");
    texts.into_iter().map(read).collect()
}

/// The format of a file, by its first character that is neither space nor comment; `None` when it is
/// none that is known.
#[must_use]
pub fn detect(bytes: &[u8]) -> Option<Format> {
    let text = charset::decode(bytes, "").ok()?;
    by_content(&text)
}

fn by_content(text: &str) -> Option<Format> {
    let mut lines = text.lines().map(str::trim_start);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let key = |c: char| c.is_ascii_alphanumeric() || c == '"';
    let table = first.starts_with("[[") && first.trim_end().ends_with("]]");
    let begins_toml = table || (first.starts_with(key) && first.contains('='));
    if !begins_toml && first.starts_with(['{', '[']) {
        return Some(Format::Json);
    }
    if begins_toml {
        return Some(Format::Toml);
    }
    if tables::is_tables(text) {
        Some(Format::Tables)
    } else if csv::is_csv(text) {
        Some(Format::Csv)
    } else {
        list::is_list(text).then_some(Format::List)
    }
}

/// Reads a catalogue of any known format. Problems call it `file`.
///
/// # Errors
/// When it is no text, the format is not known, or with everything wrong in it.
pub fn read(bytes: &[u8], file: &str) -> Result<Catalogue, Problems> {
    let text = charset::decode(bytes, file)?;
    let catalogue = match by_content(&text) {
        // Who writes our own format means what it says; what prints it escapes it.
        Some(Format::Toml) => return toml(&text, file),
        Some(Format::Tables) => tables(&text, file),
        Some(Format::Csv) => csv(&text, file),
        Some(Format::List) => list(&text, file),
        Some(Format::Json) => json(&text, file),
        None => Err(Problems::with_file(
            file,
            "its format is not known; what is read are egressd's TOML ([[set]] tables), tables of \
             endpoint pages (markdown, HTML, text), JSON of the Microsoft 365 endpoints web service, Azure, \
             AWS and GitHub, lists of names and networks, and CSV with a header"
                .to_owned(),
        )),
    };
    catalogue.map(clean::clean)
}

/// Reads JSON of any known kind; which it is, its keys tell.
fn json(text: &str, file: &str) -> Result<Catalogue, Problems> {
    let json = Json::read(text, file)?;
    let catalogue = if webservice::is(&json) {
        webservice::read(&json)
    } else if let Some(kind) = ranges::kind(&json) {
        ranges::read(&json, kind)
    } else {
        return Err(Problems::with_file(
            file,
            "this JSON is none that is known; what is read are the sets of the Microsoft 365 endpoints web \
             service, Azure service tags, AWS ip-ranges.json and GitHub meta"
                .to_owned(),
        ));
    };
    if !catalogue.sets.is_empty() && catalogue.account.reported.len() <= TOO_MANY {
        return Ok(catalogue);
    }
    let reported = &catalogue.account.reported;
    let first = reported.first().map(|first| {
        let (count, token) = (reported.len(), &first.token);
        format!(
            "; {count} things were not understood, the first at {}: `{token}`: {}",
            first.origin, first.why
        )
    });
    let what = format!(
        "it has no endpoint set that can be used{}",
        first.unwrap_or_default()
    );
    Err(Problems::with_file(file, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The numbers of the source page, counted apart from this program.
    #[test]
    fn the_builtin_catalogue_holds_all_of_the_page() {
        let catalogue = builtin();
        let (rows, prose): (Vec<_>, Vec<_>) = catalogue
            .sets
            .iter()
            .partition(|set| set.id.parse::<u32>().is_ok());
        assert_eq!(rows.len(), 21, "table rows");
        let ids: BTreeSet<_> = rows.iter().map(|set| &set.id).collect();
        assert_eq!(ids.len(), 20, "distinct ids");
        let twice: Vec<_> = rows.iter().filter(|set| set.id == "172").collect();
        assert_eq!(twice.len(), 2, "set 172 stands twice");
        assert_eq!(
            (&twice[0].patterns, &twice[0].ports),
            (&twice[1].patterns, &twice[1].ports)
        );
        assert_eq!(
            rows.iter()
                .filter(|set| !set.required)
                .map(|set| &*set.id)
                .collect::<Vec<_>>(),
            ["150"],
        );
        assert_eq!(
            rows.iter()
                .filter(|set| set.express_route)
                .map(|set| &*set.id)
                .collect::<Vec<_>>(),
            ["56"],
        );

        let listed: Vec<_> = rows.iter().flat_map(|set| &set.patterns).collect();
        assert_eq!(listed.len(), 90, "entries in tables");
        let tables: BTreeSet<_> = listed.into_iter().collect();
        assert_eq!(tables.len(), 87, "table names");
        assert_eq!(tables.iter().filter(|p| p.is_wildcard()).count(), 23);

        let all: BTreeSet<_> = catalogue
            .sets
            .iter()
            .flat_map(|set| &set.patterns)
            .collect();
        assert_eq!(all.len(), 112, "all names");
        assert_eq!(all.iter().filter(|p| p.is_wildcard()).count(), 25);
        let prose_names: BTreeSet<_> = prose.iter().flat_map(|set| &set.patterns).collect();
        assert_eq!(
            prose_names.difference(&tables).count(),
            25,
            "names in prose only"
        );

        let networks: Vec<_> = rows.iter().flat_map(|set| &set.networks).collect();
        assert_eq!(networks.iter().collect::<BTreeSet<_>>().len(), 50);
        assert_eq!(networks.len(), 50);
        let covered: u64 = networks
            .iter()
            .map(|net| 1u64 << (net.max_prefix_len() - net.prefix_len()))
            .sum();
        assert_eq!(covered, 3558, "IPv4 addresses");
        assert!(
            rows.iter()
                .all(|set| set.id == "163" || set.networks.is_empty())
        );

        let units = |region: &str| -> usize {
            let of = |set: &&crate::policy::catalogue::EndpointSet| {
                set.scope.regions == [region] && !set.scope.scale_units.is_empty()
            };
            catalogue
                .sets
                .iter()
                .filter(of)
                .map(|set| set.scope.scale_units.len())
                .sum()
        };
        assert_eq!([units("na"), units("eu"), units("ap")], [14, 10, 6]);

        for (ports, expected) in [
            ("tcp/80, tcp/443", 7),
            ("tcp/443", 12),
            ("udp/123", 1),
            ("tcp/80, tcp/443, tcp/5223", 1),
        ] {
            let with = rows
                .iter()
                .filter(|set| set.ports.to_string() == ports)
                .count();
            assert_eq!(with, expected, "rows with {ports}");
        }
    }

    /// What the page says of a part of its names is said of the sets that hold them.
    #[test]
    fn every_fact_has_its_origin_and_every_guess_is_marked() {
        let catalogue = builtin();
        for set in &catalogue.sets {
            assert!(set.origin.starts_with("line"), "{}: {}", set.id, set.origin);
            assert!(
                !set.service.is_empty() && !set.area.is_empty(),
                "{}",
                set.id
            );
            let prose = set.id.parse::<u32>().is_err();
            assert_eq!(
                prose,
                set.inferred
                    .iter()
                    .any(|phrase| phrase.starts_with("category:")),
                "{}: only tables give a category",
                set.id
            );
        }
        let no_port = [
            "proxy",
            "shared-cdn",
            "store",
            "win32-fallback-cache",
            "attestation-dha",
            "defender",
        ];
        for id in no_port {
            let set = catalogue.sets.iter().find(|set| set.id == id).unwrap();
            assert_eq!(set.ports.to_string(), "tcp/443", "{id}");
            assert!(
                set.inferred
                    .iter()
                    .any(|phrase| phrase.starts_with("port:")),
                "{id}"
            );
        }
        let tls: BTreeSet<_> = catalogue
            .sets
            .iter()
            .filter(|set| set.handling.no_tls_inspection)
            .flat_map(|set| &set.patterns)
            .map(ToString::to_string)
            .collect();
        for name in [
            "*.manage.microsoft.com",
            "*.dm.microsoft.com",
            "*.events.data.microsoft.com",
            "has.spserv.microsoft.com",
            "intunemaape6.ncus.attest.azure.net",
        ] {
            assert!(tls.contains(name), "{name}");
        }
    }

    #[test]
    fn the_library_names_its_sources() {
        let names: Vec<_> = library()
            .into_iter()
            .map(|catalogue| catalogue.name)
            .collect();
        assert_eq!(
            names,
            ["apple", "azure-front-door", "google", "windows-update"]
        );
        for catalogue in library() {
            assert!(
                !catalogue.source.is_empty() && !catalogue.version.is_empty(),
                "{}",
                catalogue.name
            );
            for set in &catalogue.sets {
                assert!(
                    !set.ports.is_empty() && !set.service.is_empty(),
                    "{}/{}",
                    catalogue.name,
                    set.id
                );
                let shared = set
                    .patterns
                    .iter()
                    .filter_map(crate::policy::name::Pattern::shared_domain);
                assert_eq!(
                    shared.count(),
                    0,
                    "{}/{} opens strangers' names",
                    catalogue.name,
                    set.id
                );
            }
        }
    }

    #[test]
    fn peers_and_teredo_open_nothing_by_themselves() {
        for (id, ports) in [
            ("delivery-optimization-peer", "tcp/7680"),
            ("teredo", "udp/3544"),
        ] {
            let catalogue = builtin();
            let set = catalogue.sets.iter().find(|set| set.id == id).unwrap();
            assert_eq!(set.ports.to_string(), ports);
            assert!(
                set.patterns.is_empty() && set.networks.is_empty() && !set.required,
                "{id}"
            );
        }
    }

    #[test]
    fn formats() {
        fn check(bytes: &[u8], expected: Option<Format>) {
            assert_eq!(
                detect(bytes),
                expected,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        check(b"# a comment\n\nname = \"x\"", Some(Format::Toml));
        check(b"[[set]]\nid = \"1\"", Some(Format::Toml));
        check("\u{feff}name = \"x\"".as_bytes(), Some(Format::Toml));
        check(b"[ { \"id\": 1 } ]", Some(Format::Json));
        check(b"{ \"values\": [] }", Some(Format::Json));
        check(b"ID | Category", None);
        check(b"ID | Addresses\n---|---\n", Some(Format::Tables));
        check(b"I\0D\0,\0u\0r\0l\0", Some(Format::Csv));
        check(b"<html><TABLE>", Some(Format::Tables));
        check(b"id;name\n", Some(Format::Csv));
        check(b"10.0.0.0/8\n", Some(Format::List));
        check(
            b"# of the vendor\n*.a.example, b.example\n",
            Some(Format::List),
        );
        check(b"Dear reader, see a.example", None);
        check(b"\xff\xfei\0d\0", None);
        check(b"", None);
    }

    #[test]
    fn json_of_all_kinds() {
        fn check(text: &str, expected: Result<usize, &str>) {
            let sets = read(text.as_bytes(), "f").map(|catalogue| catalogue.sets.len());
            let told = sets.as_ref().map_err(ToString::to_string);
            match expected {
                Ok(count) => assert_eq!(sets, Ok(count), "{text}"),
                Err(part) => assert!(told.as_ref().is_err_and(|e| e.contains(part)), "{told:?}"),
            }
        }
        check(r#"[{"id": 1, "urls": ["a.example"]}]"#, Ok(1));
        let tag = r#"{"name": "X", "properties": {"addressPrefixes": ["198.51.100.0/24"]}}"#;
        check(
            &format!(r#"{{"cloud": "Public", "values": [{tag}, {tag}]}}"#),
            Ok(2),
        );
        check(
            r#"{"prefixes": [{"ip_prefix": "198.51.100.0/24", "service": "A", "region": "b"}]}"#,
            Ok(1),
        );
        check(r#"{"hooks": ["198.51.100.0/24"]}"#, Ok(1));
        check(r#"{"a": 1}"#, Err("none that is known"));
        check(r#"[{"urls": []}]"#, Err("no endpoint set"));
        check(
            r#"[{"urls": ["x y"]}]"#,
            Err("the first at [0].urls[0]: `x y`"),
        );
        check("[1, 2", Err("f:1:5: this is not JSON"));
        check("{\"values\": NaN}", Err("f:1:"));
        check(&"[".repeat(100_000), Err("recursion"));
        check(&"{\"a\":".repeat(100_000), Err("recursion"));
        let wide: Vec<u8> =
            r#"[{"urls": ["a.example"]}]"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(
            read(&wide, "f").map(|catalogue| catalogue.sets.len()),
            Ok(1)
        );
    }
}

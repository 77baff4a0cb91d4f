//! `[[zone]]`.

use super::catalogues::Catalogues;
use super::local;
use super::sections::interfaces;
use crate::catalogue_import::targets::{Targets, network};
use crate::document::{Span, Table, nearest};
use crate::policy::catalogue::{EndpointSet, Scope};
use crate::policy::image::{Inbound, Mode, Refusal};
use crate::policy::name::Pattern;
use crate::policy::port::{ICMP, ICMPV6, PROTOCOLS, SCTP, Service, TCP, UDP};
use crate::policy::zone::{Selector, ZoneSpec};
use std::collections::BTreeSet;
use toml::Spanned;

/// A zone and where it stands.
#[derive(Debug)]
pub(super) struct ZoneRead {
    pub(super) spec: ZoneSpec,
    pub(super) span: Span,
    /// Of each of its rules.
    pub(super) rules: Vec<Span>,
    /// Of `local = true`.
    pub(super) local: Option<Span>,
    /// Of `redirect = true`. The listeners are filled in once all is read.
    pub(super) redirect: Option<Span>,
}

pub(super) fn zone(mut table: Table<'_, '_>, catalogues: &Catalogues) -> ZoneRead {
    let name = name(&mut table);
    let local = local::take(&mut table);
    let noted = table.document.noted();
    let interfaces = interfaces(&mut table, "interfaces");
    if local.is_none() && interfaces.is_empty() && table.document.noted() == noted {
        table.problem("this zone has no interface; write interfaces = [\"lan0\"]");
    }
    let mut spec = ZoneSpec {
        name,
        local: local.is_some(),
        interfaces,
        mode: table
            .choice(
                "mode",
                &[("enforce", Mode::Enforce), ("audit", Mode::Audit)],
            )
            .unwrap_or_default(),
        inbound: table
            .choice(
                "inbound",
                &[("allow", Inbound::Allow), ("deny", Inbound::Deny)],
            )
            .unwrap_or_default(),
        refusal: table
            .choice(
                "refuse",
                &[
                    ("quic", Refusal::Quic),
                    ("reject", Refusal::Reject),
                    ("drop", Refusal::Drop),
                ],
            )
            .unwrap_or_default(),
        serves: serves(&mut table),
        allow: selectors(&mut table, "allow", catalogues),
        deny: selectors(&mut table, "deny", catalogues),
        scope: scope(table.table("scope"), catalogues),
        shared: shared(&mut table),
        private: private(&mut table),
        ..ZoneSpec::default()
    };
    sources(&mut table, &mut spec);
    let redirect = table.take("redirect").and_then(|value| {
        let span = value.span.clone();
        value.flag()?.then_some(span)
    });
    let tables = table.tables("rule");
    let rules = tables.iter().map(|rule| rule.span.clone()).collect();
    spec.rules = (1..)
        .zip(tables)
        .map(|(number, rule)| self::rule(rule, number))
        .collect();
    let span = table.span.clone();
    table.finish();
    ZoneRead {
        spec,
        span,
        rules,
        local,
        redirect,
    }
}

fn name(table: &mut Table<'_, '_>) -> String {
    let Some(name) = table
        .require("name", "zone", "name = \"…\"")
        .and_then(|value| value.text())
    else {
        return String::new();
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(1..=32).contains(&name.get_ref().len()) || !name.get_ref().chars().all(plain) {
        let what = format!(
            "`{}` cannot name a zone; write 1 to 32 ASCII letters, digits, `-` or `_`",
            name.get_ref()
        );
        table.document.problem(&name.span(), what);
    }
    name.into_inner()
}

fn sources(table: &mut Table<'_, '_>, spec: &mut ZoneSpec) {
    for text in table.texts("sources") {
        if text.get_ref() == "connected" {
            spec.connected = true;
            continue;
        }
        match network(text.get_ref()) {
            Ok(network) if spec.sources.contains(&network) => {
                let what = format!("`{}` stands twice; leave one out", text.get_ref());
                table.document.problem(&text.span(), what);
            }
            Ok(network) => spec.sources.push(network),
            Err(what) => {
                let meant = nearest(text.get_ref(), ["connected"]);
                let what = meant.map_or(what, |_| {
                    format!(
                        "`{}` is not a source; did you mean `connected`?",
                        text.get_ref()
                    )
                });
                table.document.problem(&text.span(), what);
            }
        }
    }
}

/// Numbers are UDP ports, words protocols that have no ports.
fn serves(table: &mut Table<'_, '_>) -> Vec<Service> {
    let mut served = Vec::new();
    for value in table.list("serves") {
        if value.is_number() {
            let port = value.number(1, u64::from(u16::MAX));
            served.extend(
                port.and_then(|port| u16::try_from(port).ok())
                    .map(Service::udp),
            );
            continue;
        }
        let Some(word) = value.text() else { continue };
        let tells = [ICMP, TCP, ICMPV6, SCTP];
        let what = match PROTOCOLS.iter().find(|(name, _)| name == word.get_ref()) {
            Some((_, UDP)) => "`udp` has ports; write the ports that are served".to_owned(),
            Some((name, number)) if tells.contains(number) => {
                format!("`{name}` itself tells what is a reply; leave it out")
            }
            Some((_, number)) => {
                served.push(Service::whole(*number));
                continue;
            }
            None => format!(
                "`{}` is not served; write UDP ports as numbers, or `ah`, `esp`, `gre` or `ipv6-in-ipv4`",
                word.get_ref()
            ),
        };
        table.document.problem(&word.span(), what);
    }
    served.sort_unstable();
    served.dedup();
    served
}

fn selectors(
    table: &mut Table<'_, '_>,
    key: &'static str,
    catalogues: &Catalogues,
) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for text in table.texts(key) {
        match catalogues.selector(text.get_ref()) {
            Ok(selector) => selectors.push(selector),
            Err(what) => table.document.problem(&text.span(), what),
        }
    }
    selectors
}

fn shared(table: &mut Table<'_, '_>) -> Vec<String> {
    let mut accepted = Vec::new();
    for text in table.texts("shared") {
        let written = text.get_ref();
        let what = match Pattern::parse(written) {
            Ok(pattern) if pattern.shared_domain().is_some() => {
                accepted.push(pattern.to_string());
                continue;
            }
            Ok(pattern) if pattern.is_wildcard() => format!(
                "`{written}` is not under a domain that strangers share and needs no opt-in; leave it out"
            ),
            Ok(_) => format!("`{written}` is not a wildcard and needs no opt-in; leave it out"),
            Err(error) => error.to_string(),
        };
        table.document.problem(&text.span(), what);
    }
    accepted
}

fn private(table: &mut Table<'_, '_>) -> Vec<Pattern> {
    let mut names = Vec::new();
    for text in table.texts("private") {
        let written = text.get_ref();
        let what = match Pattern::parse(written) {
            Ok(pattern) if pattern.shared_domain().is_some() => format!(
                "anyone can create a name that `{written}` matches, and so reach private hosts; write the names in use"
            ),
            Ok(pattern) => {
                names.push(pattern);
                continue;
            }
            Err(error) => error.to_string(),
        };
        table.document.problem(&text.span(), what);
    }
    names
}

fn scope(mut table: Table<'_, '_>, catalogues: &Catalogues) -> Scope {
    let mut axis = |key, known: BTreeSet<&str>| {
        let mut values = Vec::new();
        for text in one_or_many(&mut table, key) {
            let known_as = known
                .iter()
                .find(|known| known.eq_ignore_ascii_case(text.get_ref()));
            match known_as {
                Some(value) => values.push((*value).to_owned()),
                None if !catalogues.complete() => values.push(text.into_inner()),
                None => {
                    let hint = unknown_value(text.get_ref(), &known);
                    let what = format!("no set has `{}` in its {key}{hint}", text.get_ref());
                    table.document.problem(&text.span(), what);
                }
            }
        }
        values
    };
    let scope = Scope {
        regions: axis("regions", catalogues.values(|scope| &scope.regions, &[])),
        scale_units: axis(
            "scale_unit",
            catalogues.values(|scope| &scope.scale_units, &[]),
        ),
        platforms: axis(
            "platforms",
            catalogues.values(
                |scope| &scope.platforms,
                &["windows", "ios", "macos", "android", "linux"],
            ),
        ),
        features: axis("features", catalogues.values(|scope| &scope.features, &[])),
        clouds: axis(
            "clouds",
            catalogues.values(|scope| &scope.clouds, &["worldwide"]),
        ),
    };
    table.finish();
    scope
}

/// Takes a string or an array of strings.
fn one_or_many(table: &mut Table<'_, '_>, key: &'static str) -> Vec<Spanned<String>> {
    match table.take(key) {
        Some(value) if value.is_list() => value
            .list()
            .into_iter()
            .filter_map(|value| value.text())
            .collect(),
        Some(value) => value.text().into_iter().collect(),
        None => Vec::new(),
    }
}

/// What to write for a value that no set has. The vendor's portal shows a scale unit as
/// `Europe 0202`, its table as `AMSUB0202`.
fn unknown_value(word: &str, known: &BTreeSet<&str>) -> String {
    let digits = word.rsplit(' ').next().unwrap_or_default();
    let letters = match word
        .split([' ', '\u{a0}'])
        .next()
        .map(str::to_lowercase)
        .as_deref()
    {
        Some("north") => &["AMSUA"][..],
        Some("europe") => &["AMSUB"],
        Some("asia") => &["AMSUC", "AMSUD"],
        Some(_) | None => &[],
    };
    let units = letters.iter().map(|letters| format!("{letters}{digits}"));
    let units: Vec<String> = units.filter(|unit| known.contains(unit.as_str())).collect();
    if !units.is_empty() {
        return format!("; write `{}`", units.join("` or `"));
    }
    // Scale units differ by their digits, so the nearest would be a guess, and all are too many.
    if known.len() > 12 {
        return "; `egressctl` and the catalogue list them".to_owned();
    }
    crate::document::did_you_mean(word, known.iter().copied())
}

fn rule(mut table: Table<'_, '_>, number: usize) -> EndpointSet {
    let noted = table.document.noted();
    let targets = Targets::take(&mut table);
    let id = table
        .text("name")
        .map_or_else(|| format!("rule-{number}"), Spanned::into_inner);
    let notes = table
        .text("notes")
        .map(Spanned::into_inner)
        .unwrap_or_default();
    if table.document.noted() == noted {
        if targets.patterns.is_empty() && targets.networks.is_empty() {
            table.problem("this rule has no destination; write `names` or `networks`");
        }
        if targets.ports.is_empty() {
            table.problem("this rule opens no port; write `tcp`, `udp` or `protocols`");
        }
    }
    let set = EndpointSet {
        id,
        area: "rule".to_owned(),
        service: notes.clone(),
        required: true,
        patterns: targets.patterns,
        networks: targets.networks,
        ports: targets.ports,
        notes,
        origin: table.document.origin(&table.span),
        ..EndpointSet::default()
    };
    table.finish();
    set
}

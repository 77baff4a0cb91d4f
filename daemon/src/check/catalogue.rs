//! What there is to say about single catalogues: what an import took and left, what they hold and for whom, and
//! what two versions differ in. Reads nothing and prints nothing itself.

use super::Finding;
use crate::catalogue_import::printable;
use crate::config::Settings;
use crate::control::protocol::UnseenList;
use crate::policy::catalogue::{Catalogue, EndpointSet};
use crate::policy::diff;
use crate::policy::lint;
use crate::policy::zone::Selector;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// What an import made of one file.
#[derive(Clone, Debug, Serialize)]
pub struct Import {
    /// The file.
    pub file: String,
    /// Sets.
    pub sets: usize,
    /// Names, networks and ports met in it.
    pub tokens: usize,
    /// Those that sets hold.
    pub imported: usize,
    /// Those that no set holds.
    pub reported: Vec<Reported>,
    /// What looks wrong in it, warnings first.
    pub findings: Vec<Finding>,
}

/// A token that no set holds.
#[derive(Clone, Debug, Serialize)]
pub struct Reported {
    /// Where it stands.
    pub origin: String,
    /// As the source writes it.
    pub token: String,
    /// Why it was left out.
    pub why: String,
}

/// Reports on a catalogue that was read from `file`.
#[must_use]
pub fn import(file: &str, catalogue: &Catalogue) -> Import {
    let account = &catalogue.account;
    let mut findings: Vec<Finding> = lint::catalogue(catalogue)
        .into_iter()
        .map(Finding::from)
        .collect();
    findings.sort_by_key(|finding| finding.weight != "warning");
    let reported = account.reported.iter().map(|one| Reported {
        origin: one.origin.clone(),
        token: one.token.clone(),
        why: one.why.clone(),
    });
    Import {
        file: file.to_owned(),
        sets: catalogue.sets.len(),
        tokens: account.tokens,
        imported: account.imported,
        reported: reported.collect(),
        findings,
    }
}

impl Import {
    /// Whether somebody may reach more or less than the source says.
    #[must_use]
    pub fn has_warnings(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.weight == "warning")
    }
}

impl Display for Import {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} sets; {} names, networks and ports: {} imported, {} left out",
            self.file,
            self.sets,
            self.tokens,
            self.imported,
            self.reported.len()
        )?;
        for Reported { origin, token, why } in &self.reported {
            writeln!(
                f,
                "  left out: {}",
                printable(&format!("{origin}: {token}: {why}"))
            )?;
        }
        self.findings.iter().try_for_each(|finding| finding.fmt(f))
    }
}

/// One set, as a zone gets it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its label: `intune/163`.
    pub set: String,
    /// The part of the service.
    pub area: String,
    /// For people.
    pub service: String,
    /// Whether the vendor requires it.
    pub required: bool,
    /// Names and wildcards.
    pub names: Vec<String>,
    /// Networks.
    pub networks: Vec<String>,
    /// Ports.
    pub ports: String,
    /// Where it stands.
    pub origin: String,
    /// Why the zone asked about does not have it; empty when it has it, or none was asked about.
    pub left_out: Vec<String>,
}

/// The sets that `what` selects, and for `zone`, where one is named, why it has each or not.
///
/// # Errors
/// When nothing is selected, or there is no such zone; says what there is.
pub fn show(settings: &Settings, what: &str, zone: Option<&str>) -> Result<Vec<Row>, String> {
    let selector = Selector::parse(what).map_err(|error| error.to_string())?;
    let intent = &settings.intent;
    let spec = match zone {
        None => None,
        Some(name) => {
            let found = intent.zones.iter().find(|zone| zone.name == name);
            let known = || {
                intent
                    .zones
                    .iter()
                    .map(|zone| &*zone.name)
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            Some(found.ok_or_else(|| format!("there is no zone `{name}`; there are {}", known()))?)
        }
    };
    let mut rows = Vec::new();
    for catalogue in &intent.catalogues {
        let chosen = |set: &&EndpointSet| selector.selects(&catalogue.name, set);
        for set in catalogue.sets.iter().filter(chosen) {
            let mut left_out = Vec::new();
            if let Some(spec) = spec {
                let selected = |list: &[Selector]| {
                    list.iter()
                        .find(|one| one.selects(&catalogue.name, set))
                        .cloned()
                };
                if selected(&spec.allow).is_none() {
                    left_out.push("no `allow` of the zone selects it".to_owned());
                }
                left_out.extend(selected(&spec.deny).map(|one| format!("`deny` has {one}")));
                let axes: Vec<&str> = set.scope.unmet(&spec.scope).collect();
                if !axes.is_empty() {
                    left_out.push(format!(
                        "the zone's scope excludes it by {}",
                        axes.join(", ")
                    ));
                }
                let inert = set.patterns.iter().filter(|pattern| !spec.accepts(pattern));
                left_out.extend(inert.map(|pattern| {
                    format!(
                        "{pattern} is inert: strangers can have names there; opt in with `shared`"
                    )
                }));
                if set.ports.is_empty() {
                    left_out.push("it has no port".to_owned());
                }
            }
            rows.push(Row {
                set: format!("{}/{}", catalogue.name, set.id),
                area: set.area.clone(),
                service: set.service.clone(),
                required: set.required,
                names: set.patterns.iter().map(ToString::to_string).collect(),
                networks: set.networks.iter().map(ToString::to_string).collect(),
                ports: set.ports.to_string(),
                origin: set.place(),
                left_out,
            });
        }
    }
    if rows.is_empty() {
        let known: Vec<&str> = intent
            .catalogues
            .iter()
            .map(|catalogue| &*catalogue.name)
            .collect();
        return Err(format!(
            "`{what}` selects nothing; there are the catalogues {}",
            known.join(", ")
        ));
    }
    Ok(rows)
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let required = if self.required {
            "required"
        } else {
            "optional"
        };
        writeln!(
            f,
            "{} ({}; {}, {required}) on {}",
            self.set,
            printable(&self.service),
            self.area,
            self.ports
        )?;
        for target in self.names.iter().chain(&self.networks) {
            writeln!(f, "  {target}")?;
        }
        if !self.origin.is_empty() {
            writeln!(f, "  from {}", printable(&self.origin))?;
        }
        self.left_out
            .iter()
            .try_for_each(|why| writeln!(f, "  NOT OPEN: {why}"))
    }
}

/// What of a catalogue in force nobody uses.
#[derive(Clone, Debug, Serialize)]
pub struct Live {
    /// The catalogue.
    pub catalogue: String,
    /// Whole days for which egressd has watched, all its runs together.
    pub days: u64,
    /// Names and wildcards that are watched, counted for each zone.
    pub watched: u64,
    /// Those of them that no client ever asked for; the finding lists the first of them.
    pub unseen: u64,
    /// Names and wildcards of all catalogues for which there is no room.
    pub unwatched: u64,
    /// `never-seen`, or nothing.
    pub findings: Vec<Finding>,
}

/// What the daemon saw of a catalogue.
#[must_use]
pub fn live(seen: &UnseenList) -> Live {
    let days = seen.seconds / 86_400;
    let items = seen.unseen.iter().map(|of| {
        format!(
            "zone {}: {}, watched for {} days",
            of.zone, of.pattern, of.days
        )
    });
    let finding = lint::never_seen(&seen.catalogue, days, items.collect());
    Live {
        catalogue: seen.catalogue.clone(),
        days,
        watched: seen.watched,
        unseen: seen.total,
        unwatched: seen.unwatched,
        findings: finding.into_iter().map(Finding::from).collect(),
    }
}

impl Display for Live {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} of {} names never asked for, watched for {} days",
            printable(&self.catalogue),
            self.unseen,
            self.watched,
            self.days
        )?;
        if self.unwatched > 0 {
            writeln!(
                f,
                "{} more names are not watched: there is no room",
                self.unwatched
            )?;
        }
        self.findings.iter().try_for_each(|finding| finding.fmt(f))
    }
}

/// What two versions of a catalogue differ in.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// What the new version opens beyond the old one.
    pub widens: Vec<Change>,
    /// What it closes.
    pub narrows: Vec<Change>,
    /// Sets by id, and what changed of each as a whole.
    pub sets: BTreeMap<String, Vec<String>>,
    /// New wildcards, and the names of the old version that they stand for.
    pub shadows: BTreeMap<String, Vec<String>>,
}

/// A destination whose ports change.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// A name, a wildcard or a network.
    pub destination: String,
    /// The ports that open or close.
    pub ports: String,
    /// The sets that list it.
    pub sets: Vec<String>,
    /// Wildcards beside it that stand for it as well.
    pub covered_by: Vec<String>,
}

/// Compares two versions.
#[must_use]
pub fn difference(old: &Catalogue, new: &Catalogue) -> Difference {
    let found = diff::diff(old, new);
    let changes = |changes: Vec<diff::Change>| -> Vec<Change> {
        changes
            .into_iter()
            .map(|change| Change {
                destination: change.destination.to_string(),
                ports: change.ports.to_string(),
                sets: change.sets,
                covered_by: change.covered_by.iter().map(ToString::to_string).collect(),
            })
            .collect()
    };
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for change in found.sets {
        sets.entry(change.id).or_default().push(change.what);
    }
    let shadows = found.shadows.into_iter().map(|shadow| {
        let inside = shadow.inside.iter().map(ToString::to_string).collect();
        (shadow.wildcard.to_string(), inside)
    });
    Difference {
        widens: changes(found.widens),
        narrows: changes(found.narrows),
        sets,
        shadows: shadows.collect(),
    }
}

impl Difference {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.widens.is_empty()
            && self.narrows.is_empty()
            && self.sets.is_empty()
            && self.shadows.is_empty()
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "no difference");
        }
        for (sign, changes) in [('+', &self.widens), ('-', &self.narrows)] {
            for Change {
                destination,
                ports,
                sets,
                covered_by,
            } in changes
            {
                write!(
                    f,
                    "{sign} {destination} on {ports} (set {})",
                    sets.join(", ")
                )?;
                if !covered_by.is_empty() {
                    write!(
                        f,
                        ", beside {} which stands for it too",
                        covered_by.join(", ")
                    )?;
                }
                writeln!(f)?;
            }
        }
        for (id, what) in &self.sets {
            writeln!(f, "set {id}: {}", what.join("; "))?;
        }
        for (wildcard, inside) in &self.shadows {
            writeln!(f, "{wildcard} is new and stands for {}", inside.join(", "))?;
        }
        writeln!(
            f,
            "{} widen, {} narrow",
            self.widens.len(),
            self.narrows.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue_import::builtin;
    use crate::config::parse;

    fn settings(zone: &str) -> Settings {
        let dns = "[dns]\nlisten = ['10.0.0.1:53']\nupstreams = ['udp://9.9.9.9']\n";
        let text = format!("{dns}[[zone]]\nname = 'a'\ninterfaces = ['lan0']\n{zone}");
        parse(&text, "e.toml", &|_| panic!("no file")).unwrap()
    }

    #[test]
    fn what_a_zone_gets_and_why_not() {
        fn check(zone: &str, what: &str, set: &str, expected: &[&str]) {
            let rows = show(&settings(zone), what, Some("a")).unwrap();
            let row = rows.iter().find(|row| row.set == set).unwrap();
            assert_eq!(row.left_out.len(), expected.len(), "{row:?}");
            for (why, part) in row.left_out.iter().zip(expected) {
                assert!(why.contains(part), "{why}");
            }
        }
        check("allow = ['intune']", "intune/163", "intune/163", &[]);
        check(
            "allow = ['intune/172']",
            "intune",
            "intune/163",
            &["no `allow`"],
        );
        check(
            "allow = ['intune']\ndeny = ['intune/163']",
            "intune/core",
            "intune/163",
            &["`deny` has"],
        );
        // The tenant's scale unit selects its storage and CDN hosts.
        let unit = "allow = ['intune']\nscope = { scale_unit = 'AMSUB0101' }";
        check(unit, "intune", "intune/scale-unit-eu", &[]);
        check(
            unit,
            "intune",
            "intune/scale-unit-na",
            &["excludes it by scale_unit"],
        );
        check(
            "allow = ['intune']",
            "intune/shared-cdn",
            "intune/shared-cdn",
            &["is inert"],
        );
    }

    #[test]
    fn what_there_is_not_is_said() {
        let settings = settings("allow = ['intune']");
        let told = |what, zone| show(&settings, what, zone).unwrap_err();
        assert!(told("m365", None).contains("there are the catalogues intune"));
        assert!(told("intune", Some("b")).contains("no zone `b`; there are a"));
        assert!(told("a b", None).contains("selector"));
    }

    #[test]
    fn reports_for_people() {
        let catalogue = builtin();
        let text = import("f", &catalogue).to_string();
        assert!(
            text.starts_with("f: ") && text.contains(" imported, 0 left out"),
            "{text}"
        );
        let mut fewer = catalogue.clone();
        fewer.sets.retain(|set| set.id != "165");
        let text = difference(&catalogue, &fewer).to_string();
        assert_eq!(
            text,
            "- time.windows.com on udp/123 (set 165)\nset 165: gone\n0 widen, 1 narrow\n"
        );
        assert_eq!(
            difference(&catalogue, &catalogue).to_string(),
            "no difference\n"
        );
    }
}

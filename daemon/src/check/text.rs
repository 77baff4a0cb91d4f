//! A report for people.

use super::{CatalogueSummary, Finding, Opening, Report, ZoneSummary};
use crate::catalogue_import::printable;
use egressd_common::MAX_CLASSES;
use std::fmt::{Display, Formatter, Result};

/// How many items of a notice are shown when not all are asked for.
const FEW: usize = 5;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "Catalogues")?;
        self.catalogues
            .iter()
            .try_for_each(|catalogue| write!(f, "{catalogue}"))?;
        writeln!(f, "\nZones")?;
        self.zones.iter().try_for_each(|zone| write!(f, "{zone}"))?;
        writeln!(f, "\nPort classes: {} of {MAX_CLASSES}", self.classes.len())?;
        if !self.findings.is_empty() {
            writeln!(f, "\nFindings")?;
        }
        self.findings.iter().try_for_each(|finding| finding.fmt(f))
    }
}

impl Display for CatalogueSummary {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(
            f,
            "  {}: {}, version {}",
            self.name,
            printable(&self.title),
            printable(&self.version)
        )?;
        writeln!(
            f,
            "    {}, {}, {}",
            count(self.sets, "set"),
            names(self.names, self.wildcards),
            count(self.networks, "network"),
        )?;
        writeln!(f, "    from {}", printable(&self.source))
    }
}

impl Display for ZoneSummary {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let clients = match self.interfaces[..] {
            [] => "the gateway itself".to_owned(),
            _ => self.interfaces.join(", "),
        };
        write!(f, "  {}: {}, {clients}", self.name, self.mode)?;
        if !self.sources.is_empty() {
            write!(f, ", from {}", self.sources.join(", "))?;
        }
        writeln!(f, "\n    may reach {}", count(self.sets.len(), "set"))?;
        self.opens
            .iter()
            .try_for_each(|opening| write!(f, "{opening}"))?;
        list(f, "left out by its scope", &self.out_of_scope)?;
        list(f, "taken away by deny", &self.denied)
    }
}

impl Display for Opening {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let names_and_wildcards = self.names.len() + self.wildcards.len();
        let names = names(names_and_wildcards, self.wildcards.len());
        let networks = count(self.networks.len(), "network");
        let what = match (names_and_wildcards, self.networks.len()) {
            (_, 0) => names,
            (0, _) => networks,
            (_, _) => format!("{names}, {networks}"),
        };
        writeln!(f, "      {}: {what}", self.ports)
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "  {} [{}] {}", self.weight, self.id, self.sentence)?;
        let all = f.alternate() || self.weight != "notice" || self.items.len() <= FEW + 1;
        let shown = if all { self.items.len() } else { FEW };
        for item in &self.items[..shown] {
            writeln!(f, "    - {}", printable(item))?;
        }
        if !all {
            writeln!(f, "    - and {} more", self.items.len() - FEW)?;
        }
        if !self.remedy.is_empty() {
            writeln!(f, "    {}", self.remedy)?;
        }
        Ok(())
    }
}

fn list(f: &mut Formatter<'_>, title: &str, items: &[String]) -> Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "    {title}:")?;
    items
        .iter()
        .try_for_each(|item| writeln!(f, "      - {item}"))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn names(all: usize, wildcards: usize) -> String {
    match wildcards {
        0 => count(all, "name"),
        _ => format!("{} ({})", count(all, "name"), count(wildcards, "wildcard")),
    }
}

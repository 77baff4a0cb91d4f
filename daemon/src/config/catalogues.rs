//! `[[catalogue]]`: the built-in one and the operator's files.

use crate::catalogue_import as import;
use crate::document::{Table, did_you_mean, nearest};
use crate::policy::catalogue::{Catalogue, Scope};
use crate::policy::zone::Selector;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// The built-in catalogue's name.
const BUILTIN: &str = "intune";

/// Every catalogue that could be read.
#[derive(Debug)]
pub(super) struct Catalogues {
    pub(super) list: Vec<Catalogue>,
    /// Names of those that could not: selectors of them are not judged as well.
    unreadable: BTreeSet<String>,
}

impl Catalogues {
    pub(super) fn take(
        tables: Vec<Table<'_, '_>>,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Self {
        let mut catalogues = Self {
            list: vec![import::builtin()],
            unreadable: BTreeSet::new(),
        };
        let mut names = BTreeSet::new();
        for mut table in tables {
            let Some(name) = table
                .require("name", "catalogue", "name = \"…\"")
                .and_then(|value| value.text())
            else {
                continue;
            };
            let (name, span) = (name.get_ref().clone(), name.span());
            if Selector::parse(&name).is_ok_and(|s| s.part.is_some() || s.required)
                || Selector::parse(&name).is_err()
            {
                let what = format!(
                    "`{name}` cannot name a catalogue; write it without spaces, `/` and `:`"
                );
                table.document.problem(&span, what);
            }
            if !names.insert(name.clone()) {
                let what = format!("catalogue `{name}` stands twice; give one another name");
                table.document.problem(&span, what);
            }
            let catalogue = catalogues.one(&mut table, &name, read);
            catalogues.list.retain(|known| known.name != name);
            match catalogue {
                Some(catalogue) => catalogues.list.push(catalogue),
                None => drop(catalogues.unreadable.insert(name)),
            }
            table.finish();
        }
        catalogues
    }

    fn one(
        &self,
        table: &mut Table<'_, '_>,
        name: &str,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Option<Catalogue> {
        let file = table.text("file");
        let required_only = table.flag("required_only").unwrap_or_default();
        let mut catalogue = match file {
            None if name == BUILTIN => import::builtin(),
            None => {
                table.problem(format!(
                    "catalogue `{name}` has no `file`; only `{BUILTIN}` is built in"
                ));
                return None;
            }
            Some(file) => {
                let bytes = read(Path::new(file.get_ref()))
                    .map_err(|error| {
                        let what = format!("`{}` cannot be read: {error}", file.get_ref());
                        table.document.problem(&file.span(), what);
                    })
                    .ok()?;
                import::read(&bytes, file.get_ref())
                    .map_err(|problems| table.document.adopt(problems))
                    .ok()?
            }
        };
        name.clone_into(&mut catalogue.name);
        if required_only {
            catalogue.sets.retain(|set| set.required);
        }
        Some(catalogue)
    }

    /// Reads a selector that selects something.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub(super) fn selector(&self, text: &str) -> Result<Selector, String> {
        if text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok() {
            return Err(format!(
                "`{text}` is a network, not a selector; write it under `networks` of a [[zone.rule]]"
            ));
        }
        let selector = Selector::parse(text).map_err(|error| error.to_string())?;
        if self.unreadable.contains(&selector.catalogue) {
            return Ok(selector);
        }
        let Some(catalogue) = self.list.iter().find(|c| c.name == selector.catalogue) else {
            if selector.part.is_none() && text.contains('.') {
                return Err(format!(
                    "`{text}` is no catalogue; write names under `names` of a [[zone.rule]]"
                ));
            }
            let hint = did_you_mean(&selector.catalogue, self.list.iter().map(|c| &*c.name));
            return Err(format!(
                "there is no catalogue `{}`{hint}",
                selector.catalogue
            ));
        };
        if catalogue
            .sets
            .iter()
            .any(|set| selector.selects(&catalogue.name, set))
        {
            return Ok(selector);
        }
        let unfiltered = Selector {
            required: false,
            ..selector.clone()
        };
        if catalogue
            .sets
            .iter()
            .any(|set| unfiltered.selects(&catalogue.name, set))
        {
            return Err(format!(
                "`{text}` selects nothing: no set of it is required; write `{unfiltered}`"
            ));
        }
        let Some(part) = selector.part else {
            return Err(format!("`{text}` selects nothing: it has no set"));
        };
        let words = catalogue.sets.iter().flat_map(|set| [&*set.id, &*set.area]);
        let areas = catalogue.sets.iter().map(|set| &*set.area);
        let hint = match nearest(&part, words) {
            Some(near) => format!("; did you mean `{}/{near}`?", catalogue.name),
            None => did_you_mean("", areas),
        };
        Err(format!(
            "`{}` has no set and no area `{part}`{hint}",
            catalogue.name
        ))
    }

    /// The values that sets use on one axis of the scope, and `more`.
    pub(super) fn values<'a>(
        &'a self,
        axis: impl Fn(&'a Scope) -> &'a Vec<String>,
        more: &[&'a str],
    ) -> BTreeSet<&'a str> {
        let sets = self.list.iter().flat_map(|catalogue| &catalogue.sets);
        let used = sets.flat_map(|set| axis(&set.scope)).map(String::as_str);
        used.chain(more.iter().copied()).collect()
    }

    /// Whether every catalogue that the configuration names could be read.
    pub(super) fn complete(&self) -> bool {
        self.unreadable.is_empty()
    }
}

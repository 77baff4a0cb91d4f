//! `[[catalogue]]`: the built-in ones, the operator's files, and what is fetched.

use super::feed::Feed;
use crate::catalogue_import as import;
use crate::catalogue_import::targets::services;
use crate::document::{Table, did_you_mean, nearest};
use crate::fetch::Endpoint;
use crate::policy::catalogue::{Catalogue, Scope};
use crate::policy::port::PortSet;
use crate::policy::zone::Selector;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The built-in catalogue's name.
const BUILTIN: &str = "intune";

/// Every catalogue that could be read.
#[derive(Debug)]
pub(super) struct Catalogues {
    pub(super) list: Vec<Catalogue>,
    /// Built-in ones that nobody asked for yet.
    library: Vec<Catalogue>,
    /// Names of those that could not: selectors of them are not judged as well.
    unreadable: BTreeSet<String>,
    /// Names of those of which a part was never fetched: nor are selectors of them.
    pending: BTreeSet<String>,
    /// What is fetched.
    pub(super) feeds: Vec<Feed>,
    /// The files that were read, as they are written.
    pub(super) files: Vec<PathBuf>,
}

/// What is in force of the source at a URL of a catalogue, if it was ever had.
pub(super) type Fetched<'a> = &'a dyn Fn(&str, &Endpoint) -> Option<Catalogue>;

/// What one table says.
enum One {
    Read(Box<Catalogue>),
    /// The built-in catalogue, and perhaps not all of it.
    Builtin {
        required_only: bool,
    },
    Unreadable,
}

fn only_required(catalogue: &mut Catalogue) {
    catalogue.sets.retain(|set| set.required);
}

impl Catalogues {
    pub(super) fn take(
        tables: Vec<Table<'_, '_>>,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
        fetched: Fetched<'_>,
    ) -> Self {
        let mut catalogues = Self {
            list: vec![import::builtin()],
            library: import::library(),
            unreadable: BTreeSet::new(),
            pending: BTreeSet::new(),
            feeds: Vec::new(),
            files: Vec::new(),
        };
        let mut without_builtin = BTreeSet::new();
        let mut read_so_far: BTreeMap<String, Catalogue> = BTreeMap::new();
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
            let builtin = table.flag("builtin");
            let there = catalogues.built_in(&name);
            if builtin == Some(false) {
                without_builtin.insert(name.clone());
            } else if builtin == Some(true) && !there {
                let known = catalogues.built_in_names().join("`, `");
                table.problem(format!("built in are `{known}`; leave `builtin` out"));
            }
            let one = catalogues.one(&mut table, &name, there, read, fetched);
            match (one, read_so_far.remove(&name)) {
                (One::Read(one), Some(mut before)) => {
                    before.join(*one);
                    read_so_far.insert(name, before);
                }
                (One::Read(one), None) => drop(read_so_far.insert(name, *one)),
                (One::Builtin { required_only }, before) => {
                    if let Some(before) = before {
                        read_so_far.insert(name.clone(), before);
                    }
                    if let Some(known) = catalogues.bring(&name).filter(|_| required_only) {
                        only_required(known);
                    }
                }
                (One::Unreadable, _) => drop(catalogues.unreadable.insert(name)),
            }
            table.finish();
        }
        catalogues.put_together(read_so_far, &without_builtin);
        catalogues
    }

    /// Joins tables of one name, the built-in one first.
    fn put_together(&mut self, read: BTreeMap<String, Catalogue>, without: &BTreeSet<String>) {
        self.list.retain(|known| !without.contains(&known.name));
        self.library.retain(|known| !without.contains(&known.name));
        for (name, catalogue) in read {
            match self.bring(&name) {
                Some(known) => known.join(catalogue),
                None => self.list.push(catalogue),
            }
        }
        let unreadable = &self.unreadable;
        self.list.retain(|known| !unreadable.contains(&known.name));
    }

    fn built_in(&self, name: &str) -> bool {
        self.built_in_names().contains(&name)
    }

    fn built_in_names(&self) -> Vec<&str> {
        let library = self.library.iter().map(|catalogue| &*catalogue.name);
        std::iter::once(BUILTIN).chain(library).collect()
    }

    /// The catalogue of that name, out of the library if it was there.
    fn bring(&mut self, name: &str) -> Option<&mut Catalogue> {
        if let Some(at) = self.library.iter().position(|known| known.name == name) {
            let known = self.library.remove(at);
            self.list.push(known);
        }
        self.list.iter_mut().find(|known| known.name == name)
    }

    /// Brings those of the library that zones ask for.
    pub(super) fn bring_selected<'s>(&mut self, selectors: impl Iterator<Item = &'s Selector>) {
        for selector in selectors {
            self.bring(&selector.catalogue);
        }
    }

    fn one(
        &mut self,
        table: &mut Table<'_, '_>,
        name: &str,
        built_in: bool,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
        fetched: Fetched<'_>,
    ) -> One {
        let file = table.text("file");
        let url = table.has("url");
        let feed = Feed::take(table, name, read);
        let required_only = table.flag("required_only").unwrap_or_default();
        let ports = PortSet::new(services(table));
        if let (Some(file), true) = (&file, url) {
            let what = "a table has one source; write one [[catalogue]] of the same name for the `file` and one for the `url`";
            table.document.problem(&file.span(), what);
            return One::Unreadable;
        }
        let finish = |mut catalogue: Catalogue, table: &Table<'_, '_>| {
            name.clone_into(&mut catalogue.name);
            if required_only {
                only_required(&mut catalogue);
            }
            if !ports.is_empty() {
                catalogue.default_ports(&ports, &table.document.origin(&table.span));
            }
            One::Read(Box::new(catalogue))
        };
        if url {
            let Some(feed) = feed else {
                return One::Unreadable;
            };
            let had = fetched(name, &feed.source.url).unwrap_or_else(|| {
                self.pending.insert(name.to_owned());
                Catalogue {
                    source: feed.source.url.to_string(),
                    ..Catalogue::default()
                }
            });
            self.feeds.push(feed);
            return finish(had, table);
        }
        let Some(file) = file else {
            if built_in {
                return One::Builtin { required_only };
            }
            table.problem(format!(
                "catalogue `{name}` has neither `file` nor `url`, and is not built in"
            ));
            return One::Unreadable;
        };
        self.files.push(PathBuf::from(file.get_ref()));
        let bytes = match read(Path::new(file.get_ref())) {
            Ok(bytes) => bytes,
            Err(error) => {
                let what = format!("`{}` cannot be read: {error}", file.get_ref());
                table.document.problem(&file.span(), what);
                return One::Unreadable;
            }
        };
        let mut catalogue = match import::read(&bytes, file.get_ref()) {
            Ok(catalogue) => catalogue,
            Err(problems) => {
                table.document.adopt(problems);
                return One::Unreadable;
            }
        };
        if catalogue.source.is_empty() {
            catalogue.source.clone_from(file.get_ref());
        }
        finish(catalogue, table)
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
        let unknown = |some: &BTreeSet<String>| some.contains(&selector.catalogue);
        if unknown(&self.unreadable) || unknown(&self.pending) {
            return Ok(selector);
        }
        let known = self.list.iter().chain(&self.library);
        let mut known = known.filter(|known| known.name == selector.catalogue);
        let Some(catalogue) = known.next() else {
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

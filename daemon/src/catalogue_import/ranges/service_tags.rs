//! Azure's service tags (<https://www.microsoft.com/download/details.aspx?id=56519>): a set for each tag, under
//! the tag's name.

use super::list;
use crate::catalogue_import::json::Json;
use crate::catalogue_import::row::Row;
use crate::catalogue_import::source::{Source, shortened};
use crate::policy::catalogue::EndpointSet;

pub(super) fn read(json: &Json, source: &mut Source) -> Vec<EndpointSet> {
    let mut sets = Vec::new();
    for (key, value) in json.entries() {
        match &**key {
            "values" => {
                for (index, one) in list(value, key, source).iter().enumerate() {
                    sets.extend(tag(one, index, source));
                }
            }
            "changeNumber" | "cloud" if value.word().is_some() => {}
            _ => source.unknown(key, value, &shortened(key)),
        }
    }
    sets
}

fn tag(json: &Json, index: usize, source: &mut Source) -> Option<EndpointSet> {
    let origin = format!("values[{index}]");
    let Some(name) = json.get("name").or(json.get("id")).and_then(Json::word) else {
        source.misplaced(json, &origin, "it is no tag, or has no name");
        return None;
    };
    let service = json.get("properties").and_then(|p| p.get("systemService"));
    let service = service.and_then(Json::word).filter(|text| !text.is_empty());
    let first = name.split('.').next().unwrap_or(name);
    let mut row = Row::new(source, name, service.unwrap_or(first), origin.clone());
    name.clone_into(&mut row.set.service);
    for (key, value) in json.entries() {
        let origin = format!("{origin}.{}", shortened(key));
        match &**key {
            // What stands twice adds up.
            "properties" if value.kind() == "an object" => properties(value, &origin, &mut row),
            "name" | "id" if value.word().is_some() => {}
            _ => row.source.unknown(key, value, &origin),
        }
    }
    row.finish()
}

fn properties(json: &Json, origin: &str, row: &mut Row<'_>) {
    for (key, value) in json.entries() {
        let origin = format!("{origin}.{}", shortened(key));
        match &**key {
            "addressPrefixes" => row.targets(value, &origin),
            "changeNumber" | "region" | "regionId" | "platform" | "systemService"
                if value.word().is_some() => {}
            "networkFeatures" => drop(row.source.described(value, &origin)),
            _ => row.source.unknown(key, value, &origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::tests::check;

    #[test]
    fn tags() {
        check(
            r#"{"changeNumber": 42, "cloud": "Public", "values": [
                {"name": "Front.Web", "id": "Front.Web", "properties": {"systemService": "AzureFront", "region": "",
                 "addressPrefixes": ["198.51.100.0/24", "2001:db8::/48", "nonsense"], "networkFeatures": ["API", "b.example.com"]}},
                {"name": "Empty", "properties": {"systemService": "", "addressPrefixes": []}},
                {"id": "Nameless.West", "properties": {"addressPrefixes": ["192.0.2.0/24"]}},
                {"name": "Odd", "properties": {"addressPrefixes": "198.51.100.0/24"}}]}"#,
            Kind::ServiceTags,
            &[
                "azurefront/Front.Web 198.51.100.0/24 2001:db8::/48",
                "nameless/Nameless.West 192.0.2.0/24",
            ],
            &[
                "values[0].properties.addressPrefixes[2] nonsense",
                "values[0].properties.networkFeatures[1] b.example.com",
                "values[3].properties.addressPrefixes 198.51.100.0/24",
            ],
        );
    }

    #[test]
    fn what_stands_twice_or_elsewhere_is_not_lost() {
        check(
            r#"{"changeNumber": 1, "extra": ["a.example.com"], "values": [
                {"name": "A", "properties": {"addressPrefixes": ["192.0.2.0/25"], "addressPrefixes": ["192.0.2.128/25"],
                 "more": {"v6": ["2001:db8::/32"]}}, "properties": {"addressPrefixes": ["198.51.100.0/24"]},
                 "properties": ["203.0.113.0/25"]},
                {"properties": {"addressPrefixes": ["203.0.113.128/25"]}}, 7],
               "values": [{"name": "B", "properties": {"addressPrefixes": ["203.0.113.0/24"]}}]}"#,
            Kind::ServiceTags,
            &[
                "a/A 192.0.2.0/25 192.0.2.128/25 198.51.100.0/24",
                "b/B 203.0.113.0/24",
            ],
            &[
                "extra[0] a.example.com",
                "values[0].properties.more.v6[0] 2001:db8::/32",
                "values[0].properties[0] 203.0.113.0/25",
                "values[1].properties.addressPrefixes[0] 203.0.113.128/25",
                "values[2] 7",
            ],
        );
    }
}

//! Amazon's `ip-ranges.json` (<https://docs.aws.amazon.com/vpc/latest/userguide/aws-ip-syntax.html>): a set for
//! each service in each region, `S3.eu-west-1`.

use super::list;
use crate::catalogue_import::json::Json;
use crate::catalogue_import::row::Row;
use crate::catalogue_import::source::{Source, shortened};
use crate::policy::catalogue::EndpointSet;
use std::collections::BTreeMap;

/// Prefixes of a service in a region, each with its place.
type Groups<'j> = BTreeMap<(&'j str, &'j str), Vec<(String, &'j Json)>>;

pub(super) fn read(json: &Json, source: &mut Source) -> Vec<EndpointSet> {
    let mut groups = Groups::new();
    for (key, value) in json.entries() {
        match &**key {
            "prefixes" | "ipv6_prefixes" => {
                for (index, entry) in list(value, key, source).iter().enumerate() {
                    prefix(entry, &format!("{key}[{index}]"), &mut groups, source);
                }
            }
            "syncToken" | "createDate" if value.word().is_some() => {}
            _ => source.unknown(key, value, &shortened(key)),
        }
    }
    let mut sets = Vec::new();
    for ((service, region), prefixes) in groups {
        let id = format!("{service}.{region}");
        let origin = prefixes.first().map(|(origin, _)| origin.clone());
        let mut row = Row::new(source, &id, service, origin.unwrap_or_default());
        row.set.service = format!("{service} in {region}");
        for (origin, prefix) in prefixes {
            row.target_of(prefix, || origin);
        }
        sets.extend(row.finish());
    }
    sets
}

fn prefix<'j>(entry: &'j Json, origin: &str, groups: &mut Groups<'j>, source: &mut Source) {
    let word = |key| entry.get(key).and_then(Json::word);
    let (Some(service), Some(region)) = (word("service"), word("region")) else {
        return source.misplaced(entry, origin, "it lacks `service` or `region`");
    };
    let group = groups.entry((service, region)).or_default();
    let before = group.len();
    for (key, value) in entry.entries() {
        let known = |first| value.word() == Some(first);
        match &**key {
            // What stands twice adds up.
            "ip_prefix" | "ipv6_prefix" => group.push((format!("{origin}.{key}"), value)),
            "service" if known(service) => {}
            "region" if known(region) => {}
            "service" | "region" => {
                let why = "the key stands twice; the first one counts";
                source.misplaced(value, &format!("{origin}.{key}"), why);
            }
            "network_border_group" if value.word().is_some() => {}
            _ => source.unknown(key, value, &format!("{origin}.{}", shortened(key))),
        }
    }
    if group.len() == before {
        source.misplaced(entry, origin, "it has no `ip_prefix` and no `ipv6_prefix`");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::tests::check;

    #[test]
    fn prefixes() {
        check(
            r#"{"syncToken": "1", "createDate": "2025-12-01-00-00-00", "prefixes": [
                {"ip_prefix": "198.51.100.0/25", "region": "eu-west-1", "service": "S3",
                 "network_border_group": "eu-west-1"},
                {"ip_prefix": "198.51.100.128/25", "region": "eu-west-1", "service": "S3"},
                {"ip_prefix": "203.0.113.0/24", "region": "GLOBAL"}],
               "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/32", "region": "eu-west-1", "service": "S3"}]}"#,
            Kind::Amazon,
            &["s3/S3.eu-west-1 198.51.100.0/25 198.51.100.128/25 2001:db8::/32"],
            &[
                "prefixes[2].ip_prefix 203.0.113.0/24",
                "prefixes[2].region GLOBAL",
            ],
        );
    }

    #[test]
    fn what_stands_twice_or_elsewhere_is_not_lost() {
        check(
            r#"{"prefixes": [
                {"ip_prefix": "192.0.2.0/25", "ip_prefix": "192.0.2.128/25", "region": "e", "service": "S3",
                 "alt": "a.example.com", "region": "w"},
                {"ip_prefix": ["198.51.100.0/24"], "region": "e", "service": "S3"},
                {"region": "e", "service": "EC2"}, null],
               "prefixes": [{"ip_prefix": "203.0.113.0/24", "region": "e", "service": "S3"}],
               "ipv6_prefixes": {"x": "2001:db8::/32"}}"#,
            Kind::Amazon,
            &["s3/S3.e 192.0.2.0/25 192.0.2.128/25 203.0.113.0/24"],
            &[
                "prefixes[0].alt a.example.com",
                "prefixes[0].region w",
                "prefixes[2].region e",
                "prefixes[2].service EC2",
                "prefixes[3] null",
                "ipv6_prefixes.x 2001:db8::/32",
                "prefixes[1].ip_prefix[0] 198.51.100.0/24",
            ],
        );
    }
}

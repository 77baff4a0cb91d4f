//! `redirect` of the zones: what it needs from the other sections, and the listeners it leads to.

use super::zone::ZoneRead;
use super::{DnsSettings, PlaneSettings};
use crate::document::Document;
use crate::policy::redirect::can_answer;
use crate::policy::zone::ZoneSpec;
use ipnet::IpNet;
use std::net::IpAddr;

/// Gives every redirected zone its listeners.
pub(super) fn fill(
    document: &Document<'_>,
    zones: &mut [ZoneRead],
    dns: &DnsSettings,
    planes: PlaneSettings,
) {
    let usable = dns.listen.iter().copied().filter(|at| can_answer(*at));
    let listeners: Vec<_> = usable.collect();
    for index in 0..zones.len() {
        let Some(span) = zones[index].redirect.clone() else {
            continue;
        };
        let name = &zones[index].spec.name;
        if !planes.nft {
            let what = format!(
                "zone `{name}` cannot redirect port 53 without the nft plane; write nft = true in [planes], or leave `redirect` out"
            );
            document.problem(&span, what);
        }
        if listeners.is_empty() {
            let what = format!(
                "zone `{name}` redirects port 53 and there is no listener that its clients' packets can reach; write [dns] listen = [\"…:53\"]"
            );
            document.problem(&span, what);
        }
        for upstream in &dns.upstreams {
            if zone_of(zones, upstream.address.ip()) == Some(index) {
                let what = format!(
                    "egressd asks {} in zone `{name}`, whose own questions would come back to egressd; put that resolver into a zone of its own without `redirect`",
                    upstream.address.ip()
                );
                document.problem(&span, what);
            }
        }
        zones[index].spec.redirect.clone_from(&listeners);
    }
}

/// The zone whose sources name `address` most exactly, as far as the configuration alone tells.
fn zone_of(zones: &[ZoneRead], address: IpAddr) -> Option<usize> {
    let length = |spec: &ZoneSpec| {
        let holding = spec.sources.iter().filter(|net| net.contains(&address));
        holding.map(IpNet::prefix_len).max()
    };
    let claims = zones.iter().enumerate();
    claims
        .filter_map(|(index, zone)| Some((length(&zone.spec)?, index)))
        .max_by_key(|(length, _)| *length)
        .map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use std::io;
    use std::path::Path;

    fn no_file(_: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    /// A zone that redirects, with `listen`, `upstream`, more zones, and [planes].
    fn check(listen: &str, upstream: &str, rest: &str, expected: Result<&[&str], &str>) {
        let text = format!(
            "[dns]\nlisten = {listen}\nupstreams = ['udp://{upstream}']\n[[zone]]\nname = 'a'\n\
             interfaces = ['lan0']\nsources = ['10.0.0.0/8']\nallow = ['intune']\n\
             redirect = true\n{rest}"
        );
        let got = match parse(&text, "e.toml", &no_file) {
            Ok(settings) => {
                let listeners = settings.intent.zones[0].redirect.iter();
                Ok(listeners.map(ToString::to_string).collect::<Vec<_>>())
            }
            Err(problems) => Err(problems.to_string()),
        };
        let expected = expected
            .map(|texts| texts.iter().map(|text| (*text).to_owned()).collect())
            .map_err(str::to_owned);
        assert_eq!(got, expected, "in\n{text}");
    }

    #[test]
    fn listeners_and_what_is_missing() {
        const ASKED: &str = "192.0.2.53";
        check("['10.0.0.1:53']", ASKED, "", Ok(&["10.0.0.1:53"]));
        check(
            "['127.0.0.1:53', '[::]:53', '10.0.0.1:5353']",
            ASKED,
            "",
            Ok(&["[::]:53", "10.0.0.1:5353"]),
        );
        check(
            "['127.0.0.1:53']",
            ASKED,
            "",
            Err(
                "e.toml:9:12: zone `a` redirects port 53 and there is no listener that its clients' packets can reach; write [dns] listen = [\"…:53\"]",
            ),
        );
        check(
            "['10.0.0.1:53']",
            ASKED,
            "[planes]\nnft = false\n",
            Err(
                "e.toml:9:12: zone `a` cannot redirect port 53 without the nft plane; write nft = true in [planes], or leave `redirect` out",
            ),
        );
    }

    #[test]
    fn the_resolver_that_is_asked_must_not_be_redirected() {
        let own = "[[zone]]\nname = 'b'\ninterfaces = ['lan0']\nsources = ['10.0.0.53/32']\n\
                   allow = ['intune']\n";
        check("['10.0.0.1:53']", "10.0.0.53", own, Ok(&["10.0.0.1:53"]));
        check(
            "['10.0.0.1:53']",
            "10.0.0.53",
            "",
            Err(
                "e.toml:9:12: egressd asks 10.0.0.53 in zone `a`, whose own questions would come back to egressd; put that resolver into a zone of its own without `redirect`",
            ),
        );
    }

    #[test]
    fn it_is_off_unless_written() {
        let text = "[dns]\nlisten = ['10.0.0.1:53']\nupstreams = ['udp://192.0.2.53']\n\
                    [[zone]]\nname = 'a'\ninterfaces = ['lan0']\nallow = ['intune']\n";
        for (line, problem) in [
            ("", ""),
            ("redirect = false\n", ""),
            (
                "redirect = 'yes'\n",
                "e.toml:8:12: `'yes'` does not fit here; write `true` or `false`",
            ),
        ] {
            let found = parse(&format!("{text}{line}"), "e.toml", &no_file);
            match found {
                Ok(settings) => assert!(settings.intent.zones[0].redirect.is_empty()),
                Err(problems) => assert_eq!(problems.to_string(), problem),
            }
        }
    }
}

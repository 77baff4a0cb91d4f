//! `[dns] mode = "observe"`: the resolvers whose answers teach as they pass by.

use super::PlaneSettings;
use super::sections::Gateway;
use crate::document::{Span, Table};
use crate::policy::observed::Observed;
use std::net::{IpAddr, SocketAddr};

/// What the mode is, and where it was written.
pub(super) struct ObserveRead {
    pub(super) observed: Observed,
    span: Span,
}

/// Takes the keys of observe mode; `None` in forward mode. `listen` is where egressd listens itself.
pub(super) fn observe(table: &mut Table<'_, '_>, listen: &[SocketAddr]) -> Option<ObserveRead> {
    let mode = table.text("mode");
    let named = ["resolvers", "delay", "copy_group"].map(|key| (key, table.take(key)));
    let [resolvers, delay, group] = named;
    let span = match &mode {
        Some(mode) if mode.get_ref() == "observe" => mode.span(),
        Some(mode) if mode.get_ref() != "forward" => {
            let what = format!(
                "`mode` cannot be `{}`; write \"forward\" or \"observe\"",
                mode.get_ref()
            );
            table.document.problem(&mode.span(), what);
            return None;
        }
        Some(_) | None => {
            for (key, value) in [resolvers, delay, group] {
                if let Some(value) = value {
                    value.problem(format!(
                        "`{key}` has no meaning in forward mode; write mode = \"observe\", or leave it out"
                    ));
                }
            }
            return None;
        }
    };
    let mut observed = Observed {
        resolvers: Vec::new(),
        delay: delay.1.and_then(|value| value.flag()).unwrap_or(false),
        group: (group.1)
            .and_then(|value| value.number(0, u64::from(u16::MAX)))
            .and_then(|number| u16::try_from(number).ok())
            .unwrap_or(78),
    };
    let written = resolvers.1.is_some();
    for value in resolvers.1.map(|value| value.list()).unwrap_or_default() {
        let Some(text) = value.text() else { continue };
        match resolver(text.get_ref(), listen) {
            Ok(address) if observed.resolvers.contains(&address) => {
                let what = format!("`{address}` stands twice; leave one out");
                table.document.problem(&text.span(), what);
            }
            Ok(address) => observed.resolvers.push(address),
            Err(what) => table.document.problem(&text.span(), what),
        }
    }
    if !written {
        table.document.problem(
            &span,
            "observe mode learns from nobody; write resolvers = [\"…\"], the addresses that clients ask",
        );
    }
    Some(ObserveRead { observed, span })
}

fn resolver(text: &str, listen: &[SocketAddr]) -> Result<IpAddr, String> {
    let example = "write a resolver's address, such as `192.0.2.53` or `2001:db8::53`";
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(match text.parse::<SocketAddr>() {
            Ok(with_port) if with_port.port() == 53 => {
                format!("write `{}`: it is always port 53", with_port.ip())
            }
            Ok(_) => format!("`{text}`: only port 53 is observed; {example}"),
            Err(_) => format!("`{text}` is not an address; {example}"),
        });
    };
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || mapped {
        return Err(format!(
            "answers of `{address}` do not pass through a gateway; {example}"
        ));
    }
    if listen.iter().any(|own| own.ip() == address) {
        return Err(format!(
            "egressd listens on `{address}` itself, so its answers do not pass by; {example}"
        ));
    }
    Ok(address)
}

/// What observing needs of the rest of the configuration.
pub(super) fn verify(
    root: &Table<'_, '_>,
    read: &ObserveRead,
    gateway: &Gateway,
    planes: &PlaneSettings,
) {
    let problem = |what: &str| root.document.problem(&read.span, what);
    if !planes.nft {
        problem("observe mode needs conntrack's word on every answer; write [planes] nft = true");
    }
    if gateway.upstream.is_empty() {
        problem(
            "only answers that enter by an upstream interface teach; write [gateway] upstream = [\"…\"]",
        );
    }
    if read.observed.group == planes.log_group {
        problem("copies and refused packets cannot share a log group; write another `copy_group`");
    }
    if read.observed.resolvers.is_empty() && root.document.noted() == 0 {
        problem("observe mode learns from nobody; name at least one address in `resolvers`");
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use std::io;

    const REST: &str = "[gateway]\nupstream = ['wan0']\n\
        [[zone]]\nname = 'a'\ninterfaces = ['lan0']\n\
        [[zone.rule]]\nnames = ['a.example']\ntcp = [443]\n";

    fn check(dns: &str, more: &str, expected: &str) {
        let text = format!("[dns]\n{dns}\n{REST}{more}");
        let read = |_: &std::path::Path| Err(io::Error::other("no file"));
        let got = match parse(&text, "e", &read) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        };
        assert_eq!(got, expected, "in\n{text}");
    }

    #[test]
    fn values_reach_the_intent() {
        let text = format!(
            "[dns]\nmode = 'observe'\nresolvers = ['192.0.2.53', '2001:db8::53']\ndelay = true\n\
             copy_group = 9\n{REST}"
        );
        let settings = parse(&text, "e", &|_| Err(io::Error::other("no file"))).unwrap();
        let observed = settings.intent.observed.unwrap();
        let resolvers: Vec<String> = observed.resolvers.iter().map(ToString::to_string).collect();
        assert_eq!(resolvers, ["192.0.2.53", "2001:db8::53"]);
        assert_eq!((observed.delay, observed.group), (true, 9));
    }

    #[test]
    fn what_is_refused() {
        const GOOD: &str = "mode = 'observe'\nresolvers = ['192.0.2.53']";
        check(GOOD, "", "");
        check(
            "mode = 'observe'",
            "",
            "e:2:8: observe mode learns from nobody; write resolvers = [\"…\"], the addresses that clients ask",
        );
        check(
            "mode = 'observe'\nresolvers = []",
            "",
            "e:2:8: observe mode learns from nobody; name at least one address in `resolvers`",
        );
        check(
            "mode = 'observing'",
            "",
            "e:1:1: zone `a` lists names and its clients have nobody to ask for them; write [dns] listen = [\"…:53\"]\n\
             e:1:1: zone `a` lists names and there is nobody to ask for them; write [dns] upstreams = [\"udp://…\"]\n\
             e:2:8: `mode` cannot be `observing`; write \"forward\" or \"observe\"",
        );
        check(
            "listen = ['10.0.0.1:53']\nupstreams = ['udp://192.0.2.1']\ndelay = true",
            "",
            "e:4:9: `delay` has no meaning in forward mode; write mode = \"observe\", or leave it out",
        );
        check(
            "mode = 'observe'\nlisten = ['10.0.0.1:53']\n\
             resolvers = ['x', '192.0.2.1:53', '10.0.0.1', '::ffff:9.9.9.9', '9.9.9.9', '9.9.9.9']",
            "",
            "e:4:14: `x` is not an address; write a resolver's address, such as `192.0.2.53` or `2001:db8::53`\n\
             e:4:19: write `192.0.2.1`: it is always port 53\n\
             e:4:35: egressd listens on `10.0.0.1` itself, so its answers do not pass by; write a resolver's address, such as `192.0.2.53` or `2001:db8::53`\n\
             e:4:47: answers of `::ffff:9.9.9.9` do not pass through a gateway; write a resolver's address, such as `192.0.2.53` or `2001:db8::53`\n\
             e:4:76: `9.9.9.9` stands twice; leave one out",
        );
        check(
            GOOD,
            "[planes]\nnft = false\nlog_group = 78\n",
            "e:2:8: copies and refused packets cannot share a log group; write another `copy_group`\n\
             e:2:8: observe mode needs conntrack's word on every answer; write [planes] nft = true",
        );
    }
}

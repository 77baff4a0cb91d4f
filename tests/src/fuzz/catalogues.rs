//! Catalogues that keep changing: whatever they hold, nothing panics and no token is lost.

use super::Target;
use crate::oracle::generate::Dice;
use egressd::catalogue_import::{Format, detect, read};
use egressd::policy::catalogue::EndpointSet;
use egressd::policy::name::Pattern;
use ipnet::IpNet;

/// Pieces of which pages are made.
const TABLES: &[&str] = &[
    "| ID | Category | Addresses | Ports |\n|--|--|--|--|\n",
    "ID | カテゴリ | アドレス | ポート |\n---|---|---|---|\n",
    "| 1 | Allow<BR>Required | `*.a.example.com`<BR>`192.0.2.0/24, 198.51.100.0/24` | **TCP:** 443, 80 |\n",
    "2 | 許可 必須 |\n*.b.example.com 203.0.113.0/24 |\nTCP: 80、443 |\n",
    "| 3 | Default | <tenant>.example.com (from c.example.com) | 443/tcp, 99999 |\n",
    "<table><tr><th>ID</th><th>URL</th><th>Ports</th></tr>\n",
    "<tr><td rowspan=2>4</td><td><code>d.example.com</code>&nbsp;10.0.0.1/8</td><td>UDP: 1-5</td></tr>\n",
    "</table>\n",
    "<!-- e.example.com -->\n",
    "See f.example.com, *.g.example.com and 192.0.2.1.\n",
    "## Heading\n\n",
    "```\n",
];
/// Lines of lists.
const LIST: &[&str] = &[
    "# remark\n",
    "a.example.com\n",
    "*.b.example.com, 192.0.2.0/24\n",
    ".c.example.com\n",
    "2001:db8::/32\n",
    "||d.example.com^\n",
    "0.0.0.0 e.example.com\n",
    "10.0.0.1/8\n",
    "https://f.example.com/x\n",
    "g.example.com ; h\n",
];
/// Rows of comma-separated values.
const CSV: &[&str] = &[
    "1,a.example.com,192.0.2.0/24,443,,yes\n",
    "2,\"*.b.example.com c.example.com\",,\"80,443\",,no\n",
    "3,,10.0.0.1/8,,53,\n",
    "4,<x>.example.com,,0,1-2,d.example.com,more\n",
    "\n",
    "# x\n",
];

/// Sets of the web service.
const WEB_SERVICE: &[&str] = &[
    r#"{"id":1,"serviceArea":"MEM","urls":["*.a.example.com","b.example.com"],"tcpPorts":"80,443","required":true}"#,
    r#"{"id":"2","serviceArea":"Common","ips":["192.0.2.0/24","2001:db8::/32","10.0.0.1/8"],"udpPorts":"3478-3481"}"#,
    r#"{"urls":["<tenant>.c.example.com","*cdn.d.example.com",7,null],"tcpPorts":443,"category":"Allow","notes":""}"#,
    r#"{"id":3,"id":4,"urls":"e.example.com","extra":[{}],"expressRoute":"x"}"#,
    "[]",
    "1e400",
];
/// Service tags.
const TAGS: &[&str] = &[
    r#"{"name":"A.West","properties":{"systemService":"A","addressPrefixes":["192.0.2.0/24","2001:db8::/48"]}}"#,
    r#"{"name":"B","properties":{"addressPrefixes":["10.0.0.1/8","x",1]}}"#,
    r#"{"id":"c","properties":null}"#,
    "null",
];
/// Address ranges.
const RANGES: &[&str] = &[
    r#"{"ip_prefix":"192.0.2.0/24","region":"eu","service":"S3"}"#,
    r#"{"ip_prefix":"203.0.113.0/24","region":"eu","service":"S3"}"#,
    r#"{"ip_prefix":7,"region":"eu","service":"EC2"}"#,
    r#"{"region":"eu"}"#,
];
/// Keys of `/meta`.
const META: &[&str] = &[
    r#""hooks":["192.0.2.0/24","2001:db8::/32"]"#,
    r#""domains":{"website":["*.a.example.com"],"actions":{"full":["b.example.com",3]}}"#,
    r#""ssh_keys":["ssh-ed25519 AAAA"],"verifiable_password_authentication":false"#,
    r#""web":"192.0.2.0/24""#,
];
/// Sets of egressd's own catalogues.
const OWN: &[&str] = &[
    "[[set]]\nid = \"1\"\narea = \"core\"\nnames = [\"*.a.example.com\"]\ntcp = [80, \"8000-8010\"]\n",
    "[[set]]\nid = \"2\"\narea = \"x\"\nnetworks = [\"192.0.2.0/24\"]\nudp = [53]\nrequired = true\n",
    "scope = { regions = [\"eu\"], scale_units = [] }\n",
    "tcp = [0]\nnames = [\"http://b.example.com\"]\n",
    "# remark\n",
];

/// What stands before, between and behind pieces.
type Frame = (&'static str, &'static str, &'static str);

/// A text to begin with, if `target` reads catalogues.
pub(super) fn seed(target: Target, dice: &mut Dice) -> Option<Vec<u8>> {
    const LINES: Frame = ("", "", "");
    let ((start, between, end), pieces): (Frame, _) = match target {
        Target::Answers | Target::Question => return None,
        Target::Tables => (LINES, TABLES),
        Target::List => (LINES, LIST),
        Target::Csv => (("id,name,cidr,tcp,udp,required\n", "", ""), CSV),
        Target::WebService => (("[", ",", "]"), WEB_SERVICE),
        Target::ServiceTags => (
            (
                r#"{"changeNumber":7,"cloud":"Public","values":["#,
                ",",
                "]}",
            ),
            TAGS,
        ),
        Target::Aws => ((r#"{"syncToken":"1","prefixes":["#, ",", "]}"), RANGES),
        Target::GitHub => (("{", ",", "}"), META),
        Target::CatalogueToml => (("name = \"x\"\n", "", ""), OWN),
    };
    let mut text = start.to_owned();
    for number in 0..=dice.below(8) {
        if number > 0 {
            text += between;
        }
        text += pieces[dice.below(pieces.len())];
    }
    text += end;
    Some(if dice.chance(100) {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    } else {
        text.into_bytes()
    })
}

/// Reads a text as the daemon would.
pub(super) fn judge(text: &[u8]) -> Result<String, String> {
    let format = detect(text);
    let first = read(text, "fuzz");
    if first != read(text, "fuzz") {
        return Err("reading it twice gave two things".to_owned());
    }
    let catalogue = match first {
        Ok(catalogue) => catalogue,
        Err(problems) => {
            let Some(first) = problems.list().first() else {
                return Err("refused without a problem".to_owned());
            };
            let words: Vec<_> = first.what.split(' ').take(4).collect();
            return Ok(format!("{format:?} {}", words.join(" ")));
        }
    };
    let account = &catalogue.account;
    let reported = account.reported.len();
    if account.tokens != account.imported + reported {
        return Err(format!(
            "{} tokens, {} imported, {reported} reported",
            account.tokens, account.imported
        ));
    }
    let held: usize = catalogue
        .sets
        .iter()
        .map(|set| set.patterns.len() + set.networks.len())
        .sum();
    if held > account.imported {
        return Err(format!(
            "{held} names and networks, {} imported",
            account.imported
        ));
    }
    for set in &catalogue.sets {
        for pattern in &set.patterns {
            if Pattern::parse(&pattern.to_string()).as_ref() != Ok(pattern) {
                return Err(format!("`{pattern}` is read as something else again"));
            }
        }
        for network in &set.networks {
            if network.to_string().parse::<IpNet>().as_ref() != Ok(network) {
                return Err(format!("`{network}` is read as something else again"));
            }
        }
    }
    if format == Some(Format::Json)
        && let Some(lost) = super::json::lost(text, &catalogue)
    {
        return Err(format!("`{lost}` is neither imported nor reported"));
    }
    let ports = catalogue.sets.iter().filter(|set| !set.ports.is_empty());
    let size = |count: usize| count.checked_ilog2().map_or(0, |log| log + 1);
    let origin = |set: &EndpointSet| set.origin.is_empty();
    // Our own format leaves it to who writes it.
    if format != Some(Format::Toml) && catalogue.sets.iter().any(origin) {
        return Err("a set without origin".to_owned());
    }
    Ok(format!(
        "{format:?} {} {} {} {}",
        size(catalogue.sets.len()),
        size(held),
        size(reported),
        size(ports.count()),
    ))
}

//! PURE. One call as it came in, checked field by field, to a [`Request`] or to the error that says
//! which field is wrong.

use super::protocol::{self, Failure, INTERFACE, PreviewParameters};
use super::{Act, CatalogueAct, ExplainQuery, GrantsQuery, Probe, Request, Subject};
use crate::policy::exceptions::{self, Destination, Wanted};
use crate::policy::name::Name;
use crate::policy::port::{PROTOCOLS, SCTP, TCP, UDP};
use crate::policy::revoke::Target;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::IpAddr;
use zlink::varlink_service;

/// A call, nothing about it checked yet.
#[derive(Debug, Deserialize)]
pub(super) struct Incoming {
    method: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
}

/// A call that means something.
#[derive(Debug, PartialEq)]
pub(super) enum Call {
    /// `org.varlink.service.GetInfo`.
    Info,
    /// `org.varlink.service.GetInterfaceDescription` of our own interface (`true`) or of Varlink's.
    Description(bool),
    /// For the loop.
    Ask(Request),
    /// For the loop, once all pieces are there.
    Preview(PreviewParameters),
    /// For the loop, with the peer's name.
    Act(Act),
    /// `Watch`.
    Watch,
}

/// An error reply.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Fault {
    /// One of our own.
    Own(Failure),
    /// One of every Varlink service.
    Varlink(varlink_service::Error<'static>),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Own(failure)
    }
}

impl Incoming {
    /// What the call means.
    pub(super) fn read(&self) -> Result<Call, Fault> {
        let fields = Fields(self.parameters.clone().unwrap_or_default());
        let Some((interface, method)) = self.method.rsplit_once('.') else {
            return Err(self.unknown());
        };
        match (interface, method) {
            ("org.varlink.service", "GetInfo") => fields.end().map(|()| Call::Info),
            ("org.varlink.service", "GetInterfaceDescription") => description(fields),
            (INTERFACE, "GetStatus") => fields.end().map(|()| Call::Ask(Request::Status)),
            (INTERFACE, "ListZones") => fields.end().map(|()| Call::Ask(Request::Zones)),
            (INTERFACE, "ListGrants") => grants(fields).map(Request::Grants).map(Call::Ask),
            (INTERFACE, "Explain") => explain(fields).map(Request::Explain).map(Call::Ask),
            (INTERFACE, "ListLate") => late(fields),
            (INTERFACE, "Watch") => fields.end().map(|()| Call::Watch),
            (INTERFACE, "Reload") => reload(fields),
            (INTERFACE, "ListUnseen") => unseen(fields),
            (INTERFACE, "Preview") => preview(fields).map(Call::Preview),
            (INTERFACE, "ListExceptions") => fields.end().map(|()| Call::Ask(Request::Exceptions)),
            (INTERFACE, "Revoke") => revoke(fields).map(Call::Act),
            (INTERFACE, "Allow") => allow(fields).map(Call::Act),
            (INTERFACE, "Disallow") => disallow(fields).map(Call::Act),
            (INTERFACE, "UpdateCatalogue") => update(fields).map(Act::Catalogue).map(Call::Act),
            (INTERFACE, "PinCatalogue") => pin(fields).map(Act::Catalogue).map(Call::Act),
            (INTERFACE, "RollBackCatalogue") => {
                roll_back(fields).map(Act::Catalogue).map(Call::Act)
            }
            (INTERFACE, "ConfirmRemovals") => confirm(fields).map(Act::Catalogue).map(Call::Act),
            (INTERFACE | "org.varlink.service", _) => Err(self.unknown()),
            _ => Err(Fault::Varlink(varlink_service::Error::InterfaceNotFound {
                interface: interface.to_owned().into(),
            })),
        }
    }

    /// The error for a method that does not exist.
    fn unknown(&self) -> Fault {
        let method = self.method.clone().into();
        Fault::Varlink(varlink_service::Error::MethodNotFound { method })
    }
}

fn description(mut fields: Fields) -> Result<Call, Fault> {
    let interface: String = fields.take("interface")?;
    fields.end()?;
    match interface.as_str() {
        INTERFACE => Ok(Call::Description(true)),
        "org.varlink.service" => Ok(Call::Description(false)),
        _ => Err(Fault::Varlink(varlink_service::Error::InterfaceNotFound {
            interface: interface.into(),
        })),
    }
}

fn grants(mut fields: Fields) -> Result<GrantsQuery, Fault> {
    let zone = fields.take("zone")?;
    let address: Option<String> = fields.take("address")?;
    let name: Option<String> = fields.take("name")?;
    let limit: Option<u64> = fields.take("limit")?;
    let after: Option<String> = fields.take("after")?;
    fields.end()?;
    let limit = limit
        .unwrap_or(protocol::MAX_PAGE)
        .clamp(1, protocol::MAX_PAGE);
    Ok(GrantsQuery {
        zone,
        address: address.map(|text| parse_address(&text)).transpose()?,
        name: name.map(|text| parse_name(&text)).transpose()?,
        limit: usize::try_from(limit).expect("a page is small"),
        after: after.map(|text| text.parse()).transpose()?,
    })
}

fn explain(mut fields: Fields) -> Result<ExplainQuery, Fault> {
    let query: String = fields.take("query")?;
    let port: Option<u16> = fields.take("port")?;
    let protocol: Option<String> = fields.take("protocol")?;
    let zone = fields.take("zone")?;
    fields.end()?;
    let subject = match query.parse() {
        Ok(address) => Subject::Address(address),
        Err(_) => Subject::Name(parse_name(&query)?),
    };
    Ok(ExplainQuery {
        subject,
        service: parse_probe(port, protocol.as_deref())?,
        zone,
    })
}

fn late(mut fields: Fields) -> Result<Call, Fault> {
    let zone = fields.take("zone")?;
    fields.end()?;
    Ok(Call::Ask(Request::Late { zone }))
}

fn reload(mut fields: Fields) -> Result<Call, Fault> {
    let force: Option<bool> = fields.take("force")?;
    fields.end()?;
    Ok(Call::Ask(Request::Reload {
        force: force.unwrap_or(false),
    }))
}

fn unseen(mut fields: Fields) -> Result<Call, Fault> {
    let catalogue = fields.take("catalogue")?;
    fields.end()?;
    Ok(Call::Ask(Request::Unseen { catalogue }))
}

fn preview(mut fields: Fields) -> Result<PreviewParameters, Fault> {
    let parameters = PreviewParameters {
        catalogue: fields.take("catalogue")?,
        text: fields.take("text")?,
        unfinished: fields.take("unfinished")?,
    };
    fields.end()?;
    if parameters.catalogue.is_some() != parameters.text.is_some() {
        let text = "give both `catalogue` and `text`, or neither".to_owned();
        return Err(Failure::BadQuery { text }.into());
    }
    Ok(parameters)
}

fn revoke(mut fields: Fields) -> Result<Act, Fault> {
    let what: String = fields.take("what")?;
    let zone = fields.take("zone")?;
    fields.end()?;
    let target = match exceptions::network(&what) {
        Ok(network) => Target::Network(network.trunc()),
        Err(_) => Target::Name(parse_name(&what)?),
    };
    Ok(Act::Revoke { target, zone })
}

fn allow(mut fields: Fields) -> Result<Act, Fault> {
    let what: String = fields.take("what")?;
    let ports: String = fields.take("ports")?;
    let wanted = Wanted {
        zone: fields.take("zone")?,
        destination: Destination::parse(&what).map_err(bad)?,
        ports: exceptions::ports(&ports).map_err(bad)?,
        seconds: fields.take("seconds")?,
        reason: fields.take("reason")?,
    };
    fields.end()?;
    Ok(Act::Allow(wanted))
}

fn disallow(mut fields: Fields) -> Result<Act, Fault> {
    let id = fields.take("id")?;
    fields.end()?;
    Ok(Act::Disallow { id })
}

fn update(mut fields: Fields) -> Result<CatalogueAct, Fault> {
    let name = fields.take("name")?;
    let force: Option<bool> = fields.take("force")?;
    fields.end()?;
    Ok(CatalogueAct::Update {
        name,
        force: force.unwrap_or(false),
    })
}

fn pin(mut fields: Fields) -> Result<CatalogueAct, Fault> {
    let name = fields.take("name")?;
    let version: Option<String> = fields.take("version")?;
    fields.end()?;
    Ok(match version {
        Some(version) => CatalogueAct::Pin { name, version },
        None => CatalogueAct::Unpin { name },
    })
}

fn roll_back(mut fields: Fields) -> Result<CatalogueAct, Fault> {
    let name = fields.take("name")?;
    let version = fields.take("version")?;
    fields.end()?;
    Ok(CatalogueAct::RollBack { name, version })
}

fn confirm(mut fields: Fields) -> Result<CatalogueAct, Fault> {
    let name = fields.take("name")?;
    let entries = fields.take("entries")?;
    fields.end()?;
    Ok(CatalogueAct::Confirm { name, entries })
}

fn bad(text: String) -> Failure {
    Failure::BadQuery { text }
}

fn parse_address(text: &str) -> Result<IpAddr, Failure> {
    text.parse().map_err(|_| {
        let text = text.escape_debug();
        bad(format!(
            "`{text}` is not an IP address; write one such as 203.0.113.9 or 2001:db8::1"
        ))
    })
}

fn parse_name(text: &str) -> Result<Name, Failure> {
    text.parse().map_err(|why| {
        let text = text.escape_debug();
        bad(format!(
            "`{text}` is neither an IP address nor a domain name: {why}"
        ))
    })
}

/// The packet that a port and a protocol mean. TCP where only a port is given.
fn parse_probe(port: Option<u16>, protocol: Option<&str>) -> Result<Option<Probe>, Failure> {
    let number = match protocol {
        None => TCP,
        Some(text) => PROTOCOLS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, number)| *number)
            .or_else(|| text.parse().ok())
            .ok_or_else(|| {
                let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
                let text = text.escape_debug();
                bad(format!(
                    "`{text}` is not a protocol; write {} or an IANA number",
                    names.join(", ")
                ))
            })?,
    };
    let has_ports = [TCP, UDP, SCTP].contains(&number);
    match port {
        Some(0) => Err(bad("port 0 is not a port; write 1 to 65535".to_owned())),
        Some(_) if !has_ports => Err(bad(format!(
            "protocol {} has no ports; leave the port out",
            protocol.unwrap_or("")
        ))),
        Some(port) => Ok(Some(Probe {
            protocol: number,
            port,
        })),
        None if protocol.is_none() => Ok(None),
        None if has_ports => Err(bad(format!(
            "say which port, such as 443/{}",
            protocol.unwrap_or("tcp")
        ))),
        None => Ok(Some(Probe {
            protocol: number,
            port: 0,
        })),
    }
}

/// The fields of a call not yet read.
struct Fields(Map<String, Value>);

impl Fields {
    /// Reads one field; one that is absent reads like `null`.
    fn take<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<T, Fault> {
        let value = self.0.remove(name).unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|_| invalid(name.to_owned()))
    }

    /// Refuses what is left over: a misspelt field must not be ignored.
    fn end(self) -> Result<(), Fault> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(invalid(name)),
            None => Ok(()),
        }
    }
}

fn invalid(parameter: String) -> Fault {
    Fault::Varlink(varlink_service::Error::InvalidParameter {
        parameter: parameter.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Call, Fault> {
        serde_json::from_str::<zlink::Call<Incoming>>(json)
            .unwrap()
            .method()
            .read()
    }

    #[test]
    fn good_calls() {
        fn check(json: &str, expected: Call) {
            assert_eq!(read(json).unwrap(), expected, "{json}");
        }
        check(
            r#"{"method":"org.egressd.Control.GetStatus"}"#,
            Call::Ask(Request::Status),
        );
        check(
            r#"{"parameters":{},"more":true,"method":"org.egressd.Control.Watch"}"#,
            Call::Watch,
        );
        check(
            r#"{"method":"org.egressd.Control.Reload","parameters":{"force":true}}"#,
            Call::Ask(Request::Reload { force: true }),
        );
        check(
            r#"{"method":"org.egressd.Control.ListLate","parameters":{"zone":"a"}}"#,
            Call::Ask(Request::Late {
                zone: Some("a".to_owned()),
            }),
        );
        check(
            r#"{"method":"org.egressd.Control.ListGrants","parameters":{"limit":9999,"zone":"a","after":"::1/128@2"}}"#,
            Call::Ask(Request::Grants(GrantsQuery {
                zone: Some("a".to_owned()),
                address: None,
                name: None,
                limit: 500,
                after: "::1/128@2".parse().ok(),
            })),
        );
        check(
            r#"{"method":"org.egressd.Control.Explain","parameters":{"query":"192.0.2.1","port":53,"protocol":"UDP"}}"#,
            Call::Ask(Request::Explain(ExplainQuery {
                subject: Subject::Address("192.0.2.1".parse().unwrap()),
                service: Some(Probe {
                    protocol: 17,
                    port: 53,
                }),
                zone: None,
            })),
        );
        check(
            r#"{"method":"org.egressd.Control.Explain","parameters":{"query":"A.example.","protocol":"esp"}}"#,
            Call::Ask(Request::Explain(ExplainQuery {
                subject: Subject::Name("a.example".parse().unwrap()),
                service: Some(Probe {
                    protocol: 50,
                    port: 0,
                }),
                zone: None,
            })),
        );
    }

    #[test]
    fn acts() {
        fn check(json: &str, expected: Result<Act, &str>) {
            match (read(json), expected) {
                (Ok(Call::Act(got)), Ok(expected)) => assert_eq!(got, expected, "{json}"),
                (Err(fault), Err(word)) => {
                    let text = serde_json::to_string(&fault).unwrap();
                    assert!(text.contains(word), "{json}: {text}");
                }
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
        let revoke = |what: &str| {
            format!(r#"{{"method":"org.egressd.Control.Revoke","parameters":{{"what":"{what}"}}}}"#)
        };
        let net = |text: &str| Act::Revoke {
            target: Target::Network(text.parse().unwrap()),
            zone: None,
        };
        check(&revoke("20.0.0.1"), Ok(net("20.0.0.1/32")));
        check(&revoke("20.0.0.1/24"), Ok(net("20.0.0.0/24")));
        check(&revoke("2001:db8::/32"), Ok(net("2001:db8::/32")));
        let name = Target::Name("a.example".parse().unwrap());
        check(
            &revoke("A.example."),
            Ok(Act::Revoke {
                target: name,
                zone: None,
            }),
        );
        check(&revoke("*.example"), Err("neither"));
        let allow = |what: &str, ports: &str, more: &str| {
            format!(
                r#"{{"method":"org.egressd.Control.Allow","parameters":{{"what":"{what}","ports":"{ports}","zone":"z","seconds":60,"reason":"r"{more}}}}}"#
            )
        };
        let wanted = |what: &str| {
            Act::Allow(Wanted {
                zone: "z".to_owned(),
                destination: Destination::parse(what).unwrap(),
                ports: exceptions::ports("443").unwrap(),
                seconds: 60,
                reason: "r".to_owned(),
            })
        };
        check(&allow("*.a.example", "443", ""), Ok(wanted("*.a.example")));
        check(&allow("20.0.0.1", "tcp/443", ""), Ok(wanted("20.0.0.1/32")));
        check(&allow("20.0.0.1/24", "443", ""), Err("write `20.0.0.0/24`"));
        check(&allow("*.com", "443", ""), Err("far too much"));
        check(&allow("a.example", "https", ""), Err("8000-8010/udp"));
        check(
            &allow("a.example", "443", r#","force":true"#),
            Err(r#""parameter":"force""#),
        );
        check(
            r#"{"method":"org.egressd.Control.Disallow","parameters":{"id":3}}"#,
            Ok(Act::Disallow { id: 3 }),
        );
        check(
            r#"{"method":"org.egressd.Control.Disallow"}"#,
            Err(r#""parameter":"id""#),
        );
    }

    #[test]
    fn bad_calls() {
        fn check(json: &str, expected: &str) {
            let fault = serde_json::to_string(&read(json).unwrap_err()).unwrap();
            assert!(fault.contains(expected), "{json}: {fault}");
        }
        check(
            r#"{"method":"GetStatus"}"#,
            r#"MethodNotFound","parameters":{"method":"GetStatus"#,
        );
        check(
            r#"{"method":"org.egressd.Control.Stop"}"#,
            r#""method":"org.egressd.Control.Stop""#,
        );
        check(
            r#"{"method":"a.b.C"}"#,
            r#"InterfaceNotFound","parameters":{"interface":"a.b""#,
        );
        check(
            r#"{"method":"org.egressd.Control.GetStatus","parameters":{"verbose":1}}"#,
            r#"InvalidParameter","parameters":{"parameter":"verbose"}"#,
        );
        check(
            r#"{"method":"org.egressd.Control.ListLate","parameters":{"name":"a"}}"#,
            r#"InvalidParameter","parameters":{"parameter":"name"}"#,
        );
        check(
            r#"{"method":"org.egressd.Control.Explain"}"#,
            r#"InvalidParameter","parameters":{"parameter":"query"}"#,
        );
        check(
            r#"{"method":"org.egressd.Control.Explain","parameters":{"query":"a","port":65536}}"#,
            r#""parameter":"port""#,
        );
        check(
            r#"{"method":"org.egressd.Control.Explain","parameters":{"query":"a","port":0}}"#,
            "1 to 65535",
        );
        check(
            r#"{"method":"org.egressd.Control.Explain","parameters":{"query":"a","protocol":"tcp"}}"#,
            "443/tcp",
        );
        check(
            r#"{"method":"org.egressd.Control.Explain","parameters":{"query":"a","port":1,"protocol":"icmp"}}"#,
            "leave the port out",
        );
        check(
            r#"{"method":"org.egressd.Control.Explain","parameters":{"query":"a b"}}"#,
            "neither an IP address nor a domain name",
        );
        check(
            r#"{"method":"org.egressd.Control.ListGrants","parameters":{"address":"1.2.3"}}"#,
            "203.0.113.9",
        );
        check(
            r#"{"method":"org.egressd.Control.ListGrants","parameters":{"after":"x"}}"#,
            "page before",
        );
    }
}

//! Follows the kernel's interfaces and addresses (rtnetlink) and hands them on as values. It keeps
//! none of them: every change is answered by reading everything again.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: waits for the kernel to settle"
)]

use crate::policy::links::{Kind, Link, Links, Stack, Vlan};
use anyhow::{Context, anyhow};
use futures_util::{Stream, StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Changes this close together are one change.
const QUIET: Duration = Duration::from_millis(2);

/// A change waits for quiet no longer than this.
const PATIENCE: Duration = Duration::from_millis(20);

/// A reply that takes longer was lost.
const REPLY: Duration = Duration::from_secs(2);

/// The interfaces and addresses of this network namespace, now.
///
/// # Errors
/// When the kernel refuses to list them.
pub async fn read() -> anyhow::Result<Links> {
    ask(read_all).await
}

/// Calls `on_change` with the interfaces and addresses as they are now, and again whenever they
/// differ from what it was told last. Runs until dropped.
///
/// # Errors
/// When the first reading fails; later ones are tried again.
pub async fn follow(mut on_change: impl FnMut(Links)) -> anyhow::Result<Infallible> {
    let mut told = None;
    loop {
        let result = listen(&mut told, &mut on_change).await;
        if told.is_none() {
            return result;
        }
        let Err(why) = result;
        log::warn!(target: "link", "interfaces are not followed, trying again: {why:#}");
        sleep(PATIENCE).await;
    }
}

/// Follows with one socket until it fails.
async fn listen(
    told: &mut Option<Links>,
    on_change: &mut impl FnMut(Links),
) -> anyhow::Result<Infallible> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    // Listening begins before the reading: what changes in between is heard.
    let (connection, _handle, mut messages) =
        rtnetlink::new_multicast_connection(&groups).context("listen for interfaces")?;
    let following = async {
        loop {
            let links = read().await?;
            if told.as_ref() != Some(&links) {
                on_change(links.clone());
                *told = Some(links);
            }
            // What a message says does not matter, only that there is one: when the kernel had to
            // drop some it says so with a message, too.
            let closed = || anyhow!("the kernel closed the socket");
            messages.next().await.ok_or_else(closed)?;
            settle(&mut messages).await;
        }
    };
    tokio::select! {
        result = following => result,
        () = connection => Err(anyhow!("the netlink socket failed")),
    }
}

/// Waits until messages pause, but not for ever.
async fn settle(messages: &mut (impl Stream + Unpin)) {
    let end = Instant::now() + PATIENCE;
    loop {
        let quiet = (Instant::now() + QUIET).min(end);
        if !matches!(timeout_at(quiet, messages.next()).await, Ok(Some(_))) {
            return;
        }
    }
}

/// The index of the interface through which the kernel would answer `source`; `None` where it has
/// no route. For an own address that is the loopback interface.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn route_in(source: IpAddr) -> anyhow::Result<Option<u32>> {
    let prefix = if source.is_ipv4() { 32 } else { 128 };
    let query = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(source, prefix)
        .context("ask for a route")?
        .build();
    let answer = ask(|handle| async move {
        let mut routes = pin!(handle.route().get(query).execute());
        routes.try_next().await
    })
    .await;
    match answer {
        Ok(route) => Ok(route.as_ref().and_then(interface_of)),
        Err(rtnetlink::Error::NetlinkError(refusal)) if is_no_route(refusal.raw_code()) => Ok(None),
        Err(why) => Err(why).context("ask for a route"),
    }
}

/// The kernel says "no route" with an error of its own choice (RTM_GETROUTE): EACCES for `prohibit`,
/// EINVAL for `blackhole`. Any other says nothing about the route.
fn is_no_route(code: i32) -> bool {
    [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EACCES,
        libc::EINVAL,
    ]
    .contains(&-code)
}

fn interface_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Oif(index) = attribute {
            Some(*index)
        } else {
            None
        }
    })
}

/// Runs `work` with a netlink socket of its own. A reply that the kernel had no room for never comes, and
/// nobody says so.
async fn ask<T, E, F>(work: impl FnOnce(Handle) -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: From<rtnetlink::Error>,
{
    let Ok((connection, handle, mut messages)) = rtnetlink::new_connection() else {
        return Err(rtnetlink::Error::RequestFailed.into());
    };
    tokio::select! {
        // What is lost of a list shows as a message that nobody asked for: to be seen before the list.
        biased;
        () = connection => Err(rtnetlink::Error::RequestFailed.into()),
        _ = messages.next() => Err(rtnetlink::Error::RequestFailed.into()),
        () = sleep(REPLY) => Err(rtnetlink::Error::RequestFailed.into()),
        result = work(handle) => result,
    }
}

async fn read_all(handle: Handle) -> anyhow::Result<Links> {
    let links = handle.link().get().execute();
    let links: Vec<LinkMessage> = links.try_collect().await.context("list interfaces")?;
    let addresses = handle.address().get().execute();
    let addresses: Vec<AddressMessage> = addresses.try_collect().await.context("list addresses")?;
    Ok(compose(&links, &addresses))
}

/// The kernel's two lists as one value.
fn compose(links: &[LinkMessage], addresses: &[AddressMessage]) -> Links {
    let mut all: BTreeMap<u32, Link> = links
        .iter()
        .filter_map(|link| Some((link.header.index, to_link(link)?)))
        .collect();
    for address in addresses {
        if let Some(link) = all.get_mut(&address.header.index)
            && let Some(net) = to_net(address)
        {
            link.addresses.push(net);
        }
    }
    for link in all.values_mut() {
        // The kernel's order is that of creation and says nothing.
        link.addresses.sort_unstable();
        link.addresses.dedup();
    }
    Links(all)
}

fn to_link(message: &LinkMessage) -> Option<Link> {
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let (mut name, mut mac) = (None, Vec::new());
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(text) = attribute {
            name = Some(text.clone());
        } else if let LinkAttribute::Address(bytes) = attribute
            && ethernet
        {
            // Elsewhere it is something else: the local IPv4 address of a tunnel.
            mac.clone_from(bytes);
        }
    }
    Some(Link {
        name: name?,
        // "Running" is the operational state: up, or unknown to devices that have none (tun, lo).
        up: message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::Running),
        ethernet,
        mac,
        addresses: Vec::new(),
        stack: to_stack(message),
    })
}

fn to_stack(message: &LinkMessage) -> Stack {
    let (mut stack, mut parent, mut elsewhere) = (Stack::default(), None, false);
    let mut info: &[LinkInfo] = &[];
    for attribute in &message.attributes {
        if let LinkAttribute::Link(index) = attribute {
            parent = Some(*index);
        } else if let LinkAttribute::LinkNetNsId(_) = attribute {
            elsewhere = true;
        } else if let LinkAttribute::Controller(index) = attribute {
            stack.master = (*index != 0).then_some(*index);
        } else if let LinkAttribute::LinkInfo(parts) = attribute {
            info = parts;
        }
    }
    for part in info {
        if let LinkInfo::Kind(InfoKind::Bridge) = part {
            stack.kind = Kind::Bridge;
        } else if let LinkInfo::Kind(InfoKind::Bond | InfoKind::Team) = part {
            stack.kind = Kind::Bond;
        } else if let LinkInfo::Data(InfoData::Vlan(facts)) = part
            && let Some(parent) = parent.filter(|_| !elsewhere)
            && let Some(vlan) = to_vlan(parent, facts)
        {
            stack.kind = Kind::Vlan(vlan);
        }
    }
    stack
}

fn to_vlan(parent: u32, facts: &[InfoVlan]) -> Option<Vlan> {
    let (mut found, mut protocol) = (None, 0x8100);
    for fact in facts {
        if let InfoVlan::Id(id) = fact {
            found = Some(*id);
        } else if let InfoVlan::Protocol(kind) = fact {
            protocol = u16::from(*kind);
        }
    }
    found.map(|id| Vlan {
        parent,
        id,
        protocol,
    })
}

/// The own address; tentative ones and those that duplicate another host's count, too: the kernel
/// may begin to answer for them at any moment.
fn to_net(message: &AddressMessage) -> Option<IpNet> {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            local = Some(*ip);
        } else if let AddressAttribute::Address(ip) = attribute {
            address = Some(*ip);
        }
    }
    // On a point-to-point link IFA_ADDRESS is the peer and the prefix is the peer's.
    match (local, address) {
        (Some(own), Some(peer)) if own != peer => Some(own.into()),
        (Some(own), _) | (None, Some(own)) => IpNet::new(own, message.header.prefix_len).ok(),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use rtnetlink::{LinkUnspec, LinkVeth};
    use std::future::Future;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Runs `work` in a network namespace that ends with it; says so where that is not allowed.
    fn in_namespace<F: Future<Output = ()>>(work: impl FnOnce(Handle) -> F + Send + 'static) {
        let thread = std::thread::spawn(move || {
            if let Err(why) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("skipped: no network namespace ({why})");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                tokio::select! { () = work(handle) => {}, () = connection => panic!("no netlink") }
            });
        });
        thread.join().unwrap();
    }

    async fn set(handle: &Handle, message: LinkMessage) {
        handle.link().set(message).execute().await.unwrap();
    }

    async fn add_address(handle: &Handle, index: u32, text: &str) {
        let net: IpNet = text.parse().unwrap();
        handle
            .address()
            .add(index, net.addr(), net.prefix_len())
            .execute()
            .await
            .unwrap();
    }

    /// A pair of interfaces, both up: the index of `lan0`.
    async fn add_pair(handle: &Handle) -> u32 {
        handle
            .link()
            .add(LinkVeth::new("lan0", "far0").build())
            .execute()
            .await
            .unwrap();
        for name in ["lo", "lan0", "far0"] {
            set(handle, LinkUnspec::new_with_name(name).up().build()).await;
        }
        let index = read().await.unwrap().index_of("lan0").unwrap();
        wait_for(|links| links.0[&index].up).await;
        index
    }

    /// The kernel settles an interface's operational state some time after it was set up or down.
    async fn wait_for(what: impl Fn(&Links) -> bool) {
        let waiting = async {
            while !what(&read().await.unwrap()) {
                sleep(QUIET).await;
            }
        };
        timeout(DEADLINE, waiting)
            .await
            .expect("what was waited for");
    }

    #[test]
    fn what_is_read() {
        in_namespace(|handle| async move {
            let index = add_pair(&handle).await;
            for text in ["192.0.2.1/24", "2001:db8::1/64"] {
                add_address(&handle, index, text).await;
            }
            let links = read().await.unwrap();
            let lan = &links.0[&index];
            assert_eq!(
                (lan.name.as_str(), lan.up, lan.ethernet, lan.mac.len()),
                ("lan0", true, true, 6)
            );
            // Still tentative: duplicate address detection takes a second.
            for text in ["192.0.2.1/24", "2001:db8::1/64"] {
                assert!(
                    lan.addresses.contains(&text.parse().unwrap()),
                    "{text}: {lan:?}"
                );
            }
            let lo = &links.0[&links.index_of("lo").unwrap()];
            assert!(!lo.ethernet && links.is_own("127.0.0.1".parse().unwrap()));
            set(&handle, LinkUnspec::new_with_name("far0").down().build()).await;
            wait_for(|links| !links.0[&index].up).await;
        });
    }

    #[test]
    fn vlan_devices_know_their_parent_and_tag() {
        fn check(attributes: Vec<LinkAttribute>, expected: Kind) {
            let mut message = LinkMessage::default();
            message.attributes = attributes;
            assert_eq!(to_stack(&message).kind, expected);
        }
        let tag = |parts: Vec<InfoVlan>| {
            let data = LinkInfo::Data(InfoData::Vlan(parts));
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), data])
        };
        let vlan = |id, protocol| {
            Kind::Vlan(Vlan {
                parent: 3,
                id,
                protocol,
            })
        };
        let outer = InfoVlan::Protocol(0x88a8.into());
        let parent = LinkAttribute::Link(3);
        let ten = tag(vec![InfoVlan::Id(10)]);
        check(vec![parent.clone(), ten.clone()], vlan(10, 0x8100));
        check(
            vec![parent.clone(), tag(vec![outer, InfoVlan::Id(0)])],
            vlan(0, 0x88a8),
        );
        // A parent in another network namespace has a number of another order.
        let elsewhere = LinkAttribute::LinkNetNsId(0);
        check(vec![parent.clone(), elsewhere, ten.clone()], Kind::Plain);
        check(vec![ten], Kind::Plain);
        check(vec![parent], Kind::Plain);
    }

    #[test]
    fn ports_know_their_bridge() {
        in_namespace(|handle| async move {
            let port = add_pair(&handle).await;
            handle
                .link()
                .add(rtnetlink::LinkBridge::new("br0").build())
                .execute()
                .await
                .unwrap();
            let bridge = read().await.unwrap().index_of("br0").unwrap();
            set(
                &handle,
                LinkUnspec::new_with_index(port).controller(bridge).build(),
            )
            .await;
            let links = read().await.unwrap();
            assert_eq!(links.0[&bridge].stack.kind, Kind::Bridge);
            assert!(links.is_bridge_port(&links.0[&port]));
            assert!(!links.is_bridge_port(&links.0[&bridge]));
        });
    }

    #[test]
    fn only_some_errors_tell_of_a_route() {
        fn check(errno: i32, expected: bool) {
            assert_eq!(is_no_route(-errno), expected, "{errno}");
        }
        check(libc::ENETUNREACH, true);
        check(libc::EACCES, true);
        check(libc::ENOMEM, false);
        check(libc::ENOBUFS, false);
        check(libc::EPERM, false);
        check(0, false);
    }

    #[test]
    fn routes_back() {
        in_namespace(|handle| async move {
            let index = add_pair(&handle).await;
            add_address(&handle, index, "192.0.2.1/24").await;
            let check = async |source: &str, expected: Option<u32>| {
                let got = route_in(source.parse().unwrap()).await.unwrap();
                assert_eq!(got, expected, "{source}");
            };
            check("192.0.2.77", Some(index)).await;
            check("192.0.2.1", Some(1)).await;
            check("198.51.100.1", None).await;
            check("2001:db8::1", None).await;
        });
    }

    #[test]
    fn changes_are_followed() {
        in_namespace(|handle| async move {
            let (tell, mut told) = mpsc::unbounded_channel();
            let changes = async {
                let mut next = async || timeout(DEADLINE, told.recv()).await.unwrap().unwrap();
                let first: Links = next().await;
                assert_eq!(first.0.len(), 1, "{first:?}");
                let index = add_pair(&handle).await;
                while !next().await.0.get(&index).is_some_and(|lan| lan.up) {}

                for host in 1..=250 {
                    add_address(&handle, index, &format!("198.51.100.{host}/24")).await;
                }
                let mut times = 0;
                loop {
                    times += 1;
                    let links = next().await;
                    if links.is_own("198.51.100.250".parse().unwrap()) {
                        break;
                    }
                }
                assert!(times < 100, "{times} calls for one burst");

                set(&handle, LinkUnspec::new_with_name("lan0").down().build()).await;
                set(
                    &handle,
                    LinkUnspec::new_with_index(index).name("wan7").build(),
                )
                .await;
                while next().await.index_of("wan7") != Some(index) {}
                handle.link().del(index).execute().await.unwrap();
                while next().await.index_of("wan7").is_some() {}
            };
            let following = follow(move |links| tell.send(links).unwrap());
            tokio::select! {
                () = changes => {}
                failed = following => panic!("{failed:?}"),
            }
        });
    }

    /// More changes than the socket can hold, while nobody reads it.
    #[test]
    fn an_overrun_loses_nothing() {
        in_namespace(|handle| async move {
            let index = add_pair(&handle).await;
            let (tell, mut told) = mpsc::unbounded_channel();
            let following = tokio::task::LocalSet::new();
            following.spawn_local(follow(move |links: Links| tell.send(links).unwrap()));
            // One turn to begin, none while the addresses are added.
            following
                .run_until(async { timeout(DEADLINE, told.recv()).await.unwrap().unwrap() })
                .await;
            for host in 0..3000_u32 {
                let text = format!("10.1.{}.{}/16", host / 250, 1 + host % 250);
                add_address(&handle, index, &text).await;
            }
            let last = "10.1.11.250".parse().unwrap();
            following
                .run_until(async {
                    while !timeout(DEADLINE, told.recv())
                        .await
                        .unwrap()
                        .unwrap()
                        .is_own(last)
                    {}
                })
                .await;
        });
    }
}

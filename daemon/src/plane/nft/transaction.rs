//! nf_tables messages and the transaction that carries them. All of it is in force, or none.
#![expect(unsafe_code, reason = "libnftnl builds the messages")]

use super::expression;
use crate::plane::netlink::{Failure, Request, Socket};
use crate::plane::ruleset::{
    Chain, FORWARD, Family, LearnedSet, MapKey, NetworkSet, PREROUTING, TABLE, Tally, VerdictMap,
    Way, after, is_answers, own_hook,
};
use nftnl::nftnl_sys as sys;
use nftnl::{ChainType, Hook, MsgType, NlMsg, Policy, ProtoFamily, nft_nlmsg_maxsize};
use nix::errno::Errno;
use std::ffi::{CString, c_void};
use std::net::IpAddr;
use std::ptr::NonNull;

/// More than about 4,000 wrap a 16-bit length in libnftnl, and the kernel acknowledges the rest.
const ADDRESSES_PER_MESSAGE: usize = 1000;
/// Verdicts with the names of their chains are longer.
const VERDICTS_PER_MESSAGE: usize = 400;
const BATCH_BEGIN: u8 = 16;
const BATCH_END: u8 = 17;
const HEADER: usize = 16;
const FILTER_PRIORITY: i32 = 0;
/// `NF_IP_PRI_NAT_DST`.
const DSTNAT_PRIORITY: i32 = -100;

/// One element of a learned set, put in or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) set: LearnedSet,
    pub(super) kind: StepKind,
    pub(super) address: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StepKind {
    Remove,
    Add,
}

/// A transaction in the making.
pub(super) struct Transaction<'a> {
    bytes: &'a mut Vec<u8>,
    /// The name of the table that everything in it is about.
    about: &'static str,
    sets: u32,
}

impl<'a> Transaction<'a> {
    /// An empty transaction on the plane's own table that builds its messages in `bytes`.
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self::about(bytes, TABLE)
    }

    /// As [`Transaction::new`], on another table of family `inet`.
    pub(super) fn about(bytes: &'a mut Vec<u8>, about: &'static str) -> Self {
        bytes.clear();
        bytes.extend(Request::new(0, BATCH_BEGIN, 0, SUBSYSTEM).finish(0, 0));
        Self {
            bytes,
            about,
            sets: 0,
        }
    }

    /// Commits it.
    ///
    /// # Errors
    /// `Refused` when nothing changed, `Unknown` when nobody knows.
    pub(super) fn commit(self, socket: &mut Socket) -> Result<(), Failure> {
        let mut starts = Vec::new();
        let mut at = 0;
        self.bytes
            .extend(Request::new(0, BATCH_END, 0, SUBSYSTEM).finish(0, 0));
        while let Some(length) = length_at(self.bytes, at) {
            starts.push(at);
            at += length;
        }
        let count = u32::try_from(starts.len()).map_err(|_| Failure::Unknown(Errno::EMSGSIZE))?;
        if count <= 2 {
            return Ok(());
        }
        let first = socket.sequences(count);
        let last = first + count - 2;
        for (sequence, &start) in (first..).zip(&starts) {
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            // Hundreds of acknowledgements overflow a receive buffer; one, on the last message
            // before the end, says it all. (Kernels before 6.10 do not acknowledge the end.)
            let mut flags = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]);
            flags &= !(libc::NLM_F_ACK as u16);
            if sequence == last {
                flags |= libc::NLM_F_ACK as u16;
            }
            self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        socket.send(self.bytes)?;
        let (mut refused, mut ended) = (None, false);
        while !ended {
            socket.receive(|message| {
                // An error that names the begin message is the commit itself, and the last word.
                ended |= message.sequence == last || message.sequence == first;
                if let Some(Err(refusal)) = message.outcome()
                    && (first..first + count).contains(&message.sequence)
                {
                    refused.get_or_insert(refusal);
                }
                Ok(())
            })?;
        }
        refused.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// A table of this name, whatever was there, gone; and a new one.
    pub(super) fn recreate_table(&mut self, flags: Option<u32>) {
        // Only an add without flags succeeds on every table that may be there, and deleting fails
        // where there is none.
        self.table(MsgType::Add, None);
        self.table(MsgType::Del, None);
        self.table(MsgType::Add, flags);
    }

    /// The table, gone.
    pub(super) fn remove_table(&mut self) {
        self.table(MsgType::Del, None);
    }

    fn table(&mut self, kind: MsgType, flags: Option<u32>) {
        let table = Object::new(sys::nftnl_table_alloc, sys::nftnl_table_free);
        let name = c(self.about);
        // SAFETY: the table is live; libnftnl copies the name.
        unsafe {
            sys::nftnl_table_set_str(table.get(), sys::NFTNL_TABLE_NAME as u16, name.as_ptr());
            if let Some(flags) = flags {
                sys::nftnl_table_set_u32(table.get(), sys::NFTNL_TABLE_FLAGS as u16, flags);
            }
        }
        let number = match kind {
            MsgType::Add => libc::NFT_MSG_NEWTABLE,
            MsgType::Del => libc::NFT_MSG_DELTABLE,
        };
        self.message(number, 0, |header| {
            // SAFETY: the caller gives a header with room for the longest message.
            unsafe { sys::nftnl_table_nlmsg_build_payload(header, table.get()) };
        });
    }

    /// Takes every rule out of a chain.
    pub(super) fn flush(&mut self, chain: &str) {
        let table = nftnl::Table::new(c(self.about), ProtoFamily::Inet);
        let chain = nftnl::Chain::new(c(chain), &table);
        // A rule without a handle means all of them.
        self.put(&nftnl::Rule::new(&chain), MsgType::Del);
    }

    /// A chain without its rules; those that the kernel calls get their hook and policy.
    pub(super) fn chain(&mut self, kind: MsgType, name: &str) {
        let table = nftnl::Table::new(c(self.about), ProtoFamily::Inet);
        let mut chain = nftnl::Chain::new(c(name), &table);
        if name == FORWARD {
            chain.set_hook(Hook::Forward, FILTER_PRIORITY);
            chain.set_type(ChainType::Filter);
            chain.set_policy(Policy::Drop);
        }
        if name == PREROUTING {
            chain.set_hook(Hook::PreRouting, DSTNAT_PRIORITY);
            chain.set_type(ChainType::Nat);
            chain.set_policy(Policy::Accept);
        }
        if is_answers(name) && kind == MsgType::Add {
            chain.set_hook(Hook::Out, libc::NF_IP_PRI_RAW);
            chain.set_type(ChainType::Filter);
            chain.set_policy(Policy::Accept);
        }
        if let Some(way) = own_hook(name)
            && kind == MsgType::Add
        {
            let hook = match way {
                Way::Original => Hook::Out,
                Way::Reply => Hook::In,
            };
            chain.set_hook(hook, FILTER_PRIORITY);
            chain.set_type(ChainType::Filter);
            chain.set_policy(Policy::Accept);
        }
        self.put(&chain, kind);
    }

    /// The rules of a chain, appended. `log_group` is where refused packets are reported.
    pub(super) fn rules(&mut self, chain: &Chain, log_group: Option<u16>) {
        let table = nftnl::Table::new(c(self.about), ProtoFamily::Inet);
        let parent = nftnl::Chain::new(c(&chain.name), &table);
        for parts in &chain.rules {
            let Some(expressions) = expression::of_rule(parts, log_group) else {
                continue;
            };
            let mut rule = nftnl::Rule::new(&parent);
            for expression in &expressions {
                rule.add_expr(expression);
            }
            self.put(&rule, MsgType::Add);
        }
    }

    /// A named counter.
    pub(super) fn counter(&mut self, kind: MsgType, tally: &Tally) {
        self.counter_from(kind, tally, 0);
    }

    /// A named counter that has counted `packets` before.
    pub(super) fn counter_from(&mut self, kind: MsgType, tally: &Tally, packets: u64) {
        let counter = Object::new(sys::nftnl_obj_alloc, sys::nftnl_obj_free);
        let (table, name) = (c(self.about), c(&tally.to_string()));
        // SAFETY: the object is live; libnftnl copies the names. The type comes first: libnftnl
        // chooses by it what the numbers after it mean.
        unsafe {
            let object = counter.get();
            sys::nftnl_obj_set_u32(object, sys::NFTNL_OBJ_TYPE as u16, COUNTER);
            sys::nftnl_obj_set_str(object, sys::NFTNL_OBJ_TABLE as u16, table.as_ptr());
            sys::nftnl_obj_set_str(object, sys::NFTNL_OBJ_NAME as u16, name.as_ptr());
            if packets > 0 {
                sys::nftnl_obj_set_u64(object, sys::NFTNL_OBJ_CTR_PKTS as u16, packets);
            }
        }
        let (number, flags) = match kind {
            MsgType::Add => (libc::NFT_MSG_NEWOBJ, libc::NLM_F_CREATE),
            MsgType::Del => (libc::NFT_MSG_DELOBJ, 0),
        };
        self.message(number, flags, |header| {
            // SAFETY: the caller gives a header with room for the longest message.
            unsafe { sys::nftnl_obj_nlmsg_build_payload(header, counter.get()) };
        });
    }

    /// An empty hash set for learned addresses.
    pub(super) fn learned_set(&mut self, kind: MsgType, set: LearnedSet) {
        let (key_type, key_length) = key_of(set.family);
        self.set(kind, &set.to_string(), key_type, key_length, 0);
    }

    /// An interval set with its contents.
    pub(super) fn add_networks(&mut self, networks: &NetworkSet) {
        let (key_type, key_length) = key_of(networks.family);
        self.set(
            MsgType::Add,
            &networks.name,
            key_type,
            key_length,
            libc::NFT_SET_INTERVAL,
        );
        let mut elements = Vec::new();
        for &(first, last) in &networks.ranges {
            elements.push(Element {
                key: octets(first),
                end: false,
                target: None,
            });
            if let Some(next) = after(last) {
                elements.push(Element {
                    key: octets(next),
                    end: true,
                    target: None,
                });
            }
        }
        self.elements(MsgType::Add, &networks.name, &elements);
    }

    /// A verdict map without its contents (their chains come first).
    pub(super) fn add_map(&mut self, map: &VerdictMap) {
        let (key_type, key_length) = match map.key {
            MapKey::Protocol => (TYPE_PROTOCOL, 1),
            MapKey::Port | MapKey::PresentPort => (TYPE_PORT, 2),
        };
        let interval = if map.is_interval() {
            libc::NFT_SET_INTERVAL
        } else {
            0
        };
        self.set(
            MsgType::Add,
            &map.name,
            key_type,
            key_length,
            libc::NFT_SET_MAP | interval,
        );
    }

    /// The contents of a verdict map.
    pub(super) fn fill_map(&mut self, map: &VerdictMap) {
        let key = |number: u16| match map.key {
            MapKey::Protocol => vec![number.to_be_bytes()[1]],
            MapKey::Port | MapKey::PresentPort => number.to_be_bytes().to_vec(),
        };
        let mut elements = Vec::new();
        for (first, last, chain) in &map.entries {
            elements.push(Element {
                key: key(*first),
                end: false,
                target: Some(c(chain)),
            });
            if let (true, Some(next)) = (map.is_interval(), last.checked_add(1)) {
                elements.push(Element {
                    key: key(next),
                    end: true,
                    target: None,
                });
            }
        }
        self.elements(MsgType::Add, &map.name, &elements);
    }

    /// Any set or map, gone.
    pub(super) fn remove_set(&mut self, name: &str) {
        self.set(MsgType::Del, name, 0, 0, 0);
    }

    /// Puts elements in and takes elements out. `steps` are sorted: neighbours share a message.
    pub(super) fn steps(&mut self, steps: &[Step]) {
        for run in steps.chunk_by(|a, b| (a.set, a.kind) == (b.set, b.kind)) {
            let [Step { set, kind, .. }, ..] = run else {
                continue;
            };
            let elements: Vec<Element> = run
                .iter()
                .map(|step| Element {
                    key: octets(step.address),
                    end: false,
                    target: None,
                })
                .collect();
            let kind = match kind {
                StepKind::Add => MsgType::Add,
                StepKind::Remove => MsgType::Del,
            };
            self.elements(kind, &set.to_string(), &elements);
        }
    }

    fn set(&mut self, kind: MsgType, name: &str, key_type: u32, key_length: u32, flags: i32) {
        let set = named_set(self.about, name);
        self.sets += 1;
        if kind == MsgType::Add {
            // SAFETY: the set is live, and numbers are copied.
            unsafe {
                let put = |field, value| sys::nftnl_set_set_u32(set.get(), field as u16, value);
                put(sys::NFTNL_SET_FAMILY, libc::NFPROTO_INET as u32);
                put(sys::NFTNL_SET_ID, self.sets);
                put(sys::NFTNL_SET_FLAGS, flags as u32);
                put(sys::NFTNL_SET_KEY_TYPE, key_type);
                put(sys::NFTNL_SET_KEY_LEN, key_length);
                if flags & libc::NFT_SET_MAP != 0 {
                    put(sys::NFTNL_SET_DATA_TYPE, VERDICT);
                }
            }
        }
        let (number, flags) = match kind {
            MsgType::Add => (libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE),
            MsgType::Del => (libc::NFT_MSG_DELSET, 0),
        };
        self.message(number, flags, |header| {
            // SAFETY: the caller gives a header with room for the longest message.
            unsafe { sys::nftnl_set_nlmsg_build_payload(header, set.get()) };
        });
    }

    fn elements(&mut self, kind: MsgType, name: &str, elements: &[Element]) {
        let (number, flags) = match kind {
            // Without EXCL: an element that is there already is what was asked for.
            MsgType::Add => (libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE),
            MsgType::Del => (libc::NFT_MSG_DELSETELEM, 0),
        };
        let plain = elements.iter().all(|element| element.target.is_none());
        let per_message = if plain {
            ADDRESSES_PER_MESSAGE
        } else {
            VERDICTS_PER_MESSAGE
        };
        for chunk in elements.chunks(per_message) {
            let set = named_set(self.about, name);
            for element in chunk {
                element.put_into(&set);
            }
            self.message(number, flags, |header| {
                // SAFETY: the caller gives a header with room for the longest message, and a
                // chunk of either kind takes less than 64 KiB.
                unsafe { sys::nftnl_set_elems_nlmsg_build_payload(header, set.get()) };
            });
        }
    }

    fn message(&mut self, number: i32, flags: i32, build: impl Fn(*mut libc::nlmsghdr)) {
        self.put(
            &Built {
                number: number as u16,
                flags: flags as u16,
                build,
            },
            MsgType::Add,
        );
    }

    fn put(&mut self, message: &impl NlMsg, kind: MsgType) {
        let start = self.bytes.len();
        self.bytes.reserve(nft_nlmsg_maxsize() as usize);
        // SAFETY: the room that `NlMsg` asks for was reserved just above; the pointer stays inside
        // the allocation.
        let at = unsafe { self.bytes.as_mut_ptr().add(start) };
        assert!(
            at.cast::<libc::nlmsghdr>().is_aligned(),
            "allocations and messages are aligned to 4"
        );
        // SAFETY: as above. Afterwards the header's length, which libnftnl wrote first, says how
        // many bytes were written.
        unsafe {
            message.write(at.cast(), 0, kind);
            let length = at.cast::<u32>().read() as usize;
            self.bytes.set_len(start + length.next_multiple_of(4));
        }
    }
}

/// `NFT_OBJECT_COUNTER`.
pub(super) const COUNTER: u32 = 1;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
/// `NFT_DATA_VERDICT`.
const VERDICT: u32 = 0xffff_ff00;
// nft's own numbers for what a key is; the kernel keeps them for nft's listing.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const INTERVAL_END: u32 = 1;

fn key_of(family: Family) -> (u32, u32) {
    match family {
        Family::V4 => (TYPE_IPV4, 4),
        Family::V6 => (TYPE_IPV6, 16),
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn c(text: &str) -> CString {
    CString::new(text).expect("names and prefixes are made of words without NUL")
}

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes
        .get(at..at + 4)?
        .try_into()
        .ok()
        .map(u32::from_ne_bytes)? as usize;
    (length >= HEADER).then(|| length.next_multiple_of(4))
}

struct Element {
    key: Vec<u8>,
    end: bool,
    target: Option<CString>,
}

impl Element {
    fn put_into(&self, set: &Object<sys::nftnl_set>) {
        // SAFETY: the element is live until the set owns it, libnftnl copies key and name, and the
        // length passed is the key's (at most 16, and libnftnl has room for 64).
        unsafe {
            let Some(element) = NonNull::new(sys::nftnl_set_elem_alloc()) else {
                out_of_memory()
            };
            let element = element.as_ptr();
            sys::nftnl_set_elem_set(
                element,
                sys::NFTNL_SET_ELEM_KEY as u16,
                self.key.as_ptr().cast::<c_void>(),
                self.key.len() as u32,
            );
            if self.end {
                sys::nftnl_set_elem_set_u32(
                    element,
                    sys::NFTNL_SET_ELEM_FLAGS as u16,
                    INTERVAL_END,
                );
            }
            if let Some(chain) = &self.target {
                let verdict = libc::NFT_GOTO as u32;
                sys::nftnl_set_elem_set_u32(element, sys::NFTNL_SET_ELEM_VERDICT as u16, verdict);
                sys::nftnl_set_elem_set_str(
                    element,
                    sys::NFTNL_SET_ELEM_CHAIN as u16,
                    chain.as_ptr(),
                );
            }
            sys::nftnl_set_elem_add(set.get(), element);
        }
    }
}

fn named_set(table: &str, name: &str) -> Object<sys::nftnl_set> {
    let set = Object::new(sys::nftnl_set_alloc, sys::nftnl_set_free);
    let (table, name) = (c(table), c(name));
    // SAFETY: the set is live; libnftnl copies the names.
    unsafe {
        sys::nftnl_set_set_str(set.get(), sys::NFTNL_SET_TABLE as u16, table.as_ptr());
        sys::nftnl_set_set_str(set.get(), sys::NFTNL_SET_NAME as u16, name.as_ptr());
    }
    set
}

/// A message built by a closure that gets a header with room for the longest message.
struct Built<F> {
    number: u16,
    flags: u16,
    build: F,
}

// SAFETY: `build` writes one libnftnl payload, which fits `nft_nlmsg_maxsize`: names of at most 30
// bytes, 1,000 addresses of at most 36 bytes, or 400 verdicts of at most 100 bytes.
unsafe impl<F: Fn(*mut libc::nlmsghdr)> NlMsg for Built<F> {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _kind: MsgType) {
        // SAFETY: the caller gives room for the longest message.
        let header = unsafe {
            sys::nftnl_nlmsg_build_hdr(
                buffer.cast(),
                self.number,
                libc::NFPROTO_INET as u16,
                self.flags,
                sequence,
            )
        };
        (self.build)(header);
    }
}

/// An object of libnftnl, freed when dropped.
struct Object<T> {
    pointer: NonNull<T>,
    free: unsafe extern "C" fn(*const T),
}

impl<T> Object<T> {
    fn new(alloc: unsafe extern "C" fn() -> *mut T, free: unsafe extern "C" fn(*const T)) -> Self {
        // SAFETY: libnftnl's allocators take nothing and return a live object or null.
        let Some(pointer) = NonNull::new(unsafe { alloc() }) else {
            out_of_memory()
        };
        Self { pointer, free }
    }

    fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: the object is live, ours alone, and freed once.
        unsafe { (self.free)(self.pointer.as_ptr()) };
    }
}

/// The standard library aborts as well when an allocation fails.
pub(super) fn out_of_memory() -> ! {
    std::process::abort()
}

//! Responses, honest and hostile, the same for the same seed.

/// Numbers that look random: SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A sequence of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % (end as u64)).unwrap_or_default()
    }

    /// True in `part` of a thousand cases.
    pub fn chance(&mut self, part: usize) -> bool {
        self.below(1000) < part
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_be_bytes()[0]
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Names near each other, so that random records meet.
const POOL: [&str; 10] = [
    "www.a.example",
    "a.example",
    "b.example",
    "x.b.example",
    "deep.x.b.example",
    "example",
    "c.test",
    "www.c.test",
    "ww.a.example",
    "",
];

const KINDS: [u16; 20] = [
    1, 1, 1, 1, 1, 1, 1, 1, 28, 28, 28, 28, 65, 65, 65, 64, 5, 33, 2, 39,
];

/// A response for `dice`. About half are such as an honest resolver sends; of the others, most have
/// their chain out of order, among strangers' records, in letter-case games and odd compression, and
/// a part is then damaged.
#[must_use]
pub fn response(dice: &mut Dice) -> Vec<u8> {
    let honest = dice.chance(450);
    let mut plan = Plan::new(dice, honest);
    if !honest {
        plan.noise(dice);
    }
    let mut bytes = plan.write(dice, honest);
    if !honest && dice.chance(350) {
        damage(&mut bytes, dice);
    }
    bytes
}

/// Flips, overwrites, moves and cuts bytes.
pub fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = dice.below(bytes.len());
        match dice.below(8) {
            0..=2 => bytes[at] ^= 1 << dice.below(8),
            3 => bytes[at] = dice.byte(),
            4 => bytes[at] = dice.of(&[0, 1, 63, 64, 192, 193, 255]),
            5 => {
                // The counts.
                let at = (4 + dice.below(6)).min(bytes.len() - 1);
                bytes[at] = dice.of(&[0, 1, 2, 3, 255]);
            }
            6 => bytes.truncate(at),
            _ => bytes.insert(at, dice.byte()),
        }
    }
}

struct Entry {
    owner: String,
    kind: u16,
    class: u16,
    ttl: u32,
    data: Data,
}

enum Data {
    Name(String),
    Bytes(Vec<u8>),
}

struct Plan {
    asked: String,
    kind: u16,
    flags: [u8; 2],
    sections: [Vec<Entry>; 3],
}

impl Plan {
    /// A chain, and what is at its end.
    fn new(dice: &mut Dice, honest: bool) -> Self {
        let kind = dice.of(&KINDS);
        let asked = POOL[dice.below(if honest { 5 } else { 10 })].to_owned();
        let hops = match dice.below(20) {
            0..=9 => 0,
            10..=17 => 1 + dice.below(4),
            18 => 14 + dice.below(4),
            _ => 5 + dice.below(20),
        };
        let mut answers = Vec::new();
        let mut current = asked.clone();
        for hop in 0..hops {
            let next = format!("h{hop}.{}", dice.of(&POOL[..8]));
            let dname = current.split_once('.').filter(|_| dice.chance(120));
            if let Some((first, zone)) = dname {
                let target = dice.of(&POOL[..8]);
                answers.push(Entry::new(zone, 39, dice, Data::Name(target.to_owned())));
                let made = format!("{first}.{target}");
                if dice.chance(700) {
                    answers.push(Entry::new(&current, 5, dice, Data::Name(made.clone())));
                }
                current = made;
                continue;
            }
            answers.push(Entry::new(&current, 5, dice, Data::Name(next.clone())));
            current = next;
        }
        let count = match dice.below(100) {
            0..=9 => 0,
            10..=94 => 1 + dice.below(6),
            95..=98 => 100,
            _ => 505 + dice.below(12),
        };
        for _ in 0..count {
            let data = data(kind, dice, honest);
            answers.push(Entry::new(&current, kind, dice, data));
        }
        let failed = if honest { 30 } else { 120 };
        let code = if dice.chance(failed) {
            dice.of(&[2, 3, 5])
        } else {
            0
        };
        let mut authority = Vec::new();
        if count == 0 && dice.chance(600) {
            authority.push(Entry::new("example", 6, dice, Data::Bytes(vec![0; 22])));
        }
        Self {
            asked,
            kind,
            flags: [0x81, 0x80 | code],
            sections: [answers, authority, Vec::new()],
        }
    }

    /// Records that nobody asked for, and another order.
    fn noise(&mut self, dice: &mut Dice) {
        let mut owners: Vec<String> = POOL.iter().map(|name| (*name).to_owned()).collect();
        owners.extend(self.sections[0].iter().map(|entry| entry.owner.clone()));
        for section in &mut self.sections {
            for _ in 0..dice.below(6) {
                let kind = dice.of(&KINDS);
                let kind = if dice.chance(400) { self.kind } else { kind };
                let owner = owners[dice.below(owners.len())].clone();
                let data = data(kind, dice, false);
                let mut entry = Entry::new(&owner, kind, dice, data);
                if dice.chance(100) {
                    entry.class = dice.of(&[0, 3, 254, 255]);
                }
                section.push(entry);
            }
        }
        // What should not be there may be it by accident of the owners: a loop, a fork.
        let answers = &mut self.sections[0];
        if dice.chance(600) {
            for last in (1..answers.len()).rev() {
                answers.swap(last, dice.below(last + 1));
            }
        }
    }

    fn write(&self, dice: &mut Dice, honest: bool) -> Vec<u8> {
        let mut writer = Writer {
            bytes: vec![dice.byte(), dice.byte(), self.flags[0], self.flags[1]],
            known: Vec::new(),
            honest,
        };
        let mut counts = [1, 0, 0, 0];
        for (count, section) in counts[1..].iter_mut().zip(&self.sections) {
            *count = section.len();
        }
        for count in counts {
            writer.number(count);
        }
        writer.name(&self.asked, dice);
        writer.number(self.kind.into());
        writer.number(1);
        for entry in self.sections.iter().flatten() {
            writer.entry(entry, dice);
        }
        writer.bytes
    }
}

impl Entry {
    fn new(owner: &str, kind: u16, dice: &mut Dice, data: Data) -> Self {
        let ttl = match dice.below(20) {
            0 => 0x8000_0000 | u32::from(dice.byte()),
            1 => 0,
            _ => 30 + u32::from(dice.byte()),
        };
        Self {
            owner: owner.to_owned(),
            kind,
            class: 1,
            ttl,
            data,
        }
    }
}

fn data(kind: u16, dice: &mut Dice, honest: bool) -> Data {
    let odd = !honest && dice.chance(30);
    Data::Bytes(match kind {
        1 if odd => vec![1; dice.below(7)],
        1 => vec![93, dice.byte(), dice.byte(), dice.byte()],
        28 if odd => vec![1; dice.below(20)],
        28 => {
            let mut bytes = vec![0x26, 0];
            bytes.extend((0..14).map(|_| dice.byte()));
            bytes
        }
        64 | 65 => service(dice, honest),
        33 => [
            &[0, 1, 0, 2, 0, 80][..],
            &wire(dice.of(&POOL[..8]), dice, false),
        ]
        .concat(),
        _ => return Data::Name(dice.of(&POOL).to_owned()),
    })
}

/// Priority, target, parameters.
fn service(dice: &mut Dice, honest: bool) -> Vec<u8> {
    let mut bytes = vec![0, u8::from(!dice.chance(60))];
    bytes.extend(wire(dice.of(&["", "", "svc.b.example"]), dice, false));
    let mut keys: Vec<u16> = [0, 1, 3, 4, 5, 6, 7, 65_280].to_vec();
    keys.retain(|_| dice.chance(450));
    if !honest && dice.chance(60) && keys.len() > 1 {
        let at = dice.below(keys.len());
        keys.swap(0, at);
    }
    if !honest && dice.chance(30) {
        keys.extend(keys.last().copied());
    }
    for key in keys {
        let count = 1 + dice.below(3);
        let length = match key {
            0 => 2 * count,
            4 => 4 * count,
            6 => 16 * count,
            _ => dice.below(9),
        };
        let mut value: Vec<u8> = (0..length).map(|_| dice.byte()).collect();
        if key == 0 {
            let listed = dice.of(&[1u16, 3, 4, 5, 6]);
            value = listed.to_be_bytes().to_vec();
        }
        if !honest && dice.chance(30) {
            value.truncate(dice.below(length + 1));
        }
        let told = if !honest && dice.chance(20) {
            value.len() + dice.below(3)
        } else {
            value.len()
        };
        bytes.extend(key.to_be_bytes());
        bytes.extend((told as u16).to_be_bytes());
        bytes.extend(value);
    }
    bytes
}

/// The wire form of `name`, its letters in random case where `play`.
fn wire(name: &str, dice: &mut Dice, play: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        for letter in label.bytes() {
            let upper = play && dice.chance(300);
            bytes.push(if upper {
                letter.to_ascii_uppercase()
            } else {
                letter
            });
        }
    }
    bytes.push(0);
    bytes
}

struct Writer {
    bytes: Vec<u8>,
    /// Where names that ended so were written.
    known: Vec<(String, usize)>,
    honest: bool,
}

impl Writer {
    fn number(&mut self, value: usize) {
        let value = u16::try_from(value).unwrap_or(u16::MAX);
        self.bytes.extend(value.to_be_bytes());
    }

    fn entry(&mut self, entry: &Entry, dice: &mut Dice) {
        self.name(&entry.owner, dice);
        self.number(entry.kind.into());
        self.number(entry.class.into());
        self.bytes.extend(entry.ttl.to_be_bytes());
        let at = self.bytes.len();
        self.number(0);
        match &entry.data {
            Data::Name(name) => self.name(name, dice),
            Data::Bytes(bytes) => self.bytes.extend(bytes),
        }
        let mut length = self.bytes.len() - at - 2;
        if !self.honest && dice.chance(5) {
            length = (length + dice.below(3)).saturating_sub(1);
        }
        self.bytes[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    }

    /// Writes a name, mostly with a pointer to where its end stands already.
    fn name(&mut self, name: &str, dice: &mut Dice) {
        let mut left = name;
        loop {
            let at = self.bytes.len();
            let known = self.known.iter().find(|(known, _)| known == left);
            if let Some((_, target)) = known.filter(|_| dice.chance(850)) {
                let pointer = 0xc000 | target;
                return self.number(pointer);
            }
            if !self.honest && dice.chance(4) {
                // Somewhere: forwards, at itself, into the header, into the middle of something.
                return self.number(0xc000 | dice.below(at + 20));
            }
            let Some(label) = left.split('.').next().filter(|label| !label.is_empty()) else {
                return self.bytes.push(0);
            };
            if at < 0x4000 {
                self.known.push((left.to_owned(), at));
            }
            let play = !self.honest;
            let label_wire = wire(label, dice, play);
            self.bytes.extend(&label_wire[..label_wire.len() - 1]);
            left = left.split_once('.').map_or("", |(_, rest)| rest);
        }
    }
}

//! What vendors' pages call things, in the languages they come in. All lower case.

use super::super::fold;
use crate::policy::catalogue::Category;
use crate::policy::port::{TCP, UDP};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The vendor's number of the row.
    Id,
    /// What the row is for.
    Service,
    /// Category, whether it is required, and notes.
    Category,
    /// Whether it is required.
    Required,
    /// Whether Azure ExpressRoute carries it.
    ExpressRoute,
    /// Names and networks.
    Addresses,
    /// Ports, and the protocols of those that name none.
    Ports(&'static [u8]),
    /// Protocols of the ports.
    Protocol,
    /// Azure scale units.
    Units,
    /// For people.
    Notes,
    /// Anything else.
    Other,
}

/// Words of a heading, and what the column then holds. The first that is found decides.
const HEADINGS: &[(Role, &[&str])] = &[
    (
        Role::Other,
        &[
            "storage",
            "ストレージ",
            "speicher",
            "stockage",
            "almacenamiento",
            "armazenamento",
            "存储",
            "儲存",
            "source",
            "client",
            "example",
            "examples",
        ],
    ),
    (Role::Units, &["asu", "scale", "スケール"]),
    (Role::ExpressRoute, &["er", "expressroute"]),
    (
        Role::Category,
        &[
            "category",
            "kategorie",
            "catégorie",
            "categoría",
            "categoria",
            "カテゴリ",
            "分類",
            "分类",
            "類別",
            "类别",
        ],
    ),
    (
        Role::Required,
        &[
            "required",
            "erforderlich",
            "obligatoire",
            "requis",
            "requerido",
            "obligatorio",
            "necesario",
            "obrigatório",
            "necessário",
            "必須",
            "必需",
        ],
    ),
    (Role::Ports(&[TCP]), &["tcp"]),
    (Role::Ports(&[UDP]), &["udp"]),
    (
        Role::Ports(&[]),
        &[
            "port",
            "ports",
            "ポート",
            "puerto",
            "puertos",
            "porta",
            "portas",
            "端口",
            "連接埠",
            "通訊埠",
            "埠",
        ],
    ),
    (
        Role::Protocol,
        &[
            "protocol",
            "protocols",
            "protokoll",
            "protokolle",
            "protocole",
            "protocoles",
            "protocolo",
            "protocolos",
            "プロトコル",
            "协议",
            "通訊協定",
        ],
    ),
    (
        Role::Addresses,
        &[
            "address",
            "addresses",
            "url",
            "urls",
            "fqdn",
            "fqdns",
            "host",
            "hosts",
            "hostname",
            "hostnames",
            "endpoint",
            "endpoints",
            "domain",
            "domains",
            "cdn",
            "ip",
            "ips",
            "cidr",
            "subnet",
            "subnets",
            "network",
            "networks",
            "destination",
            "destinations",
            "adresse",
            "adressen",
            "adresses",
            "dirección",
            "direcciones",
            "endereço",
            "endereços",
            "domäne",
            "domänen",
            "domaine",
            "domaines",
            "dominio",
            "dominios",
            "domínio",
            "domínios",
            "hôte",
            "hôtes",
            "アドレス",
            "エンドポイント",
            "ドメイン",
            "ホスト",
            "地址",
            "位址",
            "域名",
            "網域",
            "终结点",
            "端點",
        ],
    ),
    (
        Role::Notes,
        &[
            "note",
            "notes",
            "comment",
            "comments",
            "hinweis",
            "hinweise",
            "anmerkung",
            "anmerkungen",
            "notizen",
            "remarque",
            "remarques",
            "nota",
            "notas",
            "observación",
            "observaciones",
            "observação",
            "observações",
            "メモ",
            "備考",
            "备注",
            "注意",
            "附註",
            "注記",
            "注释",
        ],
    ),
    (
        Role::Service,
        &[
            "desc",
            "description",
            "beschreibung",
            "descripción",
            "descrição",
            "service",
            "dienst",
            "servicio",
            "serviço",
            "purpose",
            "feature",
            "region",
            "région",
            "región",
            "região",
            "指定",
            "説明",
            "说明",
            "描述",
            "サービス",
            "服务",
            "服務",
            "地域",
            "リージョン",
            "区域",
            "地區",
        ],
    ),
    (
        Role::Id,
        &[
            "id",
            "nr",
            "no",
            "kennung",
            "identifiant",
            "identificador",
            "識別子",
            "番号",
            "编号",
            "編號",
            "标识",
            "識別碼",
        ],
    ),
];

/// What stands for "required" and for its contrary; the contrary is looked for first, for it holds
/// the same words.
const OPTIONAL: &[&str] = &[
    "optional",
    "not required",
    "nicht erforderlich",
    "facultatif",
    "facultative",
    "optionnel",
    "optionnelle",
    "non requis",
    "non obligatoire",
    "opcional",
    "no requerido",
    "no obligatorio",
    "não obrigatório",
    "não necessário",
    "省略可能",
    "オプション",
    "任意",
    "不要",
    "必須ではない",
    "可选",
    "非必需",
    "選用",
    "選擇性",
    "非必要",
];
const REQUIRED: &[&str] = &[
    "required",
    "erforderlich",
    "obligatoire",
    "requis",
    "requise",
    "nécessaire",
    "requerido",
    "obligatorio",
    "necesario",
    "obligatoria",
    "requerida",
    "obrigatório",
    "obrigatória",
    "necessário",
    "necessária",
    "必須",
    "必要",
    "必需",
    "必填",
];
const CATEGORIES: &[(Category, &[&str])] = &[
    (
        Category::Optimize,
        &[
            "optimize",
            "optimise",
            "optimized",
            "optimieren",
            "optimiert",
            "optimiser",
            "optimisé",
            "optimizar",
            "optimizado",
            "otimizar",
            "otimizado",
            "最適化",
            "优化",
            "最佳化",
        ],
    ),
    (
        Category::Allow,
        &[
            "allow",
            "allowed",
            "zulassen",
            "zulässig",
            "autoriser",
            "autorisé",
            "permitir",
            "permitido",
            "許可",
            "允许",
            "允許",
        ],
    ),
    (
        Category::Default,
        &[
            "default",
            "standard",
            "défaut",
            "predeterminado",
            "predeterminada",
            "padrão",
            "既定",
            "デフォルト",
            "默认",
            "預設",
        ],
    ),
];
const YES: &[&str] = &[
    "yes",
    "true",
    "ja",
    "wahr",
    "oui",
    "vrai",
    "sí",
    "si",
    "verdadero",
    "sim",
    "verdadeiro",
    "はい",
    "是",
    "真",
];
const NO: &[&str] = &[
    "no",
    "false",
    "nein",
    "falsch",
    "non",
    "faux",
    "falso",
    "não",
    "nao",
    "いいえ",
    "否",
    "偽",
    "假",
    "なし",
];
const NOTES: &[&str] = &[
    "notes:",
    "note:",
    "hinweise:",
    "hinweis:",
    "anmerkungen:",
    "anmerkung:",
    "remarques:",
    "remarque:",
    "notas:",
    "nota:",
    "observações:",
    "observaciones:",
    "メモ:",
    "備考:",
    "注:",
    "备注:",
    "注意:",
    "附註:",
    "説明:",
    "说明:",
];

/// What a heading says its column holds.
pub(super) fn role(heading: &str) -> Option<Role> {
    let heading = heading.to_lowercase();
    let found = HEADINGS
        .iter()
        .find(|(_, words)| words.iter().any(|word| says(&heading, word)));
    found.map(|(role, _)| *role)
}

/// Whether a lower-case text says a word. Latin words must stand alone: a transport is no port.
fn says(text: &str, word: &str) -> bool {
    if word.chars().any(|c| c >= '\u{2e80}') {
        return text.contains(word);
    }
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() || c >= '\u{2e80}');
    text.match_indices(word).any(|(at, _)| {
        edge(text[..at].chars().next_back()) && edge(text[at + word.len()..].chars().next())
    })
}

fn any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| says(text, word))
}

/// Whether a cell says yes or no; `None` when it says neither.
pub(super) fn yes_or_no(cell: &str) -> Option<bool> {
    let cell = cell.trim().trim_matches('*').to_lowercase();
    let yes = YES.contains(&&*cell);
    (yes || NO.contains(&&*cell)).then_some(yes)
}

/// Whether a cell says that something is required, by that word or by yes and no.
pub(super) fn flag(cell: &str) -> Option<bool> {
    yes_or_no(cell).or_else(|| standing(cell).required)
}

/// What the cell of a category says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) category: Option<Category>,
    pub(super) required: Option<bool>,
    pub(super) notes: String,
    /// Words in front of the notes that say none of this.
    pub(super) unread: bool,
}

/// Reads `Default`, `Required` and `Notes: …` in one cell.
pub(super) fn standing(cell: &str) -> Standing {
    let text = cell.replace('*', "");
    let notes = text.char_indices().find_map(|(at, _)| {
        let starts = at == 0 || text[..at].ends_with(|c: char| !c.is_alphanumeric());
        let words = NOTES.iter().filter(|_| starts);
        let mut words = words.filter(|word| prefix(&text[at..], word).is_some());
        words.next().map(|word| (at, word))
    });
    let (front, notes) = match notes {
        Some((at, word)) => (&text[..at], prefix(&text[at..], word).unwrap_or_default()),
        None => (&*text, ""),
    };
    let front = front.to_lowercase();
    let found = CATEGORIES.iter().find(|(_, words)| any(&front, words));
    let category = found.map(|(category, _)| *category);
    let optional = any(&front, OPTIONAL);
    let required = any(&front, REQUIRED);
    Standing {
        category,
        required: (optional || required).then_some(!optional),
        notes: notes.split_whitespace().collect::<Vec<_>>().join(" "),
        unread: category.is_none() && !optional && !required && !front.trim().is_empty(),
    }
}

/// What follows `word`, whatever the case of its letters.
fn prefix<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let start = text.get(..word.len())?;
    (start.to_lowercase() == word).then(|| &text[word.len()..])
}

/// A word for selectors, from words for people: no blanks, no `/`, no `:`.
pub(super) fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in fold::fold(text).chars().take(64) {
        if c.is_alphanumeric() {
            slug.extend(c.to_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings() {
        fn check(heading: &str, expected: Option<Role>) {
            assert_eq!(role(heading), expected, "{heading}");
        }
        check("ID", Some(Role::Id));
        check("Desc", Some(Role::Service));
        check("カテゴリ", Some(Role::Category));
        check("アドレス", Some(Role::Addresses));
        check("IP address", Some(Role::Addresses));
        check("Adressen", Some(Role::Addresses));
        check("ポート", Some(Role::Ports(&[])));
        check("TCP port", Some(Role::Ports(&[TCP])));
        check("Transport", None);
        check("Azure スケール ユニット (ASU)", Some(Role::Units));
        check("ストレージ名", Some(Role::Other));
        check("Catégorie", Some(Role::Category));
        check("端口", Some(Role::Ports(&[])));
        check("", None);
    }

    #[test]
    fn categories() {
        fn check(cell: &str, category: Option<Category>, required: Option<bool>, notes: &str) {
            let got = standing(cell);
            let expected = (category, required, notes);
            assert_eq!(
                (got.category, got.required, &*got.notes),
                expected,
                "{cell}"
            );
        }
        check("Allow\nRequired", Some(Category::Allow), Some(true), "");
        check("許可 必須", Some(Category::Allow), Some(true), "");
        check("既定値", Some(Category::Default), None, "");
        check(
            "Default\nOptional\n**Notes:** Required by some\nold clients",
            Some(Category::Default),
            Some(false),
            "Required by some old clients",
        );
        check(
            "Par défaut\nNon requis",
            Some(Category::Default),
            Some(false),
            "",
        );
        check(
            "Standard\nNicht erforderlich",
            Some(Category::Default),
            Some(false),
            "",
        );
        check(
            "Optimizar\nObligatorio",
            Some(Category::Optimize),
            Some(true),
            "",
        );
        check("最佳化\n必要", Some(Category::Optimize), Some(true), "");
        check(
            "既定\n省略可能\nメモ: 移行",
            Some(Category::Default),
            Some(false),
            "移行",
        );
        check("", None, None, "");
    }

    #[test]
    fn flags() {
        for (cell, expected) in [
            ("True", Some(true)),
            ("はい", Some(true)),
            ("Sí", Some(true)),
            ("False", Some(false)),
            ("Nein", Some(false)),
            ("not required", Some(false)),
            ("Obrigatório", Some(true)),
            ("", None),
            ("maybe", None),
        ] {
            assert_eq!(flag(cell), expected, "{cell}");
        }
    }
}

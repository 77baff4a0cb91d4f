//! The built-in catalogue, written as the pages it could have come from, and read back.

use super::{EndpointSet, nothing_is_lost, read, shown};
use crate::catalogue_import::builtin;
use crate::policy::catalogue::Category;
use crate::policy::port::{Service, TCP, UDP};

/// What a language calls things.
struct Words {
    head: [&'static str; 6],
    categories: [&'static str; 3],
    required: &'static str,
    yes: &'static str,
    no: &'static str,
    between: &'static str,
}

const LANGUAGES: &[Words] = &[
    Words {
        head: ["ID", "Desc", "Category", "ER", "Addresses", "Ports"],
        categories: ["Optimize", "Allow", "Default"],
        required: "Required",
        yes: "Yes",
        no: "No",
        between: ", ",
    },
    Words {
        head: ["ID", "指定", "カテゴリ", "ER", "アドレス", "ポート"],
        categories: ["最適化", "許可", "既定値"],
        required: "必須",
        yes: "はい",
        no: "False",
        between: "、",
    },
    Words {
        head: ["ID", "Beschreibung", "Kategorie", "ER", "Adressen", "Ports"],
        categories: ["Optimieren", "Zulassen", "Standard"],
        required: "Erforderlich",
        yes: "Ja",
        no: "Nein",
        between: "; ",
    },
    Words {
        head: ["ID", "Description", "Catégorie", "ER", "Adresses", "Ports"],
        categories: ["Optimiser", "Autoriser", "Par défaut"],
        required: "Obligatoire",
        yes: "Oui",
        no: "Non",
        between: " et ",
    },
    Words {
        head: [
            "Id.",
            "Descripción",
            "Categoría",
            "ER",
            "Direcciones",
            "Puertos",
        ],
        categories: ["Optimizar", "Permitir", "Predeterminado"],
        required: "Obligatorio",
        yes: "Sí",
        no: "No",
        between: " y ",
    },
    Words {
        head: ["ID", "Descrição", "Categoria", "ER", "Endereços", "Portas"],
        categories: ["Otimizar", "Permitir", "Padrão"],
        required: "Obrigatório",
        yes: "Sim",
        no: "Não",
        between: " e ",
    },
    Words {
        head: ["ID", "说明", "类别", "ER", "地址", "端口"],
        categories: ["优化", "允许", "默认"],
        required: "必需",
        yes: "是",
        no: "否",
        between: "，",
    },
    // Where no word is known, the cells say what they are.
    Words {
        head: ["#", "Mikä", "Luokka", "?", "Osoitteet", "Portit"],
        categories: ["Optimize", "Allow", "Default"],
        required: "Required",
        yes: "True",
        no: "False",
        between: " ",
    },
];

fn rows() -> Vec<EndpointSet> {
    let mut sets = builtin().sets;
    sets.retain(|set| set.id.parse::<u32>().is_ok());
    sets
}

/// The cells of a row; `line` is what breaks lines, `code` what stands before and behind names.
fn cells(set: &EndpointSet, words: &Words, line: &str, code: [&str; 2]) -> [String; 6] {
    let category = match set.category {
        Category::Optimize => words.categories[0],
        Category::Allow => words.categories[1],
        Category::Default => words.categories[2],
    };
    let category = if set.required {
        format!("{category}{line}{}", words.required)
    } else {
        category.to_owned()
    };
    let coded = |text: String| format!("{}{text}{}", code[0], code[1]);
    let mut addresses: Vec<_> = set.patterns.iter().map(|p| coded(p.to_string())).collect();
    let networks: Vec<_> = set.networks.iter().map(ToString::to_string).collect();
    if !networks.is_empty() {
        // Once without a blank, as on the real page.
        addresses.push(coded(networks.join(", ").replacen(", ", ",", 1)));
    }
    let number = |service: &Service| service.first.to_string();
    let mut ports = Vec::new();
    for (protocol, label) in [(TCP, "TCP:"), (UDP, "UDP:")] {
        let services = set.ports.services().iter();
        let numbers: Vec<_> = services
            .filter(|s| s.protocol == protocol)
            .map(number)
            .collect();
        if !numbers.is_empty() {
            ports.push(format!("{label} {}", numbers.join(words.between)));
        }
    }
    let yes = if set.express_route {
        words.yes
    } else {
        words.no
    };
    [
        set.id.clone(),
        set.service.replace(['.', ':'], " "),
        category,
        yes.to_owned(),
        addresses.join(line),
        ports.join(line),
    ]
}

fn markdown(words: &Words) -> String {
    let mut page = format!(
        "---\ntitle: page\n---\n\n# Endpoints\n\n## Core\n\n| {} |\n|--|:--|---|---|---|--:|\n",
        words.head.join(" | ")
    );
    for set in rows() {
        let cells = cells(&set, words, "<BR>", ["`", "`"]);
        page += &format!("| {} |\n", cells.join(" | "));
    }
    page + "\nThat is all.\n"
}

/// As browsers copy a page: rows broken over lines, no marks.
fn plain(words: &Words) -> String {
    let mut page = "Endpoints\n".to_owned();
    let head = format!("{} |\n---|---|---|---|---|---|\n", words.head.join(" | "));
    for (at, set) in rows().iter().enumerate() {
        if at % 5 == 0 {
            page += &head;
        }
        let [id, service, category, er, addresses, ports] = cells(set, words, " ", ["", ""]);
        page += &format!("{id} | {service} | {category} |\n{er} | {addresses} |\n{ports} |\n");
    }
    page + "That is all.\n"
}

fn html(words: &Words) -> String {
    let head: String = words
        .head
        .iter()
        .map(|head| format!("<TH scope=\"col\">{head}</TH>"))
        .collect();
    let mut page = format!(
        "<!DOCTYPE html>\n<html><head><title>x</title><style>td > b {{}}</style></head><body>\n\
         <h1>Endpoints</h1><table class='t'>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
    );
    for set in rows() {
        let cells = cells(&set, words, "<br/>\n", ["<code>", "</code>"]);
        let cells = cells.map(|cell| format!("<td>{}", cell.replace('&', "&amp;")));
        page += &format!("<tr>{}</tr>\n", cells.join("</td>\n"));
    }
    page + "</tbody></table><p>That is all.</p></body></html>\n"
}

fn utf16(text: &str, order: fn(u16) -> [u8; 2], mark: bool) -> Vec<u8> {
    let mark = mark.then_some('\u{feff}');
    let text: String = mark.into_iter().chain(text.chars()).collect();
    text.encode_utf16().flat_map(order).collect()
}

#[test]
fn pages_of_the_builtin_catalogue_are_it() {
    let expected: Vec<_> = rows().iter().map(shown).collect();
    assert_eq!(expected.len(), 21);
    for (language, words) in LANGUAGES.iter().enumerate() {
        for (form, render) in [markdown, plain, html].into_iter().enumerate() {
            let page = render(words);
            let encodings = [
                page.clone().into_bytes(),
                format!("\u{feff}{page}").replace('\n', "\r\n").into_bytes(),
                utf16(&page, u16::to_le_bytes, true),
                utf16(&page, u16::to_be_bytes, true),
                utf16(&page, u16::to_le_bytes, false),
            ];
            for (encoding, bytes) in encodings.iter().enumerate() {
                // Without a mark, UTF-16 is told by its first letters, which must be narrow.
                let catalogue = read(bytes, "page").unwrap();
                let got: Vec<_> = catalogue.sets.iter().map(shown).collect();
                assert_eq!(got, expected, "{language} {form} {encoding}");
                let account = &catalogue.account;
                assert_eq!(account.reported, [], "{language} {form} {encoding}");
                let tokens: usize = expected_tokens();
                assert_eq!(account.imported, tokens, "{language} {form} {encoding}");
                nothing_is_lost(&page, &catalogue);
            }
        }
    }
}

/// 90 names, 50 networks, and the ports of 7 rows with two, 13 with one and one with three.
fn expected_tokens() -> usize {
    90 + 50 + 7 * 2 + 13 + 3
}

//! Getting a catalogue over HTTPS: asked for politely, bounded in size and time, and never taken for what it is not.
//! Nothing here knows what a catalogue says.

mod client;
mod endpoint;
mod reply;
pub mod schedule;
pub mod store;

#[cfg(test)]
mod tests;

pub use endpoint::{Endpoint, Proxy, address};

use crate::catalogue_import::webservice;
use crate::policy::name::Name;
use client::Client;
use http::StatusCode;
use http::header::{ETAG, LAST_MODIFIED};
use minisign_verify::{PublicKey, Signature};
use reply::{ok, remembered, shortened};
use std::net::IpAddr;
use std::time::Duration;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Where a catalogue is, and whom to believe about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub url: Endpoint,
    /// Whose signature it must bear: a minisign public key, one that [`public_key`] takes.
    pub public_key: Option<String>,
    /// Whom connections go through.
    pub proxy: Option<Proxy>,
    /// Who may certify its server besides those the system trusts.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// What is known of the last one that came.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// The server's tag of it (RFC 9110 §8.8.3).
    pub etag: Option<String>,
    /// When the server changed it last, in its words (RFC 9110 §8.8.2).
    pub last_modified: Option<String>,
    /// Its version, where the server has a protocol for that.
    pub version: Option<String>,
    /// Whose signature it bore.
    #[serde(default)]
    pub public_key: Option<String>,
}

/// How much a server may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a list.
    pub body: usize,
    /// For one step: connecting, shaking hands, the next bytes.
    pub step: Duration,
    /// For everything together.
    pub whole: Duration,
    /// Redirections that are followed.
    pub redirects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            step: Duration::from_secs(30),
            whole: Duration::from_mins(5),
            redirects: 5,
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has nothing newer.
    Unchanged,
    /// It gave this.
    New {
        /// The list as it came.
        bytes: Vec<u8>,
        /// To ask by the next time.
        memory: Memory,
    },
    /// It wants to be left alone for a while.
    Later {
        /// For so long.
        after: Duration,
        /// In its words.
        why: String,
    },
    /// Nothing came that can be used.
    Failed {
        /// Why.
        why: String,
    },
}

/// Why nothing came.
enum Trouble {
    Later { after: Duration, why: String },
    Failed(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// Bytes of an answer that is no list.
const SHORT: usize = 64 << 10;

/// Checks a minisign public key.
///
/// # Errors
/// Says what to write.
pub fn public_key(text: &str) -> Result<(), String> {
    PublicKey::from_base64(text).map(drop).map_err(|why| {
        format!("`{text}` is no minisign public key: {why}; write the line of minisign.pub that begins with `RW`")
    })
}

/// Fetches `source` if it is newer than `memory`, as client `id` where servers want to tell clients apart. Names are
/// looked up by `resolve`.
pub async fn fetch(
    source: &Source,
    id: &str,
    memory: &Memory,
    limits: &Limits,
    resolve: impl AsyncFn(&Name) -> Vec<IpAddr>,
) -> Outcome {
    let client = Client {
        source,
        limits,
        resolve,
    };
    let all = tokio::time::timeout(limits.whole, attempt(&client, id, memory));
    let outcome = all.await.unwrap_or_else(|_| {
        Err(Trouble::Failed(format!(
            "it took longer than {:?}",
            limits.whole
        )))
    });
    match outcome {
        Ok(outcome) => outcome,
        Err(Trouble::Later { after, why }) => Outcome::Later {
            after,
            why: shortened(why),
        },
        Err(Trouble::Failed(why)) => Outcome::Failed {
            why: shortened(why),
        },
    }
}

async fn attempt(
    client: &Client<'_, impl AsyncFn(&Name) -> Vec<IpAddr>>,
    id: &str,
    memory: &Memory,
) -> Result<Outcome, Trouble> {
    let source = client.source;
    // What came under another key, or under none, must come again: unchanged would mean believed.
    let believed = memory.public_key == source.public_key;
    let mut version = None;
    if let (Some(path), Some(instance)) = (source.url.version_path(id), source.url.instance()) {
        let at = Endpoint {
            path,
            ..source.url.clone()
        };
        let told = ok(client.get(&at, &[], SHORT).await?)?;
        reply::is_no_page(&at, &told.headers)?;
        let text = std::str::from_utf8(&told.body)
            .map_err(|_| "the answer about its version is no text".to_owned())?;
        let told =
            webservice::version(text, instance, "/version").map_err(|why| why.to_string())?;
        if believed && memory.version.as_ref() == Some(&told) {
            return Ok(Outcome::Unchanged);
        }
        if let Some(known) = memory
            .version
            .as_ref()
            .filter(|known| is_older(&told, known))
        {
            return Err(Trouble::Failed(format!(
                "its version went back from {known} to {told}"
            )));
        }
        version = Some(told);
    }
    let at = Endpoint {
        path: source.url.list_path(id),
        ..source.url.clone()
    };
    let mut conditions = Vec::new();
    // Of the web service the version has told already.
    if believed && version.is_none() {
        conditions.extend(memory.etag.iter().map(|tag| ("if-none-match", &**tag)));
        let since = memory
            .last_modified
            .iter()
            .map(|when| ("if-modified-since", &**when));
        conditions.extend(since);
    }
    let reply = client.get(&at, &conditions, client.limits.body).await?;
    if reply.status == StatusCode::NOT_MODIFIED && !conditions.is_empty() {
        return Ok(Outcome::Unchanged);
    }
    let reply = ok(reply)?;
    reply::is_no_page(&at, &reply.headers)?;
    if let Some(key) = &source.public_key {
        verify(client, &at, key, &reply.body).await?;
    }
    Ok(Outcome::New {
        memory: Memory {
            etag: remembered(&reply.headers, ETAG),
            last_modified: remembered(&reply.headers, LAST_MODIFIED),
            version,
            public_key: source.public_key.clone(),
        },
        bytes: reply.body,
    })
}

/// Versions of the web service are a day and a number of it, ten digits.
fn is_older(told: &str, known: &str) -> bool {
    told.len() == known.len() && told < known
}

async fn verify(
    client: &Client<'_, impl AsyncFn(&Name) -> Vec<IpAddr>>,
    list: &Endpoint,
    key: &str,
    bytes: &[u8],
) -> Result<(), Trouble> {
    let (path, query) = list
        .path
        .split_at(list.path.find('?').unwrap_or(list.path.len()));
    let at = Endpoint {
        path: format!("{path}.minisig{query}"),
        ..list.clone()
    };
    let reply =
        ok(client.get(&at, &[], SHORT).await?).map_err(|trouble| trouble.about("its signature"))?;
    let key = PublicKey::from_base64(key).map_err(|why| format!("the public key: {why}"))?;
    let signature =
        std::str::from_utf8(&reply.body).map_err(|_| "its signature is no text".to_owned())?;
    let signature = Signature::decode(signature).map_err(|why| format!("its signature: {why}"))?;
    key.verify(bytes, &signature, false)
        .map_err(|why| Trouble::Failed(format!("its signature does not fit it: {why}")))
}

impl Trouble {
    fn about(self, what: &str) -> Self {
        match self {
            Self::Later { after, why } => Self::Later {
                after,
                why: format!("{what}: {why}"),
            },
            Self::Failed(why) => Self::Failed(format!("{what}: {why}")),
        }
    }
}

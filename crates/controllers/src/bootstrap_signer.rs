//! Bootstrap tokens: the cluster's public description is signed with each, and those past their date are removed.
//!
//! ```text
//! Secrets bootstrap-token-* in kube-system ─┐
//!                                           ├─▶ kube-public/cluster-info: jws-kubeconfig-<token id>
//! data.kubeconfig of the same config map ───┘
//! ```
//!
//! Who joins reads the description without knowing whom to trust, and believes it because only the cluster could have signed it
//! with the token's secret. Who writes the description itself is none of this module's business.

use std::collections::BTreeMap;

use base::Timestamp;
use client::{Change, Client, Deletion, Lister, Next, Outcome, Queue, Typed, Watched};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use meta::{ObjectKey, Status, time};
use serde_json::{Map, Value};

use crate::Context;
use crate::views::Whole;

const SIGNER: &str = "bootstrap-signer";
const CLEANER: &str = "token-cleaner";
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
const DESCRIPTION: (&str, &str) = ("kube-public", "cluster-info");
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// A token that may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    id: String,
    secret: String,
    expires: Option<Timestamp>,
}

#[derive(Clone)]
struct BootstrapSigner {
    cx: Context,
    client: Client,
    secrets: Lister<Secret>,
    descriptions: Lister<Whole<ConfigMap>>,
}

pub fn start(cx: &Context) {
    let (queue, key) = (Queue::default(), ObjectKey::new(DESCRIPTION.0, DESCRIPTION.1));
    let tokens = Watched {
        namespace: NAMESPACE.into(),
        field_selector: format!("type={TOKEN_TYPE}"),
        ..Watched::all_of::<Secret>()
    };
    let description = Watched {
        namespace: DESCRIPTION.0.into(),
        field_selector: format!("metadata.name={}", DESCRIPTION.1),
        ..Watched::all_of::<ConfigMap>()
    };
    let secrets = cx.informers.of::<Secret>(tokens, &[]);
    let descriptions = cx.informers.of::<Whole<ConfigMap>>(description, &[]);
    let (wake, one) = (queue.clone(), key.clone());
    secrets.subscribe(move |_| wake.add(one.clone()));
    let (wake, one) = (queue.clone(), key);
    descriptions.subscribe(move |_| wake.add(one.clone()));
    let (client, _) = cx.identity(SIGNER);
    let signer =
        BootstrapSigner { cx: cx.clone(), client, secrets: secrets.lister(), descriptions: descriptions.lister() };
    cx.run_workers(SIGNER, 1, &queue, move |key| {
        let signer = signer.clone();
        async move { signer.sync(&key).await }
    });
    start_cleaner(cx, &secrets);
}

impl BootstrapSigner {
    async fn sync(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(description) = self.descriptions.get(key) else { return Ok(Next::Wait) };
        let now = self.cx.clock.now();
        let tokens: Vec<Token> = self.secrets.all().iter().filter_map(|secret| token(secret, now)).collect();
        let mut object = description.object()?;
        let sign = |token: &Token, content: &str| self.cx.signer.sign_with_token(&token.id, &token.secret, content);
        let before = object.map_at(&["data"]).clone();
        let after = signed(&before, &tokens, sign);
        if after != before {
            object.set(&["data"], after);
            self.client.update_object(&ConfigMap::gvr(), "", object).await?;
        }
        let next = tokens.iter().filter_map(|token| token.expires).min();
        Ok(next.map_or(Next::Wait, |at| Next::After(self.cx.clock.until(at))))
    }
}

/// The data with a signature of each token and none besides.
fn signed(data: &Map<String, Value>, tokens: &[Token], sign: impl Fn(&Token, &str) -> String) -> Map<String, Value> {
    let mut data = data.clone();
    data.retain(|name, _| !name.starts_with(SIGNATURE_PREFIX));
    if let Some(content) = data.get(KUBECONFIG).and_then(Value::as_str).map(str::to_string) {
        for token in tokens {
            data.insert(format!("{SIGNATURE_PREFIX}{}", token.id), sign(token, &content).into());
        }
    }
    data
}

fn text(data: &BTreeMap<String, k8s_openapi::ByteString>, name: &str) -> Option<String> {
    String::from_utf8(data.get(name)?.0.clone()).ok()
}

/// The date on which a token ends: none without one, long past when it cannot be read.
fn expiry(data: &BTreeMap<String, k8s_openapi::ByteString>) -> Option<Timestamp> {
    let written = text(data, "expiration")?;
    Some(time::parse(&written).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The token of a Secret that may sign now.
fn token(secret: &Secret, now: Timestamp) -> Option<Token> {
    let data = secret.data.as_ref()?;
    let id = text(data, "token-id")?;
    let named = secret.metadata.name.as_deref()?.strip_prefix("bootstrap-token-") == Some(id.as_str());
    let expires = expiry(data);
    let may_sign = text(data, "usage-bootstrap-signing").as_deref() == Some("true");
    let lives = secret.metadata.deletion_timestamp.is_none() && expires.is_none_or(|at| at > now);
    let found = Token { secret: text(data, "token-secret")?, id, expires };
    (named && may_sign && lives && !found.id.is_empty() && !found.secret.is_empty()).then_some(found)
}

/// Deletes tokens on their date.
fn start_cleaner(cx: &Context, secrets: &client::Informer<Secret>) {
    let (client, _) = cx.identity(CLEANER);
    let queue: Queue<ObjectKey> = Queue::default();
    let wake = queue.clone();
    secrets.subscribe(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            wake.add(change.key().clone());
        }
    });
    let (secrets, clock) = (secrets.lister(), cx.clock.clone());
    cx.run_workers(CLEANER, 1, &queue, move |key: ObjectKey| {
        let (client, secrets, clock) = (client.clone(), secrets.clone(), clock.clone());
        async move {
            let Some(secret) = secrets.get(&key) else { return Ok(Next::Wait) };
            let Some(at) = secret.data.as_ref().and_then(expiry) else { return Ok(Next::Wait) };
            let wait = clock.until(at);
            if !wait.is_zero() {
                return Ok(Next::After(wait));
            }
            let deletion = Deletion { uid: secret.metadata.uid.clone(), ..Deletion::default() };
            client.delete::<Secret>(&key, deletion).await.unless_replaced()?;
            Ok(Next::Wait)
        }
    });
}

#[cfg(test)]
mod tests;

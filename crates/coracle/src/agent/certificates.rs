//! The node's two certificates: asked for through the API, kept in the data folder, renewed in place.
//!
//! ```text
//! <data-dir>/pki/cluster-ca.crt               whom the node trusts
//! <data-dir>/pki/kubelet-client-current.pem   who it is towards the API: certificate, then key
//! <data-dir>/pki/kubelet-server-current.pem   who it is towards those who call it
//! ```

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use base::{Backoff, BackoffPolicy, Clock, Tasks};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, ListQuery, WatchEvent};
use futures::StreamExt;
use meta::{GroupVersionKind, GroupVersionResource, Object, ObjectKey, Status};
use pki::{CertRequest, CertificateFacts, Issued, LiveCertificate, PkiError, SigningKey};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::json;

use crate::instance::write_private;
use crate::settings::Machine;

const AUTHORITY: &str = "cluster-ca.crt";
const CLIENT: &str = "kubelet-client-current.pem";
const SERVER: &str = "kubelet-server-current.pem";
const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";
/// How long a request waits to be approved and signed; as upstream.
const ISSUE_MAX: Duration = Duration::from_secs(900);
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(500), Duration::from_secs(60));

/// Where certificates are kept.
#[derive(Clone)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn open(data_dir: &Path) -> Result<Self> {
        let dir = data_dir.join("pki");
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Folder(dir))
    }

    /// The authority and the client certificate of an earlier start; none when there is none that is still good for the node.
    pub fn client(&self, node: &str, clock: &Clock) -> Result<Option<(String, Issued)>> {
        let (Some(authority), Some(issued)) = (self.read(AUTHORITY)?, self.issued(CLIENT)?) else { return Ok(None) };
        let good = issued.facts().is_ok_and(|facts| is_of(&facts, node, clock));
        Ok(good.then_some((authority, issued)))
    }

    pub fn write_authority(&self, authority: &str) -> Result<()> {
        write_private(&self.0.join(AUTHORITY), authority)
    }

    fn issued(&self, file: &str) -> Result<Option<Issued>> {
        let Some(text) = self.read(file)? else { return Ok(None) };
        let split = text.find(KEY_BEGINS).map(|at| text.split_at(at));
        Ok(split.map(|(chain, key)| Issued { chain_pem: chain.to_string(), key_pem: key.to_string() }))
    }

    fn read(&self, file: &str) -> Result<Option<String>> {
        let path = self.0.join(file);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

fn is_of(facts: &CertificateFacts, node: &str, clock: &Clock) -> bool {
    facts.common_name == user(node) && facts.not_after > clock.now()
}

fn user(node: &str) -> String {
    format!("system:node:{node}")
}

/// How one of the certificates is asked for, again and again.
#[derive(Clone)]
pub struct Renewal {
    client: Client,
    folder: Folder,
    file: &'static str,
    signer: &'static str,
    usages: [&'static str; 2],
    wanted: CertRequest,
}

impl Renewal {
    pub fn of_client(client: &Client, folder: &Folder, machine: &Machine) -> Self {
        Renewal {
            client: client.clone(),
            folder: folder.clone(),
            file: CLIENT,
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            usages: ["digital signature", "client auth"],
            wanted: CertRequest::client(&user(&machine.name), &["system:nodes"]),
        }
    }

    pub fn of_server(client: &Client, folder: &Folder, machine: &Machine) -> Self {
        let addresses = [machine.address, [127, 0, 0, 1].into()];
        let mut wanted = CertRequest::server(&user(&machine.name), &[&machine.name, "localhost"], &addresses);
        wanted.organizations = vec!["system:nodes".to_string()];
        Renewal {
            client: client.clone(),
            folder: folder.clone(),
            file: SERVER,
            signer: "kubernetes.io/kubelet-serving",
            usages: ["digital signature", "server auth"],
            wanted,
        }
    }

    /// Asks, waits and keeps the answer.
    pub async fn issue(self) -> pki::Result<Issued> {
        let refused = |status: Status| PkiError::Refused(status.message);
        let key = SigningKey::generate()?;
        let request = self.request(&pki::signing_request(&self.wanted, &key)?);
        let name = self.client.create_object(&requests(), request).await.map_err(refused)?.key;
        tracing::info!(request = %name, signer = self.signer, "asked for a certificate");
        let waited = tokio::time::timeout(ISSUE_MAX, granted(&self.client, &name)).await;
        let granted = waited.unwrap_or_else(|_| Err(Status::timeout("nobody approved and signed the request", 0)));
        let issued = Issued { chain_pem: granted.map_err(refused)?, key_pem: key.to_pem() };
        // What does not fit the key is not kept.
        issued.certified_key()?;
        let text = format!("{}\n{}", issued.chain_pem.trim_end(), issued.key_pem);
        let kept = write_private(&self.folder.0.join(self.file), &text);
        kept.map_err(|error| PkiError::Refused(format!("{error:#}")))?;
        Ok(issued)
    }

    /// The certificate of an earlier start, if it is still good and names what is wanted now.
    fn kept(&self, clock: &Clock) -> Option<Issued> {
        let issued = self.folder.issued(self.file).ok().flatten()?;
        let facts = issued.facts().ok()?;
        let same = facts.common_name == self.wanted.common_name
            && facts.dns_names == self.wanted.dns_names
            && facts.ips == self.wanted.ips;
        (same && facts.not_after > clock.now()).then_some(issued)
    }

    fn request(&self, pem: &str) -> Object {
        let mut object = Object::new(&GroupVersionKind::new("certificates.k8s.io", "v1", "CertificateSigningRequest"));
        object.set_meta("generateName", "csr-");
        object.set(&["spec", "request"], STANDARD.encode(pem));
        object.set(&["spec", "signerName"], self.signer);
        object.set(&["spec", "usages"], json!(self.usages));
        object
    }
}

fn requests() -> GroupVersionResource {
    GroupVersionResource::new("certificates.k8s.io", "v1", "certificatesigningrequests")
}

/// The certificate (PEM), when it is there.
async fn granted(client: &Client, name: &ObjectKey) -> Result<String, Status> {
    loop {
        let request = client.get_object(&requests(), name).await?;
        if let Some(verdict) = verdict(&request) {
            return verdict;
        }
        let query = ListQuery {
            field_selector: format!("metadata.name={}", name.name),
            resource_version: request.resource_version().to_string(),
            ..ListQuery::default()
        };
        let mut events = client.watch(&requests(), &query).await?;
        while let Some(event) = events.next().await {
            match event {
                WatchEvent::Added(request) | WatchEvent::Modified(request) => {
                    if let Some(verdict) = verdict(&request.object()?) {
                        return verdict;
                    }
                }
                WatchEvent::Bookmark { .. } => {}
                // Looked up again: it says best itself what became of it.
                WatchEvent::Deleted(_) | WatchEvent::Error(_) => break,
            }
        }
    }
}

/// What was decided; none as long as nothing was.
fn verdict(request: &Object) -> Option<Result<String, Status>> {
    let certificate = request.str_at(&["status", "certificate"]);
    if !certificate.is_empty() {
        let text = STANDARD.decode(certificate).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        return Some(text.ok_or_else(|| Status::internal("the certificate cannot be read")));
    }
    let conditions = request.list_at(&["status", "conditions"]);
    let against =
        conditions.iter().find(|condition| ["Denied", "Failed"].iter().any(|kind| condition["type"] == *kind))?;
    let word = |field: &str| against[field].as_str().unwrap_or_default();
    Some(Err(Status::internal(format!("the request was {}: {}", word("type").to_lowercase(), word("message")))))
}

/// The serving certificate: none until the node is registered and its request was granted. Until then handshakes fail, because
/// nothing that this machine could show would prove anything.
#[derive(Debug, Default)]
pub struct ServingCertificate(OnceLock<Arc<LiveCertificate>>);

impl ServingCertificate {
    /// Gets it, by and by, and renews it for as long as the tasks run.
    pub fn keep(self: &Arc<Self>, renewal: Renewal, clock: &Clock, tasks: &Tasks) {
        let (own, clock, branch) = (self.clone(), clock.clone(), tasks.clone());
        tasks.spawn("kubelet-serving", async move {
            let live = first(&renewal, &clock).await;
            let again = renewal.clone();
            live.keep_fresh("kubelet-serving", clock, &branch, move || again.clone().issue());
            // Set once: this task is the only one that does.
            drop(own.0.set(live));
        });
    }
}

async fn first(renewal: &Renewal, clock: &Clock) -> Arc<LiveCertificate> {
    if let Some(live) = renewal.kept(clock).and_then(|kept| LiveCertificate::new(&kept).ok()) {
        return live;
    }
    let mut backoff = Backoff::new(RETRY);
    loop {
        match renewal.clone().issue().await.and_then(|issued| LiveCertificate::new(&issued)) {
            Ok(live) => return live,
            Err(error) => {
                tracing::warn!(%error, "no serving certificate yet, will ask again");
                clock.sleep(backoff.next(clock.instant())).await;
            }
        }
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get()?.resolve(hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_certificate_counts_while_it_is_good_and_the_nodes_own() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let start: base::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::simulated(start);
        assert!(folder.client("n1", &clock).unwrap().is_none());
        let authority = pki::Authority::generate("ca", &clock).unwrap();
        let wanted = CertRequest::client(&user("n1"), &["system:nodes"]);
        let issued = authority.issue(&wanted, &clock).unwrap();
        folder.write_authority(&authority.certificate_pem()).unwrap();
        write_private(&folder.0.join(CLIENT), &format!("{}{}", issued.chain_pem, issued.key_pem)).unwrap();
        let (trusted, kept) = folder.client("n1", &clock).unwrap().unwrap();
        assert_eq!((trusted, kept.key_pem), (authority.certificate_pem(), issued.key_pem));
        assert!(folder.client("n2", &clock).unwrap().is_none(), "another node's");
        let later = Clock::simulated(start + Duration::from_secs(366 * 24 * 3600));
        assert!(folder.client("n1", &later).unwrap().is_none(), "past its end");
    }

    #[test]
    fn a_request_is_granted_or_refused_or_open() {
        let request = |status: serde_json::Value| verdict(&Object::from_value(json!({"status": status})).unwrap());
        assert!(request(json!({})).is_none());
        assert!(request(json!({"conditions": [{"type": "Approved"}]})).is_none());
        assert_eq!(request(json!({"certificate": "YQ=="})).unwrap().unwrap(), "a");
        let denied = request(json!({"conditions": [{"type": "Denied", "message": "no"}]})).unwrap().unwrap_err();
        assert!(denied.message.contains("was denied: no"), "{denied}");
    }
}

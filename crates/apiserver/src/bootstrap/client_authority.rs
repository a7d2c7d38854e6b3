//! The ConfigMap `kube-system/extension-apiserver-authentication`, by which API servers that extend this one learn whose client
//! certificates to trust.
//!
//! Several servers may write it: what is there stays, unless it has expired, and our authority is added. When it is deleted it is
//! made again. There are no `requestheader-` entries: this server sends no request on in the name of a user by headers.

use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, BackoffPolicy, Timestamp};
use meta::{GroupVersionKind, Object, ObjectKey, Status};
use serde_json::json;
use x509_parser::pem::Pem;

use super::put;
use crate::registry::Registry;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const AUTHORITY: &str = "client-ca-file";
const CERTIFICATE: &str = "CERTIFICATE";
const END: &str = "-----END CERTIFICATE-----";

/// How long after a failure it is tried again.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_secs(1), Duration::from_secs(60));

/// Writes our authority's certificate, in PEM, and keeps it there.
pub async fn publish(registry: &Arc<Registry>, authority: String) -> Result<(), Status> {
    write(registry, &authority).await?;
    let kept = registry.clone();
    registry.tasks().spawn("client authority", async move { keep(&kept, &authority).await });
    Ok(())
}

async fn keep(registry: &Registry, authority: &str) {
    let key = ObjectKey::new(NAMESPACE, NAME);
    let mut backoff = Backoff::new(RETRY);
    loop {
        registry.goes("configmaps", &key).await;
        match write(registry, authority).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(%error, "the authority of clients cannot be published again");
                registry.clock().sleep(backoff.next(registry.clock().instant())).await;
            }
        }
    }
}

async fn write(registry: &Registry, authority: &str) -> Result<(), Status> {
    let current = registry.current("configmaps", &ObjectKey::new(NAMESPACE, NAME)).await?;
    let current = current.map(|stored| stored.stored_object()).transpose()?;
    let there = current.as_ref().map(|map| map.str_at(&["data", AUTHORITY])).unwrap_or_default();
    let wanted = joined(there, authority, registry.clock().now());
    if current.is_some() && there == wanted {
        return Ok(());
    }
    let mut map = Object::new(&GroupVersionKind::new("", "v1", "ConfigMap"));
    map.set_meta("name", NAME);
    map.set_meta("namespace", NAMESPACE);
    map.set(&["data"], json!({AUTHORITY: wanted}));
    put(registry, map).await
}

/// Both bundles in one, each certificate once, without what has expired and what is no certificate.
fn joined(there: &str, ours: &str, now: Timestamp) -> String {
    let (mut seen, mut text) = (Vec::new(), String::new());
    for block in there.split_inclusive(END).chain(ours.split_inclusive(END)) {
        let Some(Ok(pem)) = Pem::iter_from_buffer(block.as_bytes()).next() else { continue };
        let Ok(certificate) = pem.parse_x509() else { continue };
        let expired = certificate.validity().not_after.timestamp() < now.as_second();
        if pem.label != CERTIFICATE || expired || seen.contains(&pem.contents) {
            continue;
        }
        text.push_str(block.trim());
        text.push('\n');
        seen.push(pem.contents);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year_of_end: i32) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year_of_end, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().replace('\r', "")
    }

    #[test]
    fn certificates_of_others_stay_until_they_expire_and_ours_is_there_once() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let (ours, theirs, expired) = (certificate(2030), certificate(2031), certificate(2010));
        assert_eq!(joined("", &ours, now), ours);
        assert_eq!(joined(&ours, &ours, now), ours);
        assert_eq!(joined(&format!("{theirs}\n{expired}rubbish"), &ours, now), format!("{theirs}{ours}"));
    }
}

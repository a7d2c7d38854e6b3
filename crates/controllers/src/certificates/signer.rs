//! Signs approved requests for the API server's own signers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Lister, Next, Queue, Typed, Watched};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use meta::{ObjectKey, Status};

use super::{Asked, NAME, rules};
use crate::{Context, WORKERS};

/// Upstream's `--cluster-signing-duration`; a request may ask for less.
const VALIDITY_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Upstream grants no less, whatever was asked for.
const VALIDITY_MIN: Duration = Duration::from_secs(600);
const REFUSED: &str = "SignerValidationFailure";

#[derive(Clone)]
struct Signing {
    cx: Context,
    client: Client,
    requests: Lister<Asked>,
}

pub fn start(cx: &Context) {
    let (client, _) = cx.identity(NAME);
    let queue: Queue<ObjectKey> = Queue::default();
    let requests = cx.informers.of::<Asked>(Watched::all_of::<CertificateSigningRequest>(), &[]);
    let wake = queue.clone();
    requests.subscribe(move |change| wake.add(change.key().clone()));
    let signing = Signing { cx: cx.clone(), client, requests: requests.lister() };
    cx.run_workers(NAME, WORKERS, &queue, move |key| {
        let signing = signing.clone();
        async move { signing.sync(&key).await }
    });
}

impl Signing {
    async fn sync(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(asked) = self.requests.get(key) else { return Ok(Next::Wait) };
        let settled = asked.is_issued() || asked.has("Denied") || asked.has("Failed");
        if settled || !asked.has("Approved") {
            return Ok(Next::Wait);
        }
        let request = &asked.view.spec.request.0;
        let unreadable = |error| Status::internal(format!("unable to parse csr {:?}: {error}", key.name));
        let facts = self.cx.signer.read(request).map_err(unreadable)?;
        let changed = match rules::judge(asked.signer(), &facts, asked.usages()) {
            None => return Ok(Next::Wait),
            Some(Err(why)) => asked.with_condition(&self.cx, "Failed", REFUSED, &why)?,
            Some(Ok(())) => {
                let signed = self.cx.signer.sign(request, asked.usages(), validity(asked.view.spec.expiration_seconds));
                let certificate =
                    signed.map_err(|error| Status::internal(format!("error auto signing csr: {error}")))?;
                let mut object = asked.encoded.object()?;
                object.set(&["status", "certificate"], STANDARD.encode(certificate));
                object
            }
        };
        self.client.update_object(&CertificateSigningRequest::gvr(), "status", changed).await?;
        Ok(Next::Wait)
    }
}

pub(super) fn validity(asked_seconds: Option<i32>) -> Duration {
    let asked = asked_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    asked.map_or(VALIDITY_MAX, |asked| asked.clamp(VALIDITY_MIN, VALIDITY_MAX))
}

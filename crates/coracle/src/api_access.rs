//! The API that the parts of this process are clients of: our own server, without a socket between, or another program's in
//! its place.
//!
//! Towards another server every part has a certificate of its own by the cluster's authority, so that it is the same user with
//! the same rights as towards ours. The certificates last as long as certificates do here and are not renewed: leaving the API
//! server out is for finding out whose fault something is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::ApiServer;
use apiserver::context::Identity;
use base::{Backoff, BackoffPolicy, Clock};
use client::https::{Config, HttpsDoor};
use client::{Client, Door};
use http::Uri;
use meta::{GroupVersionResource, ObjectKey};
use pki::{CertRequest, LiveCertificate, tls};

use crate::control_plane::Authority;
use crate::identity;

const USER_AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));
/// Which every server gives itself.
const EVERYBODY: &str = "system:authenticated";
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(200), Duration::from_secs(5));

pub enum Api {
    Own(Arc<ApiServer>),
    Other(Box<Other>),
}

impl Api {
    /// A way in as `identity`.
    pub fn door(&self, identity: Identity) -> Arc<dyn Door> {
        match self {
            Api::Own(server) => server.door(identity),
            Api::Other(other) => other.door(&identity),
        }
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Api::Own(server) => server.address(),
            Api::Other(other) => other.address,
        }
    }
}

/// Another program that serves the API on this machine.
pub struct Other {
    address: SocketAddr,
    server: Uri,
    authority: Arc<Authority>,
    clock: Clock,
    stranger: rustls::ClientConfig,
}

impl Other {
    pub fn new(address: SocketAddr, authority: Arc<Authority>, clock: &Clock) -> Result<Self> {
        let server = format!("https://{address}").parse().context("cannot name the API server")?;
        let stranger = tls::client_config(&authority.cluster.certificate_pem(), None, clock)?;
        Ok(Other { address, server, authority, clock: clock.clone(), stranger: Arc::unwrap_or_clone(stranger) })
    }

    /// Returns when it answers and has made its first namespaces.
    pub async fn ready(&self) {
        let client = Client::new(self.door(&identity::administrator()));
        let (namespaces, last) = (GroupVersionResource::new("", "v1", "namespaces"), ObjectKey::new("", "kube-public"));
        let mut backoff = Backoff::new(RETRY);
        while let Err(status) = client.get_object(&namespaces, &last).await {
            tracing::info!(server = %self.server, error = %status, "waiting for the API server that is not ours");
            self.clock.sleep(backoff.next(self.clock.instant())).await;
        }
    }

    fn door(&self, identity: &Identity) -> Arc<dyn Door> {
        let tls = self.tls(identity).unwrap_or_else(|error| {
            // The server refuses whoever has no name, and says so to whoever asks.
            tracing::error!(user = %identity.name, %error, "no certificate for a part of this process");
            self.stranger.clone()
        });
        let (server, user_agent) = (self.server.clone(), USER_AGENT.to_string());
        Arc::new(HttpsDoor::new(Config { server, tls, token: None, user_agent }))
    }

    fn tls(&self, identity: &Identity) -> Result<rustls::ClientConfig> {
        let cluster = &self.authority.cluster;
        let certificate = LiveCertificate::new(&cluster.issue(&wanted(identity), &self.clock)?)?;
        Ok(Arc::unwrap_or_clone(tls::client_config(&cluster.certificate_pem(), Some(certificate), &self.clock)?))
    }
}

fn wanted(identity: &Identity) -> CertRequest {
    let groups: Vec<&str> = identity.groups.iter().map(|group| &**group).filter(|group| *group != EVERYBODY).collect();
    CertRequest::client(&identity.name, &groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_same_user_towards_another_server() {
        let clock = Clock::system();
        let authority = pki::Authority::generate("test", &clock).unwrap();
        let issued = authority.issue(&wanted(&identity::controller("job-controller")), &clock).unwrap();
        let facts = issued.facts().unwrap();
        assert_eq!(facts.common_name, "system:serviceaccount:kube-system:job-controller");
        assert_eq!(facts.organizations, ["system:serviceaccounts", "system:serviceaccounts:kube-system"]);
    }
}

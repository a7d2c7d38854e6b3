//! The server put together: registry, authenticators, authorizers, chain, listener.
//!
//! Order matters in one place only: the registry answers reviews, which need the authenticators and authorizers, which read
//! from the registry. The reader between them is told its registry last.

#[cfg(test)]
mod lab;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use base::{Clock, Tasks};
use bytes::Bytes;
use client::Door;
use meta::Status;
use tokio::net::TcpListener;

use crate::authn::Authentication;
use crate::authn::bootstrap_token::BootstrapTokens;
use crate::authn::remembered::Remembered;
use crate::authn::service_account::{ServiceAccounts, Verifier};
use crate::authz::node::NodeAuthorizer;
use crate::authz::rbac::Rbac;
use crate::authz::{Authorizer, HealthPaths, Privileged, Union, feed};
use crate::chain::Front;
use crate::context::Identity;
use crate::discovery::Documents;
use crate::door::InProcess;
use crate::flow::Flow;
use crate::health::{Concerns, Health};
use crate::http::listen;
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::reader::RegistryReader;
use crate::registry::{self, Registry};
use crate::reviews;

/// What a server is made of. Everything that touches keys comes ready made from `pki`.
pub struct Config {
    /// Where it is served. Who connects before it is waits.
    pub listener: TcpListener,
    /// The serving certificate, and the authority that client certificates are checked against.
    pub tls: Arc<rustls::ServerConfig>,
    /// Our client certificate towards node agents, and the authority that theirs are checked against.
    pub node_tls: Arc<rustls::ClientConfig>,
    /// Checks service account tokens.
    pub verifier: Arc<dyn Verifier>,
    /// The issuer's two public documents, as JSON.
    pub openid_configuration: Bytes,
    pub jwks: Bytes,
    /// What the registry needs beyond what is made here.
    pub registry: registry::Config,
    pub clock: Clock,
    pub tasks: Tasks,
}

/// A running server.
pub struct ApiServer {
    front: Arc<Front>,
    address: SocketAddr,
}

impl ApiServer {
    /// Starts everything and returns when requests are answered. Readiness follows when the authorizers have read their
    /// rules.
    pub async fn start(config: Config) -> Result<Arc<Self>, Status> {
        let address = config.listener.local_addr().map_err(Status::internal)?;

        let reader = Arc::new(RegistryReader::default());
        let (rbac, node) = (Arc::new(Rbac::default()), Arc::new(NodeAuthorizer::default()));
        let authorizer: Arc<dyn Authorizer> =
            Arc::new(Union(vec![Arc::new(Privileged), Arc::new(HealthPaths), node.clone(), rbac.clone()]));
        let authentication = Arc::new(authentication(&config, &reader));

        let virtuals = reviews::all(&authentication, &authorizer);
        let (clock, tasks) = (config.clock.clone(), config.tasks.clone());
        let registry =
            Registry::start(config.registry, virtuals, authorizer.clone(), clock.clone(), tasks.clone()).await?;
        reader.bind(registry.clone());
        let indexes = feed::start(&registry, &rbac, &node, &clock, &tasks);

        let rules = indexes.clone();
        let health = Arc::new(Health::default());
        health.add(
            "poststarthook/rbac/bootstrap-roles",
            Concerns::Readiness,
            Arc::new(move || if rules.is_synced() { Ok(()) } else { Err("rules are still being read".into()) }),
        );
        let stopping = tasks.token();
        health.add(
            "shutdown",
            Concerns::Readiness,
            Arc::new(move || if stopping.is_cancelled() { Err("process is shutting down".into()) } else { Ok(()) }),
        );
        let front = Arc::new(Front {
            registry,
            authentication,
            authorizer,
            indexes,
            flow: Flow::default(),
            proxy: Proxy {
                reader,
                node_tls: config.node_tls,
                unverified_tls: pki::tls::unverified_client_config(),
                tasks: tasks.child(),
                allow_loopback: false,
            },
            health,
            metrics: Metrics::new().map_err(Status::internal)?,
            documents: Documents {
                openid_configuration: config.openid_configuration,
                jwks: config.jwks,
                server_address: address.to_string(),
            },
            clock,
            tasks: tasks.clone(),
        });
        listen::serve(config.listener, config.tls, front.clone(), &tasks);
        Ok(Arc::new(ApiServer { front, address }))
    }

    /// Resolves when the authorizers know their rules: what is asked before is refused.
    pub async fn ready(&self) {
        self.front.indexes.synced().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An entrance for a component of this process, under its own identity.
    pub fn door(&self, identity: Identity) -> Arc<dyn Door> {
        Arc::new(InProcess::new(self.front.clone(), identity))
    }

    /// The registry itself, for the server's own bootstrap.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.front.registry
    }

    /// Where components add their health checks.
    pub fn health(&self) -> &Arc<Health> {
        &self.front.health
    }
}

fn authentication(config: &Config, reader: &Arc<RegistryReader>) -> Authentication {
    let clock = config.clock.clone();
    Authentication {
        tokens: vec![
            Arc::new(ServiceAccounts {
                verifier: Arc::new(Remembered::new(config.verifier.clone(), clock.clone())),
                reader: reader.clone(),
                clock: clock.clone(),
            }),
            Arc::new(BootstrapTokens { reader: reader.clone(), clock: clock.clone() }),
        ],
        clock,
    }
}

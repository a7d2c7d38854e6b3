//! `agent`: this machine joins a cluster as a node.
//!
//! ```text
//! token ─▶ discovery: whom to trust ─▶ a certificate as system:node:NAME ─▶ what nodes have to know ─▶ the node
//!            (first start only)          (kept for the next start)
//! ```
//!
//! From there on it is the same node as on the server's own machine, over HTTPS instead of in process. Its serving certificate
//! is asked for once the node is registered, because only then can it be approved; both are renewed in place.

mod certificates;
mod discovery;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::{Backoff, BackoffPolicy, Clock, Tasks};
use client::https::{self, HttpsDoor, TokenSource};
use client::{Client, Informers};
use http::Uri;
use meta::Status;
use pki::bootstrap_token::BootstrapToken;
use pki::{LiveCertificate, tls};

use crate::arguments::AgentArguments;
use crate::cluster_info;
use crate::node::{self, Clients, Ground, Node};
use crate::parts::Part;
use crate::settings::Machine;
use certificates::{Folder, Renewal, ServingCertificate};

const USER_AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));
/// How long a server may stay out of reach while joining; kubeadm's limit.
const JOIN_MAX: Duration = Duration::from_secs(300);
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(200), Duration::from_secs(5));

/// A machine on its way into a cluster.
pub struct Joining {
    machine: Machine,
    server: Uri,
    token: Option<BootstrapToken>,
    clock: Clock,
    tasks: Tasks,
}

impl Joining {
    pub fn new(arguments: &AgentArguments, clock: &Clock, tasks: &Tasks) -> Result<Self> {
        let server = arguments.server.trim_end_matches('/').parse::<Uri>().ok();
        let server =
            server.filter(|uri| uri.scheme_str() == Some("https") && uri.host().is_some() && uri.path() == "/");
        let Some(server) = server else {
            bail!("--server {:?}: write it as https://HOST:6443", arguments.server);
        };
        let token = arguments.node.token.as_deref().map(|text| {
            BootstrapToken::parse(text)
                .context("--token has to look like abcdef.0123456789abcdef; `coracle token` on the server makes one")
        });
        Ok(Joining {
            machine: Machine::new(&arguments.node, Part::OF_NODE)?,
            server,
            token: token.transpose()?,
            clock: clock.clone(),
            tasks: tasks.clone(),
        })
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Returns when the node is registered.
    pub async fn join(&self) -> Result<Node> {
        let folder = Folder::open(&self.machine.data_dir)?;
        let (authority, issued) = match folder.client(&self.machine.name, &self.clock)? {
            Some(kept) => kept,
            None => self.enroll(&folder).await?,
        };
        let live = LiveCertificate::new(&issued)?;
        let client = self.client(&authority, Some(live.clone()), None)?;
        let renewal = Renewal::of_client(&client, &folder, &self.machine);
        live.keep_fresh("kubelet-client", self.clock.clone(), &self.tasks, move || renewal.clone().issue());
        let membership =
            self.retried("reading about the cluster", || cluster_info::read_membership(&client, &authority)).await?;
        let serving = Arc::new(ServingCertificate::default());
        if !self.machine.without.has(Part::Kubelet) {
            serving.keep(Renewal::of_server(&client, &folder, &self.machine), &self.clock, &self.tasks);
        }
        let informers = Informers::new(client.clone(), self.clock.clone(), self.tasks.child());
        let clients = Clients { agent: client, proxy: informers.clone(), dns: informers };
        let ground = Ground::open(&self.machine, &membership, &self.clock, &self.tasks).await?;
        node::start(ground, &self.machine, &membership, clients, serving, &self.clock, &self.tasks).await
    }

    /// The first certificate, by the token.
    async fn enroll(&self, folder: &Folder) -> Result<(String, pki::Issued)> {
        let Some(token) = &self.token else {
            bail!("this machine has not joined yet: give the --token that `coracle token` makes on the server");
        };
        tracing::info!(server = %self.server, node = self.machine.name, "joining");
        let stranger = Client::new(Arc::new(HttpsDoor::new(
            self.config(Arc::unwrap_or_clone(tls::unverified_client_config()), None),
        )));
        let told = self.retried("looking the cluster up", || discovery::look_up(&stranger, token)).await?;
        let authority = cluster_info::verified(&told, token)?.context("the cluster does not sign with this token")?;
        let client = self.client(&authority, None, Some(token.to_string()))?;
        let renewal = Renewal::of_client(&client, folder, &self.machine);
        folder.write_authority(&authority)?;
        let issued = renewal.issue().await.context("cannot get a certificate for this node")?;
        Ok((authority, issued))
    }

    fn client(
        &self,
        authority: &str,
        certificate: Option<Arc<LiveCertificate>>,
        token: Option<String>,
    ) -> Result<Client> {
        let tls = tls::client_config(authority, certificate, &self.clock)?;
        Ok(Client::new(Arc::new(HttpsDoor::new(self.config(Arc::unwrap_or_clone(tls), token)))))
    }

    fn config(&self, tls: rustls::ClientConfig, token: Option<String>) -> https::Config {
        let token = token.map(|token| Arc::new(token) as Arc<dyn TokenSource>);
        https::Config { server: self.server.clone(), tls, token, user_agent: USER_AGENT.to_string() }
    }

    /// Tries until it works or the server has been out of reach for too long: it may be starting just now.
    async fn retried<T, F: Future<Output = Result<T, Status>>>(&self, what: &str, call: impl Fn() -> F) -> Result<T> {
        let started = self.clock.instant();
        let mut backoff = Backoff::new(RETRY);
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(status) if self.clock.instant() - started >= JOIN_MAX => {
                    return Err(status).with_context(|| {
                        let seconds = JOIN_MAX.as_secs();
                        format!(
                            "{what} failed for {seconds} s; is {} the API server, and can it be reached from here?",
                            self.server
                        )
                    });
                }
                Err(status) => {
                    tracing::warn!(server = %self.server, error = %status, "{what} failed, will retry for up to {} s", JOIN_MAX.as_secs());
                    self.clock.sleep(backoff.next(self.clock.instant())).await;
                }
            }
        }
    }
}

//! The control plane put together: keys, store, API server, controllers, scheduler.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::{ApiServer, Config};
use base::{Clock, Tasks, phase};
use client::{Client, Informers};
use controllers::graph::Resource;
use controllers::node_ipam::Range;
use pki::service_account::{DEFAULT_ISSUER, TokenIssuer};
use pki::{Authorities, CertRequest, EncryptionKeys, Kubeconfig, LiveCertificate, tls};
use store::Embedded;
use tokio::net::TcpListener;

use crate::adapters::{ClusterSigner, Secrets, Tokens};
use crate::api_access::{Api, Other};
use crate::identity;
use crate::instance::Unpublished;
use crate::parts::Part;
use crate::settings::{CLUSTER_NAME, Cluster, Machine, admin_kubeconfig};

/// A running control plane.
pub struct ControlPlane {
    pub api: Arc<Api>,
    pub authorities: Arc<Authority>,
}

/// The cluster authority, for whoever needs a certificate of this process.
pub struct Authority {
    pub cluster: pki::Authority,
    clock: Clock,
}

impl Authority {
    /// A live certificate that is renewed for as long as `tasks` run.
    pub fn live(
        self: &Arc<Self>,
        name: &'static str,
        wanted: CertRequest,
        tasks: &Tasks,
    ) -> Result<Arc<LiveCertificate>> {
        let live = LiveCertificate::new(&self.cluster.issue(&wanted, &self.clock)?)?;
        let authority = self.clone();
        live.keep_fresh(name, self.clock.clone(), tasks, move || {
            let (authority, wanted) = (authority.clone(), wanted.clone());
            async move { authority.cluster.issue(&wanted, &authority.clock) }
        });
        Ok(live)
    }
}

/// Starts it, without the parts that the machine leaves out.
pub async fn start(cluster: &Cluster, machine: &Machine, clock: &Clock, tasks: &Tasks) -> Result<ControlPlane> {
    let plane = if machine.without.has(Part::Apiserver) {
        use_api(cluster, machine, clock).await?
    } else {
        serve_api(cluster, machine, clock, tasks).await?
    };
    if !machine.without.has(Part::Controllers) {
        start_controllers(&plane, cluster, clock, tasks)?;
    }
    if !machine.without.has(Part::Scheduler) {
        let client = Client::new(plane.api.door(identity::scheduler()));
        let tasks = tasks.child();
        let informers = Informers::new(client.clone(), clock.clone(), tasks.clone());
        scheduler::start(scheduler::Config { client, informers, clock: clock.clone(), tasks });
    }
    Ok(plane)
}

async fn serve_api(cluster: &Cluster, machine: &Machine, clock: &Clock, tasks: &Tasks) -> Result<ControlPlane> {
    let dir = &machine.data_dir;
    let listener = TcpListener::bind(cluster.listen).await;
    let listener = listener.with_context(|| {
        format!(
            "cannot serve the API on {}; if something else has that address, give another with --listen",
            cluster.listen
        )
    })?;
    let address = listener.local_addr()?;
    let Foundations { keys, encryption, store } =
        phase::of("foundations", lay_foundations(dir, &cluster.local_server(address.port()), clock, tasks)).await?;
    let Keys { authority, issuer, kubeconfig } = keys;
    let config = phase::blocking("certificates", || {
        api_config(cluster, machine, &authority, issuer, store, encryption, listener, clock, tasks)
    })?;
    let server = phase::of("api server", ApiServer::start(config)).await?;
    phase::of("authorization rules", server.ready()).await;
    kubeconfig.publish()?;
    let advertised = SocketAddr::new(machine.address, address.port());
    let published = apiserver::bootstrap::kubernetes_service::publish(server.registry(), advertised);
    let trusted =
        apiserver::bootstrap::client_authority::publish(server.registry(), authority.cluster.certificate_pem());
    // side by side they share a commit
    tokio::try_join!(phase::of("kubernetes service", published), phase::of("client authority", trusted))?;
    Ok(ControlPlane { api: Arc::new(Api::Own(server)), authorities: authority })
}

/// Another program serves the API on `--listen`, with the authority in our data folder.
async fn use_api(cluster: &Cluster, machine: &Machine, clock: &Clock) -> Result<ControlPlane> {
    let ip = if cluster.listen.ip().is_unspecified() { machine.address } else { cluster.listen.ip() };
    let address = SocketAddr::new(ip, cluster.listen.port());
    let Keys { authority, kubeconfig, .. } =
        open_keys(&machine.data_dir, &cluster.local_server(address.port()), clock).await?;
    let other = Other::new(address, authority.clone(), clock)?;
    phase::of("other api server", other.ready()).await;
    kubeconfig.publish()?;
    Ok(ControlPlane { api: Arc::new(Api::Other(Box::new(other))), authorities: authority })
}

/// Who signs, and the administrator's credential.
struct Keys {
    authority: Arc<Authority>,
    issuer: Arc<TokenIssuer>,
    /// To be published once somebody answers.
    kubeconfig: Unpublished,
}

/// Opens or makes them.
async fn open_keys(dir: &Path, server: &str, clock: &Clock) -> Result<Keys> {
    let (dir, server, clock) = (dir.to_path_buf(), server.to_string(), clock.clone());
    let keys = tokio::task::spawn_blocking(move || -> Result<_> {
        let made = || Authorities::load_or_create(&dir.join("pki"), &clock);
        let authorities = phase::blocking("authorities", made).context("cannot set up the authorities")?;
        let issuer = Arc::new(TokenIssuer::new(authorities.token_keys, DEFAULT_ISSUER, clock.clone()));
        let authority = Arc::new(Authority { cluster: authorities.cluster, clock: clock.clone() });
        let write = || write_kubeconfig(&dir, &server, &authority, &clock);
        let kubeconfig = phase::blocking("administrator", write)?;
        Ok(Keys { authority, issuer, kubeconfig })
    });
    keys.await?
}

/// What stands on disk before a server can be made, all of it durable.
struct Foundations {
    keys: Keys,
    encryption: EncryptionKeys,
    store: Arc<Embedded>,
}

/// Opens or makes keys, store and the administrator's credential, side by side: each spends its time waiting for the disk.
/// Meanwhile the tables of kinds are read.
async fn lay_foundations(dir: &Path, server: &str, clock: &Clock, tasks: &Tasks) -> Result<Foundations> {
    let for_keys = dir.join("pki");
    let options = store::Options::new(dir.join("store"), clock.clone(), tasks.child());
    let encryption = tokio::task::spawn_blocking(move || {
        phase::blocking("encryption key", || EncryptionKeys::load_or_create(&for_keys.join("secrets-encryption.key")))
    });
    let store = tokio::task::spawn_blocking(|| phase::blocking("store", || Embedded::open(options)));
    let tables = tokio::task::spawn_blocking(|| phase::blocking("tables of kinds", api::builtin));
    let (keys, (encryption, store, _)) = tokio::try_join!(open_keys(dir, server, clock), async {
        tokio::try_join!(encryption, store, tables).map_err(anyhow::Error::from)
    })?;
    let store = Arc::new(store.context("cannot open the store")?);
    // Their names in the data folder are part of it.
    File::open(dir)?.sync_all()?;
    Ok(Foundations { keys, encryption: encryption?, store })
}

#[expect(clippy::too_many_arguments, reason = "each is one part of the configuration made here")]
fn api_config(
    cluster: &Cluster,
    machine: &Machine,
    authority: &Arc<Authority>,
    issuer: Arc<TokenIssuer>,
    store: Arc<Embedded>,
    encryption: EncryptionKeys,
    listener: TcpListener,
    clock: &Clock,
    tasks: &Tasks,
) -> Result<Config> {
    let serving = authority.live("kube-apiserver", serving_request(cluster, machine), tasks)?;
    let to_nodes = CertRequest::client("kube-apiserver-kubelet-client", &["system:masters"]);
    let to_nodes = authority.live("kube-apiserver-kubelet-client", to_nodes, tasks)?;
    let ca = authority.cluster.certificate_pem();
    let tokens = Tokens(issuer.clone());
    let jwks_uri = format!("https://{}:{}/openid/v1/jwks", machine.address, cluster.listen.port());
    Ok(Config {
        listener,
        tls: tls::server_config(serving, &ca, clock)?,
        node_tls: tls::client_config(&ca, Some(to_nodes), clock)?,
        verifier: Arc::new(tokens.clone()),
        openid_configuration: issuer.openid_configuration(&jwks_uri).to_string().into(),
        jwks: issuer.jwks().to_string().into(),
        registry: apiserver::registry::Config {
            store,
            seal: Some(Arc::new(Secrets(encryption))),
            service_cidrs: cluster.service_cidrs.clone(),
            signer: Some(Arc::new(tokens)),
        },
        clock: clock.clone(),
        tasks: tasks.child(),
    })
}

/// Every name and address under which the API is called.
fn serving_request(cluster: &Cluster, machine: &Machine) -> CertRequest {
    let in_cluster = format!("kubernetes.default.svc.{}", cluster.domain);
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", &in_cluster, "localhost", &machine.name];
    let mut addresses = vec![[127, 0, 0, 1].into(), cluster.api_service_address(), machine.address];
    if !cluster.listen.ip().is_unspecified() {
        addresses.push(cluster.listen.ip());
    }
    CertRequest::server("kube-apiserver", &names, &addresses)
}

fn write_kubeconfig(dir: &Path, server: &str, authority: &Authority, clock: &Clock) -> Result<Unpublished> {
    let administrator = CertRequest::client("kubernetes-admin", &["system:masters"]);
    let credential = authority.cluster.issue(&administrator, clock)?;
    let text = Kubeconfig {
        cluster: CLUSTER_NAME,
        server,
        authority_pem: &authority.cluster.certificate_pem(),
        user: "kubernetes-admin",
        credential: &credential,
    }
    .to_text();
    Unpublished::write(&admin_kubeconfig(dir), &text)
}

fn start_controllers(plane: &ControlPlane, cluster: &Cluster, clock: &Clock, tasks: &Tasks) -> Result<()> {
    let tasks = tasks.child();
    let reader = Client::new(plane.api.door(identity::controller_manager()));
    let api = plane.api.clone();
    let ranges = cluster.pod_cidrs.iter().map(|range| Range::parse(&range.to_string()));
    controllers::start(&controllers::Context {
        informers: Informers::new(reader, clock.clone(), tasks.clone()),
        clock: clock.clone(),
        client_for: Arc::new(move |name| Client::new(api.door(identity::controller(name)))),
        root_ca: plane.authorities.cluster.certificate_pem(),
        resources: resources(),
        signer: Arc::new(ClusterSigner { authority: plane.authorities.clone(), clock: clock.clone() }),
        pod_ranges: ranges.collect::<Result<_, _>>().map_err(anyhow::Error::msg)?,
        tasks,
    });
    Ok(())
}

/// Every kind of object that can be listed, watched and deleted.
fn resources() -> Vec<Resource> {
    let kinds = api::builtin();
    let kept = kinds
        .served_by_default()
        .filter(|kind| kind.stored.is_some() && ["list", "watch", "delete"].iter().all(|verb| kind.has_verb(verb)));
    let resource = |kind: &Arc<api::Kind>| Resource {
        gvr: kind.gvr(),
        kind: kind.kind.to_string(),
        namespaced: kind.namespaced(),
    };
    // One of several versions (or groups) with one storage is enough.
    let mut seen = std::collections::HashSet::new();
    let first = |kind: &&Arc<api::Kind>| seen.insert(kind.stored.as_ref().map(|storage| storage.key_segment.clone()));
    kept.filter(first).map(resource).collect()
}

//! Starting one side on an empty data folder: our server, or etcd and upstream's API server with certificates made here.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use bench_harness::{RoundArguments, Side, Started};
use http::{Method, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tokio::runtime::Runtime;

use crate::session::{Api, Target};

const ADDRESS: &str = "127.0.0.1:6443";
const ETCD: &str = "http://127.0.0.1:2379";
/// etcd's own default is 2 GiB, and Kubernetes' guides raise it to this.
const ETCD_QUOTA_BYTES: &str = "8589934592";

/// The servers of one side. The last one serves the API.
pub struct Running {
    side: Side,
    servers: Vec<Started>,
}

impl Running {
    pub fn start(asked: &RoundArguments) -> Result<Self> {
        let servers = match asked.side {
            Side::Ours => vec![coracle(asked)?],
            Side::Peer => vec![etcd(asked)?, kube_apiserver(asked)?],
        };
        Ok(Self { side: asked.side, servers })
    }

    /// Waits for the API; how to reach it as its administrator.
    pub fn wait_until_ready(&mut self, runtime: &Runtime) -> Result<Target> {
        let side = self.side;
        let mut found = None;
        let server = self.servers.last_mut().context("a side has a server")?;
        server.wait_until(|| {
            found = admin(side).ok().filter(|target| runtime.block_on(is_ready(target)));
            found.is_some()
        })?;
        found.context("the API is ready")
    }

    pub fn pids(&self) -> Vec<i32> {
        self.servers.iter().map(Started::pid).collect()
    }

    /// The end of what each printed.
    pub fn said(&self) -> String {
        self.servers.iter().map(Started::said).collect::<Vec<_>>().join("\n")
    }

    /// Ends the API first.
    pub fn stop(self) -> Result<()> {
        self.servers.into_iter().rev().try_for_each(Started::stop)
    }
}

async fn is_ready(target: &Target) -> bool {
    let Ok(mut api) = Api::connect(target).await else { return false };
    matches!(api.ask(Method::GET, "/readyz", "").await, Ok((StatusCode::OK, _)))
}

fn admin(side: Side) -> Result<Target> {
    let address: SocketAddr = ADDRESS.parse()?;
    match side {
        Side::Ours => {
            let text = std::fs::read_to_string("data/admin.kubeconfig")?;
            let part = |key| embedded(&text, key);
            Target::with_certificate(
                address,
                &part("certificate-authority-data")?,
                &part("client-certificate-data")?,
                &part("client-key-data")?,
            )
        }
        Side::Peer => {
            let part = |name| std::fs::read(Path::new("pki").join(name));
            Target::with_certificate(address, &part("ca.crt")?, &part("admin.crt")?, &part("admin.key")?)
        }
    }
}

/// The base64 text that follows `key`, decoded; the kubeconfig may be YAML or JSON.
fn embedded(kubeconfig: &str, key: &str) -> Result<Vec<u8>> {
    let (_, after) = kubeconfig.split_once(key).with_context(|| format!("the kubeconfig has no {key}"))?;
    let text = after.trim_start_matches(['"', ':', ' ']);
    let end = text.find(['"', '\n', '\r', ' ']).unwrap_or(text.len());
    base64::engine::general_purpose::STANDARD.decode(&text[..end]).with_context(|| format!("decoding {key}"))
}

fn coracle(asked: &RoundArguments) -> Result<Started> {
    Started::start("coracle", asked.coracle()?, |command| {
        command.args(["server", "--without", "scheduler,controllers", "--listen", ADDRESS]);
        command.args(["--node-ip", "127.0.0.1", "--node-name", "bench", "--data-dir"]).arg(asked.scratch().join("data"))
    })
}

fn etcd(asked: &RoundArguments) -> Result<Started> {
    Started::start("etcd", asked.program("etcd")?, |command| {
        command.arg("--data-dir").arg(asked.scratch().join("etcd"));
        command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
        command.args(["--quota-backend-bytes", ETCD_QUOTA_BYTES, "--log-level", "error"])
    })
}

fn kube_apiserver(asked: &RoundArguments) -> Result<Started> {
    let pki = asked.scratch().join("pki");
    make_certificates(&pki).context("making certificates")?;
    Started::start("kube-apiserver", asked.program("kube-apiserver")?, |command| {
        let file = |name: &str| pki.join(name).display().to_string();
        let (host, port) = ADDRESS.split_once(':').unwrap_or_default();
        command.args([
            format!("--etcd-servers={ETCD}"),
            format!("--bind-address={host}"),
            format!("--advertise-address={host}"),
            format!("--secure-port={port}"),
            "--endpoint-reconciler-type=none".into(),
            "--service-cluster-ip-range=10.43.0.0/16".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
        ])
    })
}

/// An authority, a server's certificate, an administrator's, and a key that signs tokens. All ECDSA on P-256.
fn make_certificates(dir: &Path) -> Result<()> {
    std::fs::create_dir(dir)?;
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "kubernetes-ca");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("ca.crt"), authority.self_signed(&authority_key)?.pem())?;
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::default();
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    server.subject_alt_names = vec![SanType::IpAddress(ADDRESS.parse::<SocketAddr>()?.ip())];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut admin = CertificateParams::default();
    admin.distinguished_name.push(DnType::CommonName, "admin");
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (name, wanted) in [("server", server), ("admin", admin)] {
        let key = KeyPair::generate()?;
        std::fs::write(dir.join(name).with_extension("crt"), wanted.signed_by(&key, &issuer)?.pem())?;
        std::fs::write(dir.join(name).with_extension("key"), key.serialize_pem())?;
    }
    let signing = KeyPair::generate()?;
    std::fs::write(dir.join("sa.key"), signing.serialize_pem())?;
    std::fs::write(dir.join("sa.pub"), signing.public_key_pem())?;
    Ok(())
}

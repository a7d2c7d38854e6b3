//! Join tokens: bootstrap token Secrets, as kubeadm makes them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::{Clock, Timestamp};
use client::https::HttpsDoor;
use client::{Client, kubeconfig};
use meta::{GroupVersionKind, GroupVersionResource, Object, time};
use pki::bootstrap_token::BootstrapToken;
use serde_json::json;

use crate::arguments::DataArguments;
use crate::cluster_info;
use crate::control_plane::ControlPlane;
use crate::settings::admin_kubeconfig;
use crate::{identity, run};

/// How long a token lasts that `coracle token` makes; kubeadm's default.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// The token that was given, if one was; refused before anything is started.
pub fn checked(token: Option<&str>) -> Result<Option<BootstrapToken>> {
    let Some(text) = token else { return Ok(None) };
    let token = BootstrapToken::parse(text);
    token.map(Some).context(
        "--token has to look like abcdef.0123456789abcdef: six lower case letters or digits, a dot, sixteen more",
    )
}

/// Has the cluster accept `token`, if one was given. It has no end.
pub async fn provide(plane: &ControlPlane, token: Option<&str>) -> Result<()> {
    let Some(token) = checked(token)? else { return Ok(()) };
    let client = Client::new(plane.api.door(identity::administrator()));
    match client.create_object(&secrets(), secret(&token, None)).await {
        Err(status) if !status.is_already_exists() => Err(status).context("cannot store the join token"),
        _ => Ok(()),
    }
}

/// Makes one and says how to join with it.
pub fn token(arguments: &DataArguments) -> Result<()> {
    let dir = std::path::absolute(&arguments.data_dir)?;
    let path = admin_kubeconfig(&dir);
    if !path.try_exists().unwrap_or(true) {
        bail!("no cluster was started on {}; run this on the server, with its --data-dir", dir.display());
    }
    run::block_on(async move {
        let config = kubeconfig::read(&path, "coracle")
            .context("cannot use the administrator's kubeconfig; run this as root")?;
        let client = Client::new(Arc::new(HttpsDoor::new(config)));
        let description = client.get_object(&cluster_info::config_maps(), &cluster_info::description()).await;
        let description = description.with_context(|| {
            format!("the cluster does not answer; start it with `coracle up` (`coracle status --data-dir {}` tells whether it runs)", dir.display())
        })?;
        let server = cluster_info::server_of(&description).context("cluster-info names no server")?;
        let token = BootstrapToken::generate();
        let expires = Clock::system().now() + LIFE;
        client.create_object(&secrets(), secret(&token, Some(expires))).await.context("cannot store the join token")?;
        println!("Join another machine with (for the next {} hours):", LIFE.as_secs() / 3600);
        println!("  coracle agent --server {server} --token {token}");
        Ok(())
    })
}

fn secrets() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "secrets")
}

fn secret(token: &BootstrapToken, expires: Option<Timestamp>) -> Object {
    let mut secret = Object::new(&GroupVersionKind::new("", "v1", "Secret"));
    secret.set_meta("name", token.secret_name());
    secret.set_meta("namespace", "kube-system");
    secret.set(&["type"], "bootstrap.kubernetes.io/token");
    let mut data = json!({
        "token-id": token.id, "token-secret": token.secret, "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true", "auth-extra-groups": cluster_info::JOINING,
    });
    if let Some(expires) = expires {
        data["expiration"] = time::rfc3339(expires).into();
    }
    secret.set(&["stringData"], data);
    secret
}

//! Join tokens: bootstrap token Secrets, as kubeadm makes them.

use anyhow::{Context, Result, bail};
use client::Client;
use meta::{GroupVersionKind, GroupVersionResource, Object};
use pki::bootstrap_token::BootstrapToken;
use serde_json::json;

use crate::arguments::DataArguments;
use crate::control_plane::ControlPlane;
use crate::identity;

/// Has the cluster accept `token`, if one was given.
pub async fn provide(plane: &ControlPlane, token: Option<&str>) -> Result<()> {
    let Some(text) = token else { return Ok(()) };
    let token = BootstrapToken::parse(text).with_context(
        || "--token has to look like abcdef.0123456789abcdef: six letters or digits, a dot, sixteen more",
    )?;
    let client = Client::new(plane.server.door(identity::administrator()));
    let mut secret = Object::new(&GroupVersionKind::new("", "v1", "Secret"));
    secret.set_meta("name", token.secret_name());
    secret.set_meta("namespace", "kube-system");
    secret.set(&["type"], "bootstrap.kubernetes.io/token");
    secret.set(
        &["stringData"],
        json!({
            "token-id": token.id, "token-secret": token.secret, "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true", "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        }),
    );
    match client.create_object(&GroupVersionResource::new("", "v1", "secrets"), secret).await {
        Err(status) if !status.is_already_exists() => Err(status).context("cannot store the join token"),
        _ => Ok(()),
    }
}

pub fn token(arguments: &DataArguments) -> Result<()> {
    bail!(
        "making join tokens for {} is not built yet; give `coracle up` a token of your own with --token",
        arguments.data_dir.display()
    );
}

//! Whom to trust: the cluster's public description, read from a server that nobody vouches for yet.
//!
//! One GET goes out over TLS that takes any certificate, and carries no credential. The answer is worth nothing until the token's
//! signature on it is verified, which is why this is safe; no other call may ever be made so.

use client::Client;
use meta::{Object, Status};
use pki::bootstrap_token::BootstrapToken;

use crate::cluster_info;

/// The description, once it carries a signature of the token. The signature is not checked here.
pub async fn look_up(client: &Client, token: &BootstrapToken) -> Result<Object, Status> {
    let description = client.get_object(&cluster_info::config_maps(), &cluster_info::description()).await?;
    if description.str_at(&["data", &format!("jws-kubeconfig-{}", token.id)]).is_empty() {
        let why = format!(
            "the cluster does not know the token {} (yet, or any more: `coracle token` on the server makes a new one)",
            token.id
        );
        return Err(Status::unavailable(why));
    }
    Ok(description)
}

//! Who asks: a service account with a token, that may do everything because RBAC says so. And the namespaces it works in.

use anyhow::{Context, Result, bail};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::session::{Api, Target};

/// Where single objects are read and written.
pub const WORK: &str = "bench";
/// Where everything is watched.
pub const WATCHED: &str = "watched";
/// Where there are very many.
pub const MANY: &str = "many";
/// Longer than a round takes.
const TOKEN_S: u64 = 7200;

/// The same API as `admin`'s, asked by the account.
pub async fn make(admin: &Target) -> Result<Target> {
    let mut api = Api::connect(admin).await?;
    for name in [WORK, WATCHED, MANY] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        make_one(&mut api, "/api/v1/namespaces", &namespace).await?;
        // no controller runs that would make the default one, which pods need
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        make_one(&mut api, &format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await?;
    }
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": WORK}]
    });
    make_one(&mut api, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await?;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": TOKEN_S}
    });
    let path = format!("/api/v1/namespaces/{WORK}/serviceaccounts/default/token");
    let answer: Value = serde_json::from_slice(&api.must(Method::POST, &path, request.to_string()).await?)?;
    let target = admin.with_token(answer["status"]["token"].as_str().context("a token")?)?;
    await_permission(&target).await?;
    Ok(target)
}

async fn make_one(api: &mut Api, path: &str, object: &Value) -> Result<()> {
    let (status, answer) = api.ask(Method::POST, path, object.to_string()).await?;
    if !status.is_success() && status != StatusCode::CONFLICT {
        bail!("POST {path} answers {status}: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

/// An authorizer hears of a new binding through its own watch.
async fn await_permission(target: &Target) -> Result<()> {
    const TRIES_MAX: u32 = 500;
    const AGAIN_MS: u64 = 10;
    let mut api = Api::connect(target).await?;
    let mut said = StatusCode::OK;
    for _ in 0..TRIES_MAX {
        said = api.ask(Method::GET, &format!("/api/v1/namespaces/{WORK}/configmaps"), "").await?.0;
        if said.is_success() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(AGAIN_MS)).await;
    }
    bail!("the account is still answered {said}")
}

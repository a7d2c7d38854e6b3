//! The text of a kubeconfig with everything embedded.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::Issued;

/// One cluster, one user, one context.
pub struct Kubeconfig<'a> {
    pub cluster: &'a str,
    /// `https://host:port`
    pub server: &'a str,
    /// The authority that the server's certificate is checked against.
    pub authority_pem: &'a str,
    pub user: &'a str,
    pub credential: &'a Issued,
}

impl Kubeconfig<'_> {
    /// JSON, which is YAML too, so that no name needs quoting rules of its own.
    pub fn to_text(&self) -> String {
        let context = format!("{}@{}", self.user, self.cluster);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.cluster, "cluster": {
                "server": self.server,
                "certificate-authority-data": STANDARD.encode(self.authority_pem),
            }}],
            "users": [{"name": self.user, "user": {
                "client-certificate-data": STANDARD.encode(&self.credential.chain_pem),
                "client-key-data": STANDARD.encode(&self.credential.key_pem),
            }}],
            "contexts": [{"name": context, "context": {"cluster": self.cluster, "user": self.user}}],
            "current-context": context,
            "preferences": {},
        });
        format!("{config:#}\n")
    }
}

//! Reading a kubeconfig: where the API is, whom to trust and who we are.
//!
//! The current context counts. Certificates, keys and tokens may stand in the file or in files it names (relative to it). Programs
//! that would have to be run for a credential, passwords and unverified servers are refused by name.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::sync::Arc;

use crate::https::{Config, TokenSource};

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a kubeconfig: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("{path} asks for {what}, which is not supported: use certificates or a token")]
    Unsupported { path: PathBuf, what: &'static str },
}

type Result<T> = std::result::Result<T, KubeconfigError>;

struct File<'a> {
    path: &'a Path,
    tree: Value,
}

/// The current context of the file at `path`, as settings of an HTTPS door.
pub fn read(path: &Path, user_agent: &str) -> Result<Config> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| KubeconfigError::Read { path: path.to_path_buf(), source })?;
    parse(path, &text, user_agent)
}

fn parse(path: &Path, text: &str, user_agent: &str) -> Result<Config> {
    let tree = api::codec::yaml::one(text);
    let tree = tree.map_err(|error| KubeconfigError::Malformed { path: path.into(), reason: error.to_string() })?;
    let file = File { path, tree: tree.value };
    let current = file.tree["current-context"].as_str().unwrap_or_default();
    let context = file.named("contexts", "context", current)?;
    let name = |field: &str| context[field].as_str().unwrap_or_default();
    let cluster = file.named("clusters", "cluster", name("cluster"))?;
    let user = file.named("users", "user", name("user"))?;
    let server = cluster["server"].as_str().unwrap_or_default();
    let server: http::Uri = server.parse().map_err(|_| file.malformed(format!("server {server:?} is no URL")))?;
    if server.scheme_str() != Some("https") {
        return Err(file.malformed(format!("server {server} is not https")));
    }
    file.refuse(cluster, user)?;
    let token = match (user["token"].as_str(), user["tokenFile"].as_str()) {
        (Some(token), _) => Some(token.to_string()),
        (None, Some(named)) => Some(file.beside(named)?.trim().to_string()),
        (None, None) => None,
    };
    let token = token.map(|token| Arc::new(token) as Arc<dyn TokenSource>);
    Ok(Config { server, tls: file.tls(cluster, user)?, token, user_agent: user_agent.to_string() })
}

impl File<'_> {
    fn malformed(&self, reason: impl ToString) -> KubeconfigError {
        KubeconfigError::Malformed { path: self.path.to_path_buf(), reason: reason.to_string() }
    }

    /// The entry of a list that has the name.
    fn named(&self, list: &str, kind: &str, name: &str) -> Result<&Value> {
        let entries = self.tree[list].as_array().into_iter().flatten();
        let found = entries.into_iter().find(|entry| entry["name"] == name).map(|entry| &entry[kind]);
        found.ok_or_else(|| self.malformed(format!("it has no {kind} called {name:?}")))
    }

    fn refuse(&self, cluster: &Value, user: &Value) -> Result<()> {
        let asked = [
            ("a server whose certificate is not verified", cluster["insecure-skip-tls-verify"] == true),
            ("another server name", cluster["tls-server-name"].is_string()),
            ("a proxy", cluster["proxy-url"].is_string()),
            ("a program that gives the credential", user["exec"].is_object() || user["auth-provider"].is_object()),
            ("a password", user["username"].is_string()),
        ];
        match asked.iter().find(|(_, asked)| *asked) {
            Some((what, _)) => Err(KubeconfigError::Unsupported { path: self.path.to_path_buf(), what }),
            None => Ok(()),
        }
    }

    fn tls(&self, cluster: &Value, user: &Value) -> Result<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let authorities = self.content(cluster, "certificate-authority")?;
        let authorities = authorities.ok_or_else(|| self.malformed("it names no certificate authority"))?;
        for authority in self.certificates(&authorities)? {
            roots.add(authority).map_err(|error| self.malformed(error))?;
        }
        let builder =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| self.malformed(error))?
                .with_root_certificates(roots);
        let (chain, key) = (self.content(user, "client-certificate")?, self.content(user, "client-key")?);
        let (Some(chain), Some(key)) = (chain, key) else { return Ok(builder.with_no_client_auth()) };
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| self.malformed("the client key is no PEM"))?;
        builder.with_client_auth_cert(self.certificates(&chain)?, key).map_err(|error| self.malformed(error))
    }

    fn certificates(&self, pem: &str) -> Result<Vec<CertificateDer<'static>>> {
        let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        read.map_err(|_| self.malformed("a certificate is no PEM"))
    }

    /// What stands under `<field>-data`, or in the file that `field` names.
    fn content(&self, entry: &Value, field: &str) -> Result<Option<String>> {
        let inline = entry[format!("{field}-data")].as_str().filter(|data| !data.is_empty());
        if let Some(data) = inline {
            let text = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            return text.ok_or_else(|| self.malformed(format!("{field}-data is not base64"))).map(Some);
        }
        entry[field].as_str().map(|named| self.beside(named)).transpose()
    }

    fn beside(&self, named: &str) -> Result<String> {
        let path = self.path.parent().unwrap_or(Path::new("")).join(named);
        std::fs::read_to_string(&path).map_err(|source| KubeconfigError::Read { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: &str, user: &str) -> String {
        format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {cluster}}}]\nusers: [{{name: u, user: {user}}}]\n"
        )
    }

    fn refusal(text: &str) -> String {
        parse(Path::new("/nowhere/config"), text, "t").err().expect("a refusal").to_string()
    }

    #[test]
    fn what_is_missing_or_not_supported_is_named() {
        let cases = [
            (String::new(), "no context called \"\""),
            (config("{server: 'http://a'}", "{}"), "is not https"),
            (config("{server: 'https://a'}", "{}"), "names no certificate authority"),
            (config("{server: 'https://a', certificate-authority: none.crt}", "{}"), "cannot read /nowhere/none.crt"),
            (config("{server: 'https://a', certificate-authority-data: '%'}", "{}"), "is not base64"),
            (config("{server: 'https://a', insecure-skip-tls-verify: true}", "{}"), "is not verified"),
            (config("{server: 'https://a'}", "{exec: {command: x}}"), "a program that gives the credential"),
            ("a: [".to_string(), "is not a kubeconfig"),
        ];
        for (text, part) in cases {
            let told = refusal(&text);
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_token_and_its_server_are_read() {
        let text = config("{server: 'https://127.0.0.1:6443', certificate-authority-data: 'LQ=='}", "{token: secret}");
        let read = parse(Path::new("/nowhere/config"), &text, "t").unwrap();
        assert_eq!(read.server.to_string(), "https://127.0.0.1:6443/");
        assert_eq!(read.token.unwrap().token().as_deref(), Some("secret"));
    }
}

//! Talking to registries: which endpoint, by which protocol, as whom, and what it answers in its own words.

use std::{collections::BTreeMap, time::Duration};

use cri::v1::AuthConfig;
use futures::stream::BoxStream;
use oci_client::{
    Client, Reference,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};

use super::{ImageError, manifest, reference::Name};

/// How long a registry may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a registry may be silent in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How registries are reached, by host name as it stands in image names; `*` is for all others.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Registries {
    /// Endpoints to try before the registry itself, in this order.
    #[serde(default)]
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// Hosts (with port) spoken to without TLS. Loopback is always.
    #[serde(default)]
    pub plain_http: Vec<String>,
    /// Further certificate authorities, PEM.
    #[serde(default)]
    pub authorities: Vec<String>,
}

/// An endpoint that serves another registry's images.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Mirror {
    /// Host and port.
    pub host: String,
    /// Spoken to without TLS.
    #[serde(default)]
    pub plain_http: bool,
}

/// One endpoint that may have the image.
pub struct Endpoint {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
}

impl Registries {
    /// Where `name` may be found, mirrors first.
    ///
    /// The node agent chose the credentials by the registry in the name, and upstream's runtimes use them with every endpoint
    /// that the machine's owner configured for that registry: a mirror of a private registry asks as it does. They are sent
    /// only when an endpoint asks who is there; a ready-made token cannot wait for the question and goes to the registry alone.
    pub fn endpoints(&self, name: &Name, auth: Option<&AuthConfig>) -> Result<Vec<Endpoint>, ImageError> {
        let registry = name.registry();
        let mirrors = self.mirrors.get(registry).or_else(|| self.mirrors.get("*"));
        let mut endpoints = Vec::new();
        let given = credentials(auth)?;
        let server = auth.map(|auth| auth.server_address.as_str()).unwrap_or_default();
        for mirror in mirrors.into_iter().flatten() {
            let auth = match &given {
                RegistryAuth::Basic(..) if is_for(server, &mirror.host) => given.clone(),
                _ => RegistryAuth::Anonymous,
            };
            let mut reference = name.reference().clone();
            reference.set_mirror_registry(mirror.host.clone());
            let client = self.client(&mirror.host, mirror.plain_http)?;
            endpoints.push(Endpoint { client, reference, auth });
        }
        let host = name.reference().resolve_registry();
        let client = self.client(host, self.is_plain(registry))?;
        let auth = if is_for(server, host) || is_for(server, registry) { given } else { RegistryAuth::Anonymous };
        endpoints.push(Endpoint { client, reference: name.reference().clone(), auth });
        Ok(endpoints)
    }

    fn is_plain(&self, host: &str) -> bool {
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        self.plain_http.iter().any(|plain| plain == host) || matches!(bare, "localhost" | "127.0.0.1" | "[::1]")
    }

    fn client(&self, host: &str, plain_http: bool) -> Result<Client, ImageError> {
        let authority =
            |pem: &String| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone().into_bytes() };
        let config = ClientConfig {
            protocol: if plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: self.authorities.iter().map(authority).collect(),
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: "coracle",
            ..Default::default()
        };
        Client::try_from(config)
            .map_err(|error| ImageError::Registry { reference: host.to_owned(), words: error.to_string() })
    }
}

/// Whether credentials for `server` may go to `host`: any may where no server is named, as in what the node agent sends.
fn is_for(server: &str, host: &str) -> bool {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    server.is_empty() || bare.split('/').next() == Some(host)
}

/// CRI's forms of credentials as the client's.
fn credentials(auth: Option<&AuthConfig>) -> Result<RegistryAuth, ImageError> {
    use base64::Engine;
    let Some(auth) = auth else { return Ok(RegistryAuth::Anonymous) };
    if !auth.registry_token.is_empty() {
        return Ok(RegistryAuth::Bearer(auth.registry_token.clone()));
    }
    if !auth.username.is_empty() {
        return Ok(RegistryAuth::Basic(auth.username.clone(), auth.password.clone()));
    }
    if !auth.auth.is_empty() {
        let invalid = || ImageError::Reference("auth config is not base64 of user:password".into());
        let bytes = base64::engine::general_purpose::STANDARD.decode(&auth.auth).map_err(|_| invalid())?;
        let text = String::from_utf8(bytes).map_err(|_| invalid())?;
        let (user, password) = text.split_once(':').ok_or_else(invalid)?;
        return Ok(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()));
    }
    if !auth.identity_token.is_empty() {
        return Err(ImageError::Reference("identity tokens are not supported yet".into()));
    }
    Ok(RegistryAuth::Anonymous)
}

impl Endpoint {
    /// The manifest or index under this endpoint's name, or under `digest`.
    pub async fn document(&self, digest: Option<&str>) -> Result<Vec<u8>, ImageError> {
        let reference = match digest {
            Some(digest) => self.reference.clone_with_digest(digest.to_owned()),
            None => self.reference.clone(),
        };
        let (bytes, received) = self
            .client
            .pull_manifest_raw(&reference, &self.auth, manifest::ACCEPTED)
            .await
            .map_err(|error| self.explain(error))?;
        let wanted = digest.or(reference.digest()).unwrap_or(&received);
        if manifest::digest(&bytes) != wanted {
            return Err(ImageError::Corrupt(format!("manifest does not match its digest {wanted}")));
        }
        Ok(bytes.to_vec())
    }

    /// A blob as it comes; whoever reads it to the end without an error has what the digest says.
    pub async fn blob(
        &self,
        descriptor: &manifest::Descriptor,
    ) -> Result<BoxStream<'static, std::io::Result<bytes::Bytes>>, ImageError> {
        let wanted = OciDescriptor {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
            ..Default::default()
        };
        let sized = self.client.pull_blob_stream(&self.reference, &wanted).await;
        Ok(sized.map_err(|error| self.explain(error))?.stream)
    }

    /// The registry's own words where it had some, and upstream's phrases where users know them.
    fn explain(&self, error: OciDistributionError) -> ImageError {
        let reference = self.reference.whole();
        let words = match error {
            OciDistributionError::ImageManifestNotFoundError(_) => return ImageError::NotFound(reference),
            OciDistributionError::RegistryError { envelope, .. } => {
                let errors: Vec<_> = envelope.errors.iter().map(|error| (code(&error.code), &error.message)).collect();
                if errors.iter().any(|(code, _)| matches!(code.as_str(), "manifest unknown" | "name unknown")) {
                    return ImageError::NotFound(reference);
                }
                errors.iter().map(|(code, message)| format!("{code}: {message}")).collect::<Vec<_>>().join("; ")
            }
            OciDistributionError::ServerError { code: 404, .. } => return ImageError::NotFound(reference),
            OciDistributionError::ServerError { code, message, .. } => {
                format!("unexpected status code {code}: {}", message.trim())
            }
            OciDistributionError::UnauthorizedError { .. } => denied("authorization failed: no basic auth credentials"),
            OciDistributionError::AuthenticationFailure(words) => denied(&format!("server message: {}", words.trim())),
            OciDistributionError::RequestError(error) => chain(&error),
            other => other.to_string(),
        };
        ImageError::Registry { reference, words }
    }
}

fn denied(why: &str) -> String {
    format!("pull access denied, repository does not exist or may require authorization: {why}")
}

/// A registry's error code as it words it, in lower case.
fn code(code: &oci_client::errors::OciErrorCode) -> String {
    let name = serde_json::to_value(code).ok().and_then(|value| value.as_str().map(str::to_owned));
    name.unwrap_or_else(|| "unknown".into()).to_ascii_lowercase().replace('_', " ")
}

/// An error and its causes; the client's own text hides that the connection was refused.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    words.dedup();
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_three_forms() {
        let auth = |change: fn(&mut AuthConfig)| {
            let mut auth = AuthConfig::default();
            change(&mut auth);
            credentials(Some(&auth)).unwrap()
        };
        let basic = RegistryAuth::Basic("ann".into(), "pw".into());
        assert_eq!(
            auth(|auth| {
                auth.username = "ann".into();
                auth.password = "pw".into();
            }),
            basic
        );
        assert_eq!(auth(|auth| auth.auth = "YW5uOnB3".into()), basic);
        assert_eq!(auth(|auth| auth.registry_token = "t".into()), RegistryAuth::Bearer("t".into()));
        assert_eq!(auth(|_| {}), RegistryAuth::Anonymous);
    }

    #[test]
    fn mirrors_come_first_and_are_told_who_asks_unless_the_credentials_are_for_another_server() {
        let registries = Registries {
            mirrors: [("docker.io".to_owned(), vec![Mirror { host: "m:5000".into(), plain_http: true }])].into(),
            ..Default::default()
        };
        let basic = AuthConfig { username: "ann".into(), ..Default::default() };
        let for_server = |server: &str| AuthConfig { server_address: server.into(), ..basic.clone() };
        let token = AuthConfig { registry_token: "t".into(), ..Default::default() };
        for (auth, mirror, registry) in [
            (basic.clone(), true, true),
            (token, false, true),
            (for_server("http://m:5000"), true, false),
            (for_server("https://index.docker.io/v1/"), false, true),
            (for_server("docker.io"), false, true),
            (for_server("elsewhere.example"), false, false),
        ] {
            let endpoints = registries.endpoints(&Name::parse("busybox").unwrap(), Some(&auth)).unwrap();
            let told: Vec<_> = endpoints
                .iter()
                .map(|endpoint| (endpoint.reference.resolve_registry(), endpoint.auth != RegistryAuth::Anonymous))
                .collect();
            assert_eq!(told, [("m:5000", mirror), ("index.docker.io", registry)], "{auth:?}");
        }
    }
}

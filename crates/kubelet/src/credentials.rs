//! Registry credentials from pull secrets.

use base64::Engine;
use cri::v1::AuthConfig;
use serde_json::Value;

use crate::references::Payload;

/// The credentials in a secret that fit an image's registry, the most specific first.
pub fn for_image(secret: &Payload, image: &str) -> Vec<AuthConfig> {
    let repository = repository(image);
    let mut fitting: Vec<(usize, AuthConfig)> = entries(secret)
        .into_iter()
        .filter(|(server, _)| fits(server, &repository))
        .map(|(server, auth)| (server.len(), auth))
        .collect();
    fitting.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    fitting.into_iter().map(|(_, auth)| auth).collect()
}

/// `host/path` of an image, with Docker Hub's host where there is none.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    };
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_string(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

/// A server of a credentials file as `host` or `host/path`.
fn normalized(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_string(),
        other => other.to_string(),
    }
}

/// Whether the server's host (with `*` for whole labels) and path lead to the repository.
fn fits(server: &str, repository: &str) -> bool {
    let (host, path) = server.split_once('/').unwrap_or((server, ""));
    let (image_host, image_path) = repository.split_once('/').unwrap_or((repository, ""));
    let (wanted, given): (Vec<_>, Vec<_>) = (host.split('.').collect(), image_host.split('.').collect());
    let hosts_match = wanted.len() == given.len()
        && wanted.iter().zip(&given).all(|(wanted, given)| match wanted.split_once('*') {
            None => wanted == given,
            Some((before, after)) => {
                given.len() >= before.len() + after.len() && given.starts_with(before) && given.ends_with(after)
            }
        });
    hosts_match && image_path.starts_with(path)
}

fn entries(secret: &Payload) -> Vec<(String, AuthConfig)> {
    let parse = |key: &str| secret.data.get(key).and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    let auths = match parse(".dockerconfigjson") {
        Some(config) => config.get("auths").cloned(),
        None => parse(".dockercfg"),
    };
    let Some(Value::Object(auths)) = auths else { return Vec::new() };
    auths.iter().map(|(server, entry)| (normalized(server), auth(entry))).collect()
}

fn auth(entry: &Value) -> AuthConfig {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
    let mut made = AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        ..AuthConfig::default()
    };
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((username, password)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        made.username = username.to_string();
        made.password = password.trim_end_matches('\0').to_string();
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Data;

    fn secret(json: &str) -> Payload {
        let data = Data::from([(".dockerconfigjson".to_string(), json.as_bytes().to_vec())]);
        Payload { data, secret_type: "kubernetes.io/dockerconfigjson".into() }
    }

    #[test]
    fn credentials_go_to_the_registries_they_are_for() {
        let secret = secret(
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aHViOnB3"}, "registry.example:5000": {"username": "u", "password": "p"},
                "registry.example:5000/team": {"username": "t"}, "*.cloud.example": {"username": "c"}}}"#,
        );
        for (image, expected) in [
            ("busybox:1.36", vec!["hub"]),
            ("library/busybox", vec!["hub"]),
            ("registry.example:5000/x/y:1", vec!["u"]),
            ("registry.example:5000/team/y@sha256:00", vec!["t", "u"]),
            ("a.cloud.example/x", vec!["c"]),
            ("a.b.cloud.example/x", vec![]),
            ("other.example/x", vec![]),
        ] {
            let names: Vec<String> = for_image(&secret, image).into_iter().map(|auth| auth.username).collect();
            assert_eq!(names, expected, "{image}");
        }
    }
}

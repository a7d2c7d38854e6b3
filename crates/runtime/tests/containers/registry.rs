//! A registry that does as it is told: one image under every name and the tags `1.0`, `1` and `3.10`, over plain HTTP on loopback.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use base64::Engine;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::image::Blobs;

#[derive(Clone, Default)]
pub struct Behaviour {
    /// Wants a token, which is given for these credentials.
    pub token: Option<&'static str>,
    /// Answers everything with 503.
    pub down: bool,
    /// Answers manifests with DENIED and these words.
    pub denied: Option<&'static str>,
}

pub struct Registry {
    pub address: String,
    pub manifest: String,
    log: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Served {
    address: String,
    blobs: Blobs,
    behaviour: Behaviour,
    log: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    pub async fn start(blobs: Blobs, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let manifest = blobs.manifest.clone();
        let served = Arc::new(Served { address: address.clone(), blobs, behaviour, log: log.clone() });
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let served = served.clone();
                let service = service_fn(move |request| {
                    let served = served.clone();
                    async move { Ok::<_, Infallible>(served.answer(&request)) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service),
                );
            }
        });
        Registry { address, manifest, log, task }
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn answer(status: StatusCode, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).unwrap()
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    answer(status, &[], serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string())
}

impl Served {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        self.log.lock().unwrap().push(path.to_owned());
        let authorization =
            request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if self.behaviour.down {
            return answer(StatusCode::SERVICE_UNAVAILABLE, &[], "try later");
        }
        if let Some(credentials) = self.behaviour.token {
            if path == "/token" {
                let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials));
                return match authorization == basic {
                    true => answer(StatusCode::OK, &[], r#"{"token":"t0ken","expires_in":300}"#),
                    false => answer(StatusCode::UNAUTHORIZED, &[], "who are you"),
                };
            }
            if authorization != "Bearer t0ken" {
                let challenge = format!("Bearer realm=\"http://{}/token\",service=\"test\"", self.address);
                return answer(StatusCode::UNAUTHORIZED, &[("www-authenticate", &challenge)], "");
            }
        }
        if path == "/v2/" {
            return answer(StatusCode::OK, &[], "{}");
        }
        let (kind, name) = match path.rsplit('/').collect::<Vec<_>>()[..] {
            [name, kind, ..] => (kind, name),
            _ => ("", ""),
        };
        match kind {
            "manifests" => self.manifest(name),
            "blobs" => match self.blobs.by_digest.get(name) {
                Some(bytes) => answer(StatusCode::OK, &[], bytes.clone()),
                None => error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry"),
            },
            _ => error(StatusCode::NOT_FOUND, "UNSUPPORTED", "what"),
        }
    }

    fn manifest(&self, name: &str) -> Response<Full<Bytes>> {
        if let Some(words) = self.behaviour.denied {
            return error(StatusCode::FORBIDDEN, "DENIED", words);
        }
        let digest = &self.blobs.manifest;
        if !["1.0", "1", "3.10", digest].contains(&name) {
            return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
        }
        let headers = [
            ("content-type", "application/vnd.oci.image.manifest.v1+json"),
            ("docker-content-digest", digest.as_str()),
        ];
        answer(StatusCode::OK, &headers, self.blobs.by_digest[digest].clone())
    }
}

//! `/healthz`, `/livez` and `/readyz`: is it alive, and may it be sent requests.
//!
//! Each endpoint is a list of named checks. A check is looked up, never run against the outside: whoever does the work
//! reports in, and asking costs nothing.

use std::fmt::Write;
use std::sync::Arc;

use http::StatusCode;
use parking_lot::RwLock;

use crate::http::query::Query;
use crate::http::{Response, text};

/// Answers with why it is not well, or nothing.
pub type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Which endpoints ask a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// Life and readiness.
    Both,
    /// Readiness only: it will pass, no restart is needed.
    Readiness,
}

struct Check {
    name: &'static str,
    concerns: Concerns,
    probe: Probe,
}

/// All checks of a server.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Check>>,
}

impl Health {
    pub fn add(&self, name: &'static str, concerns: Concerns, probe: Probe) {
        self.checks.write().push(Check { name, concerns, probe });
    }

    /// Whether everything that readiness asks is well.
    pub fn is_ready(&self) -> bool {
        self.checks.read().iter().all(|check| (check.probe)().is_ok())
    }

    /// Answers a path below `/healthz`, `/livez` or `/readyz`; none for any other path.
    pub fn answer(&self, path: &str, query: &Query) -> Option<Response> {
        let (endpoint, rest) = ["healthz", "livez", "readyz"]
            .into_iter()
            .find_map(|endpoint| Some((endpoint, path.strip_prefix('/')?.strip_prefix(endpoint)?)))?;
        match rest {
            "" | "/" => Some(self.all(endpoint, query)),
            _ => self.one(rest.strip_prefix('/')?),
        }
    }

    fn one(&self, name: &str) -> Option<Response> {
        if name == "ping" {
            return Some(text(StatusCode::OK, "ok"));
        }
        let checks = self.checks.read();
        let check = checks.iter().find(|check| check.name == name)?;
        Some(match (check.probe)() {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        })
    }

    fn all(&self, endpoint: &str, query: &Query) -> Response {
        let mut failed = Vec::new();
        let mut told = String::from("[+]ping ok\n");
        let excluded: Vec<&str> = query.all("exclude").flat_map(|value| value.split(',')).collect();
        for check in self.checks.read().iter() {
            if check.concerns == Concerns::Readiness && endpoint != "readyz" {
                continue;
            }
            // Writing to a String cannot fail.
            let _ = match (excluded.contains(&check.name), (check.probe)()) {
                (true, _) => writeln!(told, "[+]{} excluded: ok", check.name),
                (false, Ok(())) => writeln!(told, "[+]{} ok", check.name),
                (false, Err(why)) => {
                    tracing::debug!(check = check.name, why, "health check failed");
                    failed.push(check.name);
                    writeln!(told, "[-]{} failed: reason withheld", check.name)
                }
            };
        }
        if !failed.is_empty() {
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{told}{endpoint} check failed\n"));
        }
        match query.first("verbose") {
            Some(_) => text(StatusCode::OK, format!("{told}{endpoint} check passed\n")),
            None => text(StatusCode::OK, "ok"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn ask(health: &Health, path: &str, query: &str) -> Option<(u16, String)> {
        let response = health.answer(path, &Query::parse(query))?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Some((code, String::from_utf8(body.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn readiness_waits_for_checks_that_life_does_not() {
        let health = Health::default();
        health.add("etcd", Concerns::Both, Arc::new(|| Ok(())));
        health.add("rbac", Concerns::Readiness, Arc::new(|| Err("not synced".into())));
        assert_eq!(ask(&health, "/livez", "").await, Some((200, "ok".into())));
        assert_eq!(
            ask(&health, "/livez", "verbose").await,
            Some((200, "[+]ping ok\n[+]etcd ok\nlivez check passed\n".into()))
        );
        let (code, told) = ask(&health, "/readyz", "").await.unwrap();
        assert_eq!(code, 500);
        assert!(told.contains("[-]rbac failed: reason withheld\nreadyz check failed"), "{told}");
        assert_eq!(ask(&health, "/readyz", "exclude=rbac").await, Some((200, "ok".into())));
        assert_eq!(ask(&health, "/readyz/etcd", "").await, Some((200, "ok".into())));
        assert_eq!(ask(&health, "/readyz/none", "").await, None);
        assert_eq!(ask(&health, "/healthzy", "").await, None);
    }
}

//! Service account tokens: signature and dates are checked by whoever holds the key, life by us.
//!
//! A token is bound to its service account and often to a pod, a node or a secret. Each of them must still exist, with the
//! uid that the token names, and must not have been deleted for longer than the leeway in which a terminating pod still works.

use std::sync::Arc;

use async_trait::async_trait;
use base::Clock;
use meta::{GroupResource, ObjectKey};

use super::{Authenticated, TokenAuthenticator};
use crate::context::Identity;
use crate::reader::{Reader, Stamp};

/// How long a deleted object's tokens still work: its owner may be winding down.
const DELETION_LEEWAY_SECONDS: i64 = 60;

/// A named object with its uid, as a claim has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    pub name: String,
    pub uid: String,
}

/// What a token with a good signature says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub id: String,
    pub namespace: String,
    pub service_account: Bound,
    pub pod: Option<Bound>,
    pub node: Option<Bound>,
    pub secret: Option<Bound>,
    /// The audiences that both the token and the asker name.
    pub audiences: Vec<String>,
}

/// Checks signature, issuer, dates and audiences. `Ok(None)` for a token that is not of this issuer.
pub trait Verifier: Send + Sync + 'static {
    fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Claims>, String>;
}

pub struct ServiceAccounts {
    pub verifier: Arc<dyn Verifier>,
    pub reader: Arc<dyn Reader>,
    pub clock: Clock,
}

#[async_trait]
impl TokenAuthenticator for ServiceAccounts {
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<Authenticated>, String> {
        let Some(claims) = self.verifier.verify(token, audiences)? else { return Ok(None) };
        self.check_account(&claims).await?;
        self.check_bound("secrets", "secret", &claims.namespace, claims.secret.as_ref()).await?;
        self.check_bound("pods", "pod", &claims.namespace, claims.pod.as_ref()).await?;
        self.check_bound("nodes", "node", "", claims.node.as_ref().filter(|_| claims.pod.is_none())).await?;
        Ok(Some(Authenticated { identity: identity(&claims), audiences: claims.audiences }))
    }
}

impl ServiceAccounts {
    async fn check_account(&self, claims: &Claims) -> Result<(), String> {
        let (namespace, account) = (&claims.namespace, &claims.service_account);
        let Some(stamp) = self.stamp("serviceaccounts", namespace, &account.name).await? else {
            return Err(format!("serviceaccounts {:?} not found", account.name));
        };
        if self.is_long_gone(&stamp) {
            return Err(format!("service account {namespace}/{} has been deleted", account.name));
        }
        if stamp.uid != account.uid {
            return Err(format!("service account UID ({}) does not match claim ({})", stamp.uid, account.uid));
        }
        Ok(())
    }

    async fn check_bound(
        &self,
        resource: &str,
        what: &str,
        namespace: &str,
        bound: Option<&Bound>,
    ) -> Result<(), String> {
        let Some(bound) = bound else { return Ok(()) };
        let stamp = self.stamp(resource, namespace, &bound.name).await?;
        match stamp {
            Some(stamp) if !self.is_long_gone(&stamp) && stamp.uid == bound.uid => Ok(()),
            Some(stamp) if stamp.uid != bound.uid => Err(format!(
                "{what} UID ({}) does not match service account {what} ref claim ({})",
                stamp.uid, bound.uid
            )),
            _ => Err("service account token has been invalidated".into()),
        }
    }

    async fn stamp(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Stamp>, String> {
        let key = ObjectKey::new(namespace, name);
        self.reader.stamp(&GroupResource::new("", resource), &key).await.map_err(|status| status.message)
    }

    fn is_long_gone(&self, stamp: &Stamp) -> bool {
        stamp
            .deletion_timestamp
            .is_some_and(|deleted| self.clock.now().as_second() - deleted.as_second() > DELETION_LEEWAY_SECONDS)
    }
}

fn identity(claims: &Claims) -> Identity {
    let (namespace, account) = (&claims.namespace, &claims.service_account);
    let name = format!("system:serviceaccount:{namespace}:{}", account.name);
    let group = format!("system:serviceaccounts:{namespace}");
    let mut identity = Identity::new(&name, &["system:serviceaccounts", &group]);
    identity.uid = account.uid.as_str().into();
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            identity.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_string()]);
        }
    };
    if !claims.id.is_empty() {
        tell("credential-id", &format!("JTI={}", claims.id));
    }
    for (kind, bound) in [("pod", &claims.pod), ("node", &claims.node)] {
        if let Some(bound) = bound {
            tell(&format!("{kind}-name"), &bound.name);
            tell(&format!("{kind}-uid"), &bound.uid);
        }
    }
    identity
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::fake::FakeReader;
    use serde_json::json;

    struct Fixed(Claims);

    impl Verifier for Fixed {
        fn verify(&self, token: &str, _audiences: &[String]) -> Result<Option<Claims>, String> {
            Ok((token == "good").then(|| self.0.clone()))
        }
    }

    fn bound(name: &str, uid: &str) -> Bound {
        Bound { name: name.into(), uid: uid.into() }
    }

    fn accounts(pod_uid: &str, deleted: Option<&str>) -> ServiceAccounts {
        let claims = Claims {
            id: "j".into(),
            namespace: "a".into(),
            service_account: bound("s", "su"),
            pod: Some(bound("p", pod_uid)),
            ..Claims::default()
        };
        let reader = FakeReader::default()
            .with("", "serviceaccounts", json!({"metadata": {"name": "s", "namespace": "a", "uid": "su"}}))
            .with(
                "",
                "pods",
                json!({"metadata": {"name": "p", "namespace": "a", "uid": "pu", "deletionTimestamp": deleted}}),
            );
        let clock = Clock::simulated("2026-01-01T00:02:00Z".parse().unwrap());
        ServiceAccounts { verifier: Arc::new(Fixed(claims)), reader: Arc::new(reader), clock }
    }

    #[tokio::test]
    async fn a_token_lives_as_long_as_what_it_is_bound_to() {
        let found = accounts("pu", None).authenticate("good", &[]).await.unwrap().unwrap();
        assert_eq!(&*found.identity.name, "system:serviceaccount:a:s");
        assert_eq!(found.identity.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        assert_eq!(found.identity.extra["authentication.kubernetes.io/credential-id"], ["JTI=j"]);
        assert_eq!(accounts("pu", None).authenticate("other", &[]).await, Ok(None));
        assert!(accounts("pu", Some("2026-01-01T00:01:30Z")).authenticate("good", &[]).await.is_ok());
        assert_eq!(
            accounts("pu", Some("2026-01-01T00:00:30Z")).authenticate("good", &[]).await.unwrap_err(),
            "service account token has been invalidated"
        );
        assert_eq!(
            accounts("other", None).authenticate("good", &[]).await.unwrap_err(),
            "pod UID (pu) does not match service account pod ref claim (other)"
        );
    }
}

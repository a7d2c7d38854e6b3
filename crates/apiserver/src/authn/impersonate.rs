//! Acting as someone else: the `Impersonate-*` headers.
//!
//! Each thing that is taken on (a user, each group, a uid, each extra value) is a question of its own to authorization, asked
//! as the real user. The answer replaces the identity for the rest of the chain.

use std::collections::BTreeMap;

use http::HeaderMap;
use meta::Status;
use meta::quote::quoted;

use super::{ANONYMOUS_USER, AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP};
use crate::authz::forbidden::forbidden;
use crate::authz::{Attributes, Authorizer, Decision};
use crate::context::Identity;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// The identity that the request asks to act under; none when it does not ask.
pub fn impersonate(
    user: &Identity,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
) -> Result<Option<Identity>, Status> {
    let first = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = first(USER);
    let groups: Vec<&str> = headers.get_all(GROUP).iter().filter_map(|value| value.to_str().ok()).collect();
    let extra = extra_values(headers);
    let uid = first(UID);
    if name.is_empty() {
        if groups.is_empty() && extra.is_empty() && uid.is_empty() {
            return Ok(None);
        }
        return Err(Status::bad_request(nobody(uid, &groups, &extra)));
    }
    let ask = |attributes: Attributes<'_>| match authorizer.authorize(&attributes) {
        (Decision::Allow, _) => Ok(()),
        (_, reason) => Err(forbidden(&attributes, &reason)),
    };
    let acting = |group, resource| Attributes { version: "", ..Attributes::on(user, "impersonate", group, resource) };
    let account = name.strip_prefix(SERVICE_ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, name)) => ask(Attributes { namespace, name, version: "v1", ..acting("", "serviceaccounts") })?,
        None => ask(Attributes { name, version: "v1", ..acting("", "users") })?,
    }
    for group in &groups {
        ask(Attributes { name: group, version: "v1", ..acting("", "groups") })?;
    }
    for (key, value) in &extra {
        let userextras = acting("authentication.k8s.io", "userextras");
        ask(Attributes { name: value, subresource: key, version: "v1", ..userextras })?;
    }
    if !uid.is_empty() {
        ask(Attributes { name: uid, version: "v1", ..acting("authentication.k8s.io", "uids") })?;
    }
    let mut identity = Identity { name: name.into(), uid: uid.into(), ..Identity::default() };
    identity.groups = groups.iter().map(|group| (*group).into()).collect();
    if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
        identity.groups.push("system:serviceaccounts".into());
        identity.groups.push(format!("system:serviceaccounts:{namespace}").into());
    }
    for (key, value) in extra {
        identity.extra.entry(key).or_default().push(value);
    }
    add_everybody(&mut identity);
    Ok(Some(identity))
}

/// The refusal of a request that asks for all but a user, with what it asks for as Go prints it.
fn nobody(uid: &str, groups: &[&str], extra: &[(String, String)]) -> String {
    let list = |values: &[&str]| {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        format!("[]string{{{}}}", values.join(", "))
    };
    let groups = if groups.is_empty() { "[]string(nil)".to_string() } else { list(groups) };
    let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in extra {
        by_key.entry(key).or_default().push(value);
    }
    let pairs: Vec<String> = by_key.iter().map(|(key, values)| format!("{}:{}", quoted(key), list(values))).collect();
    let extra = if pairs.is_empty() { "(nil)".to_string() } else { format!("{{{}}}", pairs.join(", ")) };
    let uid = quoted(uid);
    format!(
        "requested &user.DefaultInfo{{Name:\"\", UID:{uid}, Groups:{groups}, Extra:map[string][]string{extra}}} without impersonating a user name"
    )
}

/// Adds the group of all authenticated (or, for the anonymous user, all unauthenticated) unless one of them was asked for.
fn add_everybody(identity: &mut Identity) {
    let asked = |name: &str| identity.groups.iter().any(|group| &**group == name);
    if &*identity.name == ANONYMOUS_USER {
        if !asked(UNAUTHENTICATED_GROUP) {
            identity.groups.push(UNAUTHENTICATED_GROUP.into());
        }
    } else if !asked(AUTHENTICATED_GROUP) && !asked(UNAUTHENTICATED_GROUP) {
        identity.groups.push(AUTHENTICATED_GROUP.into());
    }
}

fn extra_values(headers: &HeaderMap) -> Vec<(String, String)> {
    let named = headers.iter().filter_map(|(name, value)| {
        let key = name.as_str().strip_prefix(EXTRA_PREFIX)?;
        let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().to_lowercase();
        Some((key, value.to_str().ok()?.to_string()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Privileged;

    fn user(groups: &[&str]) -> Identity {
        let groups = groups.iter().map(|group| (*group).into()).collect();
        Identity { name: "boss".into(), groups, ..Identity::default() }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn takes_on_user_and_groups_when_allowed() {
        let boss = user(&["system:masters"]);
        let as_account =
            headers(&[("impersonate-user", "system:serviceaccount:a:s"), ("impersonate-extra-scopes", "x")]);
        let identity = impersonate(&boss, &as_account, &Privileged).unwrap().unwrap();
        let groups: Vec<String> = identity.groups.iter().map(|group| group.to_string()).collect();
        assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        assert_eq!(identity.extra["scopes"], ["x"]);
        assert_eq!(impersonate(&boss, &headers(&[]), &Privileged), Ok(None));
    }

    #[test]
    fn refuses_without_permission_or_user() {
        let nobody = user(&[]);
        let status = impersonate(&nobody, &headers(&[("impersonate-user", "x")]), &Privileged).unwrap_err();
        assert_eq!(
            status.message,
            r#"users "x" is forbidden: User "boss" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        assert_eq!(impersonate(&nobody, &headers(&[("impersonate-group", "g")]), &Privileged).unwrap_err().code, 400);
    }
}

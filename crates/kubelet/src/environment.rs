//! The environment of a container, in upstream's order and precedence.
//!
//! ```text
//! service variables  <  envFrom (in order)  <  env (in order, each may name earlier ones as $(NAME))
//! ```
//!
//! Everything is read through [`Sources`], so the whole is a pure function of the spec and what the sources answer. What is
//! missing becomes the message of `CreateContainerConfigError`.

pub mod expansion;
pub mod fields;
pub mod services;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod};

use crate::pod;
use fields::Node;

/// The data of a ConfigMap or a Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Where values come from. A source that does not exist is `Ok(None)`; the error is one of reading.
pub trait Sources {
    fn config_map(&self, name: &str) -> Result<Option<Data>, String>;
    fn secret(&self, name: &str) -> Result<Option<Data>, String>;
}

/// The environment as name and value, in the order in which names first appeared.
pub fn make(
    pod: &Pod,
    container: &Container,
    node: &Node<'_>,
    service_variables: Vec<(String, String)>,
    sources: &dyn Sources,
) -> Result<Vec<(String, String)>, String> {
    let mut made = Environment::default();
    for from in container.env_from.iter().flatten() {
        add_all(&mut made, from, sources)?;
    }
    let mut own = Environment::default();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => {
                let lookup = |name: &str| {
                    let found = own.get(name).or_else(|| made.get(name)).map(String::from);
                    found.or_else(|| {
                        service_variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
                    })
                };
                expansion::expand(variable.value.as_deref().unwrap_or_default(), lookup)
            }
            Some(source) => match value_from(pod, container, source, node, sources)? {
                Some(value) => value,
                None => continue,
            },
        };
        own.set(&variable.name, value);
    }
    for (name, value) in own.0 {
        made.set(&name, value);
    }
    for (name, value) in service_variables {
        if made.get(&name).is_none() {
            made.set(&name, value);
        }
    }
    Ok(made.0)
}

/// Names and values, each name once.
#[derive(Default)]
struct Environment(Vec<(String, String)>);

impl Environment {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.to_string(), value)),
        }
    }
}

fn add_all(made: &mut Environment, from: &EnvFromSource, sources: &dyn Sources) -> Result<(), String> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let (kind, name, optional, data) = if let Some(map) = &from.config_map_ref {
        ("configmap", &map.name, map.optional, sources.config_map(&map.name)?)
    } else if let Some(secret) = &from.secret_ref {
        ("secret", &secret.name, secret.optional, sources.secret(&secret.name)?)
    } else {
        return Ok(());
    };
    match data {
        Some(data) => {
            for (key, value) in data {
                made.set(&format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
            }
            Ok(())
        }
        None if optional == Some(true) => Ok(()),
        None => Err(format!("{kind} {name:?} not found")),
    }
}

/// None when an optional source is missing: the variable is not set.
fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    node: &Node<'_>,
    sources: &dyn Sources,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return fields::pod_field(pod, &field.field_path, node).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return fields::resource_field(pod, resource, Some(container), node).map(Some);
    }
    let (kind, lower, name, key, optional, data) = if let Some(map) = &source.config_map_key_ref {
        ("ConfigMap", "configmap", &map.name, &map.key, map.optional, sources.config_map(&map.name)?)
    } else if let Some(secret) = &source.secret_key_ref {
        ("Secret", "secret", &secret.name, &secret.key, secret.optional, sources.secret(&secret.name)?)
    } else if source.file_key_ref.is_some() {
        return Err("environment variables from files are not supported yet".to_string());
    } else {
        return Ok(Some(String::new()));
    };
    let optional = optional == Some(true);
    let Some(data) = data else {
        return if optional { Ok(None) } else { Err(format!("{lower} {name:?} not found")) };
    };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => Err(format!("couldn't find key {key} in {kind} {}/{name}", pod::namespace(pod))),
    }
}

#[cfg(test)]
mod tests;

//! Which objects lead to which node, through the pods bound to it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use meta::{GroupResource, Object, ObjectKey};
use parking_lot::RwLock;

use super::references::{Reference, claims_of_volume, references_of_pod};

/// The graph. Its writers are the pod and volume watches.
#[derive(Default)]
pub struct NodeGraph {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    /// pod -> the node it is bound to and what it refers to
    pods: HashMap<ObjectKey, (Arc<str>, Vec<Reference>)>,
    /// node -> referred thing -> how many pods refer to it
    needed: HashMap<Arc<str>, HashMap<Reference, usize>>,
    /// volume -> its claim and the secrets it needs
    volumes: HashMap<Arc<str>, (ObjectKey, HashSet<Reference>)>,
    /// claim -> its volume
    volume_of_claim: HashMap<ObjectKey, Arc<str>>,
    /// certificate request -> the node that it is for
    certificate_requests: HashMap<ObjectKey, Arc<str>>,
}

impl NodeGraph {
    /// Takes a pod as it now is. One that is bound to no node leads nowhere.
    pub fn put_pod(&self, pod: &Object) {
        let key = pod.key();
        let node = pod.str_at(&["spec", "nodeName"]);
        if node.is_empty() {
            return self.remove_pod(&key);
        }
        let references = references_of_pod(pod);
        let mut inner = self.inner.write();
        inner.remove_pod(&key);
        let node: Arc<str> = node.into();
        let needed = inner.needed.entry(node.clone()).or_default();
        for reference in &references {
            *needed.entry(reference.clone()).or_default() += 1;
        }
        inner.pods.insert(key, (node, references));
    }

    pub fn remove_pod(&self, key: &ObjectKey) {
        self.inner.write().remove_pod(key);
    }

    /// Takes a PersistentVolume as it now is.
    pub fn put_volume(&self, volume: &Object) {
        let name: Arc<str> = volume.name().into();
        self.remove_volume(&name);
        let Some((claim, secrets)) = claims_of_volume(volume) else { return };
        let mut inner = self.inner.write();
        inner.volume_of_claim.insert(claim.clone(), name.clone());
        inner.volumes.insert(name, (claim, secrets));
    }

    pub fn remove_volume(&self, name: &str) {
        let mut inner = self.inner.write();
        if let Some((claim, _)) = inner.volumes.remove(name)
            && inner.volume_of_claim.get(&claim).is_some_and(|volume| &**volume == name)
        {
            inner.volume_of_claim.remove(&claim);
        }
    }

    /// Takes a PodCertificateRequest as it now is.
    pub fn put_certificate_request(&self, request: &Object) {
        let node = request.str_at(&["spec", "nodeName"]).into();
        self.inner.write().certificate_requests.insert(request.key(), node);
    }

    pub fn remove_certificate_request(&self, key: &ObjectKey) {
        self.inner.write().certificate_requests.remove(key);
    }

    /// Whether a pod on `node` needs the object.
    pub fn leads_to(&self, node: &str, resource: &GroupResource, namespace: &str, name: &str) -> bool {
        let inner = self.inner.read();
        let key = ObjectKey::new(namespace, name);
        if (&*resource.group, &*resource.resource) == ("certificates.k8s.io", "podcertificaterequests") {
            return inner.certificate_requests.get(&key).is_some_and(|of| &**of == node);
        }
        let Some(needed) = inner.needed.get(node) else { return false };
        let wanted = match (&*resource.group, &*resource.resource) {
            ("", "pods") => return inner.pods.get(&key).is_some_and(|(on, _)| &**on == node),
            ("", "persistentvolumes") => {
                let claim = inner.volumes.get(name).map(|(claim, _)| claim.clone());
                return claim.is_some_and(|claim| needed.contains_key(&Reference::Claim(claim)));
            }
            ("", "secrets") => Reference::Secret(key),
            ("", "configmaps") => Reference::ConfigMap(key),
            ("", "persistentvolumeclaims") => Reference::Claim(key),
            ("", "serviceaccounts") => Reference::ServiceAccount(key),
            ("resource.k8s.io", "resourceclaims") => Reference::ResourceClaim(key),
            _ => return false,
        };
        needed.contains_key(&wanted) || inner.through_a_volume(needed, &wanted)
    }
}

impl Inner {
    fn remove_pod(&mut self, key: &ObjectKey) {
        let Some((node, references)) = self.pods.remove(key) else { return };
        let Some(needed) = self.needed.get_mut(&node) else { return };
        for reference in references {
            if let Some(count) = needed.get_mut(&reference) {
                *count -= 1;
                if *count == 0 {
                    needed.remove(&reference);
                }
            }
        }
        if needed.is_empty() {
            self.needed.remove(&node);
        }
    }

    /// Secrets that a volume's driver needs count as needed by the pods that use its claim.
    fn through_a_volume(&self, needed: &HashMap<Reference, usize>, wanted: &Reference) -> bool {
        matches!(wanted, Reference::Secret(_))
            && self.volumes.values().any(|(claim, secrets)| {
                secrets.contains(wanted) && needed.contains_key(&Reference::Claim(claim.clone()))
            })
    }
}

//! Between codec and store: what is encrypted at rest.
//!
//! Secrets are sealed under a key of this cluster, with the store's key as associated data, so that a value copied to another
//! place cannot be read there. Everything else passes through. What was stored unsealed is read as it is and sealed with its
//! next write.

use std::sync::Arc;

use api::Kind;
use bytes::Bytes;
use meta::Status;
use store::Key;

/// How every value sealed by upstream or by us begins.
const SEALED_PREFIX: &[u8] = b"k8s:enc:";

/// Seals and opens values.
pub trait Seal: Send + Sync + 'static {
    fn seal(&self, plain: &[u8], associated: &[u8]) -> Result<Vec<u8>, String>;
    fn open(&self, sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, String>;
}

/// See the module.
#[derive(Default)]
pub struct Transformer {
    seal: Option<Arc<dyn Seal>>,
}

impl Transformer {
    /// Without a seal nothing is encrypted.
    pub fn new(seal: Option<Arc<dyn Seal>>) -> Self {
        Transformer { seal }
    }

    pub fn seal(&self, kind: &Kind, key: &Key, plain: Bytes) -> Result<Bytes, Status> {
        match &self.seal {
            Some(seal) if is_secret(kind) => {
                let sealed = seal.seal(&plain, key.as_bytes());
                sealed.map(Bytes::from).map_err(|error| Status::internal(format!("cannot encrypt: {error}")))
            }
            _ => Ok(plain),
        }
    }

    pub fn open(&self, kind: &Kind, key: &Key, stored: &Bytes) -> Result<Bytes, Status> {
        if !is_secret(kind) || !stored.starts_with(SEALED_PREFIX) {
            return Ok(stored.clone());
        }
        let Some(seal) = &self.seal else { return Err(Status::internal("the value is encrypted and there is no key")) };
        let opened = seal.open(stored, key.as_bytes());
        opened.map(Bytes::from).map_err(|error| Status::internal(format!("cannot decrypt: {error}")))
    }
}

fn is_secret(kind: &Kind) -> bool {
    kind.group.is_empty() && &*kind.plural == "secrets"
}

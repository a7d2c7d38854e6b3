//! The folder of a cluster's authorities and token keys, made on the first start.
//!
//! ```text
//! ca.crt  ca.key                            cluster authority: servers, clients, nodes
//! front-proxy-ca.crt  front-proxy-ca.key    who may speak for users towards the API server
//! sa.key                                    signs service account tokens; further keys in the file only verify
//! ```
//!
//! The names are kubeadm's, so that either can be carried over.

use std::path::Path;

use base::Clock;

use crate::folder::Content;
use crate::{Authority, PkiError, Result, TokenKeys, folder};

const CLUSTER_COMMON_NAME: &str = "kubernetes-ca";
const FRONT_PROXY_COMMON_NAME: &str = "front-proxy-ca";
const TOKEN_KEYS: &str = "sa.key";
const PUBLIC: u32 = 0o644;
pub(crate) const PRIVATE: u32 = 0o600;

/// See the module.
pub struct Authorities {
    pub cluster: Authority,
    pub front_proxy: Authority,
    pub token_keys: TokenKeys,
}

impl Authorities {
    /// Reads the folder; makes what is not there yet. Takes a few milliseconds.
    ///
    /// # Errors
    /// A file cannot be read, or a key is gone while its certificate is there: a new one would cut off everybody who trusts
    /// the old, so that is left to a person.
    pub fn load_or_create(dir: &Path, clock: &Clock) -> Result<Self> {
        folder::create(dir)?;
        // Keys come before certificates, see `folder::write` and `PkiError::Missing`.
        let (mut keys, mut certificates) = (Vec::new(), Vec::new());
        let mut authority = |file: &str, common_name: &str| {
            let (certificate_name, key_name) = (format!("{file}.crt"), format!("{file}.key"));
            let key_path = dir.join(&key_name);
            match (folder::read(&dir.join(&certificate_name))?, folder::read(&key_path)?) {
                (Some(certificate), Some(key)) => Authority::from_pem(&certificate, &key),
                (Some(_), None) => Err(PkiError::Missing { path: key_path }),
                // A key alone is what a first start leaves that was cut short: nothing was signed with it.
                (None, _) => {
                    let made = Authority::generate(common_name, clock)?;
                    keys.push(Content { name: key_name, text: made.key_pem(), mode: PRIVATE });
                    certificates.push(Content { name: certificate_name, text: made.certificate_pem(), mode: PUBLIC });
                    Ok(made)
                }
            }
        };
        let cluster = authority("ca", CLUSTER_COMMON_NAME)?;
        let front_proxy = authority("front-proxy-ca", FRONT_PROXY_COMMON_NAME)?;
        let token_keys = match folder::read(&dir.join(TOKEN_KEYS))? {
            Some(text) => TokenKeys::from_pem(&text)?,
            None => {
                let made = TokenKeys::generate()?;
                keys.push(Content { name: TOKEN_KEYS.to_string(), text: made.to_pem(), mode: PRIVATE });
                made
            }
        };
        keys.extend(certificates);
        if !keys.is_empty() {
            folder::write(dir, &keys)?;
        }
        Ok(Authorities { cluster, front_proxy, token_keys })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_same_authorities_come_back_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("pki");
        let clock = Clock::system();
        let first = Authorities::load_or_create(&dir, &clock).unwrap();
        let second = Authorities::load_or_create(&dir, &clock).unwrap();
        assert_eq!(first.cluster.certificate_pem(), second.cluster.certificate_pem());
        assert_eq!(first.front_proxy.certificate_pem(), second.front_proxy.certificate_pem());
        assert_eq!(first.token_keys.to_pem(), second.token_keys.to_pem());
        for (file, mode) in [("ca.key", 0o600), ("front-proxy-ca.key", 0o600), ("sa.key", 0o600), ("ca.crt", 0o644)] {
            let found = std::fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{file}");
        }
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_lost_key_is_not_replaced_but_a_first_start_cut_short_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        Authorities::load_or_create(dir.path(), &clock).unwrap();
        let key = std::fs::read(dir.path().join("ca.key")).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = Authorities::load_or_create(dir.path(), &clock).err().unwrap();
        assert!(matches!(&error, PkiError::Missing { path } if path.ends_with("ca.key")), "{error}");

        std::fs::write(dir.path().join("ca.key"), key).unwrap();
        std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
        std::fs::write(dir.path().join("ca.crt.new"), "left by a crash").unwrap();
        Authorities::load_or_create(dir.path(), &clock).unwrap();
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        Authorities::load_or_create(dir.path(), &clock).unwrap();
        std::fs::copy(dir.path().join("front-proxy-ca.key"), dir.path().join("ca.key")).unwrap();
        let error = Authorities::load_or_create(dir.path(), &clock).err().unwrap();
        assert_eq!(error.to_string(), "not a valid authority: the key is not the certificate's");
    }
}

//! Secrets at rest: AES-256-GCM, in upstream's format.
//!
//! ```text
//! k8s:enc:aesgcm:v1:<key name>:  nonce (12 bytes)  ciphertext and tag
//! ```
//!
//! What is associated (the store's key) is sealed in: a value moved to another key does not open. The first key of the file
//! encrypts, all decrypt, so a new key is put in front and old values are rewritten as they come by.
//!
//! Nonces are random; one key is good for 2^32 writes.

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base::chance;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::authorities::PRIVATE;
use crate::{PkiError, Result, folder};

const PREFIX: &[u8] = b"k8s:enc:aesgcm:v1:";
const KEY_BYTES: usize = 32;
const FIRST_KEY: &str = "key1";

/// The keys, the one that encrypts first.
pub struct EncryptionKeys(Vec<NamedKey>);

struct NamedKey {
    name: String,
    key: LessSafeKey,
}

/// What was in an envelope.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    pub plain: Vec<u8>,
    /// Sealed with a key that is no longer the first: write it again.
    pub is_stale: bool,
}

impl EncryptionKeys {
    /// Reads the file (lines of `name:base64`); makes one with a new key when there is none.
    pub fn load_or_create(path: &Path) -> Result<Self> {
        if let Some(text) = folder::read(path)? {
            return Self::parse(&text);
        }
        let mut key = [0; KEY_BYTES];
        chance::fill(&mut key);
        let text = format!("{FIRST_KEY}:{}\n", STANDARD.encode(key));
        let keys = Self::parse(&text)?;
        let no_file = || PkiError::malformed("encryption key file", "its path names no file");
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(no_file)?.to_string();
        let dir = path.parent().ok_or_else(no_file)?;
        folder::create(dir)?;
        folder::write(dir, &[folder::Content { name, text, mode: PRIVATE }])?;
        Ok(keys)
    }

    /// From the file's text.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = |reason: &str| PkiError::malformed("encryption key file", reason);
        let key = |line: &str| {
            let (name, key) = line.split_once(':').ok_or_else(|| malformed("a line is not name:key"))?;
            let bytes = STANDARD.decode(key.trim()).map_err(|error| malformed(&error.to_string()))?;
            let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| malformed("a key is not of 32 bytes"))?;
            Ok(NamedKey { name: name.to_string(), key: LessSafeKey::new(key) })
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<NamedKey> = lines.map(key).collect::<Result<_>>()?;
        if keys.is_empty() { Err(malformed("no key in it")) } else { Ok(EncryptionKeys(keys)) }
    }

    /// Whether the bytes are an envelope at all.
    pub fn is_sealed(bytes: &[u8]) -> bool {
        bytes.starts_with(PREFIX)
    }

    /// Encrypts for `associated`.
    pub fn seal(&self, plain: &[u8], associated: &[u8]) -> Result<Vec<u8>> {
        let NamedKey { name, key } = &self.0[0];
        let mut nonce = [0; NONCE_LEN];
        chance::fill(&mut nonce);
        let mut text = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated), &mut text)
            .map_err(|_| PkiError::Crypto("cannot encrypt"))?;
        Ok([PREFIX, name.as_bytes(), b":", &nonce, &text].concat())
    }

    /// Decrypts what was sealed for `associated`.
    pub fn open(&self, sealed: &[u8], associated: &[u8]) -> Result<Opened> {
        let rest = sealed.strip_prefix(PREFIX).ok_or(PkiError::Undecryptable("it is not in our format"))?;
        let found = self.0.iter().enumerate().find_map(|(index, named)| {
            let body = rest.strip_prefix(named.name.as_bytes())?.strip_prefix(b":")?;
            Some((index, &named.key, body))
        });
        let (index, key, body) = found.ok_or(PkiError::Undecryptable("its key is not in the key file"))?;
        let (nonce, text) = body.split_at_checked(NONCE_LEN).ok_or(PkiError::Undecryptable("it is cut short"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| PkiError::Undecryptable("it is cut short"))?;
        let mut text = text.to_vec();
        let plain = key
            .open_in_place(nonce, Aad::from(associated), &mut text)
            .map_err(|_| PkiError::Undecryptable("it was changed, or belongs to another key of the store"))?
            .len();
        text.truncate(plain);
        Ok(Opened { plain: text, is_stale: index > 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(lines: &[(&str, u8)]) -> EncryptionKeys {
        let line = |(name, fill): &(&str, u8)| format!("{name}:{}\n", STANDARD.encode([*fill; KEY_BYTES]));
        EncryptionKeys::parse(&lines.iter().map(line).collect::<String>()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_only_unchanged_and_in_its_place() {
        let keys = keys(&[("key1", 1)]);
        let sealed = keys.seal(b"password", b"/registry/secrets/a/b").unwrap();
        assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:key1:") && EncryptionKeys::is_sealed(&sealed));
        assert!(!sealed.windows(8).any(|window| window == b"password"));
        let opened = keys.open(&sealed, b"/registry/secrets/a/b").unwrap();
        assert_eq!(opened, Opened { plain: b"password".to_vec(), is_stale: false });
        assert!(keys.open(&sealed, b"/registry/secrets/a/c").is_err(), "moved");
        for at in PREFIX.len() + 5..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keys.open(&changed, b"/registry/secrets/a/b").is_err(), "byte {at} changed");
        }
        for length in 0..sealed.len() {
            assert!(keys.open(&sealed[..length], b"/registry/secrets/a/b").is_err(), "cut to {length}");
        }
        assert_ne!(keys.seal(b"password", b"/k").unwrap(), keys.seal(b"password", b"/k").unwrap(), "nonces differ");
    }

    #[test]
    fn keys_rotate() {
        let old = keys(&[("key1", 1)]).seal(b"x", b"/k").unwrap();
        let both = keys(&[("key2", 2), ("key1", 1)]);
        assert_eq!(both.open(&old, b"/k").unwrap(), Opened { plain: b"x".to_vec(), is_stale: true });
        let new = both.seal(b"x", b"/k").unwrap();
        assert!(!both.open(&new, b"/k").unwrap().is_stale);
        assert!(keys(&[("key1", 1)]).open(&new, b"/k").is_err());
        assert!(keys(&[("key1", 3)]).open(&old, b"/k").is_err(), "same name, other key");
    }

    #[test]
    fn the_key_file_is_made_once_and_bad_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("encryption.keys");
        let sealed = EncryptionKeys::load_or_create(&path).unwrap().seal(b"x", b"/k").unwrap();
        assert!(EncryptionKeys::load_or_create(&path).unwrap().open(&sealed, b"/k").is_ok());
        for bad in ["", "# nothing\n", "key1", "key1:AAAA", "key1:*"] {
            assert!(EncryptionKeys::parse(bad).is_err(), "{bad}");
        }
    }

    /// Made with Go's crypto/aes and crypto/cipher as upstream's transformer does it: key 32 x 0x07, nonce 0..11.
    #[test]
    fn opens_what_another_implementation_sealed() {
        let sealed = [b"k8s:enc:aesgcm:v1:key1:".as_slice(), &GO_SEALED].concat();
        let opened = keys(&[("key1", 7)]).open(&sealed, b"/registry/secrets/default/x").unwrap();
        assert_eq!(opened.plain, b"from upstream");
    }

    const GO_SEALED: [u8; 41] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 126, 243, 134, 29, 61, 124, 169, 58, 3, 192, 128, 253, 143, 113, 233,
        130, 82, 174, 116, 49, 112, 27, 44, 95, 129, 129, 158, 26, 216,
    ];
}

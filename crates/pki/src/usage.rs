//! What a certificate may be used for, in the words of the CertificateSigningRequest API.

/// Words of `spec.usages` that set a bit of the key usage extension (RFC 5280, section 4.2.1.3).
const KEY_USAGES: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Words that add to the extended key usage extension.
const EXTENDED_KEY_USAGES: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

/// A word that is not in the API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized usage {0:?}")]
pub struct UnknownUsage(pub String);

/// A set of usages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usages {
    /// Bit numbers of the key usage extension.
    pub(crate) key: Vec<u8>,
    pub(crate) extended: Vec<&'static [u64]>,
}

impl Usages {
    /// From words such as `digital signature` and `client auth`.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownUsage> {
        let mut usages = Usages { key: Vec::new(), extended: Vec::new() };
        for word in words {
            if let Some((_, bit)) = KEY_USAGES.iter().find(|(known, _)| *known == word) {
                usages.key.push(*bit);
            } else if let Some((_, oid)) = EXTENDED_KEY_USAGES.iter().find(|(known, _)| *known == word) {
                usages.extended.push(oid);
            } else {
                return Err(UnknownUsage(word.to_string()));
            }
        }
        usages.key.sort_unstable();
        usages.key.dedup();
        usages.extended.sort_unstable();
        usages.extended.dedup();
        Ok(usages)
    }

    /// A server's: digital signature, key encipherment, server auth.
    pub fn server() -> Self {
        Usages { key: vec![0, 2], extended: vec![EXTENDED_KEY_USAGES[1].1] }
    }

    /// A client's: digital signature, key encipherment, client auth.
    pub fn client() -> Self {
        Usages { key: vec![0, 2], extended: vec![EXTENDED_KEY_USAGES[2].1] }
    }

    /// An authority's: digital signature, key encipherment, cert sign.
    pub(crate) fn authority() -> Self {
        Usages { key: vec![0, 2, 5], extended: Vec::new() }
    }
}

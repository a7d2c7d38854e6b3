//! Bootstrap tokens: `abcdef.0123456789abcdef`, an id that may be seen and a secret that may not.

use aws_lc_rs::hmac;
use base::chance;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

const ID_LETTERS: usize = 6;
const SECRET_LETTERS: usize = 16;
const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A bootstrap token.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    pub id: String,
    pub secret: String,
}

impl BootstrapToken {
    /// A new one at random.
    pub fn generate() -> Self {
        BootstrapToken { id: letters(ID_LETTERS), secret: letters(SECRET_LETTERS) }
    }

    /// None when the text does not look like one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        let fits = |part: &str, length| part.len() == length && part.bytes().all(|letter| LETTERS.contains(&letter));
        let token = || BootstrapToken { id: id.to_string(), secret: secret.to_string() };
        (fits(id, ID_LETTERS) && fits(secret, SECRET_LETTERS)).then(token)
    }

    /// A detached JSON Web Signature (HS256) of the content: `header..signature`. Proves to whoever has the token that the
    /// content comes from somebody who has it too.
    pub fn sign(&self, content: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": self.id}).to_string());
        let signature = hmac::sign(&self.hmac_key(), signing_input(&header, content).as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether the detached signature is one of the content with this token's secret.
    pub fn verifies(&self, signature: &str, content: &str) -> bool {
        let Some((header, signature)) = signature.split_once("..") else { return false };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        hmac::verify(&self.hmac_key(), signing_input(header, content).as_bytes(), &signature).is_ok()
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes())
    }

    /// The name of the Secret in `kube-system` that holds it.
    pub fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.id)
    }
}

impl std::fmt::Display for BootstrapToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl std::fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.<secret>", self.id)
    }
}

/// What is signed: the header and the content, as if the content stood between the dots.
fn signing_input(header: &str, content: &str) -> String {
    format!("{header}.{}", URL_SAFE_NO_PAD.encode(content))
}

/// Letters from the kernel-seeded generator, each as likely as any other.
fn letters(count: usize) -> String {
    (0..count).map(|_| char::from(LETTERS[chance::below(LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_hides_its_secret() {
        let token = BootstrapToken::generate();
        assert_eq!(BootstrapToken::parse(&token.to_string()), Some(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        for wrong in
            ["", "abcdef", "abcdef.", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "abcde.0123456789abcdef0"]
        {
            assert_eq!(BootstrapToken::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_token_and_its_content_only() {
        let (token, other) = (BootstrapToken::generate(), BootstrapToken::generate());
        let signature = token.sign("content");
        assert!(token.verifies(&signature, "content"));
        assert!(!token.verifies(&signature, "Content") && !other.verifies(&signature, "content"));
        for wrong in ["", "..", "a.b.c", &signature.replace("..", "."), &signature[..signature.len() - 4]] {
            assert!(!token.verifies(wrong, "content"), "{wrong}");
        }
    }

    #[test]
    fn signatures_are_those_of_other_implementations() {
        // HMAC-SHA256 of `base64url({"alg":"HS256","kid":"joshua"}).base64url(Hello)` with the key `my secret`.
        let token = BootstrapToken { id: "joshua".into(), secret: "my secret".into() };
        let expected = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..2GVso8vGnQTb8DcHCLqZg4SYx3NJrhyyqB2ZZIZI1rQ";
        assert_eq!(token.sign("Hello"), expected);
    }
}

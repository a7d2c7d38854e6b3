//! Bootstrap tokens: `abcdef.0123456789abcdef`, an id that may be seen and a secret that may not.

use base::chance;

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
}

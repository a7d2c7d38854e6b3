//! Tokens whose signature was found good a moment ago: checking one costs more than all else that a small request does.
//!
//! Remembered is only what the token itself says, for as long as upstream's server does. Whether the account, and what the
//! token is bound to, still live is looked up for every request as before ([`super::service_account`]). Tokens themselves are
//! not kept, only their digests; refusals are not remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use base::Clock;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::service_account::{Claims, Verifier};

/// How long a good signature is believed, as upstream's success time to live.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most tokens at one time; beyond it, others are checked each time.
const TOKENS_MAX: usize = 16_384;

type Digest = [u8; SHA256_OUTPUT_LEN];

/// A verifier that asks another one and remembers its good answers.
pub struct Remembered {
    verifier: Arc<dyn Verifier>,
    clock: Clock,
    /// What was found and when.
    found: Mutex<HashMap<Digest, (Instant, Claims)>>,
}

impl Remembered {
    pub fn new(verifier: Arc<dyn Verifier>, clock: Clock) -> Self {
        Self { verifier, clock, found: Mutex::default() }
    }

    fn recall(&self, digest: &Digest, now: Instant) -> Option<Claims> {
        let found = self.found.lock();
        let (at, claims) = found.get(digest)?;
        (now.duration_since(*at) < REMEMBERED).then(|| claims.clone())
    }

    fn remember(&self, digest: Digest, now: Instant, claims: &Claims) {
        let mut found = self.found.lock();
        if found.len() >= TOKENS_MAX {
            found.retain(|_, (at, _)| now.duration_since(*at) < REMEMBERED);
        }
        if found.len() < TOKENS_MAX {
            found.insert(digest, (now, claims.clone()));
        }
    }
}

impl Verifier for Remembered {
    fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Claims>, String> {
        if !audiences.is_empty() {
            // what a review asks depends on its audiences, and reviews are few
            return self.verifier.verify(token, audiences);
        }
        let (digest, now) = (digest_of(token), self.clock.instant());
        if let Some(claims) = digest.as_ref().and_then(|digest| self.recall(digest, now)) {
            return Ok(Some(claims));
        }
        let claims = self.verifier.verify(token, audiences)?;
        if let Some((digest, claims)) = digest.zip(claims.as_ref()) {
            self.remember(digest, now, claims);
        }
        Ok(claims)
    }
}

fn digest_of(token: &str) -> Option<Digest> {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts how often it is asked; knows one token.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Verifier for Counting {
        fn verify(&self, token: &str, _audiences: &[String]) -> Result<Option<Claims>, String> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match token {
                "good" => Ok(Some(Claims { id: "j".into(), ..Claims::default() })),
                "foreign" => Ok(None),
                _ => Err("bad signature".into()),
            }
        }
    }

    fn remembered() -> (Arc<Counting>, Remembered) {
        let counting = Arc::new(Counting::default());
        (counting.clone(), Remembered::new(counting, Clock::system()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_token_is_checked_once_in_ten_seconds() {
        let (counting, remembered) = remembered();
        for _ in 0..3 {
            assert_eq!(remembered.verify("good", &[]).unwrap().unwrap().id, "j");
        }
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
        tokio::time::advance(REMEMBERED).await;
        assert!(remembered.verify("good", &[]).unwrap().is_some());
        assert_eq!(counting.0.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_and_reviews_are_checked_each_time() {
        let (counting, remembered) = remembered();
        for _ in 0..2 {
            assert!(remembered.verify("bad", &[]).is_err());
            assert!(remembered.verify("foreign", &[]).unwrap().is_none());
            assert!(remembered.verify("good", &["vault".into()]).unwrap().is_some());
        }
        assert_eq!(counting.0.load(Ordering::Relaxed), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_tokens_are_kept_than_the_limit() {
        let (_, remembered) = remembered();
        let now = Instant::now();
        for number in 0..=TOKENS_MAX {
            let digest = digest_of(&number.to_string()).unwrap();
            remembered.remember(digest, now, &Claims::default());
        }
        assert_eq!(remembered.found.lock().len(), TOKENS_MAX);
        tokio::time::advance(REMEMBERED).await;
        remembered.remember(digest_of("new").unwrap(), Instant::now(), &Claims::default());
        assert_eq!(remembered.found.lock().len(), 1, "what is over gives room");
    }
}

//! The only door to randomness: identifiers, name suffixes, jitter.

use rand::RngExt;

/// The letters upstream uses for generated names: no vowels and no look-alikes, so no words come about.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A random version 4 UUID in its usual text form.
pub fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// `length` random letters for a generated name.
pub fn suffix(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(SUFFIX_LETTERS[rng.random_range(0..SUFFIX_LETTERS.len())])).collect()
}

/// A random number in `0.0..1.0`.
pub fn fraction() -> f64 {
    rand::rng().random()
}

/// A random number in `0..bound`; 0 when `bound` is 0.
pub fn below(bound: usize) -> usize {
    if bound == 0 { 0 } else { rand::rng().random_range(0..bound) }
}

/// Fills `buffer` with random bytes fit for keys and tokens (the generator is seeded by the kernel).
pub fn fill(buffer: &mut [u8]) {
    rand::rng().fill(buffer);
}

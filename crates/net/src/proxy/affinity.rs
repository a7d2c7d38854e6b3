//! Clients with affinity follow their backend when it moves to another slot, and are let go when it ends.
//!
//! Packets fill the map of clients, so what is in it is only known by asking. This happens after the slots changed, and only for
//! services with affinity; until it is done a few milliseconds later, a client of a slot that changed may be sent to another
//! backend, but never to one that is gone.

use std::collections::HashMap;
use std::io;

use super::layout::{MASQUERADE_MARK, STICKY};
use super::program::{Moved, Program};
use crate::nft::{Batch, Dumped, Element, Family, Nft, NftError, Table, Value};

/// An entry may expire or appear between asking and changing; the next attempt asks again.
const ATTEMPTS_MAX: usize = 3;

/// Brings the clients of changed slots up to date.
pub fn follow(nft: &mut Nft, programs: &[Program], moved: &[Moved]) -> Result<(), NftError> {
    for program in programs {
        let table = program.table();
        let ours: HashMap<Vec<u8>, &Moved> = moved
            .iter()
            .filter(|moved| Family::of(moved.frontend.address) == table.family)
            .map(|moved| (moved.frontend.key().0, moved))
            .collect();
        if ours.is_empty() {
            continue;
        }
        for attempt in 1.. {
            match rewrite(nft, table, &ours) {
                Err(NftError::Refused { errno, .. }) if attempt < ATTEMPTS_MAX => {
                    tracing::debug!(%errno, "clients with affinity changed meanwhile");
                }
                result => {
                    result?;
                    break;
                }
            }
        }
    }
    Ok(())
}

fn rewrite(nft: &mut Nft, table: &Table, ours: &HashMap<Vec<u8>, &Moved>) -> Result<(), NftError> {
    let client_len = table.family.address_len() as usize;
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for Dumped { key, data } in nft.elements(table, STICKY)? {
        let Some(moved) = key.get(client_len..).and_then(|frontend| ours.get(frontend)) else { continue };
        let mark = data.as_slice().try_into().map(u32::from_ne_bytes).map_err(io::Error::other)?;
        let Some(to) = moved.slots.get(&(mark & !MASQUERADE_MARK)) else { continue };
        // Adding it first makes the deletion hold even if it has just expired.
        old.push(Element::value(Value(key.clone()), Value(data)));
        if let Some(slot) = to {
            let timeout_ms = Some(u64::from(moved.affinity_s) * 1000);
            let element = Element::value(Value(key), Value::new().number(slot | (mark & MASQUERADE_MARK)));
            new.push(Element { timeout_ms, ..element });
        }
    }
    let mut batch = Batch::new(table);
    batch.add_elements(STICKY, &old);
    batch.delete_elements(STICKY, &old);
    batch.add_elements(STICKY, &new);
    nft.commit(batch)
}

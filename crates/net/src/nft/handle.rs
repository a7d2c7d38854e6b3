//! The open connection to nftables: commits batches, dumps what the kernel has.

use std::io;

use super::batch::{Batch, Table};
use super::{Family, NftError, wire};
use crate::netlink::{Attributes, Request, Socket, Writer};

/// An element as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumped {
    /// Bytes of the key.
    pub key: Vec<u8>,
    /// Bytes of the data of a value map; empty otherwise.
    pub data: Vec<u8>,
}

/// A connection to nftables in one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

impl Nft {
    /// Opens a connection in the calling thread's network namespace.
    pub fn open() -> Result<Self, NftError> {
        Ok(Nft { socket: Socket::netfilter()? })
    }

    /// Applies the batch, whole or not at all. An empty batch does nothing.
    ///
    /// # Errors
    /// [`NftError::Refused`] names the first operation that the kernel did not accept; nothing has changed then.
    pub fn commit(&mut self, batch: Batch) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = self.socket.next_sequence();
        let (bytes, operations) = batch.finish(first);
        for _ in 0..=operations.len() {
            self.socket.next_sequence();
        }
        self.socket.send_raw(&bytes)?;
        let last = first.wrapping_add(operations.len() as u32);
        let (mut refused, mut acknowledged) = (None, false);
        self.socket.drain_answers(|sequence, errno| {
            if errno == 0 {
                acknowledged |= sequence == last;
            } else if refused.is_none() {
                refused = Some((sequence.wrapping_sub(first), errno));
            }
        })?;
        match refused {
            Some((index, errno)) => Err(NftError::Refused {
                operation: (index as usize)
                    .checked_sub(1)
                    .and_then(|index| operations.get(index))
                    .map_or_else(|| "take a batch of changes".to_owned(), Clone::clone),
                errno: io::Error::from_raw_os_error(errno),
            }),
            None if acknowledged => Ok(()),
            None => Err(NftError::NoAnswer),
        }
    }

    /// All elements of a set or map. A table or set that does not exist is an error (`NotFound` inside `Socket`).
    pub fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Dumped>, NftError> {
        let body = body(table.family, |w| {
            w.string(wire::ELEM_LIST_TABLE, &table.name);
            w.string(wire::ELEM_LIST_SET, set);
        });
        let mut found = Vec::new();
        self.dump(libc::NFT_MSG_GETSETELEM, &body, |message| {
            for (_, element) in message.inside(wire::ELEM_LIST_ELEMENTS) {
                let element = Attributes(element);
                let value = |kind| element.inside(kind).find(wire::DATA_VALUE).unwrap_or_default().to_vec();
                found.push(Dumped { key: value(wire::ELEM_KEY), data: value(wire::ELEM_DATA) });
            }
        })?;
        Ok(found)
    }

    /// The names of all tables of a family.
    pub fn tables(&mut self, family: Family) -> Result<Vec<String>, NftError> {
        let mut names = Vec::new();
        self.dump(libc::NFT_MSG_GETTABLE, &body(family, |_| ()), |message| {
            names.extend(message.string(wire::TABLE_NAME).map(str::to_owned));
        })?;
        Ok(names)
    }

    /// The names of all chains of a table.
    pub fn chains(&mut self, table: &Table) -> Result<Vec<String>, NftError> {
        let mut names = Vec::new();
        self.dump(libc::NFT_MSG_GETCHAIN, &body(table.family, |_| ()), |message| {
            if message.string(wire::CHAIN_TABLE) == Some(&table.name) {
                names.extend(message.string(wire::CHAIN_NAME).map(str::to_owned));
            }
        })?;
        Ok(names)
    }

    /// Deletes a table, or does nothing when there is none.
    pub fn delete_table(&mut self, table: &Table) -> Result<(), NftError> {
        // Asked first, because a kernel without the family would refuse the batch.
        if !self.tables(table.family)?.contains(&table.name) {
            return Ok(());
        }
        let mut batch = Batch::new(table);
        batch.add_table();
        batch.delete_table();
        self.commit(batch)
    }

    fn dump(&mut self, message: i32, body: &[u8], mut each: impl FnMut(Attributes<'_>)) -> Result<(), NftError> {
        let kind = ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | message as u16;
        let request = Request { kind, flags: 0, body };
        self.socket.dump(&request, |_, answer| each(Attributes(answer.get(4..).unwrap_or_default())))?;
        Ok(())
    }
}

fn body(family: Family, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.raw(&[family.number(), 0, 0, 0]);
    fill(&mut writer);
    writer.bytes().to_vec()
}

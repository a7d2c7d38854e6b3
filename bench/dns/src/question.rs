//! DNS messages, as much of them as asking and checking takes.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
const NO_SUCH_NAME: u8 = 3;

/// The right answer.
#[derive(Clone, Copy)]
pub enum Wanted {
    Address(Ipv4Addr),
    /// The name is there, without what was asked for.
    Nothing,
    NoSuchName,
}

/// A question as it goes over the wire (its number is put in later), and what is the right answer.
pub struct Question {
    pub message: Vec<u8>,
    wanted: Wanted,
}

impl Question {
    pub fn new(name: &str, kind: u16, wanted: Wanted) -> Result<Self> {
        Ok(Self { message: ask(name, kind)?, wanted })
    }

    /// An error when `answer` is not the right one.
    pub fn check(&self, answer: &[u8]) -> Result<()> {
        let [_, _, flags, code, _, _, high, low, ..] = answer else { bail!("an answer of {} bytes", answer.len()) };
        let (code, records) = (code & 0x0f, u16::from_be_bytes([*high, *low]));
        let right = flags & 0x80 != 0
            && match self.wanted {
                // the record's data are its last bytes, unless the server has more to say
                Wanted::Address(address) => {
                    code == 0 && records == 1 && answer.windows(4).any(|bytes| bytes == address.octets())
                }
                Wanted::Nothing => code == 0 && records == 0,
                Wanted::NoSuchName => code == NO_SUCH_NAME && records == 0,
            };
        if !right {
            bail!("a wrong answer: code {code}, {records} records, {answer:02x?}");
        }
        Ok(())
    }
}

/// A question for `name`, class IN, recursion desired.
pub fn ask(name: &str, kind: u16) -> Result<Vec<u8>> {
    // number, recursion desired, one question
    let mut message = vec![0xc0, 0xac, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).context("a label is at most 63 bytes")?);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    Ok(message)
}

/// Whether a message is an answer without error and with records.
pub fn is_answer(message: &[u8]) -> bool {
    matches!(message, [_, _, first, second, _, _, high, low, ..]
        if first & 0x80 != 0 && second & 0x0f == 0 && (*high, *low) != (0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The question as a server sends it back, with one record at its end.
    fn answered(question: &Question, code: u8, address: Option<[u8; 4]>) -> Vec<u8> {
        let mut message = question.message.clone();
        message[2] |= 0x80;
        message[3] = code;
        if let Some(address) = address {
            message[7] = 1;
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
            message.extend(address);
        }
        message
    }

    #[test]
    fn only_answers_with_records_count() {
        let mut message = ask("kubernetes.default", A).unwrap();
        assert!(!is_answer(&message), "a question is no answer");
        message[2] |= 0x80;
        assert!(!is_answer(&message), "it has no records");
        message[7] = 1;
        assert!(is_answer(&message));
        message[3] = 3;
        assert!(!is_answer(&message), "there is no such name");
    }

    #[test]
    fn a_wrong_answer_is_told_from_the_right_one() {
        let right = [10, 43, 0, 7];
        let address = Question::new("a.b", A, Wanted::Address(right.into())).unwrap();
        let nothing = Question::new("a.b", AAAA, Wanted::Nothing).unwrap();
        let missing = Question::new("c.b", A, Wanted::NoSuchName).unwrap();
        assert!(address.check(&answered(&address, 0, Some(right))).is_ok());
        assert!(address.check(&answered(&address, 0, Some([10, 43, 0, 8]))).is_err());
        assert!(address.check(&answered(&address, 0, None)).is_err());
        assert!(address.check(&address.message).is_err(), "a question is no answer");
        assert!(nothing.check(&answered(&nothing, 0, None)).is_ok());
        assert!(nothing.check(&answered(&nothing, 3, None)).is_err());
        assert!(missing.check(&answered(&missing, 3, None)).is_ok());
        assert!(missing.check(&answered(&missing, 2, None)).is_err());
        assert!(missing.check(&[]).is_err());
    }
}

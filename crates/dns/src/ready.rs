//! Answers that lie ready: the bytes of what was said to a question, for whoever asks the same in the very same words.
//!
//! Kept are answers out of the zone to plain questions (one question of class IN, with or without an empty EDNS record), as long as
//! the zone does not change. A question's words are all its bytes but its number, spelling included, so that an answer differs
//! only in the number, and in which of many addresses comes first. What is cut is not kept: what is left out differs too.
//!
//! ```text
//! question ─ number, rest ─► rest known? ─► bytes, with this number, addresses turned by a random step
//! ```

use std::collections::HashMap;
use std::ops::Range;

/// All that is kept, in bytes of questions and answers. Beyond it everything is let go and kept anew as it is asked.
const KEPT_BYTES_MAX: usize = 8 << 20;

const HEADER_BYTES: usize = 12;
const NUMBER_BYTES: usize = 2;
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: u8 = 63;
const CLASS_IN: [u8; 2] = [0, 1];
const TYPE_A: [u8; 2] = [0, 1];
const TYPE_AAAA: [u8; 2] = [0, 28];
const TYPE_OPT: [u8; 2] = [0, 41];
/// Type, class, time to live and the length of the data of a record.
const RECORD_HEAD_BYTES: usize = 10;
/// A name that only points at another has two bytes, the first of which begins so.
const POINTER: u8 = 0xc0;
const POINTER_BYTES: usize = 2;
const ANSWER: u8 = 0x80;
const CUT: u8 = 0x02;

/// The answers that lie ready.
#[derive(Default)]
pub struct Ready {
    answers: HashMap<Box<[u8]>, Answer>,
    kept_bytes: usize,
    /// The state of the zone that they are out of.
    serial: u32,
}

struct Answer {
    bytes: Box<[u8]>,
    turning: Option<Turning>,
}

/// Address records that may stand in any order.
#[derive(Debug, PartialEq, Eq)]
struct Turning {
    place: Range<usize>,
    each: usize,
}

impl Ready {
    /// Lets everything go if the zone is not what it was.
    pub fn follow(&mut self, serial: u32) {
        if self.serial != serial {
            self.clear();
            self.serial = serial;
        }
    }

    fn clear(&mut self) {
        self.answers.clear();
        self.kept_bytes = 0;
    }

    /// Appends the answer to a question, if it lies ready.
    pub fn answer(&self, question: &[u8], out: &mut Vec<u8>) -> bool {
        let Some((number, words)) = question.split_at_checked(NUMBER_BYTES) else { return false };
        let Some(answer) = self.answers.get(words) else { return false };
        out.extend_from_slice(number);
        match &answer.turning {
            None => out.extend_from_slice(&answer.bytes[NUMBER_BYTES..]),
            Some(Turning { place, each }) => {
                let step = place.start + base::chance::below(place.len() / each) * each;
                let parts =
                    [NUMBER_BYTES..place.start, step..place.end, place.start..step, place.end..answer.bytes.len()];
                parts.into_iter().for_each(|part| out.extend_from_slice(&answer.bytes[part]));
            }
        }
        true
    }

    /// Keeps what was said out of the zone, if it can be said again.
    pub fn keep(&mut self, question: &[u8], answer: &[u8]) {
        let Some(end) = plain(question) else { return };
        let told = answer.get(2..4).is_some_and(|flags| flags[0] & ANSWER != 0 && flags[0] & CUT == 0);
        // The question is repeated in front of all else.
        if !told || answer.get(HEADER_BYTES..end) != question.get(HEADER_BYTES..end) {
            return;
        }
        let Some(turning) = turning(answer, end) else { return };
        let turning = Some(turning).filter(|turning| turning.place.len() > turning.each);
        self.kept_bytes += question.len() + answer.len();
        if self.kept_bytes > KEPT_BYTES_MAX {
            self.clear();
            self.kept_bytes = question.len() + answer.len();
        }
        self.answers.insert(question[NUMBER_BYTES..].into(), Answer { bytes: answer.into(), turning });
    }
}

/// Where the only question of a plain message ends; none for a message that is anything else.
fn plain(message: &[u8]) -> Option<usize> {
    let [_, _, flags, _, 0, 1, 0, 0, 0, 0, 0, records, ..] = *message else { return None };
    // A question, not an answer; a query; not cut.
    if flags & (ANSWER | 0x78 | CUT) != 0 {
        return None;
    }
    let mut at = HEADER_BYTES;
    loop {
        let label = *message.get(at)?;
        at += 1 + usize::from(label);
        if label > LABEL_BYTES_MAX || at > HEADER_BYTES + NAME_BYTES_MAX {
            return None;
        }
        if label == 0 {
            break;
        }
    }
    let end = at + 4;
    let (class, rest) = (message.get(at + 2..end)?, message.get(end..)?);
    let whole = match (records, rest) {
        (0, []) => true,
        // The root's name, OPT, the largest answer taken, flags, and no options.
        (1, [0, high, low, _, _, _, _, _, _, 0, 0]) => [*high, *low] == TYPE_OPT,
        _ => false,
    };
    (whole && class == CLASS_IN).then_some(end)
}

/// The address records at the end of an answer's answers, empty when they are of other kinds; none when it is not known how to turn
/// them: only those of one length whose names point at what stands before them can change places.
fn turning(answer: &[u8], question_end: usize) -> Option<Turning> {
    let count = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    let (mut at, mut found) = (question_end, Turning { place: 0..0, each: 0 });
    for _ in 0..count {
        let name = name_end(answer, at)?;
        let head = answer.get(name..name + RECORD_HEAD_BYTES)?;
        let end = name + RECORD_HEAD_BYTES + usize::from(u16::from_be_bytes([head[8], head[9]]));
        let is_address = head[..2] == TYPE_A || head[..2] == TYPE_AAAA;
        match (is_address, found.place.is_empty()) {
            (true, true) => found = Turning { place: at..end, each: end - at },
            (true, false) if end - at == found.each => found.place.end = end,
            // As it is among `resolver::spread`'s: what is not all addresses stays in order.
            (false, true) => {}
            _ => return None,
        }
        let target = usize::from(u16::from_be_bytes([answer[at] & !POINTER, *answer.get(at + 1)?]));
        if is_address && (name - at != POINTER_BYTES || target >= found.place.start) && count > 1 {
            return None;
        }
        at = end;
    }
    Some(found)
}

/// Where the name that begins at `at` ends.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & POINTER == POINTER => return Some(at + POINTER_BYTES),
            label => at += 1 + usize::from(label),
        }
    }
}

#[cfg(test)]
mod tests;

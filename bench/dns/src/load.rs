//! Asks as fast as answers come, with a fixed number of questions on their way.
//!
//! A question's number is its place among those on their way and how often that place was used, so that a late answer
//! to a question that was given up is not taken for another's.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::datagrams::{self, Room};
use crate::question::Question;

/// Places are counted in one byte of a question's number.
const OUTSTANDING_MAX: usize = 256;
/// After this a question counts as lost, and is answered by nobody.
const SILENCE: Duration = Duration::from_millis(500);

/// What came of it.
pub struct Load {
    /// From asking to the answer, in nanoseconds, in ascending order.
    latencies_ns: Vec<u32>,
    length: Duration,
    pub lost: usize,
}

impl Load {
    pub fn answers(&self) -> usize {
        self.latencies_ns.len()
    }

    pub fn per_s(&self) -> f64 {
        self.answers() as f64 / self.length.as_secs_f64()
    }

    /// The nearest-rank percentile of the answers' times.
    pub fn percentile_us(&self, rank: usize) -> f64 {
        let place = (self.latencies_ns.len() * rank).div_ceil(100);
        let found = self.latencies_ns.get(place.saturating_sub(1)).copied().unwrap_or_default();
        f64::from(found) / 1e3
    }
}

struct Place {
    uses: u8,
    /// Which question, and when it was asked.
    asked: Option<(usize, Instant)>,
}

struct Asking<'a> {
    questions: &'a [Question],
    places: Vec<Place>,
    free: Vec<usize>,
    next: usize,
    latencies_ns: Vec<u32>,
    lost: usize,
    wrong: Option<anyhow::Error>,
}

/// Keeps `outstanding` questions on their way to `server` for `length`, from the list again and again.
pub fn run(server: SocketAddr, questions: &[Question], outstanding: usize, length: Duration) -> Result<Load> {
    if questions.is_empty() || !(1..=OUTSTANDING_MAX).contains(&outstanding) {
        bail!("{} questions, {outstanding} on their way", questions.len());
    }
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(SILENCE))?;
    let mut asking = Asking {
        questions,
        places: (0..outstanding).map(|_| Place { uses: 0, asked: None }).collect(),
        free: (0..outstanding).collect(),
        next: 0,
        latencies_ns: Vec::new(),
        lost: 0,
        wrong: None,
    };
    let mut room = Room::of(outstanding);
    let begun = Instant::now();
    while begun.elapsed() < length {
        asking.ask(&socket)?;
        match datagrams::receive(&socket, &mut room, |answer| asking.hear(answer)) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Err(error).context("waiting for answers");
            }
            Ok(_) | Err(_) => asking.give_up_old(),
        }
        if let Some(wrong) = asking.wrong.take() {
            return Err(wrong);
        }
    }
    let length = begun.elapsed();
    asking.latencies_ns.sort_unstable();
    Ok(Load { latencies_ns: asking.latencies_ns, length, lost: asking.lost })
}

impl Asking<'_> {
    fn ask(&mut self, socket: &UdpSocket) -> Result<()> {
        let now = Instant::now();
        let mut messages = Vec::with_capacity(self.free.len());
        for place in self.free.drain(..) {
            let which = self.next % self.questions.len();
            self.next += 1;
            let entry = &mut self.places[place];
            entry.uses = entry.uses.wrapping_add(1);
            entry.asked = Some((which, now));
            let mut message = self.questions[which].message.clone();
            message[..2].copy_from_slice(&[entry.uses, u8::try_from(place)?]);
            messages.push(message);
        }
        let mut left: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        while !left.is_empty() {
            let sent = datagrams::send(socket, &left).context("asking")?;
            left.drain(..sent);
        }
        Ok(())
    }

    fn hear(&mut self, answer: &[u8]) {
        let [uses, number, ..] = answer else { return };
        let place = usize::from(*number);
        let Some(entry) = self.places.get_mut(place).filter(|entry| entry.uses == *uses) else { return };
        let Some((which, asked)) = entry.asked.take() else { return };
        self.latencies_ns.push(u32::try_from(asked.elapsed().as_nanos()).unwrap_or(u32::MAX));
        self.free.push(place);
        if let Err(wrong) = self.questions[which].check(answer) {
            self.wrong.get_or_insert(wrong);
        }
    }

    /// Looked at only where something is amiss: with nothing free, somebody keeps silent.
    fn give_up_old(&mut self) {
        if !self.free.is_empty() {
            return;
        }
        for (place, entry) in self.places.iter_mut().enumerate() {
            if entry.asked.is_some_and(|(_, asked)| asked.elapsed() >= SILENCE) {
                entry.asked = None;
                self.lost += 1;
                self.free.push(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{A, Wanted};
    use std::thread;

    const SHORT: Duration = Duration::from_millis(100);

    /// Answers with `address` until the client goes away.
    fn server(address: [u8; 4]) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut message = [0u8; 512];
            while let Ok((count, from)) = socket.recv_from(&mut message) {
                let mut answer = message[..count].to_vec();
                answer[2] |= 0x80;
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
                answer.extend(address);
                let _ = socket.send_to(&answer, from);
            }
        });
        own
    }

    fn questions(address: [u8; 4]) -> Vec<Question> {
        vec![Question::new("a.b", A, Wanted::Address(address.into())).unwrap()]
    }

    #[test]
    fn every_answer_is_counted_and_none_is_lost() {
        for outstanding in [1, 64] {
            let load = run(server([10, 0, 0, 1]), &questions([10, 0, 0, 1]), outstanding, SHORT).unwrap();
            assert!(load.per_s() > 0.0 && load.lost == 0, "{} lost", load.lost);
            assert!(load.percentile_us(50) <= load.percentile_us(99));
        }
    }

    #[test]
    fn a_wrong_answer_ends_it() {
        assert!(run(server([10, 0, 0, 2]), &questions([10, 0, 0, 1]), 4, SHORT).is_err());
    }

    #[test]
    fn silence_is_counted_as_lost() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let load = run(silent.local_addr().unwrap(), &questions([10, 0, 0, 1]), 2, SHORT).unwrap();
        assert_eq!((load.lost, load.per_s()), (2, 0.0));
    }
}

//! Asking the cluster's DNS from the node until it answers.
//!
//! Before there is a server, a datagram is lost without a word, so the question is asked again after a short silence;
//! that silence is how exact the moment is.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench_cluster::lab;
use clap::Args;

const NAME: &str = "kubernetes.default.svc.cluster.local";
const ASK_AGAIN_MS: u64 = 2;
const ANSWER_S_MAX: u64 = 180;

#[derive(Args)]
pub struct Arguments {
    #[arg(long)]
    server: SocketAddr,
}

/// Prints the moment of the first good answer.
pub fn run(arguments: &Arguments) -> Result<()> {
    let question = question(NAME)?;
    let begun = Instant::now();
    let mut answer = [0u8; 512];
    println!("asking");
    while begun.elapsed() < Duration::from_secs(ANSWER_S_MAX) {
        // a new one each time: the kernel remembers where it sent what came from an old one, and goes on sending there
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(ASK_AGAIN_MS)))?;
        // refused while nobody listens: the same as silence
        let _ = socket.send_to(&question, arguments.server);
        if let Ok(count) = socket.recv(&mut answer)
            && is_answer(&answer[..count])
        {
            println!("{}", lab::written_now()?);
            return Ok(());
        }
    }
    bail!("no answer for {NAME} within {ANSWER_S_MAX} s")
}

/// A question for addresses of `name`.
fn question(name: &str) -> Result<Vec<u8>> {
    // number, recursion desired, one question
    let mut message = vec![0xc0, 0xac, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).context("a label is at most 63 bytes")?);
        message.extend_from_slice(label.as_bytes());
    }
    // end of the name, type A, class IN
    message.extend([0, 0, 1, 0, 1]);
    Ok(message)
}

/// Whether a message is an answer without error and with records.
fn is_answer(message: &[u8]) -> bool {
    matches!(message, [_, _, first, second, _, _, high, low, ..]
        if first & 0x80 != 0 && second & 0x0f == 0 && (*high, *low) != (0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_with_records_count() {
        let mut message = question("kubernetes.default").unwrap();
        assert!(!is_answer(&message), "a question is no answer");
        message[2] |= 0x80;
        assert!(!is_answer(&message), "it has no records");
        message[7] = 1;
        assert!(is_answer(&message));
        message[3] = 3;
        assert!(!is_answer(&message), "there is no such name");
    }
}

//! The part that runs on the node: asks one server after the other and prints the round.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench_cluster::{Access, ms_between};
use bench_harness::{Meter, Round, Side, Usage, percentile};
use clap::Args;

use crate::question::{self, Question, Wanted};
use crate::servers::{self, CLIENT_CORE, Server};
use crate::{NAMESPACE, SERVICES, domain_name, load, make_service, service_name};

/// One question at a time: what a client waits that is alone.
const ALONE: Duration = Duration::from_secs(1);
/// Many questions at a time: what a core gives at most.
const CROWDED: Duration = Duration::from_secs(3);
pub const OUTSTANDING: usize = 128;
/// Services whose names are awaited.
const AWAITED: usize = 20;
const SERVE_S_MAX: u64 = 60;
/// After this a question that had no answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Args)]
pub struct OnNodeArguments {
    #[arg(long, value_enum)]
    side: Side,
    #[arg(long)]
    unbound: PathBuf,
    #[arg(long)]
    coredns: PathBuf,
}

pub fn run(arguments: &OnNodeArguments) -> Result<()> {
    let access = Access::of_environment()?;
    let names = crate::listed(&access)?;
    let questions = questions(&names)?;
    servers::hold(0, CLIENT_CORE)?;
    let servers = match arguments.side {
        Side::Ours => vec![Server::ours()?],
        Side::Peer => vec![Server::coredns(&arguments.coredns)?, Server::unbound(&arguments.unbound, &names)?],
    };
    let last = question::ask(&domain_name(&service_name(SERVICES - 1)), question::A)?;
    let mut round = Round::default();
    for server in &servers {
        await_answer(server.address, &last)
            .with_context(|| format!("{} does not serve:\n{}", server.name, server.said()))?;
        let usage = measure(&access, server, &questions, &mut round)
            .with_context(|| format!("asking {}; it said:\n{}", server.name, server.said()))?;
        round.usage.cpu_s += usage.cpu_s;
        round.usage.memory_peak_mb += usage.memory_peak_mb;
        round.usage.resident_peak_mb += usage.resident_peak_mb;
    }
    println!("{}", serde_json::to_string(&round)?);
    Ok(())
}

/// Of ten questions, eight are for a service's address, one for an address that it does not have, and one for a name
/// that a search path makes and nobody has.
fn questions(names: &[(String, Ipv4Addr)]) -> Result<Vec<Question>> {
    let of = |(number, (name, address)): (usize, &(String, Ipv4Addr))| {
        let name = domain_name(name);
        match number % 10 {
            0 => Question::new(&name, question::AAAA, Wanted::Nothing),
            1 => Question::new(&format!("{name}.svc.cluster.local"), question::A, Wanted::NoSuchName),
            _ => Question::new(&name, question::A, Wanted::Address(*address)),
        }
    };
    names.iter().enumerate().map(of).collect()
}

fn measure(access: &Access, server: &Server, questions: &[Question], round: &mut Round) -> Result<Usage> {
    let meter = Meter::of_pids([server.pid]);
    let alone = load::run(server.address, questions, 1, ALONE)?;
    let before = meter.cpu_s()?;
    let crowded = load::run(server.address, questions, OUTSTANDING, CROWDED)?;
    let crowded_cpu_s = meter.cpu_s()? - before;
    let usage = meter.finish()?;
    if alone.lost + crowded.lost > 0 {
        bail!("{} questions were not answered", alone.lost + crowded.lost);
    }
    let created = if server.follows_api { created_to_answer_ms(access, server)? } else { Vec::new() };
    for against in server.against {
        let mut put = |figure: &str, value: f64| round.put(&format!("{against}_{figure}"), value);
        put("questions", crowded.per_s());
        put("questions_cpu", crowded.answers() as f64 / crowded_cpu_s);
        put("p99", crowded.percentile_us(99));
        put("alone_p50", alone.percentile_us(50));
        put("alone_p99", alone.percentile_us(99));
        if *against == "coredns" {
            for rank in [50, 99] {
                put(&format!("created_p{rank}"), percentile(created.clone(), rank).context("no name was awaited")?);
            }
        }
    }
    round.keep(&format!("{}_created_ms", server.name), created);
    Ok(usage)
}

/// From the API's word that a service is made until its name has an address.
fn created_to_answer_ms(access: &Access, server: &Server) -> Result<Vec<f64>> {
    let mut connection = access.connect()?;
    let mut times = Vec::new();
    for number in 0..AWAITED {
        let name = format!("new-{}-{number}", server.name);
        let wanted = question::ask(&domain_name(&name), question::A)?;
        make_service(&mut connection, &name)?;
        let made = Instant::now();
        times.push(ms_between(made, await_answer(server.address, &wanted)?));
        connection.must("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}/services/{name}"), None)?;
    }
    Ok(times)
}

/// Asks again at once after every answer that is none, and after a short silence.
fn await_answer(server: SocketAddr, asked: &[u8]) -> Result<Instant> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(ASK_AGAIN))?;
    let begun = Instant::now();
    let mut answer = [0u8; 512];
    while begun.elapsed() < Duration::from_secs(SERVE_S_MAX) {
        // refused while nobody listens: the same as silence
        let _ = socket.send_to(asked, server);
        if let Ok(count) = socket.recv(&mut answer)
            && question::is_answer(&answer[..count])
        {
            return Ok(Instant::now());
        }
    }
    bail!("no answer within {SERVE_S_MAX} s")
}

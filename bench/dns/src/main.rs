//! `bench dns`: questions per second and tail of a resolver on one core, and how soon a new service's name answers.
//!
//! ```text
//!              one API server (Coracle's), the same services
//!        ┌──────────────┼──────────────────┐
//!   Coracle's        CoreDNS            unbound (told the same names as local data)      each on core 0
//!   resolver      kubernetes plugin
//!        └──────────────┼──────────────────┘
//!                  the same questions (`load`)                                           on core 1
//! ```
//!
//! Every answer is checked: a fast wrong answer is an error. What asks runs on the node, because the cluster's DNS
//! address exists only there. Two peers are measured in the peer's round; ours has the same value against both.

// `datagrams` hands many datagrams to the kernel at a time; its blocks say why they are sound.
#![allow(unsafe_code)]

mod datagrams;
mod load;
mod on_node;
mod question;
mod servers;

use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bench_cluster::lab::SERVER;
use bench_cluster::{Access, Connection, Lab, crowd};
use bench_harness::{Figure, Part, Round, RoundArguments, Subject};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

const NAMESPACE: &str = "bench-dns";
const SERVICES: usize = 1000;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Parts,
}

#[derive(Subcommand)]
enum Parts {
    #[command(flatten)]
    Shared(Part),
    /// Ask, on a node; prints the round
    OnNode(on_node::OnNodeArguments),
}

fn main() -> ExitCode {
    bench_harness::ended(match Arguments::parse().part {
        Parts::Shared(part) => bench_harness::run_part(&part, subject, round),
        Parts::OnNode(arguments) => on_node::run(&arguments),
    })
}

fn subject() -> Subject {
    let setting = format!(
        "{SERVICES} services. Server on one core, client on the other; of ten questions eight have an address, one has \
         no record of the kind, one is for no name. CoreDNS follows the same API server with upstream's plugins; \
         unbound has the names as local data. At once: {} questions on their way.",
        on_node::OUTSTANDING
    );
    Subject::new("dns", "Names", "CoreDNS and unbound").setting(&setting).figures([
        Figure::higher("coredns_questions", "answers per second on one core, against CoreDNS", "1/s").times(6.0),
        Figure::higher(
            "coredns_questions_cpu",
            "answers per second of the server's processor time, against CoreDNS",
            "1/s",
        )
        .times(6.0),
        Figure::lower("coredns_p99", "p99 with many at once, against CoreDNS", "us"),
        Figure::lower("coredns_alone_p50", "one question at a time, p50, against CoreDNS", "us"),
        Figure::lower("coredns_alone_p99", "one question at a time, p99, against CoreDNS", "us"),
        Figure::lower("coredns_created_p50", "service created to name answering, p50, against CoreDNS", "ms"),
        Figure::lower("coredns_created_p99", "service created to name answering, p99, against CoreDNS", "ms")
            .limit(10.0),
        Figure::higher("unbound_questions", "answers per second on one core, against unbound", "1/s"),
        Figure::higher(
            "unbound_questions_cpu",
            "answers per second of the server's processor time, against unbound",
            "1/s",
        ),
        Figure::lower("unbound_p99", "p99 with many at once, against unbound", "us"),
        Figure::lower("unbound_alone_p50", "one question at a time, p50, against unbound", "us"),
        Figure::lower("unbound_alone_p99", "one question at a time, p99, against unbound", "us"),
    ])
}

fn round(asked: &RoundArguments) -> Result<Round> {
    let lab = Lab::find()?;
    lab.start(SERVER)?;
    lab.wait(SERVER)?;
    make_services(&Access::of_environment()?)?;
    let program = |name| Ok::<_, anyhow::Error>(asked.program(name)?.display().to_string());
    let (unbound, coredns) = (program("unbound")?, program("coredns")?);
    let words = ["on-node", "--side", asked.side.word(), "--unbound", &unbound, "--coredns", &coredns];
    let asking = lab.self_on_node(SERVER, &words)?;
    let answer = asking.wait_with_output().context("waiting for the part on the node")?;
    if !answer.status.success() {
        bail!("the part on the node failed; there was said:\n{}", lab.log_tail(SERVER));
    }
    serde_json::from_slice(&answer.stdout).context("understanding the part on the node")
}

fn service_name(number: usize) -> String {
    format!("svc-{number}")
}

fn domain_name(service: &str) -> String {
    format!("{service}.{NAMESPACE}.svc.cluster.local")
}

fn make_services(access: &Access) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    access.connect()?.ensure("/api/v1/namespaces", &namespace)?;
    crowd::each(access, SERVICES, |connection, number| make_service(connection, &service_name(number)))
}

fn make_service(connection: &mut Connection, name: &str) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}
    });
    connection.must("POST", &format!("/api/v1/namespaces/{NAMESPACE}/services"), Some(&service)).map(drop)
}

/// The services, and the address that each was given.
fn listed(access: &Access) -> Result<Vec<(String, Ipv4Addr)>> {
    let listed = access.connect()?.must("GET", &format!("/api/v1/namespaces/{NAMESPACE}/services"), None)?;
    let listed: Value = serde_json::from_slice(&listed)?;
    let read = |service: &Value| {
        let address = service["spec"]["clusterIP"].as_str()?.parse().ok()?;
        Some((service["metadata"]["name"].as_str()?.to_owned(), address))
    };
    let names: Vec<_> = listed["items"].as_array().into_iter().flatten().filter_map(read).collect();
    if names.len() != SERVICES {
        bail!("{} services were listed, {SERVICES} were made", names.len());
    }
    Ok(names)
}

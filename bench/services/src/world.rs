//! The objects, and what stands behind them.
//!
//! Every service has two endpoints. Of most they are addresses that nobody has; of the last [`REAL`] they are the
//! hub's two, where somebody answers. The hub is a neighbour of the node, so no routes are needed.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use bench_cluster::{Access, Connection, crowd};
use serde_json::{Value, json};

pub const NAMESPACE: &str = "bench-services";
/// The hub of every lab, and another address that it is given here.
const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const HUB_LINK: &str = "lab0";
const BACKEND_PORT: u16 = 7080;
pub const PORT: u16 = 80;
/// What a backend says to whoever connects.
pub const WORD: u8 = b'!';
/// Services at the end that have a backend.
pub const REAL: usize = 8;

pub struct World {
    access: Access,
    count: usize,
}

impl World {
    /// A namespace, and a backend that answers for as long as this process lives.
    pub fn new(access: &Access) -> Result<Self> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        access.connect()?.ensure("/api/v1/namespaces", &namespace)?;
        let second = format!("{}/24", BACKENDS[1]);
        let status = Command::new("ip").args(["address", "add", &second, "dev", HUB_LINK]).status()?;
        ensure!(status.success(), "the hub cannot have a second address");
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, BACKEND_PORT)).context("listening on the hub")?;
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // who is gone already needs no word
                let _ = (&connection).write_all(&[WORD]);
            }
        });
        Ok(Self { access: access.clone(), count: 0 })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// A node with nothing but an address, for a proxy that asks whose it is.
    pub fn add_node(&self, name: &str, address: &str) -> Result<()> {
        let addresses = json!([{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        let mut connection = self.access.connect()?;
        connection.ensure("/api/v1/nodes", &node)?;
        let status = json!({"status": {"addresses": addresses}});
        connection.must("PATCH", &format!("/api/v1/nodes/{name}/status"), Some(&status)).map(drop)
    }

    /// Makes services until there are `size`, the last ones with a backend.
    pub fn grow(&mut self, size: usize) -> Result<()> {
        let first = self.count;
        crowd::each(&self.access, size - first, |connection, number| make(connection, first + number, size))?;
        self.count = size;
        Ok(())
    }

    /// Address and port of the service that was made last.
    pub fn last(&self) -> Result<String> {
        Ok(format!("{}:{PORT}", address(&mut self.access.connect()?, self.count - 1)?))
    }
}

pub fn name(number: usize) -> String {
    format!("svc-{number}")
}

/// What a service was given.
pub fn address(connection: &mut Connection, number: usize) -> Result<Ipv4Addr> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/services/{}", name(number));
    let service: Value = serde_json::from_slice(&connection.must("GET", &path, None)?)?;
    let address = service["spec"]["clusterIP"].as_str().context("the service has no address")?;
    address.parse().with_context(|| format!("{address:?} is no address"))
}

fn make(connection: &mut Connection, number: usize, size: usize) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name(number)},
        "spec": {"ports": [{"name": "http", "port": PORT, "targetPort": BACKEND_PORT}]}
    });
    connection.must("POST", &format!("/api/v1/namespaces/{NAMESPACE}/services"), Some(&service))?;
    connection.must("POST", &slices(), Some(&slice(number, number + REAL >= size))).map(drop)
}

/// Gives a service a backend.
pub fn make_real(connection: &mut Connection, number: usize) -> Result<()> {
    let changed = json!({"endpoints": endpoints(number, true)});
    connection.must("PATCH", &format!("{}/{}", slices(), name(number)), Some(&changed)).map(drop)
}

fn slices() -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices")
}

fn slice(number: usize, real: bool) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name(number), "labels": {"kubernetes.io/service-name": name(number)}},
        "ports": [{"name": "http", "port": BACKEND_PORT, "protocol": "TCP"}],
        "endpoints": endpoints(number, real)
    })
}

fn endpoints(number: usize, real: bool) -> Value {
    let ready = json!({"ready": true});
    if real {
        let backend = |address: &Ipv4Addr| json!({"addresses": [address.to_string()], "conditions": ready});
        return BACKENDS.iter().map(backend).collect();
    }
    // in the range that is kept for measuring devices, where nobody is
    let nobody = |last: usize| Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (number * 2 + last) as u32);
    json!([
        {"addresses": [nobody(0).to_string()], "conditions": ready},
        {"addresses": [nobody(1).to_string()], "conditions": ready},
    ])
}

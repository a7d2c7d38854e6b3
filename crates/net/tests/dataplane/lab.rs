//! The test bench: namespaces, wires between them, small servers and clients, and a node made of the crate's parts.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cri::{PodAddresses, SandboxNetwork};
use ipnet::IpNet;
use net::link::{Links, Route, RouteOwner, Veth};
use net::nft::{Nft, Table};
use net::pod::{self, Pods};
use net::proxy::{self, Proxy};
use net::route::{self, Overlay, Routes};
use nix::sched::{CloneFlags, unshare};

/// Long enough for a busy machine, short enough that a lost packet fails the test soon.
const PATIENCE: Duration = Duration::from_secs(3);

/// A network namespace that ends with this value.
pub struct Namespace {
    file: File,
}

impl Namespace {
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Namespace { file: made.join().unwrap() };
        namespace.run(|| {
            let mut links = Links::open(RouteOwner::Nodes).unwrap();
            let loopback = links.index("lo").unwrap();
            links.set_up(loopback).unwrap();
        });
        namespace
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Runs `work` inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        net::netns::within(&self.path(), work).unwrap()
    }

    /// Connects this namespace with another: one device each, with these addresses in one network.
    pub fn wire(&self, device: &str, address: &str, other: &Namespace, other_device: &str, other_address: &str) {
        self.run(|| {
            let mut links = Links::open(RouteOwner::Nodes).unwrap();
            let (mac, peer_mac) = (mac(address), mac(other_address));
            let peer_namespace = other.file.as_fd();
            let veth = Veth { name: device, mac, peer_name: other_device, peer_mac, peer_namespace, mtu: 1500 };
            links.create_veth(&veth).unwrap();
        });
        self.address(device, address);
        other.address(other_device, other_address);
    }

    pub fn address(&self, device: &str, address: &str) {
        let net: IpNet = address.parse().unwrap();
        self.run(|| {
            let mut links = Links::open(RouteOwner::Nodes).unwrap();
            let index = links.index(device).unwrap();
            links.set_up(index).unwrap();
            links.add_address(index, net.addr(), net.prefix_len()).unwrap();
        });
    }

    /// A route through a gateway, under an owner that nobody lists.
    pub fn route(&self, destination: &str, gateway: &str) {
        let destination = destination.parse().unwrap();
        let gateway: IpAddr = gateway.parse().unwrap();
        self.run(|| {
            let mut links = Links::open(RouteOwner::Pods).unwrap();
            let (device, _) = links.way_to(gateway).unwrap();
            let route = Route { destination, device: Some(device), gateway: Some(gateway), source: None };
            links.add_route(&route).unwrap();
        });
    }

    pub fn routes(&self) -> Vec<Route> {
        self.run(|| Links::open(RouteOwner::Nodes).unwrap().routes().unwrap())
    }

    pub fn devices(&self) -> Vec<String> {
        let mut names: Vec<_> = self.run(|| {
            Links::open(RouteOwner::Nodes).unwrap().list().unwrap().into_iter().map(|link| link.name).collect()
        });
        names.sort();
        names
    }

    pub fn tables(&self) -> Vec<String> {
        self.run(|| Nft::open().unwrap().tables(net::nft::Family::V4).unwrap())
    }

    pub fn elements(&self, table: &str, set: &str) -> usize {
        let table = Table { family: net::nft::Family::V4, name: table.into() };
        self.run(|| Nft::open().unwrap().elements(&table, set).unwrap().len())
    }

    /// What the `nft` program says, as an oracle.
    pub fn nft(&self, arguments: &[&str]) -> String {
        let output = self.run(|| Command::new("nft").args(arguments).output().unwrap());
        assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A TCP server that answers every connection with `name` and the client's address, then echoes.
    pub fn serve(&self, address: &str, name: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let listener = self.run(|| TcpListener::bind(address).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            while let Ok((stream, client)) = listener.accept() {
                let greeting = format!("{name} {}\n", client.ip());
                std::thread::spawn(move || echo(stream, &greeting));
            }
        });
    }

    /// A UDP server that answers every packet with `name`.
    pub fn serve_udp(&self, address: &str, name: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                if socket.send_to(name.as_bytes(), client).is_err() {
                    return;
                }
            }
        });
    }

    pub fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        let stream = self.run(|| TcpStream::connect_timeout(&address, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// The server's greeting: its name and the client address it saw.
    pub fn ask(&self, address: &str) -> Result<String, io::ErrorKind> {
        greeting(&mut self.connect(address).map_err(|error| error.kind())?).map_err(|error| error.kind())
    }

    /// The server's name only.
    pub fn ask_name(&self, address: &str) -> String {
        self.ask(address).map_or_else(|error| format!("{error:?}"), |answer| answer[..answer.find(' ').unwrap()].into())
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
    }
}

pub fn greeting(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = String::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        text.push(char::from(byte[0]));
    }
    Ok(text)
}

/// Sends `payload` and reads as much back.
pub fn round_trip(stream: &mut TcpStream, payload: &[u8]) -> io::Result<bool> {
    stream.write_all(payload)?;
    let mut back = vec![0; payload.len()];
    stream.read_exact(&mut back)?;
    Ok(back == payload)
}

pub fn udp_name(socket: &UdpSocket) -> Result<String, io::ErrorKind> {
    socket.send(b"?").map_err(|error| error.kind())?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).map_err(|error| error.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn echo(mut stream: TcpStream, greeting: &str) {
    let mut buffer = [0; 4096];
    if stream.write_all(greeting.as_bytes()).is_err() {
        return;
    }
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn mac(address: &str) -> [u8; 6] {
    let net: IpNet = address.parse().unwrap();
    match net.addr() {
        IpAddr::V4(v4) => [2, 1, v4.octets()[0], v4.octets()[1], v4.octets()[2], v4.octets()[3]],
        IpAddr::V6(_) => [2; 6],
    }
}

pub const CLUSTER: &str = "10.42.0.0/16";
const CLUSTER_V6: &str = "fd00:42::/32";
pub const SERVICES: &str = "10.43.0.0/16";
const SERVICES_V6: &str = "fd00:43::/112";
pub const DNS: &str = "10.43.0.10";

/// A node: its namespace and the crate's three parts, opened inside.
pub struct Node {
    pub name: String,
    pub namespace: Namespace,
    pub range: IpNet,
    pub pods: Pods,
    pub routes: Routes,
    pub proxy: Proxy,
    folder: tempfile::TempDir,
}

impl Node {
    /// A node on a namespace that is already wired.
    pub fn new(name: &str, namespace: Namespace, range: &str, address: &str, overlay: Overlay) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let range: IpNet = range.parse().unwrap();
        let address: IpAddr = address.parse().unwrap();
        let cluster_cidrs: Vec<IpNet> = vec![CLUSTER.parse().unwrap(), CLUSTER_V6.parse().unwrap()];
        let service_cidrs: Vec<IpNet> = vec![SERVICES.parse().unwrap(), SERVICES_V6.parse().unwrap()];
        let (mut pods, mut routes, proxy) = namespace.run(|| {
            let mut routes = Routes::open(route::Config {
                prefix: "lab".into(),
                node_address: address,
                cluster_cidrs: cluster_cidrs.clone(),
                service_cidrs: service_cidrs.clone(),
                own_addresses: vec![DNS.parse().unwrap()],
                overlay,
                vxlan_id: 7,
                vxlan_port: 4789,
            })
            .unwrap();
            let pods = Pods::open(pod::Config {
                prefix: "lab".into(),
                folder: folder.path().join("sandboxes"),
                cluster_cidrs: cluster_cidrs.clone(),
                service_cidrs: service_cidrs.clone(),
                mtu: routes.pod_mtu().unwrap(),
            })
            .unwrap();
            let proxy = Proxy::open(proxy::Config {
                prefix: "lab".into(),
                node: name.into(),
                pod_cidrs: cluster_cidrs.clone(),
                service_cidrs: service_cidrs.clone(),
                own_addresses: vec![DNS.parse().unwrap()],
                node_port_addresses: vec![address],
            })
            .unwrap();
            (pods, routes, proxy)
        });
        pods.assign(&[range]).unwrap();
        routes.apply(&[range], &[]).unwrap();
        Node { name: name.into(), namespace, range, pods, routes, proxy, folder }
    }

    /// A node of its own, and a namespace outside the cluster that is wired to it: 192.0.2.1 and 192.0.2.100.
    pub fn alone() -> (Self, Namespace) {
        let (namespace, outside) = (Namespace::new(), Namespace::new());
        namespace.wire("up0", "192.0.2.1/24", &outside, "up0", "192.0.2.100/24");
        (Node::new("n1", namespace, "10.42.1.0/24", "192.0.2.1", Overlay::Auto), outside)
    }

    /// The sandboxes that have a record on disk.
    pub fn records(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("sandboxes")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub fn sandbox(&self, id: &str, pod: &Namespace) -> SandboxNetwork {
        SandboxNetwork { id: id.into(), netns_path: pod.path(), ..SandboxNetwork::default() }
    }

    pub fn join(&mut self, sandbox: &SandboxNetwork) -> Result<PodAddresses, pod::PodError> {
        let Node { namespace, pods, .. } = self;
        namespace.run(|| pods.join(sandbox))
    }

    /// A new pod and its address.
    pub fn pod(&mut self, id: &str) -> (Namespace, String) {
        let pod = Namespace::new();
        let sandbox = self.sandbox(id, &pod);
        let addresses = self.join(&sandbox).unwrap();
        let address = addresses.ips[0].to_string();
        (pod, address)
    }
}

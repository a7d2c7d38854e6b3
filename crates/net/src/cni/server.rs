//! The agent's end: plugins' questions, answered by the node's one pod network.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Tasks};
use cri::network::HostPort;
use cri::{PodAddresses, PodNetwork, SandboxNetwork};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Answer, CniError, Code, MESSAGE_BYTES_MAX, Question};
use crate::pod::{GATEWAY_V4, GATEWAY_V6, POD_DEVICE, mac_for};

/// Questions answered at the same time; more wait.
const QUESTIONS_MAX: usize = 64;
/// How long a plugin may take to ask.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed (no descriptors left, mostly).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Listens at `socket`, for root alone; one left by an earlier process is replaced.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the tasks are told to stop.
pub async fn serve(listener: UnixListener, network: Arc<dyn PodNetwork>, clock: Clock, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(QUESTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let network = network.clone();
                tasks.spawn("cni", async move {
                    if let Err(error) = converse(stream, &*network).await {
                        tracing::debug!(%error, "a CNI plugin went before it had its answer");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a CNI plugin cannot be heard");
                clock.sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn converse(mut stream: UnixStream, network: &dyn PodNetwork) -> io::Result<()> {
    let mut asked = Vec::new();
    let mut asking = (&mut stream).take(MESSAGE_BYTES_MAX);
    tokio::time::timeout(QUESTION_LIMIT, asking.read_to_end(&mut asked)).await??;
    let answer = match serde_json::from_slice::<Question>(&asked) {
        Ok(question) => answer(&question, network).await,
        Err(error) => {
            Err(CniError::new(Code::Undecodable, "coracle does not understand its plugin").because(error.to_string()))
        }
    };
    if let Err(error) = &answer {
        tracing::warn!(error = %error.msg, details = error.details, "a runtime asked for a pod's network in vain");
    }
    stream.write_all(&serde_json::to_vec(&answer)?).await
}

async fn answer(question: &Question, network: &dyn PodNetwork) -> Answer {
    match question.command.as_str() {
        "ADD" => add(question, network).await,
        "DEL" => {
            let sandbox = sandbox(question)?;
            network.leave(&sandbox).await.map_err(failed("the pod's network cannot be taken back"))?;
            Ok(Value::Null)
        }
        "CHECK" => {
            let addresses = network.check(&sandbox(question)?).await.map_err(|error| match error.is_not_found() {
                true => CniError::new(Code::UnknownContainer, error.message()),
                false => failed("the pod's network is not as it was made")(error),
            })?;
            compare(&question.config["prevResult"], &addresses)?;
            Ok(Value::Null)
        }
        "STATUS" => {
            let ready = network.ready().await;
            ready.map_err(|error| CniError::new(Code::NotAvailable, error.message()))?;
            Ok(Value::Null)
        }
        "GC" => {
            let kept = attachments(&question.config)?;
            network.keep(&kept).await.map_err(failed("what is left of pods cannot be removed"))?;
            Ok(Value::Null)
        }
        other => Err(CniError::new(Code::InvalidEnvironment, format!("CNI_COMMAND {other:?} is not known"))),
    }
}

fn failed(what: &'static str) -> impl Fn(cri::Error) -> CniError {
    move |error| CniError::new(Code::Failed, format!("{what}: {}", error.message()))
}

async fn add(question: &Question, network: &dyn PodNetwork) -> Answer {
    let port_mappings = port_mappings(&question.config["runtimeConfig"]["portMappings"])?;
    let sandbox = SandboxNetwork { port_mappings, ..sandbox(question)? };
    if question.netns.is_empty() {
        return Err(CniError::new(Code::InvalidEnvironment, "CNI_NETNS is not set"));
    }
    if question.ifname != POD_DEVICE {
        let msg = format!("CNI_IFNAME {:?}: the pod's interface is called {POD_DEVICE}", question.ifname);
        return Err(CniError::new(Code::InvalidEnvironment, msg));
    }
    network.ready().await.map_err(|error| CniError::new(Code::TryAgainLater, error.message()))?;
    let addresses = network.join(&sandbox).await.map_err(failed("the pod gets no network"))?;
    Ok(result(&addresses, &question.netns))
}

/// The sandbox that the question is about.
fn sandbox(question: &Question) -> Result<SandboxNetwork, CniError> {
    if question.container_id.is_empty() {
        return Err(CniError::new(Code::InvalidEnvironment, "CNI_CONTAINERID is not set"));
    }
    let args: BTreeMap<&str, &str> = question.args.split(';').filter_map(|pair| pair.split_once('=')).collect();
    let arg = |name: &str| args.get(name).map(|value| value.to_string()).unwrap_or_default();
    Ok(SandboxNetwork {
        id: question.container_id.clone(),
        name: arg("K8S_POD_NAME"),
        namespace: arg("K8S_POD_NAMESPACE"),
        uid: arg("K8S_POD_UID"),
        netns_path: question.netns.clone().into(),
        ..SandboxNetwork::default()
    })
}

fn port_mappings(asked: &Value) -> Result<Vec<HostPort>, CniError> {
    let refuse = || CniError::new(Code::InvalidConfiguration, format!("portMappings cannot be read: {asked}"));
    let port = |mapping: &Value, name: &str| u16::try_from(field(mapping, name)?.as_u64()?).ok();
    let text = |mapping: &Value, name: &str| field(mapping, name).and_then(Value::as_str).map(str::to_owned);
    let read = |mapping: &Value| {
        Some(HostPort {
            protocol: text(mapping, "protocol").unwrap_or("tcp".into()).to_uppercase(),
            container_port: port(mapping, "containerPort")?,
            host_port: port(mapping, "hostPort")?,
            host_ip: text(mapping, "hostIP").unwrap_or_default(),
        })
    };
    match asked {
        Value::Null => Ok(Vec::new()),
        Value::Array(mappings) => mappings.iter().map(|mapping| read(mapping).ok_or_else(refuse)).collect(),
        _ => Err(refuse()),
    }
}

/// A field whichever way its name is written: the specification says `hostPort`, containerd `HostPort`, and plugins in Go take both.
fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.as_object()?.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The result of an ADD, but for its version.
fn result(addresses: &PodAddresses, netns: &str) -> Value {
    let mac = addresses.ips.first().map(|ip| mac_for(*ip).map(|byte| format!("{byte:02x}")).join(":"));
    let (mut ips, mut routes) = (Vec::new(), Vec::new());
    for ip in &addresses.ips {
        let (length, gateway, any) = match ip {
            IpAddr::V4(_) => (32, GATEWAY_V4, "0.0.0.0/0"),
            IpAddr::V6(_) => (128, GATEWAY_V6, "::/0"),
        };
        ips.push(json!({"address": format!("{ip}/{length}"), "gateway": gateway, "interface": 0}));
        routes.push(json!({"dst": any, "gw": gateway}));
    }
    let interface = json!({"name": POD_DEVICE, "mac": mac.unwrap_or_default(), "sandbox": netns});
    json!({"interfaces": [interface], "ips": ips, "routes": routes, "dns": {}})
}

/// Whether the addresses are those of an earlier result.
fn compare(earlier: &Value, addresses: &PodAddresses) -> Result<(), CniError> {
    for told in earlier["ips"].as_array().into_iter().flatten() {
        let text = told["address"].as_str().unwrap_or_default();
        let ip = text.split('/').next().and_then(|ip| ip.parse::<IpAddr>().ok());
        if !ip.is_some_and(|ip| addresses.ips.contains(&ip)) {
            return Err(CniError::new(Code::Failed, format!("the pod has no address {text:?} any more")));
        }
    }
    Ok(())
}

/// The containers that still are, by id.
fn attachments(config: &Value) -> Result<Vec<String>, CniError> {
    let Some(listed) = config["cni.dev/valid-attachments"].as_array() else {
        let msg = "the configuration has no list cni.dev/valid-attachments";
        return Err(CniError::new(Code::InvalidConfiguration, msg));
    };
    Ok(listed.iter().filter_map(|attachment| attachment["containerID"].as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// Notes what it is asked.
    #[derive(Default)]
    struct Played {
        calls: Mutex<Vec<String>>,
        not_ready: bool,
    }

    #[async_trait::async_trait]
    impl PodNetwork for Played {
        async fn join(&self, sandbox: &SandboxNetwork) -> Result<PodAddresses, cri::Error> {
            let ports: Vec<String> =
                sandbox.port_mappings.iter().map(|port| format!("{}{}", port.protocol, port.host_port)).collect();
            self.calls.lock().push(format!(
                "join {} {}/{} {}",
                sandbox.id,
                sandbox.namespace,
                sandbox.name,
                ports.join(",")
            ));
            Ok(PodAddresses { ips: vec!["192.0.2.7".parse().unwrap()] })
        }

        async fn leave(&self, sandbox: &SandboxNetwork) -> Result<(), cri::Error> {
            self.calls.lock().push(format!("leave {}", sandbox.id));
            Ok(())
        }

        async fn ready(&self) -> Result<(), cri::Error> {
            if self.not_ready { Err(cri::Error::unknown("no range")) } else { Ok(()) }
        }

        async fn check(&self, sandbox: &SandboxNetwork) -> Result<PodAddresses, cri::Error> {
            match sandbox.id.as_str() {
                "a" => Ok(PodAddresses { ips: vec!["192.0.2.7".parse().unwrap()] }),
                id => Err(cri::Error::not_found(format!("no sandbox {id}"))),
            }
        }

        async fn keep(&self, ids: &[String]) -> Result<(), cri::Error> {
            self.calls.lock().push(format!("keep {}", ids.join(",")));
            Ok(())
        }
    }

    fn question(command: &str, config: Value) -> Question {
        Question {
            command: command.into(),
            container_id: "a".into(),
            netns: "/run/netns/x".into(),
            ifname: "eth0".into(),
            args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web".into(),
            config,
        }
    }

    #[tokio::test]
    async fn commands_are_the_network_s_calls() {
        let network = Played::default();
        let ports = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"HostPort": 53, "ContainerPort": 53, "Protocol": "udp", "HostIP": ""},
        ]);
        let ports = json!({"runtimeConfig": {"portMappings": ports}});
        let added = answer(&question("ADD", ports), &network).await.unwrap();
        assert_eq!(added["ips"][0], json!({"address": "192.0.2.7/32", "gateway": "169.254.1.1", "interface": 0}));
        assert_eq!(
            added["interfaces"][0],
            json!({"name": "eth0", "mac": "0a:58:c0:00:02:07", "sandbox": "/run/netns/x"})
        );
        for (command, config) in [
            ("CHECK", json!({"prevResult": added})),
            ("STATUS", json!({})),
            ("GC", json!({"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]})),
            ("DEL", json!({})),
        ] {
            assert_eq!(answer(&question(command, config), &network).await, Ok(Value::Null), "{command}");
        }
        assert_eq!(*network.calls.lock(), ["join a shop/web TCP8080,UDP53", "keep b", "leave a"]);
    }

    #[tokio::test]
    async fn refusals_have_the_specification_s_numbers() {
        let (network, unready) = (Played::default(), Played { not_ready: true, ..Played::default() });
        let code = |question: Question, network| async move { answer(&question, network).await.unwrap_err().code };
        let with = |change: fn(&mut Question)| {
            let mut question = question("ADD", json!({}));
            change(&mut question);
            question
        };
        assert_eq!(code(with(|question| question.container_id.clear()), &network).await, 4);
        assert_eq!(code(with(|question| question.netns.clear()), &network).await, 4);
        assert_eq!(code(with(|question| question.ifname = "net1".into()), &network).await, 4);
        assert_eq!(code(with(|question| question.command = "NUL".into()), &network).await, 4);
        assert_eq!(
            code(question("ADD", json!({"runtimeConfig": {"portMappings": [{"hostPort": 70000}]}})), &network).await,
            7
        );
        assert_eq!(code(question("GC", json!({})), &network).await, 7);
        assert_eq!(code(question("ADD", json!({})), &unready).await, 11);
        assert_eq!(code(question("STATUS", json!({})), &unready).await, 50);
        let moved = json!({"prevResult": {"ips": [{"address": "192.0.2.8/32"}]}});
        assert_eq!(code(question("CHECK", moved), &network).await, 100);
        let mut unknown = question("CHECK", json!({}));
        unknown.container_id = "b".into();
        assert_eq!(code(unknown, &network).await, 3);
    }

    #[tokio::test]
    async fn a_plugin_and_the_agent_understand_each_other_over_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cni.sock");
        // Left by an earlier process.
        std::fs::write(&socket, "").unwrap();
        let tasks = Tasks::root();
        let listener = listen(&socket).unwrap();
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        tasks.spawn("serve", serve(listener, Arc::new(Played::default()), Clock::system(), tasks.child()));
        let asked = serde_json::to_vec(&question("ADD", json!({"cniVersion": "1.0.0"}))).unwrap();
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(&asked).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap();
        let answer: Answer = serde_json::from_slice(&told).unwrap();
        assert_eq!(answer.unwrap()["ips"][0]["address"], "192.0.2.7/32");
        tasks.shutdown().await;
    }
}

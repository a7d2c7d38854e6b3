//! Containers that end at once, one after the other, over a CRI socket: from CreateContainer to the event of the end.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench_cluster::lab::SERVER;
use bench_cluster::{Lab, ms_between};
use bench_harness::Side;
use cri::v1::{
    ContainerConfig, ContainerEventType, ContainerMetadata, CreateContainerRequest, GetEventsRequest, ImageSpec,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PullImageRequest, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopPodSandboxRequest,
};
use cri::{Cri, CriStream, RemoteCri};
use futures::StreamExt;

use crate::BUSYBOX;

/// Before anything counts.
const WARM_UP: usize = 3;
const CONTAINERS: usize = 50;
const CONNECT_S_MAX: u64 = 30;
const END_S_MAX: u64 = 30;
const CONTAINERD: &str = "/run/containerd/containerd.sock";
const OURS: &str = "/run/bench-cri.sock";

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    socket: String,
    /// Below which group the sandbox goes
    #[arg(long)]
    cgroup: String,
}

/// Runs the client on the node, and on our side the runtime's server beside it; what each container took.
pub fn measured(lab: &Lab, side: Side) -> Result<Vec<f64>> {
    let _server = match side {
        Side::Ours => Some(Server::start(lab)?),
        Side::Peer => {
            // it takes away sandboxes that it does not know
            lab.stop_program(SERVER, "kubelet")?;
            None
        }
    };
    let socket = if side == Side::Ours { OURS } else { CONTAINERD };
    let words = ["containers", "--socket", socket, "--cgroup", &format!("{}/bench", lab.cgroup(SERVER))];
    let answer = lab.self_on_node(SERVER, &words)?.wait_with_output()?;
    if !answer.status.success() {
        bail!("the containers failed; there was said:\n{}", lab.log_tail(SERVER));
    }
    serde_json::from_slice(&answer.stdout).context("understanding the part on the node")
}

/// Our runtime, until it is dropped; what it made goes with the lab.
struct Server(Child);

impl Server {
    fn start(lab: &Lab) -> Result<Self> {
        let mirror = std::env::var("CORACLE_LAB_REGISTRY").context("this lab has no registry")?;
        let mut command: Command = lab.on_node(SERVER, std::env::current_exe()?);
        command.args(["serve", "--root", "/var/lib/bench-runtime", "--socket", OURS, "--mirror", &mirror]);
        Ok(Self(command.stdout(Stdio::null()).spawn().context("starting our runtime")?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // gone already is as good
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prints a list of milliseconds.
pub fn run(arguments: &Arguments) -> Result<()> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let times = executor.block_on(async {
        let cri = connect(&arguments.socket).await?;
        let outcome = in_sandbox(&cri, &arguments.cgroup).await;
        outcome.context("over the CRI socket")
    })?;
    println!("{}", serde_json::to_string(&times)?);
    Ok(())
}

/// A socket's coming to life raises no event.
async fn connect(socket: &str) -> Result<RemoteCri> {
    let begun = Instant::now();
    loop {
        match RemoteCri::connect(socket).await {
            Ok(cri) => return Ok(cri),
            Err(error) if begun.elapsed() > Duration::from_secs(CONNECT_S_MAX) => return Err(error.into()),
            Err(_not_yet) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn in_sandbox(cri: &RemoteCri, cgroup: &str) -> Result<Vec<f64>> {
    let image = ImageSpec { image: BUSYBOX.into(), ..Default::default() };
    cri.pull_image(PullImageRequest { image: Some(image.clone()), ..Default::default() }).await?;
    let config = sandbox(cgroup);
    let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let id = cri.run_pod_sandbox(request).await?.pod_sandbox_id;
    let mut events = cri.get_container_events(GetEventsRequest {}).await?;
    let mut times = Vec::new();
    for number in 0..WARM_UP + CONTAINERS {
        let took = one(cri, &mut events, &id, &config, &image, number).await?;
        if number >= WARM_UP {
            times.push(took);
        }
    }
    cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await?;
    cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }).await?;
    Ok(times)
}

async fn one(
    cri: &RemoteCri,
    events: &mut CriStream<cri::v1::ContainerEventResponse>,
    sandbox: &str,
    sandbox_config: &PodSandboxConfig,
    image: &ImageSpec,
    number: usize,
) -> Result<f64> {
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: format!("true-{number}"), attempt: 0 }),
        image: Some(image.clone()),
        command: vec!["/bin/true".into()],
        log_path: format!("{number}.log"),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.into(),
        config: Some(config),
        sandbox_config: Some(sandbox_config.clone()),
    };
    let begun = Instant::now();
    let container_id = cri.create_container(request).await?.container_id;
    cri.start_container(StartContainerRequest { container_id: container_id.clone() }).await?;
    let ended = tokio::time::timeout(Duration::from_secs(END_S_MAX), ended(events, &container_id));
    let ended = ended.await.context("no event of the container's end")??;
    cri.remove_container(RemoveContainerRequest { container_id }).await?;
    Ok(ms_between(begun, ended))
}

async fn ended(events: &mut CriStream<cri::v1::ContainerEventResponse>, container: &str) -> Result<Instant> {
    while let Some(event) = events.next().await {
        let event = event?;
        if event.container_id == container && event.container_event_type() == ContainerEventType::ContainerStoppedEvent
        {
            return Ok(Instant::now());
        }
    }
    bail!("the events ended")
}

/// In the node's network.
fn sandbox(cgroup: &str) -> PodSandboxConfig {
    let namespaces = NamespaceOption { network: NamespaceMode::Node.into(), ..Default::default() };
    let security = LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "bench".into(),
            uid: "bench".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        log_directory: "/var/log/bench".into(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup.into(),
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    }
}

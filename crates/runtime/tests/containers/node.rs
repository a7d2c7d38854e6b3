//! A runtime in a throwaway folder, with short words for what the cases do.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use base::{Clock, Tasks};
use cri::{Cri, Error, PodAddresses, PodNetwork, SandboxNetwork, v1::*};
use parking_lot::Mutex;
use runtime::{Options, Runtime, cgroup::Hierarchies, image::Registries};

use crate::image;

pub type Case = fn(Node) -> Pin<Box<dyn Future<Output = ()>>>;

/// The name that the test image goes by.
pub const IMAGE: &str = "docker.io/library/busybox:1.36";

/// A case that hangs is a failed one.
const CASE_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Why these tests cannot run here.
pub fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("containers need root");
    }
    (!Path::new("/bin/busybox").exists()).then_some("needs the package busybox-static")
}

/// A network that hands out nothing but keeps count.
#[derive(Default)]
pub struct FakeNetwork {
    pub joined: Mutex<BTreeSet<String>>,
    pub reconciled: Mutex<Vec<String>>,
    pub broken: Mutex<bool>,
}

#[async_trait::async_trait]
impl PodNetwork for FakeNetwork {
    async fn join(&self, sandbox: &SandboxNetwork) -> Result<PodAddresses, Error> {
        assert!(sandbox.netns_path.exists());
        self.joined.lock().insert(sandbox.id.clone());
        if *self.broken.lock() {
            return Err(Error::unknown("no addresses left"));
        }
        Ok(PodAddresses { ips: vec!["127.0.0.9".parse().unwrap()] })
    }

    async fn leave(&self, sandbox: &SandboxNetwork) -> Result<(), Error> {
        self.joined.lock().remove(&sandbox.id);
        Ok(())
    }

    async fn reconcile(&self, sandboxes: &[(SandboxNetwork, PodAddresses)]) -> Result<(), Error> {
        *self.reconciled.lock() = sandboxes.iter().map(|(sandbox, _)| sandbox.id.clone()).collect();
        Ok(())
    }
}

pub struct Node {
    pub folder: PathBuf,
    pub cgroup: String,
    pub runtime: Runtime,
    pub network: Arc<FakeNetwork>,
    pub registries: Registries,
    pub tasks: Tasks,
}

/// What must be the same after a test as before.
fn traces(folder: &Path, cgroup: &str) -> Vec<String> {
    let mut traces = Vec::new();
    let name = folder.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&name) {
            traces.push(command);
        }
    }
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let group = controller.path().join(cgroup.trim_start_matches('/'));
        if group.exists() {
            let below = fs::read_dir(&group).unwrap().flatten().filter(|entry| entry.path().is_dir());
            traces.extend(below.map(|entry| entry.path().display().to_string()));
            // Ours, and empty unless something above is listed.
            let _ = fs::remove_dir(&group);
        }
    }
    traces
}

pub fn run(case: Case) {
    let folder = tempfile::tempdir().unwrap();
    let cgroup = format!("/coracle-test-{}", base::chance::uuid());
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = executor.block_on(async {
        let tasks = Tasks::root();
        let node = Node::open(folder.path(), &cgroup, Registries::default(), tasks.clone()).await;
        let runtime = node.runtime.clone();
        let layout = folder.path().join("layout");
        image::layout(&image::busybox(), &layout, IMAGE);
        runtime.import(&layout, None).await.unwrap();
        let limited = async { tokio::time::timeout(CASE_LIMIT, tokio::task::spawn_local(case(node))).await };
        let result = tokio::task::LocalSet::new().run_until(limited).await;
        // Whatever the case left, by whichever life of the runtime.
        let last = Node::open(folder.path(), &cgroup, Registries::default(), Tasks::root()).await;
        for sandbox in last.runtime.list_pod_sandbox(Default::default()).await.unwrap().items {
            last.runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox.id }).await.unwrap();
        }
        tasks.shutdown().await;
        last.tasks.shutdown().await;
        result
    });
    drop(executor);
    let left = traces(folder.path(), &cgroup);
    if let Err(error) = result.expect("the case took longer than its limit") {
        std::panic::resume_unwind(error.into_panic());
    }
    assert!(left.is_empty(), "left behind: {left:#?}");
}

impl Node {
    pub async fn open(folder: &Path, cgroup: &str, registries: Registries, tasks: Tasks) -> Self {
        Self::open_with(folder, cgroup, registries, tasks, None).await
    }

    pub async fn open_with(
        folder: &Path,
        cgroup: &str,
        registries: Registries,
        tasks: Tasks,
        hierarchies: Option<Hierarchies>,
    ) -> Self {
        let network = Arc::new(FakeNetwork::default());
        let options = Options {
            root: folder.join("runtime"),
            registries: registries.clone(),
            layer_limits: Default::default(),
            hierarchies,
            network: network.clone(),
            clock: Clock::system(),
            tasks: tasks.clone(),
        };
        let runtime = Runtime::open(options).await.unwrap();
        Node { folder: folder.to_owned(), cgroup: cgroup.to_owned(), runtime, network, registries, tasks }
    }

    /// The same node after its Coracle was stopped, with no word to the containers.
    pub async fn reopened(&self) -> Self {
        self.tasks.shutdown().await;
        Node::open(&self.folder, &self.cgroup, self.registries.clone(), Tasks::root()).await
    }

    pub fn sandbox_config(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "pod".into(),
                uid: "uid".into(),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: "pod".into(),
            log_directory: self.folder.join("logs").display().to_string(),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent: self.cgroup.clone(), ..Default::default() }),
            ..Default::default()
        }
    }

    pub async fn sandbox(&self) -> String {
        self.sandbox_of(self.sandbox_config()).await.unwrap()
    }

    pub async fn sandbox_of(&self, config: PodSandboxConfig) -> Result<String, Error> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        Ok(self.runtime.run_pod_sandbox(request).await?.pod_sandbox_id)
    }

    /// A container of the test image that runs a shell script.
    pub fn script(&self, script: &str) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
            command: vec!["sh".into(), "-c".into(), script.into()],
            log_path: format!("{}.log", base::chance::suffix(8)),
            ..Default::default()
        }
    }

    pub async fn create(&self, sandbox: &str, config: &ContainerConfig) -> Result<String, Error> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config.clone()),
            sandbox_config: None,
        };
        Ok(Cri::create_container(&self.runtime, request).await?.container_id)
    }

    pub async fn start(&self, sandbox: &str, config: &ContainerConfig) -> String {
        let id = self.create(sandbox, config).await.unwrap();
        Cri::start_container(&self.runtime, StartContainerRequest { container_id: id.clone() }).await.unwrap();
        id
    }

    pub async fn status(&self, container: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: container.into(), verbose: false };
        self.runtime.container_status(request).await.unwrap().status.unwrap()
    }

    /// Waits for the container's end by its event, and returns how it ended.
    pub async fn ended(&self, container: &str) -> ContainerStatus {
        use futures::StreamExt;
        let mut events = self.runtime.get_container_events(GetEventsRequest {}).await.unwrap();
        loop {
            let status = self.status(container).await;
            if status.state() == ContainerState::ContainerExited {
                return status;
            }
            events.next().await.unwrap().unwrap();
        }
    }

    /// Runs a container to its end: how it ended and what it wrote to standard output.
    pub async fn run(&self, sandbox: &str, config: &ContainerConfig) -> (ContainerStatus, String) {
        let id = self.start(sandbox, config).await;
        let status = self.ended(&id).await;
        let log = self.log(&status, "stdout");
        (status, log)
    }

    /// What a container logged on a stream.
    pub fn log(&self, status: &ContainerStatus, stream: &str) -> String {
        let text = fs::read_to_string(&status.log_path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| {
            let mut parts = line.splitn(4, ' ');
            let (_, from, tag) = (parts.next()?, parts.next()?, parts.next()?);
            (from == stream).then(|| format!("{}{}", parts.next().unwrap_or(""), if tag == "F" { "\n" } else { "" }))
        });
        lines.collect()
    }

    pub async fn exec(&self, container: &str, script: &str) -> Result<ExecSyncResponse, Error> {
        let cmd = vec!["sh".into(), "-c".into(), script.into()];
        self.runtime.exec_sync(ExecSyncRequest { container_id: container.into(), cmd, timeout: 0 }).await
    }

    pub async fn stop(&self, container: &str, timeout_s: i64) {
        let request = StopContainerRequest { container_id: container.into(), timeout: timeout_s };
        Cri::stop_container(&self.runtime, request).await.unwrap();
    }
}

impl Node {
    /// A running container's first process.
    pub async fn pid(&self, container: &str) -> i32 {
        let request = ContainerStatusRequest { container_id: container.into(), verbose: true };
        let info = self.runtime.container_status(request).await.unwrap().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        info["pid"].as_i64().unwrap() as i32
    }

    pub fn shim_pid(&self, sandbox: &str) -> i32 {
        let record = fs::read(self.folder.join("runtime/sandboxes").join(sandbox).join("record.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&record).unwrap()["shim_pid"].as_i64().unwrap() as i32
    }

    pub fn kill_shim(&self, sandbox: &str) {
        let pid = rustix::process::Pid::from_raw(self.shim_pid(sandbox)).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// A device that we can open and that is not among those every container has, as `mknod` takes it.
    pub fn foreign_device(&self) -> Option<String> {
        let standard = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
        let candidates = ["/dev/net/tun", "/dev/fuse", "/dev/loop-control", "/dev/kvm", "/dev/urandom"];
        candidates.iter().find_map(|path| {
            let number = fs::File::open(path).ok()?.metadata().ok()?.rdev();
            let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
            (!standard.contains(&(major, minor))).then(|| format!("c {major} {minor}"))
        })
    }
}

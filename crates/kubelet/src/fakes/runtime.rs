//! A played runtime: containers that run as long as their image says and end as it says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::Clock;
use cri::v1::*;
use cri::{Code, Cri, CriStream, Error};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// What a program does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Program {
    /// For ever when none.
    pub runs_for: Option<Duration>,
    pub exit_code: i32,
    /// Only SIGKILL ends it.
    pub ignores_term: bool,
}

#[derive(Default)]
struct State {
    sandboxes: HashMap<String, PodSandboxStatus>,
    containers: HashMap<String, (String, ContainerStatus)>,
    next_id: u32,
    images: HashMap<String, Program>,
    /// Images that a pull makes present.
    registry: HashMap<String, Program>,
    exec_fails: bool,
    has_no_events: bool,
    is_down: bool,
    /// What was done, in order.
    log: Vec<String>,
}

#[derive(Clone)]
pub struct FakeRuntime {
    clock: Clock,
    state: Arc<Mutex<State>>,
    events: Arc<Mutex<broadcast::Sender<String>>>,
}

impl FakeRuntime {
    pub fn new(clock: Clock) -> Self {
        let runtime =
            FakeRuntime { clock, state: Arc::default(), events: Arc::new(Mutex::new(broadcast::channel(1024).0)) };
        runtime.image("forever", Program::default());
        runtime
    }

    /// An image that is there already.
    pub fn image(&self, name: &str, program: Program) {
        self.state.lock().images.insert(format!("{name}:1"), program);
    }

    /// An image that can be pulled.
    pub fn publish(&self, name: &str, program: Program) {
        self.state.lock().registry.insert(format!("{name}:1"), program);
    }

    pub fn fail_exec(&self, fails: bool) {
        self.state.lock().exec_fails = fails;
    }

    /// It forgets how to tell of events; who listens hears no more.
    pub fn without_events(&self) {
        self.state.lock().has_no_events = true;
        *self.events.lock() = broadcast::channel(1).0;
    }

    /// It does not answer when asked how it is.
    pub fn go_down(&self, down: bool) {
        self.state.lock().is_down = down;
    }

    /// Where a container's log is said to be.
    pub fn logs_to(&self, id: &str, path: &std::path::Path) {
        if let Some((_, status)) = self.state.lock().containers.get_mut(id) {
            status.log_path = path.display().to_string();
        }
    }

    /// What was done since this was last asked.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().log)
    }

    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.sandboxes.len(), state.containers.len())
    }

    fn note(&self, what: String) {
        self.state.lock().log.push(what);
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap()
    }

    fn end(&self, id: &str, exit_code: i32) {
        let now = self.now();
        let mut state = self.state.lock();
        let Some((_, status)) = state.containers.get_mut(id) else { return };
        if status.state != ContainerState::ContainerRunning as i32 {
            return;
        }
        status.state = ContainerState::ContainerExited as i32;
        status.exit_code = exit_code;
        status.finished_at = now;
        let name = status.metadata.clone().unwrap().name;
        state.log.push(format!("end {name} {exit_code}"));
        drop(state);
        self.tell(id);
    }

    fn tell(&self, id: &str) {
        if !self.state.lock().has_no_events {
            drop(self.events.lock().send(id.to_string()));
        }
    }

    fn program(&self, id: &str) -> Program {
        let state = self.state.lock();
        let image = state.containers[id].1.image.clone().unwrap();
        state.images.get(&image.image).copied().unwrap_or_default()
    }
}

fn selected(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[async_trait]
impl Cri for FakeRuntime {
    async fn version(&self, _: VersionRequest) -> Result<VersionResponse, Error> {
        Ok(VersionResponse::default())
    }

    async fn status(&self, _: StatusRequest) -> Result<StatusResponse, Error> {
        match self.state.lock().is_down {
            true => Err(Error::unavailable("down")),
            false => Ok(StatusResponse::default()),
        }
    }

    async fn list_images(&self, _: ListImagesRequest) -> Result<ListImagesResponse, Error> {
        Ok(ListImagesResponse::default())
    }

    async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse, Error> {
        let name = request.image.unwrap_or_default().image;
        let known = self.state.lock().images.contains_key(&name);
        let image =
            known.then(|| Image { id: name.clone(), uid: Some(Int64Value { value: 0 }), size: 7, ..Image::default() });
        Ok(ImageStatusResponse { image, ..ImageStatusResponse::default() })
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse, Error> {
        let name = request.image.unwrap_or_default().image;
        let mut state = self.state.lock();
        let program = *state.registry.get(&name).ok_or_else(|| Error::not_found(format!("no pull of {name}")))?;
        state.images.insert(name.clone(), program);
        Ok(PullImageResponse { image_ref: name })
    }

    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse, Error> {
        let config = request.config.unwrap_or_default();
        let created_at = self.now();
        let mut state = self.state.lock();
        state.next_id += 1;
        let id = format!("sandbox{}", state.next_id);
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: PodSandboxState::SandboxReady as i32,
            created_at,
            network: Some(PodSandboxNetworkStatus { ip: "10.0.0.5".into(), ..Default::default() }),
            labels: config.labels,
            ..PodSandboxStatus::default()
        };
        state.sandboxes.insert(id.clone(), status);
        state.log.push("sandbox".into());
        Ok(RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse, Error> {
        let running: Vec<String> = {
            let mut state = self.state.lock();
            if let Some(sandbox) = state.sandboxes.get_mut(&request.pod_sandbox_id) {
                sandbox.state = PodSandboxState::SandboxNotready as i32;
            }
            let own = state.containers.iter().filter(|(_, (sandbox, _))| *sandbox == request.pod_sandbox_id);
            own.map(|(id, _)| id.clone()).collect()
        };
        running.iter().for_each(|id| self.end(id, 137));
        self.note("sandbox stopped".into());
        Ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse, Error> {
        let mut state = self.state.lock();
        state.sandboxes.remove(&request.pod_sandbox_id);
        state.containers.retain(|_, (sandbox, _)| *sandbox != request.pod_sandbox_id);
        Ok(RemovePodSandboxResponse {})
    }

    async fn list_pod_sandbox(&self, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse, Error> {
        let selector = request.filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let found = state.sandboxes.values().filter(|sandbox| selected(&selector, &sandbox.labels));
        let items = found.map(|found| PodSandbox {
            id: found.id.clone(),
            labels: found.labels.clone(),
            state: found.state,
            ..Default::default()
        });
        Ok(ListPodSandboxResponse { items: items.collect() })
    }

    async fn pod_sandbox_status(&self, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse, Error> {
        let found = self.state.lock().sandboxes.get(&request.pod_sandbox_id).cloned();
        let status = Some(found.ok_or_else(|| Error::not_found("sandbox"))?);
        Ok(PodSandboxStatusResponse { status, ..Default::default() })
    }

    async fn create_container(&self, request: CreateContainerRequest) -> Result<CreateContainerResponse, Error> {
        let config = request.config.unwrap_or_default();
        let created_at = self.now();
        let mut state = self.state.lock();
        state.next_id += 1;
        let id = format!("container{}", state.next_id);
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: ContainerState::ContainerCreated as i32,
            created_at,
            image: config.image,
            labels: config.labels,
            annotations: config.annotations,
            ..ContainerStatus::default()
        };
        state.containers.insert(id.clone(), (request.pod_sandbox_id, status));
        Ok(CreateContainerResponse { container_id: id })
    }

    async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse, Error> {
        let id = request.container_id;
        let now = self.now();
        {
            let mut state = self.state.lock();
            let (_, status) = state.containers.get_mut(&id).ok_or_else(|| Error::not_found("container"))?;
            status.state = ContainerState::ContainerRunning as i32;
            status.started_at = now;
            let name = status.metadata.clone().unwrap_or_default().name;
            state.log.push(format!("start {name}"));
        }
        let program = self.program(&id);
        if let Some(runs_for) = program.runs_for {
            let runtime = self.clone();
            tokio::spawn(async move {
                runtime.clock.sleep(runs_for).await;
                runtime.end(&id, program.exit_code);
            });
        }
        Ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse, Error> {
        let id = request.container_id;
        let name = {
            let state = self.state.lock();
            let (_, status) = state.containers.get(&id).ok_or_else(|| Error::not_found("container"))?;
            status.metadata.clone().unwrap_or_default().name
        };
        self.note(format!("term {name} {}", request.timeout));
        if self.program(&id).ignores_term {
            self.clock.sleep(Duration::from_secs(request.timeout.unsigned_abs())).await;
            self.end(&id, 137);
        } else {
            self.end(&id, 143);
        }
        Ok(StopContainerResponse {})
    }

    async fn remove_container(&self, request: RemoveContainerRequest) -> Result<RemoveContainerResponse, Error> {
        self.state.lock().containers.remove(&request.container_id);
        Ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: ListContainersRequest) -> Result<ListContainersResponse, Error> {
        let selector = request.filter.unwrap_or_default().label_selector;
        let state = self.state.lock();
        let found = state.containers.values().filter(|(_, status)| selected(&selector, &status.labels));
        let listed = found.map(|(sandbox, status)| Container {
            id: status.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            labels: status.labels.clone(),
            state: status.state,
            ..Container::default()
        });
        Ok(ListContainersResponse { containers: listed.collect() })
    }

    async fn container_status(&self, request: ContainerStatusRequest) -> Result<ContainerStatusResponse, Error> {
        let found = self.state.lock().containers.get(&request.container_id).cloned();
        let (_, status) = found.ok_or_else(|| Error::not_found("container"))?;
        Ok(ContainerStatusResponse { status: Some(status), ..Default::default() })
    }

    async fn reopen_container_log(&self, _: ReopenContainerLogRequest) -> Result<ReopenContainerLogResponse, Error> {
        match self.state.lock().is_down {
            true => Err(Error::unavailable("down")),
            false => Ok(ReopenContainerLogResponse {}),
        }
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Error> {
        let command = request.cmd.join(" ");
        if let Some(seconds) = command.strip_prefix("sleep ") {
            self.note(format!("exec {command}"));
            let wanted = Duration::from_secs(seconds.parse().unwrap());
            let limit = Duration::from_secs(request.timeout.unsigned_abs());
            if request.timeout > 0 && limit < wanted {
                self.clock.sleep(limit).await;
                return Err(Error::new(Code::DeadlineExceeded, "timed out"));
            }
            self.clock.sleep(wanted).await;
            return Ok(ExecSyncResponse::default());
        }
        let exit_code = i32::from(self.state.lock().exec_fails);
        Ok(ExecSyncResponse { exit_code, stderr: b"sick".to_vec(), ..ExecSyncResponse::default() })
    }

    async fn get_container_events(&self, _: GetEventsRequest) -> Result<CriStream<ContainerEventResponse>, Error> {
        if self.state.lock().has_no_events {
            return Err(Error::unimplemented("GetContainerEvents"));
        }
        let (events, runtime) = (self.events.lock().subscribe(), self.clone());
        let ids =
            futures::stream::unfold(
                events,
                |mut events| async move { events.recv().await.ok().map(|id| (id, events)) },
            );
        let told = ids.map(move |container_id| {
            let state = runtime.state.lock();
            let sandbox = state.containers.get(&container_id).map(|(sandbox, _)| sandbox.clone());
            let pod_sandbox_status = sandbox.and_then(|sandbox| state.sandboxes.get(&sandbox).cloned());
            Ok(ContainerEventResponse { container_id, pod_sandbox_status, ..Default::default() })
        });
        Ok(told.boxed())
    }
}

//! The runtime behind CRI: requests in, one call, answers out.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use cri::{Cri, CriStream, Error, RuntimeConditionType, Streaming, v1::*};
use futures::{FutureExt, StreamExt};

use crate::{
    Runtime,
    image::ImageError,
    metrics,
    shim::{client, protocol::Request},
    state::{Container, Sandbox},
    status,
};

/// What CRI's Version answers.
const RUNTIME_NAME: &str = "coracle";
const RUNTIME_API_VERSION: &str = "v1";
/// The version of the kubelet's API, which has never changed.
const KUBE_API_VERSION: &str = "0.1.0";

/// How many items a streamed list carries at once.
const STREAM_ITEMS: usize = 256;

fn stream<T: Clone + Send + 'static, R: Send + 'static>(items: &[T], wrap: fn(Vec<T>) -> R) -> CriStream<R> {
    let chunks: Vec<_> = items.chunks(STREAM_ITEMS).map(|chunk| Ok(wrap(chunk.to_vec()))).collect();
    futures::stream::iter(chunks).boxed()
}

fn image_error(doing: &str, error: ImageError) -> Error {
    match error {
        ImageError::NotFound(_) => Error::not_found(format!("{doing}: {error}")),
        ImageError::Reference(_) => Error::invalid(format!("{doing}: {error}")),
        _ => Error::unknown(format!("{doing}: {error}")),
    }
}

impl Runtime {
    fn selected_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Vec<Arc<Sandbox>> {
        let filter = filter.unwrap_or_default();
        let wanted = |sandbox: &Arc<Sandbox>| {
            let state =
                filter.state.is_none_or(|state| (state.state() == PodSandboxState::SandboxReady) == sandbox.is_ready());
            sandbox.id.starts_with(&filter.id)
                && state
                && status::selects(&filter.label_selector, &sandbox.config().labels)
        };
        self.sandboxes().all().into_iter().filter(wanted).collect()
    }

    fn selected_containers(&self, filter: Option<ContainerFilter>) -> Vec<Arc<Container>> {
        let filter = filter.unwrap_or_default();
        let wanted = |container: &Arc<Container>| {
            container.id.starts_with(&filter.id)
                && container.sandbox.id.starts_with(&filter.pod_sandbox_id)
                && filter.state.is_none_or(|state| state.state() == container.state())
                && status::selects(&filter.label_selector, &container.config.labels)
        };
        self.containers().all().into_iter().filter(wanted).collect()
    }

    fn listed_images(&self, filter: Option<ImageFilter>) -> Vec<Image> {
        let named = filter.and_then(|filter| filter.image).map(|image| image.image).filter(|name| !name.is_empty());
        let records = match named {
            Some(name) => self.images().find(&name).into_iter().collect(),
            None => self.images().list(),
        };
        records.iter().map(|record| status::image(record, self.images())).collect()
    }

    async fn stats_of(&self, filter: Option<ContainerStatsFilter>) -> Result<Vec<ContainerStats>, Error> {
        let filter = filter.map(|filter| ContainerFilter {
            id: filter.id,
            pod_sandbox_id: filter.pod_sandbox_id,
            label_selector: filter.label_selector,
            state: None,
        });
        let mut all = Vec::new();
        for container in self.selected_containers(filter).iter().filter(|container| container.is_running()) {
            all.push(self.container_stats(container).await?);
        }
        Ok(all)
    }

    async fn sandbox_stats_of(&self, filter: Option<PodSandboxStatsFilter>) -> Result<Vec<PodSandboxStats>, Error> {
        let filter =
            filter.map(|filter| PodSandboxFilter { id: filter.id, label_selector: filter.label_selector, state: None });
        let mut all = Vec::new();
        for sandbox in self.selected_sandboxes(filter).iter().filter(|sandbox| sandbox.is_ready()) {
            all.push(self.sandbox_stats(sandbox).await?);
        }
        Ok(all)
    }

    fn metrics(&self) -> Vec<PodSandboxMetrics> {
        let ready = self.sandboxes().all().into_iter().filter(|sandbox| sandbox.is_ready());
        ready.map(|sandbox| self.sandbox_metrics(&sandbox)).collect()
    }

    /// The layer folders that containers stand on.
    pub(crate) fn layers_in_use(&self) -> BTreeSet<String> {
        self.containers().all().iter().flat_map(|container| container.record.layers.clone()).collect()
    }
}

fn condition(kind: RuntimeConditionType, problem: Option<String>, reason: &str) -> RuntimeCondition {
    RuntimeCondition {
        r#type: kind.as_str().into(),
        status: problem.is_none(),
        reason: problem.as_ref().map(|_| reason.to_owned()).unwrap_or_default(),
        message: problem.unwrap_or_default(),
    }
}

#[async_trait]
impl Cri for Runtime {
    fn streaming(&self) -> Option<&dyn Streaming> {
        Some(self)
    }

    async fn version(&self, _: VersionRequest) -> Result<VersionResponse, Error> {
        Ok(VersionResponse {
            version: KUBE_API_VERSION.into(),
            runtime_name: RUNTIME_NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: RUNTIME_API_VERSION.into(),
        })
    }

    async fn status(&self, _: StatusRequest) -> Result<StatusResponse, Error> {
        let network = self.network().ready().await.err().map(|error| error.message().to_owned());
        let conditions = vec![
            condition(RuntimeConditionType::RuntimeReady, None, ""),
            condition(RuntimeConditionType::NetworkReady, network, "NetworkPluginNotReady"),
        ];
        let features = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
        Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            info: Default::default(),
            runtime_handlers: vec![RuntimeHandler { name: String::new(), features: Some(features) }],
            features: Some(RuntimeFeatures { supplemental_groups_policy: true, ..Default::default() }),
        })
    }

    async fn runtime_config(&self, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse, Error> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_runtime_config(&self, _: UpdateRuntimeConfigRequest) -> Result<UpdateRuntimeConfigResponse, Error> {
        // The pod CIDR is the pod network's to know, and it learns it elsewhere.
        Ok(UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse, Error> {
        // Large on the stack otherwise, and it runs to its end even when the caller goes.
        let runtime = self.clone();
        let run = tokio::spawn(async move { runtime.run_sandbox(request).await }.boxed());
        let pod_sandbox_id = run.await.map_err(|error| Error::unknown(format!("run sandbox: {error}")))??;
        Ok(RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse, Error> {
        self.stop_sandbox(&request.pod_sandbox_id).await?;
        Ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse, Error> {
        self.remove_sandbox(&request.pod_sandbox_id).await?;
        Ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse, Error> {
        let sandbox = self.sandboxes().get("sandbox", &request.pod_sandbox_id)?;
        let containers = self.containers_of(&sandbox.id);
        Ok(PodSandboxStatusResponse {
            status: Some(status::sandbox(&sandbox)),
            info: Default::default(),
            containers_statuses: containers
                .iter()
                .map(|container| status::container(container, self.images()))
                .collect(),
            timestamp: self.now_ns(),
        })
    }

    async fn list_pod_sandbox(&self, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse, Error> {
        let sandboxes = self.selected_sandboxes(request.filter);
        Ok(ListPodSandboxResponse { items: sandboxes.iter().map(|sandbox| status::listed_sandbox(sandbox)).collect() })
    }

    async fn stream_pod_sandboxes(
        &self,
        request: StreamPodSandboxesRequest,
    ) -> Result<CriStream<StreamPodSandboxesResponse>, Error> {
        let list = self.list_pod_sandbox(ListPodSandboxRequest { filter: request.filter }).await?;
        Ok(stream(&list.items, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(&self, request: CreateContainerRequest) -> Result<CreateContainerResponse, Error> {
        Ok(CreateContainerResponse { container_id: Runtime::create_container(self, request)? })
    }

    async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse, Error> {
        Runtime::start_container(self, &request.container_id).await?;
        Ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse, Error> {
        Runtime::stop_container(self, &request.container_id, request.timeout).await?;
        Ok(StopContainerResponse {})
    }

    async fn remove_container(&self, request: RemoveContainerRequest) -> Result<RemoveContainerResponse, Error> {
        Runtime::remove_container(self, &request.container_id).await?;
        Ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: ListContainersRequest) -> Result<ListContainersResponse, Error> {
        let containers = self.selected_containers(request.filter);
        Ok(ListContainersResponse {
            containers: containers.iter().map(|container| status::listed_container(container)).collect(),
        })
    }

    async fn stream_containers(
        &self,
        request: StreamContainersRequest,
    ) -> Result<CriStream<StreamContainersResponse>, Error> {
        let list = self.list_containers(ListContainersRequest { filter: request.filter }).await?;
        Ok(stream(&list.containers, |containers| StreamContainersResponse { containers }))
    }

    async fn container_status(&self, request: ContainerStatusRequest) -> Result<ContainerStatusResponse, Error> {
        let container = self.containers().get("container", &request.container_id)?;
        let info = if request.verbose { status::container_info(&container) } else { Default::default() };
        Ok(ContainerStatusResponse { status: Some(status::container(&container, self.images())), info })
    }

    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, Error> {
        if let Some(resources) = &request.linux {
            self.update_container(&request.container_id, resources)?;
        }
        Ok(UpdateContainerResourcesResponse {})
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse, Error> {
        // The pod's cgroup is the node agent's to change; here it is only news, as with upstream's runtimes.
        self.sandboxes().get("sandbox", &request.pod_sandbox_id)?;
        Ok(UpdatePodSandboxResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse, Error> {
        let container = self.containers().get("container", &request.container_id)?;
        match container.sandbox.shim.call(&Request::Reopen { container: container.id.clone() }).await {
            Ok(_) => Ok(ReopenContainerLogResponse {}),
            Err(client::Error::NotRunning) => Err(Error::unknown("container is not running")),
            Err(error) => Err(Error::unknown(format!("failed to reopen log: {error}"))),
        }
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Error> {
        self.exec_and_wait(request).await
    }

    async fn container_stats(&self, request: ContainerStatsRequest) -> Result<ContainerStatsResponse, Error> {
        let container = self.containers().get("container", &request.container_id)?;
        Ok(ContainerStatsResponse { stats: Some(Runtime::container_stats(self, &container).await?) })
    }

    async fn list_container_stats(
        &self,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse, Error> {
        Ok(ListContainerStatsResponse { stats: self.stats_of(request.filter).await? })
    }

    async fn stream_container_stats(
        &self,
        request: StreamContainerStatsRequest,
    ) -> Result<CriStream<StreamContainerStatsResponse>, Error> {
        let all = self.stats_of(request.filter).await?;
        Ok(stream(&all, |container_stats| StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(&self, request: PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse, Error> {
        let sandbox = self.sandboxes().get("sandbox", &request.pod_sandbox_id)?;
        Ok(PodSandboxStatsResponse { stats: Some(self.sandbox_stats(&sandbox).await?) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse, Error> {
        Ok(ListPodSandboxStatsResponse { stats: self.sandbox_stats_of(request.filter).await? })
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: StreamPodSandboxStatsRequest,
    ) -> Result<CriStream<StreamPodSandboxStatsResponse>, Error> {
        let all = self.sandbox_stats_of(request.filter).await?;
        Ok(stream(&all, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    async fn list_metric_descriptors(
        &self,
        _: ListMetricDescriptorsRequest,
    ) -> Result<ListMetricDescriptorsResponse, Error> {
        Ok(ListMetricDescriptorsResponse { descriptors: metrics::descriptors() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: ListPodSandboxMetricsRequest,
    ) -> Result<ListPodSandboxMetricsResponse, Error> {
        Ok(ListPodSandboxMetricsResponse { pod_metrics: self.metrics() })
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: StreamPodSandboxMetricsRequest,
    ) -> Result<CriStream<StreamPodSandboxMetricsResponse>, Error> {
        let all = self.metrics();
        Ok(stream(&all, |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
    }

    async fn get_container_events(&self, _: GetEventsRequest) -> Result<CriStream<ContainerEventResponse>, Error> {
        Ok(self.events())
    }

    async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse, Error> {
        Ok(ListImagesResponse { images: self.listed_images(request.filter) })
    }

    async fn stream_images(&self, request: StreamImagesRequest) -> Result<CriStream<StreamImagesResponse>, Error> {
        Ok(stream(&self.listed_images(request.filter), |images| StreamImagesResponse { images }))
    }

    async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse, Error> {
        let name = request.image.map(|image| image.image).unwrap_or_default();
        // An image that is not here is an empty answer in CRI.
        let image = self.images().find(&name).map(|record| status::image(&record, self.images()));
        Ok(ImageStatusResponse { image, info: Default::default() })
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse, Error> {
        let name = request.image.map(|image| image.image).unwrap_or_default();
        let image = self.pull(&name, request.auth.as_ref(), None).await;
        let image = image.map_err(|error| image_error(&format!("failed to pull and unpack image {name:?}"), error))?;
        Ok(PullImageResponse { image_ref: image.id })
    }

    async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse, Error> {
        let name = request.image.map(|image| image.image).unwrap_or_default();
        self.remove(&name).await.map_err(|error| image_error(&format!("failed to remove image {name:?}"), error))?;
        Ok(RemoveImageResponse {})
    }

    async fn image_fs_info(&self, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse, Error> {
        let (bytes, entries) = self.images().usage();
        let usage = FilesystemUsage {
            timestamp: self.now_ns(),
            fs_id: Some(FilesystemIdentifier { mountpoint: self.images().layers_folder().display().to_string() }),
            used_bytes: Some(UInt64Value { value: bytes }),
            inodes_used: Some(UInt64Value { value: entries }),
        };
        Ok(ImageFsInfoResponse { image_filesystems: vec![usage], container_filesystems: vec![] })
    }
}

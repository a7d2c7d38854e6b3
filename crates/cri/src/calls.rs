//! The list of CRI's calls, once. The trait, the gRPC client and the gRPC server are all written from it.
//!
//! `for_each_call!(consumer)` hands `consumer!` the calls of both services, those that answer once and those that stream;
//! the last word of a streaming call is the name tonic gives to its stream type.

/// Calls `$consumer!` with the table of calls.
macro_rules! for_each_call {
    ($consumer:ident) => {
        $consumer! {
            runtime once {
                version: VersionRequest => VersionResponse,
                run_pod_sandbox: RunPodSandboxRequest => RunPodSandboxResponse,
                stop_pod_sandbox: StopPodSandboxRequest => StopPodSandboxResponse,
                remove_pod_sandbox: RemovePodSandboxRequest => RemovePodSandboxResponse,
                pod_sandbox_status: PodSandboxStatusRequest => PodSandboxStatusResponse,
                list_pod_sandbox: ListPodSandboxRequest => ListPodSandboxResponse,
                create_container: CreateContainerRequest => CreateContainerResponse,
                start_container: StartContainerRequest => StartContainerResponse,
                stop_container: StopContainerRequest => StopContainerResponse,
                remove_container: RemoveContainerRequest => RemoveContainerResponse,
                list_containers: ListContainersRequest => ListContainersResponse,
                container_status: ContainerStatusRequest => ContainerStatusResponse,
                update_container_resources: UpdateContainerResourcesRequest => UpdateContainerResourcesResponse,
                reopen_container_log: ReopenContainerLogRequest => ReopenContainerLogResponse,
                exec_sync: ExecSyncRequest => ExecSyncResponse,
                exec: ExecRequest => ExecResponse,
                attach: AttachRequest => AttachResponse,
                port_forward: PortForwardRequest => PortForwardResponse,
                container_stats: ContainerStatsRequest => ContainerStatsResponse,
                list_container_stats: ListContainerStatsRequest => ListContainerStatsResponse,
                pod_sandbox_stats: PodSandboxStatsRequest => PodSandboxStatsResponse,
                list_pod_sandbox_stats: ListPodSandboxStatsRequest => ListPodSandboxStatsResponse,
                update_runtime_config: UpdateRuntimeConfigRequest => UpdateRuntimeConfigResponse,
                status: StatusRequest => StatusResponse,
                checkpoint_container: CheckpointContainerRequest => CheckpointContainerResponse,
                checkpoint_pod: CheckpointPodRequest => CheckpointPodResponse,
                restore_pod: RestorePodRequest => RestorePodResponse,
                list_metric_descriptors: ListMetricDescriptorsRequest => ListMetricDescriptorsResponse,
                list_pod_sandbox_metrics: ListPodSandboxMetricsRequest => ListPodSandboxMetricsResponse,
                runtime_config: RuntimeConfigRequest => RuntimeConfigResponse,
                update_pod_sandbox_resources: UpdatePodSandboxResourcesRequest => UpdatePodSandboxResourcesResponse,
            }
            runtime stream {
                stream_pod_sandboxes: StreamPodSandboxesRequest => StreamPodSandboxesResponse as StreamPodSandboxesStream,
                stream_containers: StreamContainersRequest => StreamContainersResponse as StreamContainersStream,
                stream_container_stats: StreamContainerStatsRequest => StreamContainerStatsResponse as StreamContainerStatsStream,
                stream_pod_sandbox_stats: StreamPodSandboxStatsRequest => StreamPodSandboxStatsResponse as StreamPodSandboxStatsStream,
                get_container_events: GetEventsRequest => ContainerEventResponse as GetContainerEventsStream,
                stream_pod_sandbox_metrics: StreamPodSandboxMetricsRequest => StreamPodSandboxMetricsResponse as StreamPodSandboxMetricsStream,
            }
            image once {
                list_images: ListImagesRequest => ListImagesResponse,
                image_status: ImageStatusRequest => ImageStatusResponse,
                pull_image: PullImageRequest => PullImageResponse,
                remove_image: RemoveImageRequest => RemoveImageResponse,
                image_fs_info: ImageFsInfoRequest => ImageFsInfoResponse,
            }
            image stream {
                stream_images: StreamImagesRequest => StreamImagesResponse as StreamImagesStream,
            }
        }
    };
}

pub(crate) use for_each_call;

//! The event stream: every container's and sandbox's creation, start, end and removal, with the pod's state at that moment.

use std::sync::Arc;

use cri::{
    CriStream, Error,
    v1::{ContainerEventResponse, ContainerEventType},
};
use futures::StreamExt;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use crate::{Runtime, state::Sandbox, status};

/// How many events may wait for a listener; one that falls behind is told so and has to list anew.
pub const EVENT_QUEUE_MAX: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Created,
    Started,
    Stopped,
    Deleted,
}

impl Event {
    fn kind(self) -> ContainerEventType {
        match self {
            Event::Created => ContainerEventType::ContainerCreatedEvent,
            Event::Started => ContainerEventType::ContainerStartedEvent,
            Event::Stopped => ContainerEventType::ContainerStoppedEvent,
            Event::Deleted => ContainerEventType::ContainerDeletedEvent,
        }
    }
}

impl Runtime {
    /// Tells listeners what happened to `id`, which is the sandbox or a container in it.
    pub(crate) fn publish(&self, event: Event, sandbox: &Arc<Sandbox>, id: &str) {
        if self.event_sender().receiver_count() == 0 {
            return;
        }
        let containers = self.containers_of(&sandbox.id);
        let event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: event.kind() as i32,
            created_at: self.now_ns(),
            pod_sandbox_status: Some(status::sandbox(sandbox)),
            containers_statuses: containers
                .iter()
                .map(|container| status::container(container, self.images()))
                .collect(),
        };
        // The last listener may have gone meanwhile.
        let _ = self.event_sender().send(event);
    }

    /// CRI's GetContainerEvents.
    pub(crate) fn events(&self) -> CriStream<ContainerEventResponse> {
        let events = BroadcastStream::new(self.event_sender().subscribe());
        let behind = |BroadcastStreamRecvError::Lagged(count)| {
            Error::new(cri::Code::DataLoss, format!("{count} container events were missed: list anew"))
        };
        events.map(move |event| event.map_err(behind)).boxed()
    }
}

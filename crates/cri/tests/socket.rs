//! A fake runtime served on a unix socket and called through `RemoteCri`: every kind of call crosses the wire and back.

use std::{io, sync::Arc};

use cri::{Code, Cri, CriStream, Error, RemoteCri, v1::*};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

struct Fake;

#[async_trait::async_trait]
impl Cri for Fake {
    async fn version(&self, request: VersionRequest) -> Result<VersionResponse, Error> {
        Ok(VersionResponse { version: request.version, runtime_name: "fake".into(), ..Default::default() })
    }

    async fn image_status(&self, _: ImageStatusRequest) -> Result<ImageStatusResponse, Error> {
        Err(Error::not_found("no such image"))
    }

    async fn get_container_events(&self, _: GetEventsRequest) -> Result<CriStream<ContainerEventResponse>, Error> {
        let event = ContainerEventResponse { container_id: "a".into(), ..Default::default() };
        Ok(futures::stream::iter([Ok(event), Err(Error::unavailable("behind"))]).boxed())
    }
}

#[tokio::test]
async fn calls_answers_errors_and_streams_cross_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cri.sock");
    let stop = CancellationToken::new();
    let server = tokio::spawn({
        let (path, stop) = (path.clone(), stop.clone());
        async move { cri::serve(Arc::new(Fake), &path, stop).await }
    });
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    let remote = RemoteCri::connect(&format!("unix://{}", path.display())).await.unwrap();
    let version = remote.version(VersionRequest { version: "0.1.0".into() }).await.unwrap();
    assert_eq!((version.version.as_str(), version.runtime_name.as_str()), ("0.1.0", "fake"));
    assert_eq!(remote.image_status(Default::default()).await.unwrap_err(), Error::not_found("no such image"));
    assert_eq!(remote.status(Default::default()).await.unwrap_err().code(), Code::Unimplemented);
    let events: Vec<_> = remote.get_container_events(Default::default()).await.unwrap().collect().await;
    assert_eq!(events[0].as_ref().unwrap().container_id, "a");
    assert_eq!(events[1].as_ref().unwrap_err(), &Error::unavailable("behind"));
    stop.cancel();
    drop(remote);
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn says_which_socket_cannot_be_reached_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.sock");
    let error = RemoteCri::connect(path.to_str().unwrap()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let reason = io::Error::from_raw_os_error(2).to_string();
    assert!(error.message().contains("absent.sock") && error.message().contains(&reason), "{error}");
}

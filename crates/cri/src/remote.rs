//! [`RemoteCri`]: a runtime behind a unix socket (containerd, CRI-O, or a Coracle that serves CRI).
//!
//! One HTTP/2 connection carries all calls; tonic reconnects by itself when the runtime restarts, and calls made meanwhile
//! fail with `Unavailable`. Time limits are the caller's business.

use std::path::PathBuf;

use async_trait::async_trait;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    calls::for_each_call,
    error::Error,
    service::{Cri, CriStream},
    v1::{image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient, *},
};

/// The largest answer taken, in bytes; upstream's kubelet takes as much.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// CRI over a unix socket.
#[derive(Clone, Debug)]
pub struct RemoteCri {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
}

impl RemoteCri {
    /// Connects to the socket at `path`, with or without a leading `unix://`.
    pub async fn connect(path: &str) -> Result<Self, Error> {
        let path = PathBuf::from(path.strip_prefix("unix://").unwrap_or(path));
        let shown = path.display().to_string();
        // The address is never looked up: the connector below ignores it.
        let endpoint = Endpoint::from_static("http://cri.invalid");
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| Error::unavailable(format!("cannot reach the runtime at {shown}: {}", chain(&error))))?;
        Ok(RemoteCri {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            image: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
        })
    }
}

/// An error and its causes on one line; tonic's own text says only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

macro_rules! implement_client {
    (
        $($service:ident once { $($call:ident : $request:ident => $response:ident,)* }
          $service2:ident stream { $($scall:ident : $srequest:ident => $sresponse:ident as $stype:ident,)* })*
    ) => {
        #[async_trait]
        impl Cri for RemoteCri {
            $($(
                async fn $call(&self, request: $request) -> Result<$response, Error> {
                    Ok(implement_client!(@client self $service).$call(request).await?.into_inner())
                }
            )*
            $(
                async fn $scall(&self, request: $srequest) -> Result<CriStream<$sresponse>, Error> {
                    let items = implement_client!(@client self $service2).$scall(request).await?.into_inner();
                    Ok(items.map(|item| item.map_err(Error::from)).boxed())
                }
            )*)*
        }
    };
    (@client $this:ident runtime) => { $this.runtime.clone() };
    (@client $this:ident image) => { $this.image.clone() };
}

for_each_call!(implement_client);

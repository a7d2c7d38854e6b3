//! [`serve`]: any [`Cri`] offered to others on a unix socket.

use std::{io, path::Path, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    calls::for_each_call,
    remote::MESSAGE_BYTES_MAX,
    service::Cri,
    v1::{
        image_service_server::{ImageService, ImageServiceServer},
        runtime_service_server::{RuntimeService, RuntimeServiceServer},
        *,
    },
};

/// Serves `cri` on a new unix socket at `path` (one left by an earlier process is replaced) until `stop` is cancelled.
pub async fn serve(cri: Arc<dyn Cri>, path: &Path, stop: CancellationToken) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    Server::builder()
        .add_service(RuntimeServiceServer::new(Served(cri.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(ImageServiceServer::new(Served(cri)).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

struct Served(Arc<dyn Cri>);

macro_rules! implement_server {
    (
        runtime once { $($rcall:ident : $rrequest:ident => $rresponse:ident,)* }
        runtime stream { $($rscall:ident : $rsrequest:ident => $rsresponse:ident as $rstype:ident,)* }
        image once { $($icall:ident : $irequest:ident => $iresponse:ident,)* }
        image stream { $($iscall:ident : $isrequest:ident => $isresponse:ident as $istype:ident,)* }
    ) => {
        implement_server! {
            @service RuntimeService { $($rcall: $rrequest => $rresponse,)* }
            { $($rscall: $rsrequest => $rsresponse as $rstype,)* }
        }
        implement_server! {
            @service ImageService { $($icall: $irequest => $iresponse,)* }
            { $($iscall: $isrequest => $isresponse as $istype,)* }
        }
    };
    (
        @service $service:ident { $($call:ident : $request:ident => $response:ident,)* }
        { $($scall:ident : $srequest:ident => $sresponse:ident as $stype:ident,)* }
    ) => {
        #[tonic::async_trait]
        impl $service for Served {
            $(
                async fn $call(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    Ok(Response::new(self.0.$call(request.into_inner()).await?))
                }
            )*
            $(
                type $stype = BoxStream<'static, Result<$sresponse, Status>>;
                async fn $scall(&self, request: Request<$srequest>) -> Result<Response<Self::$stype>, Status> {
                    let items = self.0.$scall(request.into_inner()).await?;
                    Ok(Response::new(items.map(|item| item.map_err(Status::from)).boxed()))
                }
            )*
        }
    };
}

for_each_call!(implement_server);

//! The [`Cri`] trait: runtime service, image service and event stream of CRI v1 as async methods.

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{calls::for_each_call, error::Error, streaming::Streaming, v1::*};

/// The items of a streaming call; it ends with an error when the consumer must start over (it fell behind, or the runtime went away).
pub type CriStream<T> = BoxStream<'static, Result<T, Error>>;

macro_rules! define_trait {
    (
        $($service:ident once { $($call:ident : $request:ident => $response:ident,)* }
          $service2:ident stream { $($scall:ident : $srequest:ident => $sresponse:ident as $stype:ident,)* })*
    ) => {
        /// A container runtime, near or far. The methods are CRI's calls by name; what each means is CRI's documentation.
        ///
        /// Every method has a default that answers `Unimplemented`, as a gRPC server without the call would, so that a fake
        /// says only what it needs.
        #[async_trait]
        pub trait Cri: Send + Sync + 'static {
            $($(
                /// The CRI call of this name.
                async fn $call(&self, request: $request) -> Result<$response, Error> {
                    let _ = request;
                    Err(Error::unimplemented(stringify!($call)))
                }
            )*
            $(
                /// The streaming CRI call of this name.
                async fn $scall(&self, request: $srequest) -> Result<CriStream<$sresponse>, Error> {
                    let _ = request;
                    Err(Error::unimplemented(stringify!($scall)))
                }
            )*)*

            /// Exec, attach and port-forward as byte streams, when this runtime lives in the same process; otherwise the
            /// caller uses the URLs that `exec`, `attach` and `port_forward` answer.
            fn streaming(&self) -> Option<&dyn Streaming> {
                None
            }
        }
    };
}

for_each_call!(define_trait);

/// The condition types of [`RuntimeStatus`] that every runtime reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeConditionType {
    /// The runtime can run containers that need no network.
    RuntimeReady,
    /// The pod network is up.
    NetworkReady,
}

impl RuntimeConditionType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            RuntimeConditionType::RuntimeReady => "RuntimeReady",
            RuntimeConditionType::NetworkReady => "NetworkReady",
        }
    }
}

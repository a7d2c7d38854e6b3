//! A gRPC probe: the standard health service says SERVING.

use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use super::tcp;

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

pub async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    let address = tcp::shown(host, port);
    let limit = timeout.as_secs();
    let asked = async {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
        let channel = endpoint.user_agent("kube-probe/1.37").map_err(|error| error.to_string())?.connect().await;
        let channel = channel.map_err(|_| {
            format!("timeout: failed to connect service {address:?} within {limit}s: context deadline exceeded")
        })?;
        let mut client = Grpc::new(channel);
        client.ready().await.map_err(|error| error.to_string())?;
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let request = tonic::Request::new(HealthCheckRequest { service: service.to_string() });
        match client.unary(request, path, codec).await {
            Ok(answer) if answer.get_ref().status == SERVING => Ok(()),
            Ok(answer) => Err(format!("service unhealthy (responded with {:?})", word(answer.get_ref().status))),
            Err(status) if status.code() == tonic::Code::Unimplemented => Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            )),
            Err(status) => {
                Err(format!("rpc error: health rpc failed: code = {:?} desc = {}", status.code(), status.message()))
            }
        }
    };
    tokio::time::timeout(timeout, asked)
        .await
        .unwrap_or_else(|_| Err(format!("timeout: health rpc to {address:?} did not complete within {limit}s")))
}

fn word(status: i32) -> &'static str {
    match status {
        0 => "UNKNOWN",
        1 => "SERVING",
        2 => "NOT_SERVING",
        _ => "SERVICE_UNKNOWN",
    }
}

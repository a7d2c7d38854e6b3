//! The chain: every request passes these steps, in this order.
//!
//! | step | file |
//! |---|---|
//! | request info | [`crate::request_info`] |
//! | authentication | [`crate::authn`] |
//! | audit | [`crate::audit`] |
//! | impersonation | [`crate::authn::impersonate`] |
//! | flow control | [`crate::flow`] |
//! | authorization | [`crate::authz`] |
//! | route | [`crate::resources`], [`crate::endpoints`] |
//!
//! A component in the same process enters after authentication, through [`crate::door`]: it calls [`Front::admit`] for the
//! steps from audit to authorization and skips nothing else. A step that refuses answers with a `Status`; a panic in a handler
//! is contained and answered with a 500.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Tasks};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, header};
use hyper::body::Incoming;
use meta::Status;
use tokio::time::Instant;

use crate::authn::{Authentication, impersonate};
use crate::authz::feed::Indexes;
use crate::authz::{Attributes, Authorizer, Decision, forbidden};
use crate::context::{Identity, Warnings};
use crate::discovery::Documents;
use crate::encode::status;
use crate::flow::{Flow, Seat};
use crate::health::Health;
use crate::http::{Body, Peer, Received, Response, compress, listen};
use crate::metrics::Metrics;
use crate::negotiate::{self, Accepted, Offer};
use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::request_info::RequestInfo;
use crate::{audit, endpoints, resources};

/// How long a request that is not long-running may take.
pub const REQUEST_MAX: Duration = Duration::from_secs(60);

/// Everything that the chain works with.
pub struct Front {
    pub registry: Arc<Registry>,
    pub authentication: Arc<Authentication>,
    pub authorizer: Arc<dyn Authorizer>,
    /// What the authorizer answers from.
    pub indexes: Indexes,
    pub flow: Flow,
    pub proxy: Proxy,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub documents: Documents,
    pub clock: Clock,
    pub tasks: Tasks,
}

/// A request on its way through the chain.
pub struct Call {
    pub received: Received,
    pub info: RequestInfo,
    pub user: Identity,
    pub accepted: Accepted,
    pub warnings: Warnings,
    pub audit_id: Arc<str>,
    /// None for long-running requests.
    pub deadline: Option<Instant>,
}

impl Front {
    /// Answers one request, whatever happens to it.
    pub async fn answer(self: Arc<Self>, received: Received) -> Response {
        if !received.is_well_escaped() {
            return crate::http::text(http::StatusCode::BAD_REQUEST, "400 Bad Request");
        }
        let started = self.clock.instant();
        let mut call = Call::new(received, started);
        let inflight = self.metrics.begin(&call.info);
        let passed = AssertUnwindSafe(self.pass_in_time(&mut call)).catch_unwind().await;
        let response = match passed {
            Ok(Ok(response)) => response,
            Ok(Err(refused)) => call.refusal(&refused),
            Err(_) => {
                tracing::error!(path = call.info.path, "a handler panicked");
                call.refusal(&Status::internal("the server panicked while handling the request"))
            }
        };
        drop(inflight);
        let dry_run = call.received.query.first("dryRun").is_some();
        self.metrics.end(&call.info, dry_run, response.status().as_u16(), self.clock.instant() - started);
        call.finish(response)
    }

    async fn pass_in_time(&self, call: &mut Call) -> Result<Response, Status> {
        let Some(deadline) = call.deadline else { return self.pass(call).await };
        match tokio::time::timeout_at(deadline, self.pass(call)).await {
            Ok(answer) => answer,
            Err(_) => {
                let why = "Timeout: request did not complete within requested timeout - context deadline exceeded";
                Err(Status::timeout(why, 0))
            }
        }
    }

    /// The chain.
    async fn pass(&self, call: &mut Call) -> Result<Response, Status> {
        call.user = self.authenticate(call).await?;
        audit::begin(&call.audit_id, &call.user, &call.info);
        self.impersonate(call)?;
        let _seat = self.admit(&call.user, &call.info).await?;
        self.authorize_websocket(call).await?;
        self.route(call).await
    }

    async fn authenticate(&self, call: &Call) -> Result<Identity, Status> {
        let found = self.authentication.identify(&call.received).await;
        let result = if found.is_ok() { "success" } else { "failure" };
        self.metrics.authentication_attempts.with_label_values(&[result]).inc();
        found
    }

    fn impersonate(&self, call: &mut Call) -> Result<(), Status> {
        let taken_on = impersonate::impersonate(&call.user, call.received.headers(), self.authorizer.as_ref())?;
        if let Some(identity) = taken_on {
            tracing::debug!(user = &*call.user.name, acting_as = &*identity.name, "impersonation");
            call.user = identity;
        }
        Ok(())
    }

    /// Flow control and authorization: what HTTP and in-process requests share. The seat is held while the request is
    /// worked on; long-running ones hold none.
    pub async fn admit(&self, user: &Identity, info: &RequestInfo) -> Result<Option<Seat>, Status> {
        let seat = if info.is_long_running() {
            None
        } else {
            let admitted = self.flow.admit(user).await;
            Some(admitted.inspect_err(|_| self.metrics.flow_rejections.inc())?)
        };
        self.authorize(&Attributes::of(user, info)).await?;
        Ok(seat)
    }

    /// Whoever may rely on something that was written before is not refused because an index has yet to hear of it.
    async fn authorize(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if self.authorizer.authorize(attributes).0 == Decision::Allow {
            return Ok(());
        }
        self.indexes.catch_up().await;
        match self.authorizer.authorize(attributes) {
            (Decision::Allow, _) => Ok(()),
            (_, reason) => Err(forbidden::forbidden(attributes, &reason)),
        }
    }

    /// A WebSocket can only be opened with GET, but running a command is no reading: it needs `create` as well.
    async fn authorize_websocket(&self, call: &Call) -> Result<(), Status> {
        let info = &call.info;
        let streams = info.is_resource
            && info.resource == "pods"
            && info.group.is_empty()
            && matches!(info.subresource.as_str(), "exec" | "attach" | "portforward");
        if streams && info.verb == "get" {
            self.authorize(&Attributes { verb: "create", ..Attributes::of(&call.user, info) }).await?;
        }
        Ok(())
    }

    async fn route(&self, call: &mut Call) -> Result<Response, Status> {
        if call.info.is_resource {
            return resources::serve(self, call).await;
        }
        endpoints::serve(self, call)
    }
}

impl listen::Service for Front {
    fn call(self: Arc<Self>, request: http::Request<Incoming>, peer: Arc<Peer>) -> BoxFuture<'static, Response> {
        self.answer(Received::new(request, peer)).boxed()
    }

    fn handshake_failed(&self) {
        self.metrics.tls_handshake_errors.inc();
    }
}

impl Call {
    fn new(received: Received, started: Instant) -> Self {
        let info = RequestInfo::parse(received.method(), &received.path, &received.query);
        let deadline = (!info.is_long_running()).then(|| started + time_limit(&received));
        let audit_id = audit::id(received.header("audit-id")).into();
        Call {
            received,
            info,
            user: Identity::default(),
            accepted: Accepted::json(),
            warnings: Warnings::default(),
            audit_id,
            deadline,
        }
    }

    /// A refusal in the format that the client asked for; JSON when that cannot be told.
    fn refusal(&self, refused: &Status) -> Response {
        if refused.code >= 500 {
            tracing::warn!(audit_id = &*self.audit_id, path = self.info.path, status = %refused, "request failed");
        }
        let (query, agent) = (&self.received.query, self.received.header("user-agent"));
        let accepted = negotiate::negotiate(self.received.header("accept"), query, agent, Offer::default());
        status::refusal(refused, &accepted.unwrap_or_else(|_| Accepted::json()))
    }

    /// The headers that every answer has, and compression.
    fn finish(self, response: Response) -> Response {
        let gzip = compress::accepts_gzip(self.received.header("accept-encoding"));
        let mut response = if gzip { compress::compress(response) } else { response };
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&self.audit_id) {
            headers.insert("audit-id", id);
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        for warning in self.warnings.take() {
            if let Ok(value) = HeaderValue::from_str(&warning_header(&warning)) {
                headers.append(header::WARNING, value);
            }
        }
        if *self.received.method() == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        response
    }
}

/// How long the request may take: what the client asks for, within ours.
fn time_limit(received: &Received) -> Duration {
    let asked = received.query.first("timeout").and_then(api::codec::duration::parse);
    let asked = asked.and_then(|nanoseconds| u64::try_from(nanoseconds).ok()).filter(|asked| *asked > 0);
    asked.map_or(REQUEST_MAX, |asked| Duration::from_nanos(asked).min(REQUEST_MAX))
}

/// A warning in the header's form: code, agent, quoted text.
fn warning_header(warning: &str) -> String {
    let clean: String = warning.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    format!("299 - \"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""))
}

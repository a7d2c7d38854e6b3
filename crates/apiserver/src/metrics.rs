//! The server's own figures, under upstream's names, and the `/metrics` page.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::request_info::RequestInfo;

/// Upstream's buckets of request durations, in seconds.
const DURATION_BUCKETS_SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const REQUEST_LABELS: [&str; 8] =
    ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];

/// All series of one server.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    inflight: IntGaugeVec,
    pub authentication_attempts: IntCounterVec,
    pub tls_handshake_errors: IntCounter,
    pub flow_rejections: IntCounter,
}

impl Metrics {
    /// Registers all series with a registry of their own, so that servers in one process stay apart.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let opts = |name: &str, help: &str| Opts::new(name, help);
        let with_code: Vec<&str> = REQUEST_LABELS.into_iter().chain(["code"]).collect();
        let metrics = Metrics {
            requests: IntCounterVec::new(
                opts(
                    "apiserver_request_total",
                    "Requests, by what they asked for and the code they were answered with.",
                ),
                &with_code,
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "apiserver_request_duration_seconds",
                    "Time to answer, in seconds, without watches.",
                )
                .buckets(DURATION_BUCKETS_SECONDS.to_vec()),
                &REQUEST_LABELS,
            )?,
            inflight: IntGaugeVec::new(
                opts("apiserver_current_inflight_requests", "Requests being worked on."),
                &["request_kind"],
            )?,
            authentication_attempts: IntCounterVec::new(
                opts("authentication_attempts", "Attempts to authenticate, by result."),
                &["result"],
            )?,
            tls_handshake_errors: IntCounter::with_opts(opts(
                "apiserver_tls_handshake_errors_total",
                "Connections dropped because the TLS handshake failed.",
            ))?,
            flow_rejections: IntCounter::with_opts(opts(
                "apiserver_flowcontrol_rejected_requests_total",
                "Requests refused by flow control.",
            ))?,
            registry,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.durations.clone()))?;
        metrics.registry.register(Box::new(metrics.inflight.clone()))?;
        metrics.registry.register(Box::new(metrics.authentication_attempts.clone()))?;
        metrics.registry.register(Box::new(metrics.tls_handshake_errors.clone()))?;
        metrics.registry.register(Box::new(metrics.flow_rejections.clone()))?;
        Ok(metrics)
    }

    /// Where the registry's own series may be added.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a request in until the guard is dropped.
    pub fn begin(&self, info: &RequestInfo) -> Inflight {
        let kind = if matches!(info.verb.as_str(), "get" | "list" | "watch") { "readOnly" } else { "mutating" };
        let gauge = self.inflight.with_label_values(&[kind]);
        gauge.inc();
        Inflight(gauge)
    }

    /// Notes an answered request. Only known resources are labels: a client cannot make series up.
    pub fn end(&self, info: &RequestInfo, dry_run: bool, code: u16, took: Duration) {
        let known = info.is_resource && code != 404;
        let text = |value: &'static str, when: bool| if when { value } else { "" };
        let verb = verb_label(info);
        let labels = [
            verb,
            text("All", dry_run),
            if known { &info.group } else { "" },
            if known { &info.version } else { "" },
            if known { &info.resource } else { "" },
            if known { &info.subresource } else { "" },
            info.scope(),
            "apiserver",
        ];
        if !info.is_long_running() {
            self.durations.with_label_values(&labels).observe(took.as_secs_f64());
        }
        let code = code.to_string();
        let with_code: Vec<&str> = labels.into_iter().chain([code.as_str()]).collect();
        self.requests.with_label_values(&with_code).inc();
    }

    /// The page in the text format.
    pub fn page(&self) -> Vec<u8> {
        let mut families = self.registry.gather();
        families.extend(prometheus::default_registry().gather());
        let mut page = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut page) {
            tracing::error!(%error, "cannot write the metrics page");
        }
        page
    }
}

/// Counts down when dropped.
pub struct Inflight(prometheus::IntGauge);

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn verb_label(info: &RequestInfo) -> &'static str {
    if info.is_resource && matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy") {
        return "CONNECT";
    }
    match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query::Query;

    #[test]
    fn series_have_upstreams_names_and_labels() {
        let metrics = Metrics::new().unwrap();
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/namespaces/a/pods", &Query::default());
        let inflight = metrics.begin(&info);
        metrics.end(&info, false, 200, Duration::from_millis(3));
        let page = String::from_utf8(metrics.page()).unwrap();
        for line in [
            r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#,
            r#"apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"} 1"#,
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        drop(inflight);
        assert!(String::from_utf8(metrics.page()).unwrap().contains(r#"request_kind="readOnly"} 0"#));
    }
}

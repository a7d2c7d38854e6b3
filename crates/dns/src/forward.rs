//! Names that are not the cluster's: asked of the machine's own resolvers, with bounds on everything.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use tokio::sync::Semaphore;

/// Questions that may wait for upstream at a time; more are refused at once.
const WAITING_MAX: usize = 1024;
/// Questions that may wait on one upstream connection.
const WAITING_PER_CONNECTION_MAX: usize = 256;
/// Answers that are remembered.
const CACHE_ENTRIES_MAX: u64 = 8192;
/// How long an answer is remembered at most, as in the usual CoreDNS configuration.
const CACHE_TTL_MAX: Duration = Duration::from_secs(30);
/// How long one upstream may take, and how often it is asked again.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// What upstream said.
#[derive(Debug, Clone, PartialEq)]
pub struct Forwarded {
    pub code: ResponseCode,
    pub records: Vec<Record>,
    /// With negative answers.
    pub soa: Option<Record>,
}

impl Forwarded {
    fn failure(code: ResponseCode) -> Self {
        Forwarded { code, records: Vec::new(), soa: None }
    }
}

/// The way to the machine's resolvers.
pub struct Forwarder {
    resolver: Option<TokioResolver>,
    permits: Semaphore,
}

impl Forwarder {
    /// A forwarder to the name servers of a `resolv.conf` text, without those at `own` addresses: a resolver that asks itself
    /// would never end. Without any name server every question is refused, as by a CoreDNS that serves only the cluster.
    pub fn new(resolv_conf: &[u8], own: &[IpAddr]) -> Self {
        let servers = match hickory_resolver::system_conf::parse_resolv_conf(resolv_conf) {
            Ok((config, _)) => config.name_servers,
            Err(error) => {
                tracing::warn!(%error, "cannot read resolv.conf, names outside the cluster are refused");
                Vec::new()
            }
        };
        Self::to(servers.into_iter().filter(|server| !own.contains(&server.ip)).collect())
    }

    /// A forwarder to these name servers.
    pub fn to(servers: Vec<NameServerConfig>) -> Self {
        Forwarder { resolver: build(servers), permits: Semaphore::new(WAITING_MAX) }
    }

    /// Whether there is anyone to ask.
    pub fn available(&self) -> bool {
        self.resolver.is_some()
    }

    /// Asks upstream. Never fails: whatever goes wrong is a response code.
    pub async fn ask(&self, name: &Name, kind: RecordType) -> Forwarded {
        let Some(resolver) = &self.resolver else { return Forwarded::failure(ResponseCode::Refused) };
        let Ok(_permit) = self.permits.try_acquire() else { return Forwarded::failure(ResponseCode::ServFail) };
        // A trailing dot keeps the resolver from trying search domains of its own.
        let mut name = name.clone();
        name.set_fqdn(true);
        match resolver.lookup(name, kind).await {
            Ok(lookup) => Forwarded { code: ResponseCode::NoError, records: lookup.answers().to_vec(), soa: None },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let soa = none.soa.map(|soa| (*soa).into_record_of_rdata());
                Forwarded { code: none.response_code, records: Vec::new(), soa }
            }
            Err(error) => {
                tracing::debug!(%error, "upstream name servers failed");
                Forwarded::failure(ResponseCode::ServFail)
            }
        }
    }
}

fn build(servers: Vec<NameServerConfig>) -> Option<TokioResolver> {
    if servers.is_empty() {
        return None;
    }
    let mut config = ResolverConfig::default();
    config.name_servers = servers;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.cache_size = CACHE_ENTRIES_MAX;
    options.positive_max_ttl = Some(CACHE_TTL_MAX);
    options.negative_max_ttl = Some(CACHE_TTL_MAX);
    options.use_hosts_file = ResolveHosts::Never;
    options.max_active_requests = WAITING_PER_CONNECTION_MAX;
    options.preserve_intermediates = true;
    match builder.build() {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::warn!(%error, "cannot use the name servers of resolv.conf, names outside the cluster are refused");
            None
        }
    }
}

//! A pod's sandbox: its folder, shim, namespaces and network, from run to removal.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use cri::{
    Error, PodAddresses, SandboxNetwork,
    network::HostPort,
    v1::{DnsConfig, NamespaceMode, PodSandboxConfig, RunPodSandboxRequest},
};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::{
    Runtime,
    cgroup::Hierarchies,
    disk,
    events::Event,
    shim::{self, SandboxPlan, protocol::Request},
    spec,
    state::{Sandbox, SandboxRecord, new_id},
};

/// The size of a pod's `/dev/shm`.
const SHARED_MEMORY: &std::ffi::CStr = c"mode=1777,size=65536k";

/// How readily the kernel kills what holds a pod together: last of all.
const SHIM_OOM_SCORE_ADJ: i32 = -998;

fn failed<E: std::fmt::Display>(doing: &str) -> impl FnOnce(E) -> Error + '_ {
    move |error| Error::unknown(format!("failed to {doing}: {error}"))
}

fn host_mode(sandbox: &PodSandboxConfig, of: fn(&cri::v1::NamespaceOption) -> NamespaceMode) -> bool {
    spec::sandbox_options(sandbox).is_some_and(|options| of(options) == NamespaceMode::Node)
}

fn uses_host_network(sandbox: &PodSandboxConfig) -> bool {
    host_mode(sandbox, |options| options.network())
}

fn uses_host_ipc(sandbox: &PodSandboxConfig) -> bool {
    host_mode(sandbox, |options| options.ipc())
}

/// The pod's cgroup; one of our own for a pod that names none.
pub fn cgroup_parent(id: &str, sandbox: &PodSandboxConfig) -> String {
    let named = sandbox.linux.as_ref().map(|linux| linux.cgroup_parent.as_str()).filter(|parent| !parent.is_empty());
    named.map_or_else(|| format!("/coracle/{id}"), str::to_owned)
}

/// The sandbox as the network is told of it.
pub fn network_view(sandbox: &Sandbox) -> SandboxNetwork {
    let config = sandbox.config();
    let metadata = config.metadata.clone().unwrap_or_default();
    let port = |number: i32| u16::try_from(number).unwrap_or(0);
    let ports = config.port_mappings.iter().filter(|mapping| mapping.host_port > 0).map(|mapping| HostPort {
        protocol: mapping.protocol().as_str_name().to_owned(),
        container_port: port(mapping.container_port),
        host_port: port(mapping.host_port),
        host_ip: mapping.host_ip.clone(),
    });
    SandboxNetwork {
        id: sandbox.id.clone(),
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        netns_path: format!("/proc/{}/ns/net", sandbox.record.lock().shim_pid).into(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        port_mappings: ports.collect(),
        host_network: uses_host_network(config),
    }
}

fn plan(id: &str, config: &PodSandboxConfig, hierarchies: &Hierarchies) -> SandboxPlan {
    let own_network = !uses_host_network(config);
    let mut sysctls: BTreeMap<String, String> = BTreeMap::new();
    if own_network {
        // As upstream's runtimes by default: in its own network a pod may listen on any port and ping.
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        sysctls.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    }
    sysctls.extend(config.linux.iter().flat_map(|linux| linux.sysctls.clone()));
    SandboxPlan {
        hierarchies: hierarchies.clone(),
        own_network,
        own_ipc: !uses_host_ipc(config),
        hostname: own_network.then(|| config.hostname.clone()),
        shared_processes: spec::shares_processes(config),
        sysctls,
        cgroup: format!("{}/{id}", cgroup_parent(id, config).trim_end_matches('/')),
        oom_score_adj: SHIM_OOM_SCORE_ADJ,
    }
}

fn resolv_conf(dns: Option<&DnsConfig>) -> io::Result<String> {
    let Some(dns) = dns.filter(|dns| **dns != DnsConfig::default()) else {
        return fs::read_to_string("/etc/resolv.conf").or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(String::new()),
            _ => Err(error),
        });
    };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    dns.servers.iter().for_each(|server| text += &format!("nameserver {server}\n"));
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    Ok(text)
}

/// The files and the shared memory that the pod's containers have in common.
fn fill_folder(folder: &Path, config: &PodSandboxConfig) -> io::Result<()> {
    let hostname = match config.hostname.as_str() {
        "" => fs::read_to_string("/proc/sys/kernel/hostname")?,
        name => format!("{name}\n"),
    };
    fs::write(folder.join("hostname"), hostname)?;
    fs::write(folder.join("resolv.conf"), resolv_conf(config.dns_config.as_ref())?)?;
    let hosts = fs::read("/etc/hosts").unwrap_or_else(|_| b"127.0.0.1\tlocalhost\n".to_vec());
    fs::write(folder.join("hosts"), hosts)?;
    for name in ["hostname", "resolv.conf", "hosts"] {
        disk::set_mode(&folder.join(name), 0o644)?;
    }
    let shared = folder.join("shm");
    fs::create_dir(&shared)?;
    if !uses_host_ipc(config) {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("shm", &shared, "tmpfs", flags, Some(SHARED_MEMORY))?;
    }
    Ok(())
}

/// Unmounts the shared memory; fine when it is not mounted.
pub fn unmount_shared_memory(folder: &Path) -> io::Result<()> {
    match rustix::mount::unmount(folder.join("shm"), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Runtime {
    /// CRI's RunPodSandbox. On failure nothing is left.
    pub(crate) async fn run_sandbox(&self, request: RunPodSandboxRequest) -> Result<String, Error> {
        let config = request.config.clone().ok_or_else(|| Error::invalid("sandbox config must include metadata"))?;
        if config.metadata.is_none() {
            return Err(Error::invalid("sandbox config must include metadata"));
        }
        if !request.runtime_handler.is_empty() {
            let handler = &request.runtime_handler;
            return Err(Error::unknown(format!(
                "failed to get sandbox runtime: no runtime for {handler:?} is configured"
            )));
        }
        let id = new_id();
        let folder = self.sandboxes_folder().join(&id);
        let record = SandboxRecord { created_at_ns: self.now_ns(), ..Default::default() };
        let sandbox = Arc::new(Sandbox::new(id.clone(), folder, request, record));
        if let Err(error) = self.build_sandbox(&sandbox, &config).await {
            self.sandboxes().remove(&id);
            if let Err(left) = self.dismantle(&sandbox).await {
                tracing::warn!(sandbox = id, %left, "clean up after a failed start");
            }
            disk::remove_folder(&sandbox.folder).map_err(failed("remove sandbox folder"))?;
            return Err(error);
        }
        self.publish(Event::Created, &sandbox, &id);
        self.publish(Event::Started, &sandbox, &id);
        Ok(id)
    }

    async fn build_sandbox(&self, sandbox: &Arc<Sandbox>, config: &PodSandboxConfig) -> Result<(), Error> {
        let folder = &sandbox.folder;
        let plan = plan(&sandbox.id, config, self.hierarchies());
        let prepare = || -> io::Result<()> {
            fs::create_dir(folder)?;
            disk::set_mode(folder, 0o711)?;
            sandbox.save_request()?;
            fill_folder(folder, config)?;
            fs::write(folder.join(shim::PLAN), serde_json::to_vec(&plan)?)?;
            if !config.log_directory.is_empty() {
                fs::create_dir_all(&config.log_directory)?;
            }
            if plan.shared_processes {
                self.hierarchies().create(&plan.cgroup, &Default::default())?;
            }
            Ok(())
        };
        prepare().map_err(failed("prepare sandbox"))?;
        let child = shim::spawn(self.program(), folder).await;
        let mut child =
            child.map_err(|why| Error::unknown(format!("failed to start sandbox {:?}: {why}", sandbox.id)))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        sandbox.change(|record| record.shim_pid = pid).map_err(failed("note sandbox"))?;
        // Ours to reap as long as we are its parent; its end itself is seen on its socket.
        self.tasks().spawn("reap shim", async move { child.wait().await.map(drop) });
        let addresses = if plan.own_network { self.join_network(sandbox).await? } else { PodAddresses::default() };
        sandbox
            .change(|record| {
                record.addresses = addresses;
                record.ready = true;
            })
            .map_err(failed("note sandbox"))?;
        self.sandboxes().insert(sandbox.id.clone(), sandbox.clone());
        self.follow_shim(sandbox.clone()).await
    }

    async fn join_network(&self, sandbox: &Arc<Sandbox>) -> Result<PodAddresses, Error> {
        // Noted before, so that a crash in between leaves nothing behind.
        sandbox.change(|record| record.network_joined = true).map_err(failed("note sandbox"))?;
        self.network().join(&network_view(sandbox)).await.map_err(|error| {
            let (id, why) = (&sandbox.id, error.message());
            Error::unknown(format!("failed to setup network for sandbox {id:?}: {why}"))
        })
    }

    /// CRI's StopPodSandbox: ends everything in it and gives its network back. Can be repeated.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        // Stopping what is gone is no error in CRI.
        let Some(sandbox) = self.sandboxes().find(id) else { return Ok(()) };
        let _changing = sandbox.changing.lock().await;
        self.dismantle(&sandbox).await
    }

    /// Takes a sandbox apart as far as it has been put together.
    async fn dismantle(&self, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        for container in self.containers_of(&sandbox.id) {
            self.kill_container(&container).await?;
        }
        let (was_ready, joined) = {
            let record = sandbox.record.lock();
            (record.ready, record.network_joined)
        };
        if joined {
            self.network().leave(&network_view(sandbox)).await.map_err(|error| {
                Error::unknown(format!("failed to destroy network for sandbox {:?}: {}", sandbox.id, error.message()))
            })?;
        }
        // Before its shim is told, so that its going is not taken for an accident.
        sandbox
            .change(|record| {
                record.network_joined = false;
                record.ready = false;
            })
            .map_err(failed("note sandbox"))?;
        match sandbox.shim.call(&Request::Stop).await {
            Ok(_) | Err(shim::client::Error::Gone(_)) => {}
            Err(error) => return Err(Error::unknown(format!("failed to stop sandbox {:?}: {error}", sandbox.id))),
        }
        unmount_shared_memory(&sandbox.folder).map_err(failed("unmount shared memory"))?;
        if was_ready {
            self.publish(Event::Stopped, sandbox, &sandbox.id);
        }
        Ok(())
    }

    /// CRI's RemovePodSandbox. Can be repeated.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let Some(sandbox) = self.sandboxes().find(id) else { return Ok(()) };
        let _changing = sandbox.changing.lock().await;
        self.dismantle(&sandbox).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        let config = sandbox.config();
        let parent = cgroup_parent(&sandbox.id, config);
        let own = format!("{}/{}", parent.trim_end_matches('/'), sandbox.id);
        self.remove_group(&own).await;
        if parent.starts_with("/coracle/") {
            self.remove_group(&parent).await;
        }
        disk::remove_folder(&sandbox.folder).map_err(failed("remove sandbox folder"))?;
        self.publish(Event::Deleted, &sandbox, &sandbox.id);
        self.sandboxes().remove(&sandbox.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_configuration_is_what_the_pod_asked_for() {
        let dns = DnsConfig {
            servers: vec!["10.43.0.10".into(), "fd00::1".into()],
            searches: vec!["a.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        };
        let expected = "search a.svc svc\nnameserver 10.43.0.10\nnameserver fd00::1\noptions ndots:5\n";
        assert_eq!(resolv_conf(Some(&dns)).unwrap(), expected);
    }

    #[test]
    fn pods_with_their_own_network_may_use_low_ports_unless_they_say_otherwise() {
        let mut config = PodSandboxConfig { hostname: "p".into(), ..Default::default() };
        let linux = config.linux.insert(Default::default());
        linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "1024".into());
        let made = plan("x", &config, &Hierarchies::Unified("/".into()));
        assert_eq!(made.sysctls["net.ipv4.ip_unprivileged_port_start"], "1024");
        assert_eq!(made.sysctls["net.ipv4.ping_group_range"], "0 2147483647");
        assert!(made.own_network && made.own_ipc && made.hostname.as_deref() == Some("p"));
        assert_eq!(made.cgroup, "/coracle/x/x");
    }
}

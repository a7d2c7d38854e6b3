//! A container from creation to removal.

use std::{fs, io, sync::Arc, time::Duration};

use cri::{
    Error,
    v1::{ContainerState, CreateContainerRequest, LinuxContainerResources, Signal},
};

use crate::{
    Runtime, disk,
    events::Event,
    image::ImageRecord,
    launch::plan::{LaunchPlan, MountSource},
    mount_points,
    sandbox::cgroup_parent,
    shim::{
        client,
        protocol::{ExitRecord, Reply, Request, StartRecord},
    },
    spec::{self, Source},
    state::{Container, ContainerRecord, Failure, Sandbox, new_id},
};

/// Exit code and reason of a container whose process could not be started, as upstream's runtimes report it.
const START_ERROR: (i32, &str) = (128, "StartError");

/// Exit code and reason of a container whose end nobody saw.
const UNKNOWN: (i32, &str) = (255, "Unknown");

fn failed<E: std::fmt::Display>(doing: &str) -> impl FnOnce(E) -> Error + '_ {
    move |error| Error::unknown(format!("failed to {doing}: {error}"))
}

/// The number of a signal's name, with or without `SIG`, or of a number in letters.
pub fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |text: &str| match text {
        "" => Some(0),
        offset => offset[1..].parse::<i32>().ok(),
    };
    if let Some(offset) = bare.strip_prefix("RTMIN") {
        return real_time(offset).map(|offset| 34 + offset);
    }
    if let Some(offset) = bare.strip_prefix("RTMAX") {
        return real_time(offset).map(|offset| 64 - offset);
    }
    let bare = match bare {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    format!("SIG{bare}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

/// CRI's signal as a number; `None` when the pod leaves it to the image.
fn cri_signal(signal: Signal) -> Option<i32> {
    let name = signal.as_str_name().strip_prefix("SIGNAL_")?;
    let name = name.replace("PLUS", "+").replace("MINUS", "-");
    if name == "RUNTIME_DEFAULT" { None } else { signal_number(&name) }
}

/// Makes folders for host paths that are not there, as upstream's runtimes do.
fn make_sources(plan: &LaunchPlan) -> io::Result<()> {
    for mount in &plan.mounts {
        match &mount.source {
            MountSource::Bind(path) if !path.exists() => fs::create_dir_all(path)?,
            _ => {}
        }
    }
    Ok(())
}

/// Makes the places that images are mounted on.
fn make_staging(plan: &LaunchPlan) -> io::Result<()> {
    for mount in &plan.mounts {
        if let MountSource::Layers { staging, .. } = &mount.source {
            fs::create_dir_all(staging)?;
        }
    }
    Ok(())
}

impl Runtime {
    /// CRI's CreateContainer: everything but the process.
    pub(crate) fn create_container(&self, request: CreateContainerRequest) -> Result<String, Error> {
        let sandbox = self.sandboxes().get("sandbox", &request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::failed_precondition(format!("sandbox {:?} is not ready", sandbox.id)));
        }
        let config = request.config.ok_or_else(|| Error::invalid("container config must include metadata"))?;
        if config.metadata.is_none() {
            return Err(Error::invalid("container config must include metadata"));
        }
        let name = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self.known_image(&name)?;
        let id = new_id();
        let folder = self.containers_folder().join(&id);
        let result = self.build_container(&id, &sandbox, config, &image);
        match result {
            Ok(container) => {
                let container = Arc::new(container);
                self.containers().insert(id.clone(), container.clone());
                self.publish(Event::Created, &sandbox, &id);
                Ok(id)
            }
            Err(error) => {
                disk::remove_folder(&folder).map_err(failed("remove container folder"))?;
                Err(error)
            }
        }
    }

    fn known_image(&self, name: &str) -> Result<ImageRecord, Error> {
        let missing = || Error::not_found(format!("failed to resolve image {name:?}: not found"));
        self.images().find(name).ok_or_else(missing)
    }

    fn build_container(
        &self,
        id: &str,
        sandbox: &Arc<Sandbox>,
        config: cri::v1::ContainerConfig,
        image: &ImageRecord,
    ) -> Result<Container, Error> {
        let folder = self.containers_folder().join(id);
        let defaults = self.images().defaults(image).map_err(failed("read image"))?;
        let layers_of = |image: &ImageRecord| self.images().layers(image).map_err(failed("find image layers"));
        let image_mounts = spec::image_mounts(&config);
        let image_mounts = image_mounts.iter().map(|name| layers_of(&self.known_image(name)?));
        let pod = sandbox.config();
        let mut built = spec::build(&Source {
            id,
            folder: &folder,
            sandbox_folder: &sandbox.folder,
            config: &config,
            sandbox: pod,
            image: &defaults,
            layers_folder: self.images().layers_folder(),
            layers: layers_of(image)?,
            image_mounts: image_mounts.collect::<Result<_, _>>()?,
            cgroup_parent: &cgroup_parent(&sandbox.id, pod),
        })?;
        make_sources(&built.plan).map_err(failed("create container"))?;
        let points = mount_points::layer(self.root(), &built.plan.mounts).map_err(failed("make mount points"))?;
        built.plan.root.layers.push(points);
        let record = ContainerRecord {
            created_at_ns: self.now_ns(),
            sandbox: sandbox.id.clone(),
            image_id: image.id.clone(),
            image_ref: image.digests.first().unwrap_or(&image.id).clone(),
            stop_signal: cri_signal(config.stop_signal())
                .or_else(|| signal_number(&defaults.stop_signal))
                .unwrap_or(libc::SIGTERM),
            cgroup: built.plan.cgroup.clone(),
            layers: spec::layers_in_use(&built.plan).into_iter().collect(),
        };
        let container = Container::new(id.to_owned(), folder.clone(), sandbox.clone(), config, record);
        let write = || -> io::Result<()> {
            fs::create_dir(&folder)?;
            disk::private(&folder)?;
            for name in ["root", "upper", "work"] {
                fs::create_dir(folder.join(name))?;
            }
            disk::set_mode(&folder.join("upper"), 0o755)?;
            make_staging(&built.plan)?;
            fs::write(folder.join("plan.json"), serde_json::to_vec(&built.plan)?)?;
            fs::write(folder.join("group.json"), serde_json::to_vec(&(&built.limits, &built.devices))?)?;
            container.save()
        };
        write().map_err(failed("create container"))?;
        Ok(container)
    }

    /// CRI's StartContainer.
    pub(crate) async fn start_container(&self, id: &str) -> Result<(), Error> {
        let container = self.containers().get("container", id)?;
        let _changing = container.changing.lock().await;
        if container.state() != ContainerState::ContainerCreated {
            let state = container.state().as_str_name();
            return Err(Error::failed_precondition(format!("container {:?} is in {state} state", container.id)));
        }
        match self.launch(&container).await {
            Ok(started) => {
                self.mark_started(&container, started);
                Ok(())
            }
            Err(why) => {
                let message = format!("failed to start container {:?}: {why}", container.id);
                self.mark_failed(&container, START_ERROR, &message);
                // What could not be made cannot be removed either; a busy group goes with the container.
                let _ = self.hierarchies().remove(&container.record.cgroup);
                Err(Error::unknown(message))
            }
        }
    }

    async fn launch(&self, container: &Arc<Container>) -> Result<StartRecord, String> {
        let group = &container.record.cgroup;
        let prepare = || -> io::Result<()> {
            let (limits, devices) =
                serde_json::from_slice::<(_, Vec<_>)>(&fs::read(container.folder.join("group.json"))?)?;
            self.hierarchies().create(group, &limits)?;
            self.hierarchies().allow_devices(group, &devices)
        };
        prepare().map_err(|error| format!("set up cgroup: {error}"))?;
        match container.sandbox.shim.call(&Request::Start { folder: container.folder.clone() }).await {
            Ok(Reply::Started(started)) => Ok(started),
            Ok(other) => Err(format!("unexpected answer {other:?}")),
            Err(client::Error::Failed(why)) => {
                Err(format!("unable to start container process: error during container init: {why}"))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Notes a start, once, whoever saw it first.
    pub(crate) fn mark_started(&self, container: &Arc<Container>, started: StartRecord) {
        let fresh = container.life.send_if_modified(|life| {
            let fresh = life.started.is_none();
            life.started.get_or_insert(started);
            fresh
        });
        if fresh {
            self.publish(Event::Started, &container.sandbox, &container.id);
        }
    }

    /// Notes an end, once, whoever saw it first.
    pub(crate) fn mark_exited(&self, container: &Arc<Container>, exited: ExitRecord, failure: Option<Failure>) {
        let fresh = container.life.send_if_modified(|life| {
            let fresh = life.exited.is_none();
            if fresh {
                life.exited = Some(exited);
                life.failure = failure;
            }
            fresh
        });
        if fresh {
            self.publish(Event::Stopped, &container.sandbox, &container.id);
        }
    }

    fn mark_failed(&self, container: &Arc<Container>, (code, reason): (i32, &str), message: &str) {
        let failure = Failure { reason: reason.into(), message: message.into() };
        let exit = ExitRecord { container: container.id.clone(), code, at_ns: self.now_ns(), out_of_memory: false };
        if let Err(error) = container.save_failure(&failure, &exit) {
            tracing::warn!(container = container.id, %error, "note the end");
        }
        self.mark_exited(container, exit, Some(failure));
    }

    /// Ends a container whose shim is gone: nobody can say how it ended.
    pub(crate) fn mark_lost(&self, container: &Arc<Container>) {
        if let Err(error) = self.hierarchies().kill(&container.record.cgroup) {
            tracing::warn!(container = container.id, %error, "kill what is left");
        }
        if container.is_running() {
            self.mark_failed(container, UNKNOWN, "the container's shim has ended");
        }
    }

    /// CRI's StopContainer: asks, waits up to `timeout_s`, then kills. Can be repeated.
    pub(crate) async fn stop_container(&self, id: &str, timeout_s: i64) -> Result<(), Error> {
        // Stopping what is gone is no error in CRI.
        let Some(container) = self.containers().find(id) else { return Ok(()) };
        if let Ok(timeout_s @ 1..) = u64::try_from(timeout_s)
            && container.is_running()
        {
            let signal = container.record.stop_signal;
            self.signal(&container, &Request::Signal { container: container.id.clone(), signal }).await?;
            tokio::select! {
                () = container.ended() => return Ok(()),
                () = self.clock().sleep(Duration::from_secs(timeout_s)) => {}
            }
        }
        self.kill_container(&container).await
    }

    /// Kills every process of the container and waits for its end.
    pub(crate) async fn kill_container(&self, container: &Arc<Container>) -> Result<(), Error> {
        if container.is_running() {
            self.signal(container, &Request::KillAll { container: container.id.clone() }).await?;
            container.ended().await;
        }
        Ok(())
    }

    async fn signal(&self, container: &Arc<Container>, request: &Request) -> Result<(), Error> {
        match container.sandbox.shim.call(request).await {
            // It has just ended, which is what was wanted.
            Ok(_) | Err(client::Error::NotRunning) => Ok(()),
            Err(client::Error::Gone(_)) => {
                self.mark_lost(container);
                Ok(())
            }
            Err(error) => Err(Error::unknown(format!("failed to stop container {:?}: {error}", container.id))),
        }
    }

    /// CRI's RemoveContainer: kills it when it runs. Can be repeated.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let Some(container) = self.containers().find(id) else { return Ok(()) };
        let _changing = container.changing.lock().await;
        self.kill_container(&container).await?;
        match container.sandbox.shim.call(&Request::Forget { container: container.id.clone() }).await {
            Ok(_) | Err(client::Error::Gone(_)) => {}
            Err(error) => {
                return Err(Error::unknown(format!("failed to remove container {:?}: {error}", container.id)));
            }
        }
        self.remove_group(&container.record.cgroup).await;
        let folder = container.folder.clone();
        let removed = tokio::task::spawn_blocking(move || disk::remove_folder(&folder)).await;
        removed.map_err(failed("remove container folder"))?.map_err(failed("remove container folder"))?;
        self.containers().remove(&container.id);
        self.publish(Event::Deleted, &container.sandbox, &container.id);
        Ok(())
    }

    /// CRI's UpdateContainerResources.
    pub(crate) fn update_container(&self, id: &str, resources: &LinuxContainerResources) -> Result<(), Error> {
        let container = self.containers().get("container", id)?;
        let limits = spec::limits(Some(resources));
        let group = container.folder.join("group.json");
        let note = || -> io::Result<()> {
            let (known, devices) =
                serde_json::from_slice::<(crate::cgroup::Limits, serde_json::Value)>(&fs::read(&group)?)?;
            disk::write_volatile(&group, &serde_json::to_vec(&(known.overlaid(&limits), devices))?)
        };
        if container.is_running() {
            self.hierarchies().update(&container.record.cgroup, &limits).map_err(failed("update resources"))?;
        }
        note().map_err(failed("update resources"))?;
        let mut known = container.resources.lock();
        *known = Some(overlay_resources(known.clone().unwrap_or_default(), resources));
        Ok(())
    }
}

/// What is zero or empty in `update` keeps its value.
fn overlay_resources(mut known: LinuxContainerResources, update: &LinuxContainerResources) -> LinuxContainerResources {
    let number = |known: &mut i64, update: i64| {
        if update != 0 {
            *known = update;
        }
    };
    number(&mut known.cpu_period, update.cpu_period);
    number(&mut known.cpu_quota, update.cpu_quota);
    number(&mut known.cpu_shares, update.cpu_shares);
    number(&mut known.memory_limit_in_bytes, update.memory_limit_in_bytes);
    number(&mut known.memory_swap_limit_in_bytes, update.memory_swap_limit_in_bytes);
    number(&mut known.oom_score_adj, update.oom_score_adj);
    for (known, update) in
        [(&mut known.cpuset_cpus, &update.cpuset_cpus), (&mut known.cpuset_mems, &update.cpuset_mems)]
    {
        if !update.is_empty() {
            known.clone_from(update);
        }
    }
    known.unified.extend(update.unified.clone());
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_names() {
        for (name, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGNOPE", None),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
        assert_eq!(cri_signal(Signal::Sigusr1), Some(10));
        assert_eq!(cri_signal(Signal::Sigrtminplus3), Some(37));
        assert_eq!(cri_signal(Signal::RuntimeDefault), None);
    }
}

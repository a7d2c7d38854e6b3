//! The built-in container runtime: images, snapshots, sandboxes, containers, logs and streams behind CRI.
//!
//! ```text
//! kubelet --Cri--> service --> sandbox, container ---shim socket---> shim (one per pod) --> launch --> the container's program
//!                     |            |
//!                     |            +--> spec (what to run), cgroup (limits, use), PodNetwork (addresses)
//!                     +--> image (references, registries, layers, import)
//! ```
//!
//! On disk, all under one root folder:
//!
//! ```text
//! images.json, blobs/sha256/   what images there are; their manifests and configurations
//! layers/<n>/                  unpacked layers, shared by all images and containers, named by chain id in layers.json
//! sandboxes/<id>/              sandbox.pb (CRI's request), record.json, shim.json, shim.sock, resolv.conf, hostname, shm/
//! containers/<id>/             container.pb (CRI's request), record.json, plan.json, start.json, exit.json, upper/, work/
//! ```
//!
//! - Containers outlive this process: shims own them, and [`Runtime::open`] finds them again.
//! - Nothing is polled: shims tell of ends, [`cri::Cri::get_container_events`] passes it on.
//! - It makes no policy: restarts, garbage collection and probes are the node agent's.
//!
//! The binary must call [`reexec`] first thing in `main`, since shims are the same program.
#![allow(unsafe_code)] // This crate talks to the kernel; each block says why it is sound.

pub mod cgroup;
mod container;
mod disk;
mod events;
pub mod image;
pub mod launch;
mod metrics;
mod mount_points;
mod orphans;
mod recovery;
mod sandbox;
mod service;
pub mod shim;
mod spec;
mod state;
mod stats;
mod status;
mod streams;
mod syscalls;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use base::{Clock, Tasks};
use cri::{
    PodNetwork,
    v1::{AuthConfig, ContainerEventResponse},
};
use tokio::sync::broadcast;

use crate::{
    cgroup::Hierarchies,
    image::{ImageError, ImageRecord, Images, Registries, pull::ProgressSender, unpack::UnpackLimits},
    state::{Container, Sandbox, Table},
};

/// What a runtime is opened with.
pub struct Options {
    /// Where everything is kept; made when missing.
    pub root: PathBuf,
    /// How registries are reached.
    pub registries: Registries,
    /// What an image's layer may grow to.
    pub layer_limits: UnpackLimits,
    /// The host's cgroups; `None` finds out.
    pub hierarchies: Option<Hierarchies>,
    /// Gives sandboxes their network.
    pub network: Arc<dyn PodNetwork>,
    /// Time.
    pub clock: Clock,
    /// Where its tasks run. Containers do not end with them.
    pub tasks: Tasks,
}

/// Why a runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk or the kernel failed us.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The images could not be read.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The network could not be told which sandboxes there are.
    #[error("network: {0}")]
    Network(cri::Error),
}

/// The runtime. Clone it freely: clones are the same one.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    root: PathBuf,
    registries: Registries,
    network: Arc<dyn PodNetwork>,
    clock: Clock,
    tasks: Tasks,
    program: OwnedFd,
    hierarchies: Hierarchies,
    images: Arc<Images>,
    sandboxes: Table<Sandbox>,
    containers: Table<Container>,
    events: broadcast::Sender<ContainerEventResponse>,
}

impl Runtime {
    /// Opens the runtime under `options.root` and finds what an earlier life has left running.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let at = |doing| move |source| OpenError::Io { doing, source };
        let (sandboxes, containers) = (options.root.join("sandboxes"), options.root.join("containers"));
        for folder in [&sandboxes, &containers] {
            std::fs::create_dir_all(folder).map_err(at("make runtime folders"))?;
        }
        disk::set_mode(&options.root, 0o711).map_err(at("make runtime folders"))?;
        disk::private(&containers).map_err(at("make runtime folders"))?;
        say_what_is_clamped();
        let found = recovery::read(&sandboxes, &containers).map_err(at("read runtime state"))?;
        mount_points::open(&options.root, &found.layers()).map_err(at("make runtime folders"))?;
        let images = Images::open(&options.root, options.layer_limits, &found.layers())?;
        let (events, _) = broadcast::channel(events::EVENT_QUEUE_MAX);
        let runtime = Runtime(Arc::new(Inner {
            root: options.root,
            registries: options.registries,
            network: options.network,
            clock: options.clock,
            tasks: options.tasks,
            program: syscalls::readonly_self().map_err(at("clone the program's mount"))?,
            hierarchies: options.hierarchies.map_or_else(Hierarchies::detect, Ok).map_err(at("find cgroups"))?,
            images: Arc::new(images),
            sandboxes: Table::default(),
            containers: Table::default(),
            events,
        }));
        found.sandboxes.into_iter().for_each(|(id, sandbox)| runtime.0.sandboxes.insert(id, sandbox));
        found.containers.into_iter().for_each(|(id, container)| runtime.0.containers.insert(id, container));
        runtime.take_up().await.map_err(OpenError::Network)?;
        Ok(runtime)
    }

    /// The images of this node.
    pub fn images(&self) -> &Arc<Images> {
        &self.0.images
    }

    /// Pulls an image, telling `progress` how it comes along.
    pub async fn pull(
        &self,
        name: &str,
        auth: Option<&AuthConfig>,
        progress: ProgressSender,
    ) -> Result<ImageRecord, ImageError> {
        self.0.images.pull(&self.0.registries, name, auth, &self.0.clock, progress).await
    }

    /// Imports images from an archive or a layout; `name` names those that carry none.
    pub async fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<ImageRecord>, ImageError> {
        let (images, path, name) = (self.0.images.clone(), path.to_owned(), name.map(str::to_owned));
        let imported = tokio::task::spawn_blocking(move || images.import(&path, name.as_deref())).await;
        imported.unwrap_or_else(|_| Err(ImageError::Corrupt("importing panicked".into())))
    }

    /// Removes an image under all its names; its layers stay as long as a container stands on them.
    pub async fn remove(&self, name: &str) -> Result<(), ImageError> {
        let (images, name, in_use) = (self.0.images.clone(), name.to_owned(), self.layers_in_use());
        let removed = tokio::task::spawn_blocking(move || images.remove(&name, &in_use)).await;
        removed.unwrap_or_else(|_| Err(ImageError::Corrupt("removing panicked".into())))
    }

    fn root(&self) -> &Path {
        &self.0.root
    }

    fn sandboxes_folder(&self) -> PathBuf {
        self.0.root.join("sandboxes")
    }

    fn containers_folder(&self) -> PathBuf {
        self.0.root.join("containers")
    }

    fn sandboxes(&self) -> &Table<Sandbox> {
        &self.0.sandboxes
    }

    fn containers(&self) -> &Table<Container> {
        &self.0.containers
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.containers().all().into_iter().filter(|container| container.sandbox.id == sandbox).collect()
    }

    fn event_sender(&self) -> &broadcast::Sender<ContainerEventResponse> {
        &self.0.events
    }

    fn network(&self) -> &Arc<dyn PodNetwork> {
        &self.0.network
    }

    fn hierarchies(&self) -> &Hierarchies {
        &self.0.hierarchies
    }

    fn program(&self) -> &OwnedFd {
        &self.0.program
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    fn now_ns(&self) -> i64 {
        i64::try_from(self.0.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }
}

/// Without CAP_SYS_RESOURCE a process can only be made likelier to be killed than we are, not less likely.
fn say_what_is_clamped() {
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    if held.is_ok_and(|held| !held.contains(rustix::thread::CapabilitySet::SYS_RESOURCE)) {
        tracing::warn!("no CAP_SYS_RESOURCE: oom_score_adj below our own is left at our own");
    }
}

/// Turns this process into a shim if it was started as one; call before anything else in `main`, in particular before any
/// thread is started. Returns when this is an ordinary start.
pub fn reexec() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == shim::ARGUMENT)
        && let Some(folder) = arguments.next()
    {
        std::process::exit(shim::main(folder.as_ref()));
    }
}

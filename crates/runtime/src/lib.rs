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
mod disk;
pub mod image;
pub mod launch;
pub mod shim;
mod syscalls;

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

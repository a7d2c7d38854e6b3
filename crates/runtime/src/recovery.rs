//! Following shims, and finding them again after a restart.
//!
//! At start and in steady state it is the same path: connect to a shim, take its state, then its events. A shim that cannot be
//! connected to is gone, and with it every word on how its containers ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use cri::Error;
use tokio::net::UnixStream;

use crate::{
    Runtime, disk,
    events::Event,
    sandbox::{network_view, unmount_shared_memory},
    shim::{
        client,
        protocol::{Reply, Report, Request, read_message},
    },
    state::{Container, Sandbox, folders},
};

/// What is on disk.
pub struct Found {
    pub sandboxes: BTreeMap<String, Arc<Sandbox>>,
    pub containers: BTreeMap<String, Arc<Container>>,
}

/// Reads everything back. What cannot be read was not finished when the last life ended, and is removed.
pub fn read(sandboxes_folder: &Path, containers_folder: &Path) -> io::Result<Found> {
    let mut found = Found { sandboxes: BTreeMap::new(), containers: BTreeMap::new() };
    for (id, folder) in folders(sandboxes_folder)? {
        match Sandbox::load(id.clone(), folder.clone()) {
            Ok(sandbox) => drop(found.sandboxes.insert(id, Arc::new(sandbox))),
            Err(error) => {
                tracing::warn!(sandbox = id, %error, "removing what is left of a sandbox");
                unmount_shared_memory(&folder)?;
                disk::remove_folder(&folder)?;
            }
        }
    }
    for (id, folder) in folders(containers_folder)? {
        match Container::load(id.clone(), folder.clone(), &found.sandboxes) {
            Ok(container) => drop(found.containers.insert(id, Arc::new(container))),
            Err(error) => {
                tracing::warn!(container = id, %error, "removing what is left of a container");
                disk::remove_folder(&folder)?;
            }
        }
    }
    Ok(found)
}

impl Found {
    /// The layer folders that containers stand on.
    pub fn layers(&self) -> BTreeSet<String> {
        self.containers.values().flat_map(|container| container.record.layers.iter().cloned()).collect()
    }
}

impl Runtime {
    /// Takes up all shims that are there, and tells the network which sandboxes are.
    pub(crate) async fn take_up(&self) -> Result<(), Error> {
        let mut networked = Vec::new();
        for sandbox in self.sandboxes().all() {
            let record = sandbox.record.lock().clone();
            if record.network_joined {
                networked.push((network_view(&sandbox), record.addresses));
            }
            if !record.ready {
                self.containers_of(&sandbox.id).iter().for_each(|container| self.mark_lost(container));
            } else if self.follow_shim(sandbox.clone()).await.is_err() {
                self.shim_gone(&sandbox);
            }
        }
        self.network().reconcile(&networked).await
    }

    /// Takes the shim's state now and its events from now on.
    pub(crate) async fn follow_shim(&self, sandbox: Arc<Sandbox>) -> Result<(), Error> {
        let failed = |error: client::Error| Error::unavailable(format!("sandbox {:?}: {error}", sandbox.id));
        let mut connection = self.read_state(&sandbox).await.map_err(failed)?;
        let runtime = self.clone();
        self.tasks().spawn("follow shim", async move {
            loop {
                runtime.read_events(&sandbox, &mut connection).await;
                // It has dropped us for being slow, or it has ended.
                match runtime.read_state(&sandbox).await {
                    Ok(again) => connection = again,
                    Err(_) => break runtime.shim_gone(&sandbox),
                }
            }
        });
        Ok(())
    }

    async fn read_state(&self, sandbox: &Arc<Sandbox>) -> Result<UnixStream, client::Error> {
        let (reply, connection) = sandbox.shim.open(&Request::Events).await?;
        if let Reply::State(reports) = reply {
            reports.into_iter().for_each(|report| self.apply(report));
        }
        Ok(connection)
    }

    async fn read_events(&self, sandbox: &Arc<Sandbox>, connection: &mut UnixStream) {
        loop {
            match read_message(connection).await {
                Ok(Reply::Exited(report)) => self.apply(report),
                Ok(other) => tracing::warn!(sandbox = sandbox.id, ?other, "a shim said what it should not"),
                Err(_) => return,
            }
        }
    }

    fn apply(&self, report: Report) {
        let Some(container) = self.containers().find(&report.container) else { return };
        self.mark_started(&container, report.started);
        if let Some(exited) = report.exited {
            self.mark_exited(&container, exited, None);
        }
    }

    /// The shim has ended: with us telling it to, or by accident, and then its pod is over.
    fn shim_gone(&self, sandbox: &Arc<Sandbox>) {
        let was_ready = sandbox.is_ready();
        if was_ready {
            tracing::warn!(sandbox = sandbox.id, "the sandbox's shim has ended");
            if let Err(error) = sandbox.change(|record| record.ready = false) {
                tracing::warn!(sandbox = sandbox.id, %error, "note sandbox");
            }
        }
        for container in self.containers_of(&sandbox.id) {
            self.mark_lost(&container);
        }
        if was_ready {
            self.publish(Event::Stopped, sandbox, &sandbox.id);
        }
    }
}

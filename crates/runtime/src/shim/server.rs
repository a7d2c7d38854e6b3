//! The shim's event loop: connections, ended children, and the containers it knows.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    net::{UnixListener, UnixStream},
    signal::unix::SignalKind,
    sync::{Notify, broadcast, oneshot, watch},
    task::spawn_local,
};

use super::{
    log::Stream,
    output::Output,
    process::{self, Streams},
    protocol::{ExitRecord, Reply, Report, Request, StartRecord, read_message, write_message},
    session, signal,
};
use crate::{
    cgroup::Hierarchies,
    launch::{LaunchPlan, os_message, plan::PidNamespace},
    syscalls,
};

/// How long output is still read after its process has ended, when somebody else holds the pipe open.
pub const DRAIN: Duration = Duration::from_millis(500);

/// How many ends may wait for a listener; one that falls behind is disconnected and asks anew.
const EVENT_QUEUE_MAX: usize = 256;

/// Everything the shim knows.
pub struct Shim {
    pub hierarchies: Hierarchies,
    pause: Option<i32>,
    containers: RefCell<BTreeMap<String, Rc<Running>>>,
    waiting: RefCell<HashMap<i32, oneshot::Sender<i32>>>,
    events: broadcast::Sender<Report>,
    stop: Notify,
}

/// A container, running or ended.
pub struct Running {
    pub plan: LaunchPlan,
    folder: PathBuf,
    pub started: StartRecord,
    pub streams: RefCell<Streams>,
    pub output: Rc<Output>,
    pub exited: watch::Receiver<Option<ExitRecord>>,
}

/// Serves the socket in the present folder until told to stop.
pub async fn serve(hierarchies: Hierarchies, pause: Option<i32>) -> io::Result<()> {
    let listener = UnixListener::bind(super::SOCKET)?;
    let mut children = tokio::signal::unix::signal(SignalKind::child())?;
    let (events, _) = broadcast::channel(EVENT_QUEUE_MAX);
    let shim = Rc::new(Shim {
        hierarchies,
        pause,
        containers: RefCell::default(),
        waiting: RefCell::default(),
        events,
        stop: Notify::new(),
    });
    announce_ready()?;
    loop {
        tokio::select! {
            _ = children.recv() => shim.reap(),
            connection = listener.accept() => match connection {
                Ok((connection, _)) => { spawn_local(handle(shim.clone(), connection)); }
                Err(error) => eprintln!("accept: {error}"),
            },
            () = shim.stop.notified() => break,
        }
    }
    if let Some(pause) = shim.pause {
        // It may have been killed before; then there is nothing to do.
        let _ = syscalls::kill(pause, libc::SIGKILL);
    }
    Ok(())
}

/// Tells whoever started us that the socket is there, and lets go of their pipe.
fn announce_ready() -> io::Result<()> {
    use std::os::fd::AsFd;
    println!("{}", super::READY);
    let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
    syscalls::duplicate_onto(null.as_fd(), 1)
}

async fn handle(shim: Rc<Shim>, mut connection: UnixStream) {
    let result = match read_message::<Request>(&mut connection).await {
        Ok(request) => answer(&shim, request, &mut connection).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result
        && error.kind() != io::ErrorKind::UnexpectedEof
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("connection: {error}");
    }
}

async fn answer(shim: &Rc<Shim>, request: Request, connection: &mut UnixStream) -> io::Result<()> {
    let done = |result: io::Result<()>| match result {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Failed(os_message(&error)),
    };
    let reply = match request {
        Request::Events => return shim.report(connection).await,
        Request::Exec { container, process, stdin, kill_on_close } => {
            let Some(target) = shim.running(&container) else {
                return write_message(connection, &Reply::NotRunning).await;
            };
            return session::exec(shim, &target, &process, stdin, kill_on_close, connection).await;
        }
        Request::Attach { container, stdin } => {
            let Some(target) = shim.running(&container) else {
                return write_message(connection, &Reply::NotRunning).await;
            };
            return session::attach(&target, stdin, connection).await;
        }
        Request::Dial { port } => return session::dial(port, connection).await,
        Request::Start { folder } => match shim.start(&folder).await {
            Ok(record) => Reply::Started(record),
            Err(why) => Reply::Failed(why),
        },
        Request::Signal { container, signal } => match shim.running(&container) {
            Some(target) => done(signal::send(&target, signal)),
            None => Reply::NotRunning,
        },
        Request::KillAll { container } => match shim.running(&container) {
            Some(target) => done(shim.kill_all(&target)),
            None => Reply::NotRunning,
        },
        Request::Reopen { container } => match shim.running(&container) {
            Some(target) => done(target.output.reopen()),
            None => Reply::NotRunning,
        },
        Request::Forget { container } => {
            shim.containers.borrow_mut().remove(&container);
            Reply::Done
        }
        Request::Stop => {
            write_message(connection, &Reply::Done).await?;
            shim.stop.notify_one();
            return Ok(());
        }
    };
    write_message(connection, &reply).await
}

impl Shim {
    fn running(&self, container: &str) -> Option<Rc<Running>> {
        self.containers.borrow().get(container).filter(|known| known.exited.borrow().is_none()).cloned()
    }

    fn reap(&self) {
        while let Some((pid, code)) = syscalls::reap_one() {
            if let Some(waiting) = self.waiting.borrow_mut().remove(&pid) {
                // Nobody waits any more for a command whose client has gone.
                let _ = waiting.send(code);
            }
        }
    }

    /// Resolves with the exit code of a child. Call before anything else is awaited after the child was made.
    pub fn wait_for(&self, pid: i32) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, sender);
        receiver
    }

    fn kill_all(&self, target: &Running) -> io::Result<()> {
        match syscalls::kill(target.started.pid, libc::SIGKILL) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            _ => self.hierarchies.kill(&target.plan.cgroup),
        }
    }

    fn reports(&self) -> Vec<Report> {
        let containers = self.containers.borrow();
        let report = |(id, running): (&String, &Rc<Running>)| Report {
            container: id.clone(),
            started: running.started.clone(),
            exited: running.exited.borrow().clone(),
        };
        containers.iter().map(report).collect()
    }

    /// The state, then every end, until the client goes.
    async fn report(&self, connection: &mut UnixStream) -> io::Result<()> {
        let mut events = self.events.subscribe();
        let state = Reply::State(self.reports());
        write_message(connection, &state).await?;
        let (mut from, mut to) = connection.split();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(report) => write_message(&mut to, &Reply::Exited(report)).await?,
                    Err(_) => return Ok(()),
                },
                // Nothing is ever sent here: this is how the client's end is seen.
                _ = super::protocol::read_frame(&mut from) => return Ok(()),
            }
        }
    }

    fn process_namespace(&self, plan: &LaunchPlan) -> Result<Option<File>, String> {
        let pid = match &plan.pid_namespace {
            PidNamespace::Own | PidNamespace::Host => return Ok(None),
            PidNamespace::Pod => self.pause.ok_or("the pod has no shared process namespace")?,
            PidNamespace::Target(id) => {
                self.running(id).ok_or_else(|| format!("container {id} is not running"))?.started.pid
            }
        };
        let file = File::open(format!("/proc/{pid}/ns/pid"));
        file.map(Some).map_err(|error| format!("open process namespace: {error}"))
    }

    async fn start(self: &Rc<Self>, folder: &Path) -> Result<StartRecord, String> {
        let at = |what: &str, error: io::Error| format!("{what}: {}", os_message(&error));
        let plan = fs::read(folder.join("plan.json")).map_err(|error| at("read plan", error))?;
        let plan: LaunchPlan = serde_json::from_slice(&plan).map_err(|error| format!("read plan: {error}"))?;
        if self.containers.borrow().contains_key(&plan.id) {
            return Err("container has been started before".into());
        }
        let namespace = self.process_namespace(&plan)?;
        let output = Output::new(plan.log_path.as_deref(), plan.log_limits).map_err(|error| at("open log", error))?;
        let process = process::start(&plan, &self.hierarchies, namespace.as_ref());
        let process = process.map_err(|error| at("clone", error))?;
        let pid = process.pid;
        let ended = self.wait_for(pid);
        let (user, streams) = match process.settle().await {
            Ok(settled) => settled,
            Err(why) => {
                // The clone reports before it ends; wait, so that its cgroup can be removed.
                let _ = ended.await;
                return Err(why);
            }
        };
        let started = StartRecord { pid, at_ns: now_ns(), user };
        write_record(folder, "start.json", &started).map_err(|error| at("note the start", error))?;
        let (exited, watcher) = watch::channel(None);
        let running = Rc::new(Running {
            folder: folder.to_owned(),
            started: started.clone(),
            streams: RefCell::new(streams),
            output,
            exited: watcher,
            plan,
        });
        self.containers.borrow_mut().insert(running.plan.id.clone(), running.clone());
        spawn_local(self.clone().follow(running, ended, exited));
        Ok(started)
    }

    /// From a container's start to its recorded end.
    async fn follow(
        self: Rc<Self>,
        running: Rc<Running>,
        ended: oneshot::Receiver<i32>,
        exited: watch::Sender<Option<ExitRecord>>,
    ) {
        // Not its input: whoever closes that must be the last to hold it.
        let outputs = {
            let streams = running.streams.borrow();
            [(Stream::Stdout, streams.stdout.clone()), (Stream::Stderr, streams.stderr.clone())]
        };
        let mut pumps = tokio::task::JoinSet::new();
        for (stream, from) in outputs {
            if let Some(from) = from {
                pumps.spawn_local(running.output.clone().pump(stream, from));
            }
        }
        // The sender lives as long as the shim; were it lost, how the container ended could not be known.
        let code = ended.await.unwrap_or(UNKNOWN_EXIT_CODE);
        let at_ns = now_ns();
        let group = &running.plan.cgroup;
        let out_of_memory = self.hierarchies.oom_kills(group) > 0;
        // With its first process the kernel has ended all others of a process id namespace.
        if running.plan.pid_namespace != PidNamespace::Own
            && let Err(error) = self.hierarchies.kill(group)
        {
            eprintln!("kill what {} left behind: {error}", running.plan.id);
        }
        let drained = tokio::time::timeout(DRAIN, async { while pumps.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            pumps.shutdown().await;
        }
        *running.streams.borrow_mut() = Streams::default();
        running.output.close();
        let record = ExitRecord { container: running.plan.id.clone(), code, at_ns, out_of_memory };
        if let Err(error) = write_record(&running.folder, "exit.json", &record) {
            eprintln!("note the end of {}: {error}", running.plan.id);
        }
        exited.send_replace(Some(record.clone()));
        let container = record.container.clone();
        let report = Report { container, started: running.started.clone(), exited: Some(record) };
        // Nobody listening is fine: the record is on disk and in the state.
        let _ = self.events.send(report);
        // So that those who wait for the end are told first.
        tokio::task::yield_now().await;
        // A group that is still busy (a killed process on its way out) is removed with the container.
        let _ = self.hierarchies.remove(group);
    }
}

/// What is reported when it is not known how a container ended.
pub const UNKNOWN_EXIT_CODE: i32 = 255;

/// Nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn write_record(folder: &Path, name: &str, record: &impl serde::Serialize) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}"));
    fs::write(&temporary, serde_json::to_vec(record)?)?;
    fs::rename(temporary, folder.join(name))
}

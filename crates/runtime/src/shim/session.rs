//! Connections that stay: exec, attach and port-forward.

use std::{io, net::Ipv4Addr, net::Ipv6Addr, rc::Rc};

use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream, UnixStream,
        unix::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, oneshot},
    task::{JoinSet, spawn_local},
};

use super::{
    descriptor::Descriptor,
    log::Stream,
    output::{Chunk, READ_BYTES},
    process::{self, Streams},
    protocol::{Frame, Reply, read_frame, write_frame, write_message},
    server::{DRAIN, Running, Shim, UNKNOWN_EXIT_CODE},
};
use crate::{
    launch::{os_message, plan::ProcessPlan},
    syscalls,
};

/// How many chunks of an exec'd command's output may wait for its client; then the command waits.
const OUTPUT_QUEUE_MAX: usize = 8;

/// Runs a command and carries its streams.
pub async fn exec(
    shim: &Rc<Shim>,
    target: &Running,
    plan: &ProcessPlan,
    stdin: bool,
    kill_on_close: bool,
    connection: &mut UnixStream,
) -> io::Result<()> {
    let process = match process::exec(plan, target.started.pid, &shim.hierarchies, &target.plan.cgroup, stdin) {
        Ok(process) => process,
        Err(error) => return write_message(connection, &Reply::Failed(os_message(&error))).await,
    };
    let pid = process.pid;
    let ended = shim.wait_for(pid);
    let streams = match process.settle().await {
        Ok((_, streams)) => streams,
        Err(why) => return write_message(connection, &Reply::Failed(why)).await,
    };
    write_message(connection, &Reply::Done).await?;
    let (sender, chunks) = mpsc::channel(OUTPUT_QUEUE_MAX);
    let mut pumps = JoinSet::new();
    for (stream, from) in [(Stream::Stdout, streams.stdout.clone()), (Stream::Stderr, streams.stderr.clone())] {
        if let Some(from) = from {
            pumps.spawn_local(pump(stream, from, sender.clone()));
        }
    }
    drop(sender);
    // A task of its own: a command whose client has gone runs on, and its output is still read.
    let (finish, finished) = oneshot::channel();
    spawn_local(async move {
        let code = ended.await.unwrap_or(UNKNOWN_EXIT_CODE);
        let drained = tokio::time::timeout(DRAIN, async { while pumps.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            pumps.shutdown().await;
        }
        // The client may be gone.
        let _ = finish.send(code);
    });
    let ended = async move { finished.await.unwrap_or(UNKNOWN_EXIT_CODE) };
    let (from, to) = connection.split();
    let finished = carry(streams, chunks, from, to, ended, Some(&|| ())).await;
    if kill_on_close && finished.is_none() {
        // It may be just gone.
        let _ = syscalls::kill(pid, libc::SIGKILL);
    }
    Ok(())
}

/// Joins a container's streams.
pub async fn attach(target: &Rc<Running>, stdin: bool, connection: &mut UnixStream) -> io::Result<()> {
    let chunks = target.output.listen();
    write_message(connection, &Reply::Done).await?;
    let mut streams = target.streams.borrow().clone();
    if !stdin {
        streams.stdin = None;
    }
    let mut exited = target.exited.clone();
    let ended = async move {
        match exited.wait_for(Option::is_some).await {
            Ok(record) => record.as_ref().map_or(UNKNOWN_EXIT_CODE, |record| record.code),
            Err(_) => UNKNOWN_EXIT_CODE,
        }
    };
    let once = target.plan.stdin_once && stdin;
    let close = || target.streams.borrow_mut().stdin = None;
    let (from, to) = connection.split();
    carry(streams, chunks, from, to, ended, once.then_some(&close)).await;
    if once {
        close();
    }
    Ok(())
}

async fn pump(stream: Stream, from: Rc<Descriptor>, to: mpsc::Sender<Chunk>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // After the client has gone output is still read, so that the command does not block.
        let _ = to.send((stream, Bytes::copy_from_slice(&buffer[..length]))).await;
    }
}

/// Carries frames both ways until the process has ended and all output is out: `Some`; `None` when the client went first.
///
/// Output and exit are one side, input the other, so that neither can hold up the other.
async fn carry(
    streams: Streams,
    mut chunks: mpsc::Receiver<Chunk>,
    from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    ended: impl Future<Output = i32>,
    close_input: Option<&dyn Fn()>,
) -> Option<()> {
    let output = async {
        tokio::pin!(ended);
        let mut code = None;
        let mut more = true;
        while more || code.is_none() {
            tokio::select! {
                chunk = chunks.recv(), if more => match chunk {
                    Some((Stream::Stdout, bytes)) => write_frame(&mut to, &Frame::Stdout(bytes)).await?,
                    Some((Stream::Stderr, bytes)) => write_frame(&mut to, &Frame::Stderr(bytes)).await?,
                    None => more = false,
                },
                ended = &mut ended, if code.is_none() => code = Some(ended),
            }
        }
        write_message(&mut to, &Reply::ExitCode(code.unwrap_or(UNKNOWN_EXIT_CODE))).await?;
        to.shutdown().await
    };
    let input = input(streams, from, close_input);
    tokio::select! {
        result = output => result.ok(),
        () = input => None,
    }
}

/// Carries input until the client goes. When it is the only one to give input, its end is the process' end of input, and
/// `close_input` lets go of the other handles on it. A process that reads no input does not keep us from seeing its end, since the output
/// side decides that.
async fn input(mut streams: Streams, mut from: ReadHalf<'_>, close_input: Option<&dyn Fn()>) {
    let terminal = streams.terminal.take();
    let mut stdin = streams.stdin.take();
    drop(streams);
    loop {
        match read_frame(&mut from).await {
            Ok(Some(Frame::Input(bytes))) => {
                if let Some(to) = &stdin
                    && to.write_all(&bytes).await.is_err()
                {
                    // The process has closed its input: what else comes is not wanted.
                    stdin = None;
                }
            }
            Ok(Some(Frame::InputEnd)) => {
                if let Some(close) = close_input {
                    stdin = None;
                    close();
                }
            }
            Ok(Some(Frame::Resize(width, height))) => {
                if let Some(terminal) = &terminal
                    && let Err(error) = terminal.resize(width, height)
                {
                    eprintln!("resize terminal: {error}");
                }
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// Connects to the pod's loopback, first by IPv4 as upstream does, and carries bytes.
pub async fn dial(port: u16, connection: &mut UnixStream) -> io::Result<()> {
    let connected = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(connected) => Ok(connected),
        Err(first) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| first),
    };
    let mut target = match connected {
        Ok(target) => target,
        Err(error) => {
            let why = format!("dial tcp4 127.0.0.1:{port}: connect: {}", os_message(&error));
            return write_message(connection, &Reply::Failed(why)).await;
        }
    };
    write_message(connection, &Reply::Done).await?;
    tokio::io::copy_bidirectional(connection, &mut target).await.map(drop)
}

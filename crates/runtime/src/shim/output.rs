//! From a container's pipes to its log and to whoever is attached.

use std::{cell::RefCell, path::Path, rc::Rc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{
    descriptor::Descriptor,
    log::{Log, Stream},
};
use crate::launch::plan::LogLimits;

/// How much is read at once, in bytes.
pub const READ_BYTES: usize = 16 * 1024;

/// How many chunks may wait for a client that is attached.
const LISTENER_QUEUE_MAX: usize = 64;

/// How long a client that does not read may hold up a container's output before it is let go.
const LISTENER_PATIENCE: Duration = Duration::from_secs(10);

/// A chunk of output.
pub type Chunk = (Stream, Bytes);

/// Where a container's output goes.
#[derive(Default)]
pub struct Output {
    log: RefCell<Option<Log>>,
    listeners: RefCell<Vec<mpsc::Sender<Chunk>>>,
}

impl Output {
    /// With a log at `path`, or none.
    pub fn new(path: Option<&Path>, limits: LogLimits) -> std::io::Result<Rc<Self>> {
        let log = path.map(|path| Log::open(path, limits)).transpose()?;
        Ok(Rc::new(Output { log: RefCell::new(log), listeners: RefCell::default() }))
    }

    /// From now on also to the receiver returned.
    pub fn listen(&self) -> mpsc::Receiver<Chunk> {
        let (sender, receiver) = mpsc::channel(LISTENER_QUEUE_MAX);
        self.listeners.borrow_mut().push(sender);
        receiver
    }

    /// See [`Log::reopen`].
    pub fn reopen(&self) -> std::io::Result<()> {
        self.log.borrow_mut().as_mut().map_or(Ok(()), Log::reopen)
    }

    /// Carries one stream to its end.
    pub async fn pump(self: Rc<Self>, stream: Stream, from: Rc<Descriptor>) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) => break,
                Ok(length) => self.take(stream, &buffer[..length]).await,
                Err(error) => {
                    eprintln!("read {stream:?}: {error}");
                    break;
                }
            }
        }
        if let Some(Err(error)) = self.log.borrow_mut().as_mut().map(|log| log.end(stream, Timestamp::now())) {
            eprintln!("write log: {error}");
        }
    }

    async fn take(&self, stream: Stream, bytes: &[u8]) {
        if let Some(Err(error)) = self.log.borrow_mut().as_mut().map(|log| log.write(stream, bytes, Timestamp::now())) {
            eprintln!("write log: {error}");
        }
        let listeners = self.listeners.borrow().clone();
        if listeners.is_empty() {
            return;
        }
        let chunk = Bytes::copy_from_slice(bytes);
        let mut gone = false;
        for listener in &listeners {
            let sent = listener.send_timeout((stream, chunk.clone()), LISTENER_PATIENCE).await;
            gone |= sent.is_err();
        }
        if gone {
            self.listeners.borrow_mut().retain(|listener| !listener.is_closed() && listener.capacity() > 0);
        }
    }

    /// No more is coming: those attached see the end.
    pub fn close(&self) {
        self.listeners.borrow_mut().clear();
    }
}

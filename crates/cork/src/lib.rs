//! Gathers what a connection writes in one turn, and writes it at once.
//!
//! An HTTP/2 connection with many streams writes, and flushes, every frame by itself: under TLS that is a record and a
//! system call for each. Here a turn is one poll of the connection's task. While it lasts, writes go to a buffer and a flush
//! does nothing; when it ends, what has been gathered goes out.
//!
//! ```text
//! let (stream, mut turns) = cork::cork(stream);
//! let connection = serve(stream);                      // reads and writes as ever
//! turns.drive(pin!(connection)).await
//! ```
//!
//! A task that is woken by the first of many streams would have its turn before the second one has said anything. So a
//! connection that is woken goes to the back of the line once, behind the streams that are ready as well, which costs
//! nothing when there are none.
//!
//! Outside of a turn (a connection that was upgraded is used by others) the stream behaves as any other.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are gathered before they go out, turn or not.
pub const GATHERED_BYTES_MAX: usize = 64 << 10;
/// A buffer that has grown beyond this is given back when it is empty: most connections are idle.
const BUFFER_BYTES_KEPT: usize = 4 << 10;

/// A stream that gathers what is written in a turn.
pub struct Corked<S>(Arc<Mutex<Gathering<S>>>);

/// Gives a connection its turns.
pub struct Turns<S> {
    stream: Arc<Mutex<Gathering<S>>>,
    /// Whether the task has been to the back of the line since it was woken.
    waited: bool,
}

struct Gathering<S> {
    stream: S,
    in_turn: bool,
    buffer: Vec<u8>,
    /// How much of the buffer is out.
    written: usize,
    /// What went wrong at the end of a turn, for the next one to hear.
    failed: Option<io::Error>,
}

/// Both ends of a corked stream.
pub fn cork<S>(stream: S) -> (Corked<S>, Turns<S>) {
    let gathering = Gathering { stream, in_turn: false, buffer: Vec::new(), written: 0, failed: None };
    let shared = Arc::new(Mutex::new(gathering));
    (Corked(shared.clone()), Turns { stream: shared, waited: false })
}

impl<S: AsyncWrite + Unpin> Turns<S> {
    /// Drives the connection that writes to the stream, turn by turn, to its end. Dropping the future loses nothing.
    pub fn drive<'a, F: Future>(&'a mut self, connection: Pin<&'a mut F>) -> Driving<'a, S, F> {
        Driving { turns: self, connection }
    }

    fn turn<T>(&mut self, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.stream.lock().in_turn = true;
        let polled = poll(cx);
        let mut gathering = self.stream.lock();
        gathering.in_turn = false;
        if let Poll::Ready(Err(error)) = gathering.poll_out(cx) {
            gathering.failed = Some(error);
            cx.waker().wake_by_ref();
        }
        polled
    }
}

/// A connection that is given its turns.
pub struct Driving<'a, S, F> {
    turns: &'a mut Turns<S>,
    connection: Pin<&'a mut F>,
}

impl<S: AsyncWrite + Unpin, F: Future> Future for Driving<'_, S, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Driving { turns, connection } = &mut *self;
        if !turns.waited {
            turns.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        turns.waited = false;
        turns.turn(cx, |cx| connection.as_mut().poll(cx))
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    /// Writes what has been gathered and flushes it.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let rest = &self.buffer[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.written = 0;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Makes room in the buffer; how much there is.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.buffer.len() >= GATHERED_BYTES_MAX {
            ready!(self.poll_out(cx))?;
        }
        Poll::Ready(Ok(GATHERED_BYTES_MAX - self.buffer.len()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gathering = &mut *self.0.lock();
        let mut room = ready!(gathering.poll_room(cx))?;
        let before = gathering.buffer.len();
        for slice in slices {
            let taken = &slice[..slice.len().min(room)];
            gathering.buffer.extend_from_slice(taken);
            room -= taken.len();
        }
        let taken = gathering.buffer.len() - before;
        if !gathering.in_turn
            && let Poll::Ready(Err(error)) = gathering.poll_out(cx)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gathering = &mut *self.0.lock();
        if let Some(error) = gathering.failed.take() {
            return Poll::Ready(Err(error));
        }
        if gathering.in_turn { Poll::Ready(Ok(())) } else { gathering.poll_out(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gathering = &mut *self.0.lock();
        ready!(gathering.poll_out(cx))?;
        Pin::new(&mut gathering.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Counts the writes that arrive.
    struct Counted<S>(S, Arc<Mutex<Vec<usize>>>);

    impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let written = ready!(Pin::new(&mut self.0).poll_write(cx, bytes))?;
            self.1.lock().push(written);
            Poll::Ready(Ok(written))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn a_turn_goes_out_as_one_write_and_before_the_next() {
        let writes = Arc::new(Mutex::new(Vec::new()));
        let (near, mut far) = duplex(1 << 20);
        let (mut stream, mut turns) = cork(Counted(near, writes.clone()));
        let connection = pin!(async {
            for part in [&b"abc"[..], b"de", b"f"] {
                stream.write_all(part).await.unwrap();
                stream.flush().await.unwrap();
            }
            tokio::task::yield_now().await;
            stream.write_all(b"gh").await.unwrap();
        });
        turns.drive(connection).await;
        assert_eq!(*writes.lock(), [6, 2]);
        let mut arrived = [0; 8];
        far.read_exact(&mut arrived).await.unwrap();
        assert_eq!(&arrived, b"abcdefgh");
    }

    #[tokio::test]
    async fn a_reader_that_does_not_keep_up_holds_the_connection_back_and_gets_everything() {
        const BYTES: usize = 10 * GATHERED_BYTES_MAX;
        let (near, mut far) = duplex(1000);
        let (mut stream, mut turns) = cork(near);
        let written = tokio::spawn(async move {
            let connection = pin!(async {
                let bytes: Vec<u8> = (0..BYTES).map(|at| at as u8).collect();
                stream.write_all(&bytes).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            turns.drive(connection).await;
        });
        tokio::task::yield_now().await;
        assert!(!written.is_finished());
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived.len(), BYTES);
        assert!(arrived.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        written.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_hears_that_the_other_side_is_gone() {
        let (near, far) = duplex(1000);
        let (mut stream, mut turns) = cork(near);
        drop(far);
        let connection = pin!(async {
            loop {
                if let Err(error) = stream.write_all(b"a").await {
                    return error.kind();
                }
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(turns.drive(connection).await, io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn outside_of_turns_it_is_a_stream_like_any_other() {
        let (near, mut far) = duplex(1000);
        let (mut stream, _turns) = cork(near);
        stream.write_all(b"abc").await.unwrap();
        let mut arrived = [0; 3];
        far.read_exact(&mut arrived).await.unwrap();
        far.write_all(b"d").await.unwrap();
        stream.read_exact(&mut arrived[..1]).await.unwrap();
        assert_eq!(&arrived, b"dbc");
    }
}

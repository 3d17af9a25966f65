//! A listener that can be shut, and connections that can be cut: what HTTP has no words for.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker, ready},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A listener on a loopback port of its own. All clones are one door.
#[derive(Clone, Debug)]
pub(super) struct Door(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    state: Mutex<State>,
    lines: Mutex<HashMap<u64, Line>>,
    next_line: AtomicU64,
}

#[derive(Debug)]
enum State {
    /// With who waits for a connection.
    Open(TcpListener, Option<Waker>),
    /// The port is kept by a socket that doesn't listen, so that nobody else gets it and whoever connects is refused.
    Shut(Option<TcpSocket>, Option<Waker>),
}

impl Door {
    pub(super) fn open() -> io::Result<Self> {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.listen(BACKLOG)?;
        Ok(Self(Arc::new(Shared {
            address: listener.local_addr()?,
            state: Mutex::new(State::Open(listener, None)),
            lines: Mutex::default(),
            next_line: AtomicU64::new(0),
        })))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// From here on connections are refused, and those that there are are cut, as when a process dies.
    pub(super) fn shut(&self) {
        let mut state = self.state();
        if let State::Open(_, waker) = &mut *state {
            let waker = waker.take();
            // The listener has to be closed before another socket can have its port.
            *state = State::Shut(None, waker.clone());
            *state = State::Shut(bind(self.0.address).ok(), waker);
        }
        drop(state);
        let lines = std::mem::take(&mut *lock(&self.0.lines));
        lines.values().for_each(Line::cut);
    }

    /// Accepts connections again.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let mut state = self.state();
        let State::Shut(kept, waker) = &mut *state else {
            return Ok(());
        };
        let socket = kept.take().map_or_else(|| bind(self.0.address), Ok)?;
        let waker = waker.take();
        *state = State::Open(socket.listen(BACKLOG)?, None);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        match &mut *self.state() {
            State::Open(listener, waker) => {
                let accepted = ready!(keep(waker, cx, |cx| listener.poll_accept(cx)))?;
                Poll::Ready(Ok(accepted.0))
            }
            State::Shut(_, waker) => keep(waker, cx, |_| Poll::Pending),
        }
    }
}

/// Remembers who has to be woken when the state changes, as long as it waits.
fn keep<T>(
    waker: &mut Option<Waker>,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let polled = poll(cx);
    *waker = polled.is_pending().then(|| cx.waker().clone());
    polled
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the closed listener may linger on the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Only whole values are ever stored, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener for Door {
    type Io = Wire;
    type Addr = Line;

    async fn accept(&mut self) -> (Wire, Line) {
        loop {
            // Whatever goes wrong with one connection, the next may be well.
            if let Ok(stream) = std::future::poll_fn(|cx| self.poll_accept(cx)).await {
                // Without it each event would wait for the one before to be acknowledged.
                let _ = stream.set_nodelay(true);
                let line = Line::default();
                let id = self.0.next_line.fetch_add(1, SeqCst);
                lock(&self.0.lines).insert(id, line.clone());
                let wire = Wire {
                    stream,
                    line: line.clone(),
                    id,
                    door: self.clone(),
                };
                return (wire, line);
            }
            tokio::task::yield_now().await;
        }
    }

    fn local_addr(&self) -> io::Result<Line> {
        Ok(Line::default())
    }
}

/// The handle of a connection, which handlers get as its address.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Arc<LineState>);

#[derive(Debug, Default)]
struct LineState {
    cut: AtomicBool,
    connection: AtomicWaker,
}

impl Line {
    /// Resets the connection: nothing more is read or written.
    pub(super) fn cut(&self) {
        self.0.cut.store(true, SeqCst);
        self.0.connection.wake();
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.0.connection.register(cx.waker());
        if self.0.cut.load(SeqCst) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl Connected<IncomingStream<'_, Door>> for Line {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    line: Line,
    id: u64,
    door: Door,
}

impl Drop for Wire {
    fn drop(&mut self) {
        lock(&self.door.0.lines).remove(&self.id);
        if self.line.0.cut.load(SeqCst) {
            // Makes the end a reset. If it fails, the end is merely a more polite one.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.line.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.line.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An orderly end before the reset would be all that the other side sees.
        self.line.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! Sockets, and what waits to be written to them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

/// A connection of either family.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Tells of its readiness from now on, each change once.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => registry.register(stream, token, interest),
            Self::Unix(stream) => registry.register(stream, token, interest),
        }
    }

    /// Tells no more.
    pub fn deregister(&mut self, registry: &Registry) {
        // Closing it does the same; a failure changes nothing.
        let _ = match self {
            Self::Tcp(stream) => registry.deregister(stream),
            Self::Unix(stream) => registry.deregister(stream),
        };
    }

    /// Some of what has come; nothing when nothing has.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let read = match self {
                Self::Tcp(stream) => stream.read(into),
                Self::Unix(stream) => stream.read(into),
            };
            match read {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<Option<usize>> {
        loop {
            let written = match self {
                Self::Tcp(stream) => stream.write(data),
                Self::Unix(stream) => stream.write(data),
            };
            match written {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends no more; the other side may still.
    pub fn end_writing(&self) {
        // The other side may have gone already.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// An idle tunnel may last: only the kernel can tell a silent peer from one that has gone.
    pub fn keep_alive(&self, idle_s: u64) {
        if let Self::Tcp(stream) = self {
            let idle = Duration::from_secs(idle_s);
            let asked = TcpKeepalive::new().with_time(idle).with_interval(idle / 4);
            // Without it a cut wire is noticed later.
            let _ = SockRef::from(stream).set_tcp_keepalive(&asked);
        }
    }

    /// What became of a connection that was being made.
    pub fn connected(&self) -> io::Result<()> {
        let error = match self {
            Self::Tcp(stream) => stream.take_error()?,
            Self::Unix(stream) => stream.take_error()?,
        };
        if let Some(error) = error {
            return Err(error);
        }
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(|_| ()),
            Self::Unix(stream) => stream.peer_addr().map(|_| ()),
        }
    }
}

/// Bytes on their way out.
#[derive(Default)]
pub struct Outbox {
    data: Vec<u8>,
    done: usize,
}

impl Outbox {
    /// Where more can be appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// Appends.
    pub fn push(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    /// Not yet written.
    pub fn len(&self) -> usize {
        self.data.len() - self.done
    }

    /// All is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what is not written.
    pub fn clear(&mut self) {
        self.data.clear();
        self.done = 0;
    }

    /// Writes what the socket takes. True when some of it was taken.
    pub fn flush(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let mut moved = false;
        while self.done < self.data.len() {
            match stream.write(&self.data[self.done..])? {
                Some(0) => return Err(ErrorKind::WriteZero.into()),
                Some(count) => {
                    self.done += count;
                    moved = true;
                }
                None => {
                    if self.done > self.data.len() / 2 {
                        self.data.drain(..self.done);
                        self.done = 0;
                    }
                    return Ok(moved);
                }
            }
        }
        self.clear();
        if self.data.capacity() > ROOM_KEPT {
            self.data = Vec::new();
        }
        Ok(moved)
    }
}

/// What has come and is not read yet.
#[derive(Default)]
pub struct Inbox {
    data: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// What has come.
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// So many bytes wait.
    pub fn len(&self) -> usize {
        self.data.len() - self.start
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// More has come.
    pub fn push(&mut self, data: &[u8]) {
        if self.start > 0 && self.start * 2 > self.data.len() {
            self.data.drain(..self.start);
            self.start = 0;
        }
        self.data.extend_from_slice(data);
    }

    /// So much of it has been read.
    pub fn take(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.data.len() {
            self.data.clear();
            self.start = 0;
            if self.data.capacity() > ROOM_KEPT {
                self.data = Vec::new();
            }
        }
    }
}

/// Room that an empty buffer keeps: ten thousand idle connections must not hold gigabytes.
pub const ROOM_KEPT: usize = 16 * 1024;

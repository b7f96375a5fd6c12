//! What the plane's thread and Python share: messages both ways, captures, counters.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mio::Waker;

use crate::capture::Captures;

/// What Python tells the plane.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields' names say it")]
pub enum Command {
    /// Every order, and every read of one, is decided by Python from now on, or not.
    Special {
        orders: bool,
        reads: bool,
        number: u64,
    },
    /// This exchange goes to the monolith.
    Forward(u64),
    /// This exchange has this answer; `fields` are whole lines.
    Answer {
        id: u64,
        status: u16,
        fields: Vec<u8>,
        body: Vec<u8>,
        closes: bool,
    },
    /// The records of this ticket are on the disk, or can't be.
    Release(u64),
    /// A client that was accepted elsewhere, and speaks TLS there.
    Adopt { stream: UnixStream, peer: Vec<u8> },
    /// What the health checks say of one upstream.
    Upstream { number: usize, is_up: bool },
    /// No new clients; those that there are may finish what they have begun.
    Stop,
    /// Clients without a request have had their time.
    CloseIdle,
    /// The end, at once.
    Abort,
}

/// What the plane tells Python of an exchange.
#[derive(Debug, Clone)]
pub struct Told {
    /// Names it.
    pub id: u64,
    /// Of the request line.
    pub method: Vec<u8>,
    /// Of the request line.
    pub target: Vec<u8>,
    /// X-HTTP-Method-Override.
    pub method_override: Vec<u8>,
    /// Content-Type.
    pub content_type: Vec<u8>,
    /// Of the field that names the account.
    pub identity: Vec<u8>,
    /// X-Request-Id.
    pub request_id: Vec<u8>,
    /// Nothing: too large, or not kept.
    pub body: Option<Vec<u8>>,
    /// The request's head as it goes to the monolith.
    pub head: Vec<u8>,
    /// The whole request has come.
    pub is_complete: bool,
    /// HTTP/1.0.
    pub version_10: bool,
    /// The client's connection goes on behind it.
    pub keep_alive: bool,
}

/// What the plane tells Python.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields' names say it")]
pub enum Notice {
    /// Python decides.
    Decide(Told),
    /// Its client has gone.
    Gone(u64),
    /// It is no longer under way at the monolith.
    Ended(u64),
    /// Orders that were under way when the `Special` of this number came; all that come later are
    /// decided by Python.
    UnderWay { number: u64, orders: Vec<Told> },
    /// Records for the ahead log, and the ticket to release them by.
    Ahead {
        ticket: u64,
        ids: Vec<u8>,
        records: Vec<Vec<u8>>,
    },
    /// The last client has gone.
    Empty,
    /// The thread has ended; why, if not because it was told to.
    Over(String),
}

/// An order that passed by.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its instrument.
    pub symbol: String,
    /// Its account.
    pub account: u64,
}

/// The newest orders, by id.
#[derive(Default)]
pub struct Orders {
    known: HashMap<u64, Known>,
    newest_last: VecDeque<u64>,
}

impl Orders {
    /// Forgets the oldest beyond `most`.
    pub fn put(&mut self, id: u64, known: Known, most: usize) {
        if self.known.insert(id, known).is_none() {
            self.newest_last.push_back(id);
        }
        while self.newest_last.len() > most {
            if let Some(oldest) = self.newest_last.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Counters, each read alone.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Counters {
    pub requests: AtomicU64,
    pub clients: AtomicU64,
    pub upstream_connections: AtomicU64,
    pub ahead_late: AtomicU64,
    pub turns: AtomicU64,
    pub upstreams_down: AtomicU64,
}

/// Between the two threads.
pub struct Shared {
    /// What waits to be shipped.
    pub captures: Captures,
    /// How much of everything.
    pub counters: Counters,
    waker: Waker,
    commands: Mutex<Vec<Command>>,
    notices: Mutex<Vec<Notice>>,
    orders: Mutex<Orders>,
    bell: Mutex<UnixStream>,
    rung: AtomicBool,
}

impl Shared {
    /// `bell` is written to when there is news for Python, once until `answer_bell`.
    pub fn new(captures: Captures, waker: Waker, bell: UnixStream) -> Self {
        Self {
            captures,
            counters: Counters::default(),
            waker,
            commands: Mutex::default(),
            notices: Mutex::default(),
            orders: Mutex::default(),
            bell: Mutex::new(bell),
            rung: AtomicBool::new(false),
        }
    }

    /// From Python: the plane's thread reads it in its next turn.
    pub fn tell(&self, command: Command) {
        locked(&self.commands).push(command);
        // A plane that has ended hears nothing, and needs nothing.
        let _ = self.waker.wake();
    }

    /// All that Python has told since.
    pub fn commands(&self) -> Vec<Command> {
        std::mem::take(&mut *locked(&self.commands))
    }

    /// For Python.
    pub fn notify(&self, notice: Notice) {
        locked(&self.notices).push(notice);
        self.ring();
    }

    /// Wakes Python.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // It holds at most one byte; a closed one has no listener.
            let _ = locked(&self.bell).write(&[1]);
        }
    }

    /// Python has heard it, and reads everything after this.
    pub fn answer_bell(&self) {
        self.rung.store(false, Ordering::Release);
    }

    /// All notices since.
    pub fn notices(&self) -> Vec<Notice> {
        std::mem::take(&mut *locked(&self.notices))
    }

    /// An order that the monolith has taken.
    pub fn learn(&self, id: u64, known: Known, most: usize) {
        locked(&self.orders).put(id, known, most);
    }

    /// What is known of an order.
    pub fn known(&self, id: u64) -> Option<Known> {
        locked(&self.orders).known.get(&id).cloned()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in the plane's thread is told as its end; what it left here is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

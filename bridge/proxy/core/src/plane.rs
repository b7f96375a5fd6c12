//! The plane: one thread, one poll, all connections of one worker.
//!
//! Readiness is told once for each change, so every connection remembers what it may still read.
//! Whatever could go on at once, but must not do so from within another's turn, stands in `ready`.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::client::Client;
use crate::exchange::{Exchange, Place, named};
use crate::head::Field;
use crate::limits::{EVENTS_MAX, READ_BYTES};
use crate::route::Router;
use crate::settings::Settings;
use crate::shared::{Command, Notice, Shared, Told};
use crate::upstream::{Server, Up};

/// The waker's, which `Shared` is made with.
pub const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST: usize = 2;

/// What the poll says of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) ends: bool,    // the other side sends no more than what is there
    pub(crate) is_dead: bool, // nor does it take anything
}

impl Readiness {
    const MAY_READ: Self = Self {
        readable: true,
        writable: false,
        ends: false,
        is_dead: false,
    };
}

/// Requests that wait for the ahead log, released together.
pub(crate) struct Ticket {
    pub(crate) number: u64,
    pub(crate) exchanges: Vec<u64>,
    pub(crate) deadline: f64,
}

/// All of it.
pub struct Plane {
    pub(crate) settings: Settings,
    pub(crate) router: Router,
    pub(crate) shared: Arc<Shared>,
    pub(crate) poll: Poll,
    pub(crate) clients: Slab<Client>,
    pub(crate) ups: Slab<Up>,
    pub(crate) exchanges: Slab<Exchange>,
    pub(crate) spare: Vec<Exchange>,
    pub(crate) servers: Vec<Server>,
    pub(crate) next_server: usize,
    pub(crate) unreachable: Vec<usize>, // servers, once for each attempt that failed at once
    pub(crate) ready: Vec<usize>,
    pub(crate) unread: Vec<Token>,
    pub(crate) fields: Vec<Field>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) now: f64,
    pub(crate) special_orders: bool,
    pub(crate) special_reads: bool,
    pub(crate) stopping: bool,
    pub(crate) closing_idle: bool,
    pub(crate) serial: u64,
    pub(crate) request_ids: u64,
    pub(crate) ahead_ids: u64,
    pub(crate) new_records: Vec<(u64, Vec<u8>)>,
    pub(crate) tickets: VecDeque<Ticket>,
    listener: Option<TcpListener>,
    began: Instant,
    next_sweep: f64,
    told_empty: bool,
    aborted: bool,
}

impl Plane {
    /// `listener` is bound and listens already; none: all clients are adopted.
    pub fn new(
        settings: Settings,
        router: Router,
        listener: Option<StdListener>,
        poll: Poll,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let listener = listener
            .map(|listener| -> io::Result<TcpListener> {
                listener.set_nonblocking(true)?;
                let mut listener = TcpListener::from_std(listener);
                poll.registry()
                    .register(&mut listener, LISTENER, Interest::READABLE)?;
                Ok(listener)
            })
            .transpose()?;
        let (special_orders, special_reads) = (settings.special_orders, settings.special_reads);
        let servers = settings
            .upstreams
            .iter()
            .map(|_| Server::default())
            .collect();
        Ok(Self {
            settings,
            router,
            shared,
            poll,
            clients: Slab::new(),
            ups: Slab::new(),
            exchanges: Slab::new(),
            spare: Vec::new(),
            servers,
            next_server: 0,
            unreachable: Vec::new(),
            ready: Vec::new(),
            unread: Vec::new(),
            fields: Vec::new(),
            scratch: vec![0; READ_BYTES],
            now: 0.0,
            special_orders,
            special_reads,
            stopping: false,
            closing_idle: false,
            serial: 0,
            request_ids: 0,
            ahead_ids: 0,
            new_records: Vec::new(),
            tickets: VecDeque::new(),
            listener,
            began: Instant::now(),
            next_sweep: 0.0,
            told_empty: false,
            aborted: false,
        })
    }

    /// Until it is told to end, or by a failure of the poll.
    pub fn run(&mut self) -> io::Result<()> {
        let result = self.serve();
        self.cut_off();
        result
    }

    /// Ends all that is under way. An order that was sent is captured: whether the monolith took it
    /// is unknown.
    pub fn cut_off(&mut self) {
        for server in &mut self.servers {
            server.waiting.clear();
        }
        for client in indices(&self.clients) {
            self.lose_client(client);
        }
        for key in indices(&self.exchanges) {
            let Some(exchange) = self.exchanges.get(key) else {
                continue;
            };
            let id = exchange.id;
            if exchange.place == Place::Upstream {
                self.fail(id, 502);
            } else {
                self.never_sent(id);
            }
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.aborted {
            match self.poll.poll(&mut events, Some(self.wait())) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.hear(&events);
            self.take_turn();
        }
        Ok(())
    }

    fn hear(&mut self, events: &Events) {
        self.now = self.began.elapsed().as_secs_f64();
        for event in events {
            match event.token() {
                WAKER => {}
                LISTENER => self.accept(),
                Token(number) => self.on_event(
                    number,
                    Readiness {
                        readable: event.is_readable(),
                        writable: event.is_writable(),
                        ends: event.is_read_closed(),
                        is_dead: event.is_write_closed() || event.is_error(),
                    },
                ),
            }
        }
    }

    fn wait(&self) -> Duration {
        if !(self.unread.is_empty() && self.ready.is_empty() && self.unreachable.is_empty()) {
            return Duration::ZERO;
        }
        let mut until = self.next_sweep;
        if let Some(ticket) = self.tickets.front() {
            until = until.min(ticket.deadline);
        }
        let now = self.began.elapsed().as_secs_f64();
        // Rounded up to what the poll can tell apart, lest it turns around in vain.
        Duration::from_secs_f64((until - now).max(0.0)) + Duration::from_micros(500)
    }

    fn take_turn(&mut self) {
        for command in self.shared.commands() {
            self.obey(command);
        }
        for token in std::mem::take(&mut self.unread) {
            self.on_event(token.0, Readiness::MAY_READ);
        }
        self.release_late();
        for server in std::mem::take(&mut self.unreachable) {
            self.connect_failed(server, 502);
        }
        if self.now >= self.next_sweep {
            self.sweep();
            self.next_sweep = self.now + self.settings.limits.sweep_s;
        }
        // Once each: what they bring about is the next turn's, lest one keeps all others waiting.
        for client in std::mem::take(&mut self.ready) {
            self.process_client(client);
            self.read_client(client);
        }
        self.ship_records();
        self.count();
        if self.stopping && self.clients.is_empty() && !self.told_empty {
            self.told_empty = true;
            self.shared.notify(Notice::Empty);
        }
    }

    fn on_event(&mut self, number: usize, found: Readiness) {
        let index = (number - FIRST) / 2;
        if (number - FIRST).is_multiple_of(2) {
            self.client_ready(index, found);
        } else {
            self.up_ready(index, found);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Special {
                orders,
                reads,
                number,
            } => self.be_special(orders, reads, number),
            Command::Forward(id) => {
                if self
                    .exchange(id)
                    .is_some_and(|one| one.place == Place::Python)
                {
                    self.forward(id);
                }
            }
            Command::Answer {
                id,
                status,
                fields,
                body,
                closes,
            } => {
                if let Some(exchange) = self.exchange(id)
                    && exchange.place == Place::Python
                {
                    exchange.keep_alive &= !closes;
                    self.answer_own(id, status, &fields, &body);
                }
            }
            Command::Release(number) => self.release(number),
            Command::Adopt { stream, peer } => self.adopt(stream, peer),
            Command::Upstream { number, is_up } => {
                if let Some(server) = self.servers.get_mut(number) {
                    server.is_down = !is_up;
                    server.failures = 0;
                }
            }
            Command::Stop => self.stop(),
            Command::CloseIdle => {
                self.closing_idle = true;
                self.ready
                    .extend(self.clients.iter().map(|(index, _)| index));
            }
            Command::Abort => self.aborted = true,
        }
    }

    fn be_special(&mut self, orders: bool, reads: bool, number: u64) {
        let begins = orders && !self.special_orders;
        self.special_orders = orders;
        self.special_reads = reads;
        if !begins {
            return;
        }
        let mut under_way = Vec::new();
        for (_, exchange) in &mut self.exchanges {
            let is_sent = matches!(
                exchange.place,
                Place::Waiting | Place::Upstream | Place::Ahead
            );
            if exchange.is_order && is_sent && !exchange.known {
                exchange.known = true;
                under_way.push(told(exchange));
            }
        }
        self.shared.notify(Notice::UnderWay {
            number,
            orders: under_way,
        });
    }

    fn stop(&mut self) {
        self.stopping = true;
        if let Some(mut listener) = self.listener.take() {
            // Our copy of it: who made it keeps it, and what waits there waits for another.
            let _ = self.poll.registry().deregister(&mut listener);
        }
        self.ready
            .extend(self.clients.iter().map(|(index, _)| index));
    }

    fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((stream, peer)) => self.accepted(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Out of descriptors, mostly: the next client's arrival, or the sweep, tries again.
                Err(_) => return,
            }
        }
    }

    fn count(&self) {
        let counters = &self.shared.counters;
        counters
            .clients
            .store(self.clients.len() as u64, Ordering::Relaxed);
        counters
            .upstream_connections
            .store(self.ups.len() as u64, Ordering::Relaxed);
        counters.turns.fetch_add(1, Ordering::Relaxed);
        let down = self
            .servers
            .iter()
            .enumerate()
            .filter(|(_, server)| server.is_down);
        let bits = down.fold(0u64, |bits, (number, _)| bits | 1 << (number % 64));
        counters.upstreams_down.store(bits, Ordering::Relaxed);
    }

    fn sweep(&mut self) {
        if self.listener.is_some() {
            self.accept();
        }
        for client in indices(&self.clients) {
            self.sweep_client(client);
        }
        for up in indices(&self.ups) {
            self.sweep_up(up);
        }
        self.sweep_waiting();
    }

    // Exchanges by id.

    /// A new one of this client.
    pub(crate) fn new_exchange(&mut self, client: usize) -> u64 {
        self.serial += 1;
        let mut exchange = self.spare.pop().unwrap_or_default();
        let entry = self.exchanges.vacant_entry();
        let id = self.serial << KEY_BITS | entry.key() as u64;
        exchange.reset(id, client, self.now);
        entry.insert(exchange);
        id
    }

    pub(crate) fn exchange(&mut self, id: u64) -> Option<&mut Exchange> {
        named(&mut self.exchanges, id)
    }

    /// It is over: its place is another's.
    pub(crate) fn forget(&mut self, id: u64) {
        if self.exchange(id).is_some() {
            let exchange = self.exchanges.remove(key_of(id));
            if self.spare.len() < SPARE_MAX {
                self.spare.push(exchange);
            }
        }
    }
}

/// As many exchanges as there may be clients and detached ones, many times over.
const KEY_BITS: u32 = 24;
const SPARE_MAX: usize = 1024;

fn indices<T>(slab: &Slab<T>) -> Vec<usize> {
    slab.iter().map(|(index, _)| index).collect()
}

/// Where an exchange stands, by its id; whether it is still that one, `Plane::exchange` tells.
pub(crate) fn key_of(id: u64) -> usize {
    (id & ((1 << KEY_BITS) - 1)) as usize
}

/// The token of a client's connection.
pub(crate) fn client_token(index: usize) -> Token {
    Token(FIRST + 2 * index)
}

/// The token of a connection to the monolith.
pub(crate) fn up_token(index: usize) -> Token {
    Token(FIRST + 2 * index + 1)
}

/// What Python is told of an exchange.
pub(crate) fn told(exchange: &Exchange) -> Told {
    let head_end = memchr::memmem::find(&exchange.out, b"\r\n\r\n").map_or(0, |at| at + 4);
    Told {
        id: exchange.id,
        method: exchange.method.clone(),
        target: exchange.target.clone(),
        method_override: exchange.method_override.clone(),
        content_type: exchange.content_type.clone(),
        identity: exchange.identity.clone(),
        request_id: exchange.request_id.clone(),
        body: exchange.body.clone(),
        head: exchange.out[..head_end].to_vec(),
        is_complete: exchange.request_done,
        version_10: exchange.version_10,
        keep_alive: exchange.keep_alive,
    }
}

#[cfg(test)]
mod tests;

//! A bounded pool of connections to each of the monolith's servers.
//!
//! A request is written to one connection once. Whatever happens to that connection then, it is
//! never written again; only one of which nothing was written may try another server.

use mio::net::{TcpStream, UnixStream};

use crate::body::Body;
use crate::conn::{Inbox, Outbox, Stream};
use crate::exchange::{Place, named};
use crate::limits::UNSENT_BYTES_MAX;
use crate::plane::{Plane, up_token};
use crate::settings::Address;
use crate::upstream::{Phase, Up};

impl Plane {
    /// On its way to the monolith, on a connection that is free or will be.
    pub(crate) fn send(&mut self, id: u64) {
        match self.choose(id) {
            Some(server) => self.send_to(id, server),
            None => self.fail(id, 503),
        }
    }

    fn send_to(&mut self, id: u64, server: usize) {
        while let Some(up) = self.servers[server].idle.pop() {
            if self.is_usable(up) {
                return self.attach(id, up);
            }
            self.drop_up(up);
        }
        let waiting_max = self.settings.limits.upstream_waiting_max;
        if self.servers[server].waiting.len() >= waiting_max {
            return self.fail(id, 503);
        }
        let now = self.now;
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        exchange.place = Place::Waiting;
        if exchange.tried == 0 {
            exchange.since = now;
        }
        self.servers[server].waiting.push_back(id);
        if self.servers[server].open < self.settings.limits.upstream_connections_max {
            self.connect(server);
        }
    }

    /// The server with the least to do among those that were not tried; one that is down only when
    /// none of them is up.
    pub(crate) fn choose(&mut self, id: u64) -> Option<usize> {
        let tried = self.exchange(id)?.tried;
        let count = self.servers.len();
        self.next_server = (self.next_server + 1) % count;
        (0..count)
            .map(|n| (self.next_server + n) % count)
            .filter(|&n| tried >> n & 1 == 0)
            .min_by_key(|&n| {
                let server = &self.servers[n];
                (server.is_down, server.under_way + server.waiting.len())
            })
    }

    /// A connection that has been idle for a while may have been closed without our knowing.
    pub(crate) fn is_usable(&mut self, up: usize) -> bool {
        let fresh_s = self.settings.limits.upstream_fresh_s;
        let idle_max_s = self.settings.limits.upstream_idle_s;
        let Some(up) = self.ups.get_mut(up) else {
            return false;
        };
        let idle_s = self.now - up.since;
        if up.read_closed || up.ends || idle_s > idle_max_s {
            return false;
        }
        idle_s < fresh_s || matches!(up.stream.read(&mut [0]), Ok(None))
    }

    pub(crate) fn connect(&mut self, server: usize) {
        let stream = match &self.settings.upstreams[server] {
            Address::Tcp(address) => TcpStream::connect(*address).map(|stream| {
                // Without it small requests wait for acknowledgements; a failure only costs time.
                let _ = stream.set_nodelay(true);
                Stream::Tcp(stream)
            }),
            Address::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
        };
        let entry = self.ups.vacant_entry();
        let index = entry.key();
        let registered = stream.and_then(|mut stream| {
            stream.register(self.poll.registry(), up_token(index))?;
            Ok(stream)
        });
        let Ok(stream) = registered else {
            self.unreachable.push(server);
            return;
        };
        entry.insert(Up {
            stream,
            server,
            phase: Phase::Connecting,
            exchange: None,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            scanned: 0,
            readable: false,
            read_closed: false,
            ends: false,
            is_dead: false,
            write_failed: false,
            since: self.now,
            body: Body::UntilClose,
            rechunk: false,
            keeps_alive: false,
            informational: 0,
        });
        self.servers[server].open += 1;
    }

    /// One attempt has failed: one request is told, or tries another server; each of the others has
    /// its own attempt, or waits for a connection. When that takes the server down, nobody waits
    /// for it.
    pub(crate) fn connect_failed(&mut self, server: usize, status: u16) {
        let (fall, now) = (self.settings.limits.upstream_fall, self.now);
        let tries_s = 2.0 * self.settings.limits.upstream_connect_s;
        let state = &mut self.servers[server];
        state.failures = state.failures.saturating_add(1);
        state.is_down |= state.failures >= fall;
        let count = if state.is_down {
            state.waiting.len()
        } else {
            1
        };
        for _ in 0..count {
            let Some(id) = self.next_waiting(server) else {
                break;
            };
            let Some(exchange) = self.exchange(id) else {
                continue;
            };
            exchange.tried |= 1 << server;
            let in_time = now - exchange.since < tries_s;
            match in_time.then(|| self.choose(id)).flatten() {
                Some(other) => self.send_to(id, other),
                None => self.fail(id, status),
            }
        }
        let state = &self.servers[server];
        if state.open == 0 && !state.waiting.is_empty() {
            self.connect(server);
        }
    }

    fn next_waiting(&mut self, server: usize) -> Option<u64> {
        while let Some(id) = self.servers[server].waiting.pop_front() {
            if self
                .exchange(id)
                .is_some_and(|exchange| exchange.place == Place::Waiting)
            {
                return Some(id);
            }
        }
        None
    }

    /// A connection is free: for whoever waits for one to its server, or else to another.
    pub(crate) fn give(&mut self, up: usize) {
        let now = self.now;
        let Some(one) = self.ups.get_mut(up) else {
            return;
        };
        one.phase = Phase::Idle;
        one.since = now;
        let (own, count) = (one.server, self.servers.len());
        for server in (0..count).map(|n| (own + n) % count) {
            if let Some(id) = self.next_waiting(server) {
                return self.attach(id, up);
            }
        }
        self.servers[own].idle.push(up);
    }

    pub(crate) fn attach(&mut self, id: u64, up: usize) {
        let now = self.now;
        let Some(exchange) = self.exchange(id) else {
            return self.give(up);
        };
        exchange.up = Some(up);
        exchange.place = Place::Upstream;
        exchange.since = now;
        if exchange.is_order {
            exchange.sent_mono_ns = monotonic_ns();
            exchange.sent_at_ns = wall_ns();
            exchange.response_body = Some(Vec::new());
        }
        let (client, done) = (exchange.client, exchange.request_done);
        let one = &mut self.ups[up];
        one.exchange = Some(id);
        one.phase = Phase::Head;
        one.since = now;
        one.scanned = 0;
        one.informational = 0;
        let server = one.server;
        self.servers[server].under_way += 1;
        self.send_on(id);
        if let Some(client) = client
            && !done
        {
            self.wake_client(client); // it may send the rest
        }
    }

    /// Writes what has come of a request to its connection.
    pub(crate) fn send_on(&mut self, id: u64) {
        let Some(exchange) = named(&mut self.exchanges, id) else {
            return;
        };
        let Some(up) = exchange.up else { return };
        if !exchange.out.is_empty() {
            self.ups[up].outbox.push(&exchange.out);
            exchange.out.clear();
            self.flush_up(up);
        }
    }

    pub(crate) fn flush_up(&mut self, up: usize) {
        let Some(one) = self.ups.get_mut(up) else {
            return;
        };
        let Ok(moved) = one.outbox.flush(&mut one.stream) else {
            // It may have answered before it closed: what it said is read, and then its end.
            one.outbox.clear();
            one.keeps_alive = false;
            one.write_failed = true;
            one.readable = true;
            self.unread.push(up_token(up));
            if let Phase::Tunnel(client) = one.phase {
                self.wake_client(client);
            }
            return;
        };
        if !moved {
            return;
        }
        let (phase, id) = (one.phase, one.exchange);
        let has_room = one.outbox.len() < UNSENT_BYTES_MAX;
        if let Phase::Tunnel(client) = phase {
            self.wake_client(client);
            return;
        }
        let now = self.now;
        let Some(exchange) = id.and_then(|id| self.exchange(id)) else {
            return;
        };
        exchange.since = now;
        if let Some(client) = exchange.client
            && has_room
            && self.clients[client].is_in_body()
        {
            self.wake_client(client);
        }
    }

    pub(crate) fn forget_idle(&mut self, index: usize) {
        let server = self.ups[index].server;
        self.servers[server].idle.retain(|&one| one != index);
    }

    /// Closes a connection. Its exchange, if any, knows of it no more.
    pub(crate) fn drop_up(&mut self, index: usize) {
        if !self.ups.contains(index) {
            return;
        }
        let mut up = self.ups.remove(index);
        up.stream.deregister(self.poll.registry());
        let server = &mut self.servers[up.server];
        server.open -= 1;
        if up.exchange.is_some() || matches!(up.phase, Phase::Tunnel(_)) {
            server.under_way -= 1;
        }
        if let Some(exchange) = up.exchange.and_then(|id| self.exchange(id)) {
            exchange.up = None;
        }
        let most = self.settings.limits.upstream_connections_max;
        let is_made = up.phase != Phase::Connecting;
        let server = &self.servers[up.server];
        if is_made && !server.waiting.is_empty() && server.open < most {
            self.connect(up.server);
        }
    }

    /// Requests that have waited for a connection for too long: the monolith is stuck, not busy.
    pub(crate) fn sweep_waiting(&mut self) {
        let (now, wait_s) = (self.now, self.settings.limits.upstream_wait_s);
        let (exchanges, mut late) = (&mut self.exchanges, Vec::new());
        for server in &mut self.servers {
            server.waiting.retain(|&id| {
                let exchange = named(exchanges, id).filter(|one| one.place == Place::Waiting);
                let is_late = exchange
                    .as_ref()
                    .is_some_and(|one| now - one.since > wait_s);
                if is_late {
                    late.push(id);
                }
                exchange.is_some() && !is_late
            });
        }
        for id in late {
            self.fail(id, 503);
        }
    }
}

/// The monotonic clock that captures are measured by.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

fn wall_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

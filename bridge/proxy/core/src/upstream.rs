//! The monolith's side of an exchange: its answer as it comes, and how its connections end.

use std::collections::VecDeque;
use std::io;

use crate::answer;
use crate::body::{Body, Piece, write_chunk};
use crate::conn::{Inbox, Outbox, Stream};
use crate::exchange::{Place, named};
use crate::head::{self, Scan};
use crate::limits::{HEAD_BYTES_MAX, INFORMATIONAL_MAX, TURN_BYTES_MAX, UNSENT_BYTES_MAX};
use crate::plane::{Plane, Readiness, up_token};
use crate::request;

/// One server of the monolith.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) idle: Vec<usize>, // the one used last stands last, and is used first
    pub(crate) open: usize,      // connections, those that are being made included
    pub(crate) under_way: usize,
    pub(crate) waiting: VecDeque<u64>, // exchanges, for a connection to it
    pub(crate) failures: u32,          // in a row
    pub(crate) is_down: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Connecting,
    Idle,
    Head,
    Body,
    Tunnel(usize),
}

pub(crate) struct Up {
    pub(crate) stream: Stream,
    pub(crate) server: usize,
    pub(crate) phase: Phase,
    pub(crate) exchange: Option<u64>,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) scanned: usize,
    pub(crate) readable: bool,
    pub(crate) read_closed: bool,
    pub(crate) ends: bool, // the end is behind what can be read now
    pub(crate) is_dead: bool,
    pub(crate) write_failed: bool,
    pub(crate) since: f64, // of the phase, or of the last byte
    pub(crate) body: Body,
    pub(crate) rechunk: bool,
    pub(crate) keeps_alive: bool,
    pub(crate) informational: u32,
}

/// What became of reading an answer on.
pub(crate) enum Step {
    More,
    Wait,
    Done,
    Unusable,
    Switched,
}

impl Plane {
    pub(crate) fn up_ready(&mut self, index: usize, found: Readiness) {
        let Some(up) = self.ups.get_mut(index) else {
            return;
        };
        up.ends |= found.ends || found.is_dead;
        up.is_dead |= found.is_dead;
        up.readable |= found.readable || up.ends;
        if up.phase == Phase::Connecting {
            self.see_connected(index);
        }
        // What came with the connection is told of only once.
        let Some(up) = self.ups.get(index) else {
            return;
        };
        if up.phase == Phase::Connecting {
            return;
        }
        if found.writable && !up.outbox.is_empty() {
            self.flush_up(index);
        }
        self.read_up(index);
        if found.is_dead
            && let Some(up) = self.ups.get(index)
            && let Phase::Tunnel(client) = up.phase
        {
            self.pass_ends(client);
        }
    }

    pub(crate) fn see_connected(&mut self, index: usize) {
        let up = &self.ups[index];
        let server = up.server;
        match up.stream.connected() {
            Ok(()) => {
                self.servers[server].failures = 0;
                self.give(index);
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(_) => {
                self.drop_up(index);
                self.connect_failed(server, 502);
            }
        }
    }

    pub(crate) fn read_up(&mut self, index: usize) {
        let mut taken = 0;
        while self.wants_up(index) {
            if taken >= TURN_BYTES_MAX {
                self.unread.push(up_token(index));
                return;
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            let up = &mut self.ups[index];
            let read = up.stream.read(&mut scratch);
            let mut broken = false;
            match read {
                Ok(Some(0)) => up.read_closed = true,
                Ok(Some(count)) => {
                    up.readable = count == scratch.len() || up.ends;
                    up.since = self.now;
                    taken += count;
                    up.inbox.push(&scratch[..count]);
                }
                Ok(None) => up.readable = false,
                Err(_) => broken = true,
            }
            let ended = up.read_closed;
            self.scratch = scratch;
            if broken {
                return self.up_ends(index, false);
            }
            self.process_up(index);
            if ended {
                // It may be gone already, and its place a new one's.
                let is_in_order = self.ups.get(index).map(|up| !up.write_failed);
                return self.up_ends(index, is_in_order.unwrap_or(true));
            }
        }
    }

    pub(crate) fn wants_up(&mut self, index: usize) -> bool {
        let Some(up) = self.ups.get(index) else {
            return false;
        };
        if !up.readable || up.read_closed {
            return false;
        }
        let client = match (up.phase, up.exchange) {
            (Phase::Tunnel(client), _) => Some(client),
            (_, Some(id)) => self.exchange(id).and_then(|exchange| exchange.client),
            _ => None,
        };
        client
            .and_then(|client| self.clients.get(client))
            .is_none_or(|client| client.outbox.len() < UNSENT_BYTES_MAX)
    }

    /// Passes on what has come.
    pub(crate) fn process_up(&mut self, index: usize) {
        loop {
            let Some(up) = self.ups.get(index) else {
                return;
            };
            let exchange = up.exchange;
            let step = match (up.phase, exchange) {
                (Phase::Connecting, _) => return,
                (Phase::Tunnel(client), _) => return self.pass_to_client(index, client),
                (Phase::Head, Some(id)) => self.read_answer_head(index, id),
                (Phase::Body, Some(id)) => self.read_answer_body(index, id),
                _ => {
                    if !up.inbox.is_empty() {
                        self.forget_idle(index); // bytes that answer nothing
                        self.drop_up(index);
                    }
                    return;
                }
            };
            match step {
                Step::More => {}
                Step::Wait => return self.flush_client_of(index),
                // An order is numbered before its client can have the whole answer: a death of the
                // process in between must show.
                Step::Done => return self.finish(index),
                Step::Unusable => {
                    // An answer that breaks off is told apart from none, which may be asked for
                    // again.
                    self.flush_client_of(index);
                    if self
                        .ups
                        .get(index)
                        .is_some_and(|up| up.exchange == exchange)
                    {
                        self.drop_up(index);
                        if let Some(id) = exchange {
                            self.fail(id, 502);
                        }
                    }
                    return;
                }
                Step::Switched => self.switch(index),
            }
        }
    }

    pub(crate) fn read_answer_head(&mut self, index: usize, id: u64) -> Step {
        let up = &mut self.ups[index];
        let end = match head::scan(up.inbox.bytes(), up.scanned) {
            Scan::Complete(end) => end,
            Scan::Malformed => return Step::Unusable,
            Scan::Incomplete(from) => {
                up.scanned = from;
                let too_long = up.inbox.len() > HEAD_BYTES_MAX;
                return if too_long { Step::Unusable } else { Step::Wait };
            }
        };
        let Some(exchange) = named(&mut self.exchanges, id) else {
            return Step::Unusable;
        };
        let mut nobody = Vec::new();
        let client = exchange
            .client
            .and_then(|client| self.clients.get_mut(client));
        let out = client.map_or(&mut nobody, |client| client.outbox.buffer());
        let before = out.len();
        let head = &up.inbox.bytes()[..end];
        let identity = &self.settings.identity;
        let read = answer::read(
            head,
            identity,
            &mut self.fields,
            exchange,
            self.stopping,
            out,
        );
        let Some(answer) = read else {
            out.truncate(before);
            return Step::Unusable;
        };
        up.inbox.take(end);
        up.scanned = 0;
        if answer.status == 101 {
            if !exchange.upgrade {
                out.truncate(before);
                return Step::Unusable;
            }
            return Step::Switched;
        }
        if answer.status < 200 {
            up.informational += 1;
            if answer.status == 100 {
                exchange.awaits_continue = false;
            }
            if exchange.version_10 || exchange.continued {
                out.truncate(before);
            }
            let too_many = up.informational > INFORMATIONAL_MAX;
            return if too_many { Step::Unusable } else { Step::More };
        }
        exchange.status = answer.status;
        exchange.response_started = true;
        up.body = answer.body;
        up.rechunk = answer.rechunk;
        up.keeps_alive = answer.keeps_alive;
        up.phase = Phase::Body;
        Step::More
    }

    pub(crate) fn read_answer_body(&mut self, index: usize, id: u64) -> Step {
        let up = &mut self.ups[index];
        let Some(exchange) = named(&mut self.exchanges, id) else {
            return Step::Unusable;
        };
        let mut nobody = Vec::new();
        let client = exchange
            .client
            .and_then(|client| self.clients.get_mut(client));
        let out = client.map_or(&mut nobody, |client| client.outbox.buffer());
        let (piece, taken) = up.body.next(up.inbox.bytes());
        let step = match piece {
            Piece::More => Step::Wait,
            Piece::Malformed => Step::Unusable,
            Piece::Data(data) => {
                if up.rechunk {
                    write_chunk(out, data);
                } else {
                    out.extend_from_slice(data);
                }
                if exchange.is_order {
                    exchange.keep_answer(data, self.settings.limits.answer_body_bytes_max);
                }
                Step::More
            }
            Piece::End(trailers) => {
                let chunked = matches!(up.body, Body::Chunked(_));
                let passing = chunked.then(|| {
                    let identity = &self.settings.identity;
                    request::passing_trailers(&trailers, identity, &mut self.fields)
                });
                match passing {
                    Some(None) => Step::Unusable,
                    Some(Some(passing)) if up.rechunk => {
                        out.extend_from_slice(b"0\r\n");
                        out.extend_from_slice(&passing);
                        Step::Done
                    }
                    _ => Step::Done,
                }
            }
        };
        up.inbox.take(taken);
        step
    }

    pub(crate) fn flush_client_of(&mut self, index: usize) {
        let id = self.ups.get(index).and_then(|up| up.exchange);
        if let Some(client) = id.and_then(|id| self.exchange(id)?.client) {
            self.flush_client(client);
        }
    }

    /// The whole answer has been passed on.
    pub(crate) fn finish(&mut self, index: usize) {
        let Some(up) = self.ups.get_mut(index) else {
            return;
        };
        let Some(id) = up.exchange.take() else { return };
        let server = up.server;
        let whole = up.inbox.is_empty() && up.outbox.is_empty();
        let keeps = up.keeps_alive && whole && !up.ends && !up.read_closed;
        up.phase = Phase::Idle;
        self.servers[server].under_way -= 1;
        let mut request_whole = false;
        if let Some(exchange) = self.exchange(id) {
            request_whole = exchange.request_done && exchange.out.is_empty();
            exchange.up = None;
            exchange.place = Place::Ended;
        }
        if keeps && request_whole {
            self.give(index);
        } else {
            self.drop_up(index);
        }
        self.answered(id);
    }

    /// The monolith's end of a connection has closed, in order or not.
    pub(crate) fn up_ends(&mut self, index: usize, in_order: bool) {
        let Some(up) = self.ups.get_mut(index) else {
            return;
        };
        match up.phase {
            Phase::Tunnel(client) if in_order => self.pass_ends(client),
            Phase::Tunnel(client) => self.tunnel_breaks(index, client),
            Phase::Body if in_order && matches!(up.body, Body::UntilClose) => {
                up.keeps_alive = false;
                self.finish(index);
            }
            Phase::Connecting => self.see_connected(index),
            Phase::Idle => {
                self.forget_idle(index);
                self.drop_up(index);
            }
            Phase::Head | Phase::Body => {
                let id = up.exchange;
                self.drop_up(index);
                if let Some(id) = id {
                    self.fail(id, 502);
                }
            }
        }
    }

    /// An exchange is given up: what of it has reached the monolith can't be taken back.
    pub(crate) fn abandon_upstream(&mut self, id: u64) {
        if let Some(up) = self.exchange(id).and_then(|exchange| exchange.up.take()) {
            self.drop_up(up);
        }
        self.ended(id, crate::capture::Outcome::ClientGone);
    }

    /// It may have more to read, or room again for more.
    pub(crate) fn wake_up(&mut self, up: usize) {
        let now = self.now;
        if let Some(one) = self.ups.get_mut(up)
            && one.readable
        {
            one.since = now; // it was we who did not read
            self.unread.push(up_token(up));
        }
    }

    pub(crate) fn wake_client(&mut self, client: usize) {
        self.ready.push(client);
    }

    pub(crate) fn sweep_up(&mut self, index: usize) {
        let Some(up) = self.ups.get(index) else {
            return;
        };
        let limits = &self.settings.limits;
        let waited_s = self.now - up.since;
        match (up.phase, up.exchange) {
            (Phase::Connecting, _) if waited_s > limits.upstream_connect_s => {
                let server = up.server;
                self.drop_up(index);
                self.connect_failed(server, 504);
            }
            (Phase::Idle, None) if waited_s > limits.upstream_idle_s => {
                self.forget_idle(index);
                self.drop_up(index);
            }
            (Phase::Head, Some(id)) => {
                let (head_s, now) = (limits.upstream_head_s, self.now);
                // Whether it does not answer, or does not take the request.
                let is_full = up.outbox.len() >= UNSENT_BYTES_MAX;
                let late = self.exchange(id).is_some_and(|exchange| {
                    (exchange.request_done || is_full) && now - exchange.since > head_s
                });
                if late {
                    self.drop_up(index);
                    self.fail(id, 504);
                }
            }
            (Phase::Body, Some(id)) => {
                let (order_s, other_s) = (limits.answer_stall_s, limits.answer_silence_s);
                let is_read = up.readable; // what has come waits for a slow client
                let stall_s = self.exchange(id).map_or(0.0, |exchange| {
                    if exchange.is_order { order_s } else { other_s }
                });
                if !is_read && waited_s > stall_s {
                    self.drop_up(index);
                    self.fail(id, 504);
                }
            }
            _ => {}
        }
    }
}

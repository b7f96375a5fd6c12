//! Reading requests: heads and bodies as they come, and where each goes.

use std::sync::atomic::Ordering;

use crate::answer;
use crate::body::{Piece, write_chunk};
use crate::client::{NEVER, State};
use crate::exchange::{Place, named};
use crate::head::{self, Scan};
use crate::limits::{HEAD_BYTES_MAX, TURN_BYTES_MAX, UNSENT_BYTES_MAX, WAITING_BYTES_MAX};
use crate::plane::{Plane, Readiness, client_token};
use crate::request::{self, Around};
use crate::route::Action;

impl Plane {
    pub(crate) fn client_ready(&mut self, index: usize, found: Readiness) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.ends |= found.ends || found.is_dead;
        client.readable |= found.readable || client.ends;
        if found.writable && !client.outbox.is_empty() {
            self.flush_client(index);
        }
        self.read_client(index);
        if found.is_dead
            && self
                .clients
                .get(index)
                .is_some_and(|client| client.read_closed)
        {
            self.lose_client(index);
        }
    }

    /// Reads and uses what may be read now.
    pub(crate) fn read_client(&mut self, index: usize) {
        let mut taken = 0;
        while self.wants_client(index) {
            if taken >= TURN_BYTES_MAX {
                self.unread.push(client_token(index));
                return;
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            let read = self.clients[index].stream.read(&mut scratch);
            let client = &mut self.clients[index];
            let mut lost = false;
            match read {
                Ok(Some(0)) => {
                    client.readable = false;
                    client.read_closed = true;
                }
                Ok(Some(count)) => {
                    // Less than there was room for: no more is there, and more will be told.
                    client.readable = count == scratch.len() || client.ends;
                    taken += count;
                    client.paced += count;
                    let is_slow = client.body.is_some() && client.paced < self.pace_bytes();
                    let client = &mut self.clients[index];
                    if client.head_since == NEVER && !is_slow {
                        client.progress_at = self.now;
                        client.paced = 0;
                    }
                    if client.state != State::Linger && client.state != State::Closing {
                        client.inbox.push(&scratch[..count]);
                    }
                }
                Ok(None) => client.readable = false,
                Err(_) => lost = true,
            }
            self.scratch = scratch;
            if lost {
                self.lose_client(index);
                return;
            }
            self.process_client(index);
        }
    }

    pub(crate) fn wants_client(&self, index: usize) -> bool {
        let Some(client) = self.clients.get(index) else {
            return false;
        };
        if !client.readable || client.read_closed {
            return false;
        }
        match client.state {
            State::Tunnel(up) => self
                .ups
                .get(up)
                .is_some_and(|up| up.outbox.len() < UNSENT_BYTES_MAX),
            State::Linger => true,
            State::Closing => false,
            State::Http if client.body.is_some() => client.inbox.is_empty(),
            State::Http => client.inbox.len() <= HEAD_BYTES_MAX.max(WAITING_BYTES_MAX),
        }
    }

    /// Uses what has come, as far as its turn has come.
    pub(crate) fn process_client(&mut self, index: usize) {
        while let Some(client) = self.clients.get_mut(index) {
            match client.state {
                State::Tunnel(up) => return self.pass_to_up(index, up),
                State::Linger => return self.flush_client(index),
                State::Closing => return,
                State::Http => {}
            }
            if client.body.is_some() {
                if !self.read_body(index) {
                    return;
                }
            } else if client.exchange.is_some() {
                return;
            } else if client.outbox.len() >= UNSENT_BYTES_MAX {
                return; // it must first read what it was told
            } else if !self.read_head(index) {
                return;
            }
        }
    }

    /// False when there is no further request, yet or ever.
    pub(crate) fn read_head(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        if client.head_since == NEVER {
            let skipped = head::empty_lines(client.inbox.bytes(), client.blank);
            client.inbox.take(skipped);
            client.blank += skipped;
        }
        if client.inbox.is_empty() || client.inbox.bytes() == b"\r" {
            if client.read_closed || self.closing_idle {
                self.close_client(index);
            }
            return false;
        }
        let end = match head::scan(client.inbox.bytes(), client.scanned) {
            Scan::Complete(end) => end,
            Scan::Malformed => {
                self.refuse_head(index, 400);
                return false;
            }
            Scan::Incomplete(from) => {
                if client.head_since == NEVER {
                    client.head_since = client.progress_at;
                }
                client.scanned = from;
                let checked = head::check_lines(client.inbox.bytes(), client.checked);
                client.checked = *checked.as_ref().unwrap_or(&0);
                if let Err(status) = checked {
                    self.refuse_head(index, status);
                } else if client.inbox.len() > HEAD_BYTES_MAX {
                    self.refuse_head(index, 431);
                } else if client.read_closed {
                    self.refuse_head(index, 400);
                }
                return false;
            }
        };
        client.head_since = NEVER;
        (client.blank, client.scanned, client.checked) = (0, 0, 0);
        self.begin(index, end)
    }

    /// A head has come: its exchange begins. False when it is refused.
    pub(crate) fn begin(&mut self, index: usize, end: usize) -> bool {
        let id = self.new_exchange(index);
        self.request_ids += 1;
        let request_id = format!("{}{:016x}", self.settings.id_prefix, self.request_ids);
        let client = &self.clients[index];
        let around = Around {
            peer: &client.peer,
            secure: client.secure,
            authority: &self.settings.authority,
            request_id: request_id.as_bytes(),
            identity: &self.settings.identity,
        };
        let Some(exchange) = named(&mut self.exchanges, id) else {
            return false;
        };
        let head = &client.inbox.bytes()[..end];
        let body = match request::read(head, &around, &mut self.fields, exchange) {
            Ok(body) => body,
            Err(status) => {
                self.forget(id);
                self.refuse_head(index, status);
                return false;
            }
        };
        let method_length = exchange.method.len();
        let line_length = method_length + 1 + exchange.target.len();
        exchange.found = self.router.find(
            &exchange.out[..line_length],
            method_length,
            &exchange.method_override,
            &exchange.content_type,
        );
        exchange.is_order = exchange
            .found
            .as_ref()
            .is_some_and(|found| found.is_order());
        exchange.body = exchange.is_order.then(Vec::new);
        let client = &mut self.clients[index];
        client.inbox.take(end);
        client.exchange = Some(id);
        client.body = Some(body);
        self.shared
            .counters
            .requests
            .fetch_add(1, Ordering::Relaxed);
        self.read_body(index);
        true
    }

    /// Reads on in a body. True when it is whole, or the request is refused.
    pub(crate) fn read_body(&mut self, index: usize) -> bool {
        let mut is_done = false;
        while !is_done {
            if self.is_congested(index) {
                break;
            }
            let client = &mut self.clients[index];
            let Some(body) = &mut client.body else {
                return true;
            };
            let exchange = client.exchange;
            let exchange = exchange.and_then(|id| named(&mut self.exchanges, id));
            let (piece, taken) = body.next(client.inbox.bytes());
            let mut is_malformed = false;
            match (piece, exchange) {
                (Piece::More, _) => {
                    client.inbox.take(taken);
                    break;
                }
                (Piece::Malformed, _) => is_malformed = true,
                (Piece::Data(data), Some(exchange)) => {
                    if exchange.chunked {
                        write_chunk(&mut exchange.out, data);
                    } else {
                        exchange.out.extend_from_slice(data);
                    }
                    if exchange.is_order {
                        exchange.keep(data, self.settings.limits.order_body_bytes_max);
                    }
                }
                (Piece::Data(_), None) => {} // answered early: the rest goes nowhere
                (Piece::End(trailers), exchange) => {
                    is_done = true;
                    if let Some(exchange) = exchange {
                        exchange.request_done = true;
                        exchange.since = self.now;
                        if exchange.chunked {
                            // Trailers go no further: older Pumas read what follows the last chunk
                            // as the next request (CVE-2023-40175).
                            exchange.out.extend_from_slice(b"0\r\n\r\n");
                        }
                    }
                    let identity = &self.settings.identity;
                    is_malformed = !trailers.is_empty()
                        && head::fields(&trailers, 0, identity, &mut self.fields).is_err();
                }
            }
            client.inbox.take(taken);
            if is_malformed {
                self.refuse_body(index);
                return true;
            }
            if is_done {
                client.body = None;
            }
        }
        let closed = !is_done && self.clients[index].read_closed;
        if closed && self.clients[index].inbox.is_empty() {
            // The rest of it will never come.
            self.lose_client(index);
            return true;
        }
        if let Some(id) = self.clients[index].exchange {
            self.go_on(id);
        }
        is_done
    }

    /// No more of its body is read for now.
    pub(crate) fn is_congested(&mut self, index: usize) -> bool {
        let id = self.clients[index].exchange;
        let Some(exchange) = id.and_then(|id| named(&mut self.exchanges, id)) else {
            return false;
        };
        match exchange.up.and_then(|up| self.ups.get(up)) {
            Some(up) => up.outbox.len() >= UNSENT_BYTES_MAX,
            // What is collected is bounded by what may be kept of it.
            None if exchange.place == Place::Collecting => false,
            None => exchange.out.len() >= WAITING_BYTES_MAX + HEAD_BYTES_MAX,
        }
    }

    /// More of a request has come.
    pub(crate) fn go_on(&mut self, id: u64) {
        let (special, ahead) = (self.special_orders, self.settings.ahead);
        let special_reads = self.special_reads;
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        match exchange.place {
            Place::Begun if exchange.is_order && (special || ahead) => {
                exchange.place = Place::Collecting;
                if exchange.may_lack_body() && !exchange.version_10 {
                    exchange.continued = true;
                    if let Some(client) = exchange.client {
                        self.clients[client]
                            .outbox
                            .push(b"HTTP/1.1 100 Continue\r\n\r\n");
                        self.flush_client(client);
                    }
                }
                self.collected(id);
            }
            Place::Begun if special_reads && exchange.action() == Some(Action::Read) => {
                self.hand_over(id);
            }
            Place::Begun => {
                self.settle(id);
                self.send(id);
            }
            Place::Collecting => self.collected(id),
            Place::Upstream => {
                self.settle(id);
                self.send_on(id);
            }
            _ => {}
        }
    }

    /// More has come of an order whose body is read first.
    pub(crate) fn collected(&mut self, id: u64) {
        self.settle(id);
        let special = self.special_orders;
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        if exchange.body.is_none() && special {
            exchange.keep_alive = false;
            exchange.place = Place::Python;
            self.answer_own(id, 413, b"", &answer::status_body(413));
        } else if exchange.body.is_none() {
            self.send(id); // too large to be kept: nothing waits for what can't be
        } else if exchange.request_done && exchange.is_order && special {
            self.hand_over(id);
        } else if exchange.request_done {
            self.forward(id);
        }
    }

    /// The body is whole, and tells which route it is.
    pub(crate) fn settle(&mut self, id: u64) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        if !exchange.request_done || !exchange.is_order {
            return;
        }
        let Some(found) = &mut exchange.found else {
            return;
        };
        if !found.is_open() {
            return;
        }
        let Some(body) = &exchange.body else { return };
        found.settle(&exchange.content_type, body);
        exchange.is_order = found.is_order();
        if !exchange.is_order {
            exchange.body = None;
        }
    }

    pub(crate) fn pace_bytes(&self) -> usize {
        self.settings.limits.client_pace_bytes
    }
}

//! Answers as clients get them, the proxy's own among them, and how connections end.

use crate::answer;
use crate::client::{NEVER, State};
use crate::exchange::Place;
use crate::limits::UNSENT_BYTES_MAX;
use crate::plane::Plane;
use crate::shared::Notice;

impl Plane {
    pub(crate) fn refuse_head(&mut self, index: usize, status: u16) {
        let id = self.new_exchange(index);
        self.clients[index].exchange = Some(id);
        self.refuse(index, id, status);
    }

    /// A request that is not well-formed. Nothing behind it can be.
    pub(crate) fn refuse(&mut self, index: usize, id: u64, status: u16) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        exchange.keep_alive = false;
        exchange.request_done = false;
        let client = &mut self.clients[index];
        client.head_since = NEVER;
        client.body = None;
        self.answer_status(id, status);
    }

    /// A body turns out not to be well-formed after a part of it was sent, perhaps.
    pub(crate) fn refuse_body(&mut self, index: usize) {
        self.clients[index].body = None;
        match self.clients[index].exchange {
            Some(id) => self.end_request(index, id, 400),
            None => self.linger(index),
        }
    }

    /// The rest of it will not come, or is nothing that may pass.
    pub(crate) fn end_request(&mut self, index: usize, id: u64, status: u16) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        exchange.request_done = false;
        let has_begun = exchange.response_started;
        if exchange.place == Place::Python {
            self.shared.notify(Notice::Gone(id));
        }
        self.abandon_upstream(id);
        if has_begun {
            self.break_off(id);
        } else {
            self.refuse(index, id, status);
        }
    }

    /// Answers by ourselves.
    pub(crate) fn answer_own(&mut self, id: u64, status: u16, fields: &[u8], body: &[u8]) {
        let stopping = self.stopping;
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        let Some(index) = exchange.client else {
            return self.forget(id);
        };
        exchange.keep_alive &= !stopping && !exchange.may_lack_body();
        let mut out = Vec::new();
        answer::write_own(exchange, status, fields, body, &mut out);
        self.clients[index].outbox.push(&out);
        self.answered_client(id);
    }

    /// An answer of ours for what went wrong upstream, with the id by which it can be looked up.
    pub(crate) fn answer_status(&mut self, id: u64, status: u16) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        let mut fields = Vec::new();
        if !exchange.request_id.is_empty() {
            fields.extend_from_slice(b"X-Request-Id: ");
            fields.extend_from_slice(&exchange.request_id);
            fields.extend_from_slice(b"\r\n");
        }
        self.answer_own(id, status, &fields, &answer::status_body(status));
    }

    /// The whole answer stands in the client's outbox: the next request, or the end.
    pub(crate) fn answered_client(&mut self, id: u64) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        let (keeps, done) = (exchange.keep_alive, exchange.request_done);
        let Some(index) = exchange.client else {
            return self.forget(id);
        };
        self.forget(id);
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.exchange = None;
        client.progress_at = self.now;
        if keeps {
            self.flush_client(index);
            self.ready.push(index);
        } else if done {
            self.close_client(index);
        } else {
            self.linger(index);
        }
    }

    /// The answer has begun and can't be finished: only a broken connection says so.
    pub(crate) fn break_off(&mut self, id: u64) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        let client = exchange.client;
        self.forget(id);
        if let Some(index) = client {
            if let Some(client) = self.clients.get_mut(index) {
                client.exchange = None;
            }
            self.lose_client(index);
        }
    }

    pub(crate) fn linger(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.state = State::Linger;
        client.linger_since = self.now;
        let waiting = client.inbox.len();
        client.inbox.take(waiting);
        self.flush_client(index);
        self.ready.push(index);
    }

    /// Once what is written to it has gone.
    pub(crate) fn close_client(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.state = State::Closing;
        self.flush_client(index);
    }

    /// Writes what it takes; what waits for that goes on.
    pub(crate) fn flush_client(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        let Ok(moved) = client.outbox.flush(&mut client.stream) else {
            return self.lose_client(index);
        };
        if client.outbox.is_empty() {
            client.stuck_since = NEVER;
            match client.state {
                State::Closing => return self.lose_client(index),
                State::Linger if client.read_closed => return self.lose_client(index),
                State::Linger => client.stream.end_writing(),
                State::Tunnel(_) => self.pass_ends(index),
                State::Http => {}
            }
        } else if moved || client.stuck_since == NEVER {
            client.stuck_since = self.now;
        }
        let Some(client) = self.clients.get(index) else {
            return;
        };
        if moved && client.outbox.len() < UNSENT_BYTES_MAX {
            match client.state {
                State::Tunnel(up) => self.wake_up(up),
                State::Http => match client.exchange {
                    Some(id) => {
                        if let Some(up) = self.exchange(id).and_then(|exchange| exchange.up) {
                            self.wake_up(up);
                        }
                    }
                    None => self.ready.push(index),
                },
                _ => {}
            }
        }
    }
}

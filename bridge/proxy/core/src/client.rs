//! The clients' connections: how they come and go, and how long each may take.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;

use mio::net::{TcpStream, UnixStream};

use crate::answer;
use crate::body::Body;
use crate::conn::{Inbox, Outbox, Stream};
use crate::exchange::{Exchange, Place};
use crate::plane::{Plane, client_token};
use crate::shared::Notice;

/// What a client's connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// HTTP.
    Http,
    /// Protocols are switched: bytes go to this connection, unread.
    Tunnel(usize),
    /// We send no more, and still read: a reset would destroy the answer.
    Linger,
    /// It is closed once what is written has gone.
    Closing,
}

pub(crate) struct Client {
    pub(crate) stream: Stream,
    pub(crate) peer: Vec<u8>,
    pub(crate) secure: bool,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) state: State,
    /// Whose answer is next.
    pub(crate) exchange: Option<u64>,
    /// Of the request that is being read; the exchange it belongs to may have been answered.
    pub(crate) body: Option<Body>,
    pub(crate) blank: usize, // bytes of the empty lines before the next request
    pub(crate) scanned: usize,
    pub(crate) readable: bool,
    pub(crate) read_closed: bool,
    pub(crate) ends: bool, // the end is behind what can be read now
    pub(crate) checked: usize,
    pub(crate) head_since: f64,
    pub(crate) progress_at: f64,
    pub(crate) paced: usize,
    pub(crate) stuck_since: f64,
    pub(crate) linger_since: f64,
}

pub(crate) const NEVER: f64 = f64::INFINITY;

impl Client {
    /// It sends no more, and what it sent has been used.
    pub(crate) fn has_ended(&self) -> bool {
        self.read_closed && self.inbox.is_empty()
    }

    /// The rest of a request's body is still to come, or to be used.
    pub(crate) fn is_in_body(&self) -> bool {
        self.body.is_some()
    }
}

impl Plane {
    pub(crate) fn accepted(&mut self, stream: TcpStream, peer: SocketAddr) {
        // Without it small answers wait for acknowledgements; a failure only costs time.
        let _ = stream.set_nodelay(true);
        let address = peer.ip().to_string().into_bytes();
        self.welcome(Stream::Tcp(stream), address, false);
    }

    pub(crate) fn adopt(&mut self, stream: StdUnixStream, peer: Vec<u8>) {
        if stream.set_nonblocking(true).is_ok() {
            self.welcome(Stream::Unix(UnixStream::from_std(stream)), peer, true);
        }
    }

    fn welcome(&mut self, mut stream: Stream, peer: Vec<u8>, secure: bool) {
        let limits = &self.settings.limits;
        let is_turned_away = self.clients.len() >= limits.clients_max;
        if self.clients.len() >= limits.clients_max + limits.clients_turned_away_max {
            return;
        }
        let entry = self.clients.vacant_entry();
        let index = entry.key();
        if stream
            .register(self.poll.registry(), client_token(index))
            .is_err()
        {
            return;
        }
        entry.insert(Client {
            stream,
            peer,
            secure,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            state: State::Http,
            exchange: None,
            body: None,
            blank: 0,
            scanned: 0,
            readable: true,
            read_closed: false,
            ends: false,
            checked: 0,
            head_since: NEVER,
            progress_at: self.now,
            paced: 0,
            stuck_since: NEVER,
            linger_since: NEVER,
        });
        if is_turned_away {
            self.turn_away(index);
        } else if self.closing_idle {
            self.ready.push(index);
        }
    }

    /// There are too many clients.
    fn turn_away(&mut self, index: usize) {
        let (told, body) = (Exchange::default(), answer::status_body(503));
        let out = self.clients[index].outbox.buffer();
        answer::write_own(&told, 503, b"Retry-After: 1\r\n", &body, out);
        self.linger(index);
    }

    /// Its connection has ended, or must: whatever was under way for it goes its way without it.
    pub(crate) fn lose_client(&mut self, index: usize) {
        if !self.clients.contains(index) {
            return;
        }
        let mut client = self.clients.remove(index);
        client.stream.deregister(self.poll.registry());
        if let State::Tunnel(up) = client.state {
            self.drop_up(up);
        }
        let Some(id) = client.exchange else { return };
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        exchange.client = None;
        match exchange.place {
            Place::Upstream => self.client_left_upstream(id),
            Place::Python => {
                self.shared.notify(Notice::Gone(id));
                self.never_sent(id);
            }
            Place::Ahead => {} // its ticket finds it without a client
            _ => {
                self.never_sent(id);
            }
        }
    }

    pub(crate) fn sweep_client(&mut self, index: usize) {
        let Some(client) = self.clients.get(index) else {
            return;
        };
        let (limits, now) = (&self.settings.limits, self.now);
        let (stall_s, body_s) = (limits.client_stall_s, limits.order_body_s);
        let idle_s = now - client.progress_at;
        if client.state == State::Linger && now - client.linger_since > limits.client_linger_s {
            return self.lose_client(index);
        }
        if now - client.stuck_since > stall_s {
            return self.lose_client(index);
        }
        if client.state != State::Http {
            return;
        }
        if let Some(id) = client.exchange {
            if client.body.is_none() {
                return;
            }
            let congested = self.is_congested(index);
            let Some(exchange) = self.exchange(id) else {
                return;
            };
            if congested {
                exchange.began = now; // it can't send in the meantime
                self.clients[index].progress_at = now;
            } else if exchange.is_order && now - exchange.began > body_s {
                self.end_request(index, id, 408);
            } else if idle_s > stall_s {
                self.lose_client(index);
            }
        } else if now - client.head_since > limits.client_head_s {
            self.refuse_head(index, 408);
        } else if client.body.is_some() {
            if idle_s > stall_s {
                self.lose_client(index);
            }
        } else if client.head_since == NEVER && idle_s > limits.client_idle_s {
            self.close_client(index);
        }
    }
}

//! One request and its answer, on their way through.

use slab::Slab;

use crate::conn::ROOM_KEPT;
use crate::plane::key_of;
use crate::route::{Action, Found};

/// Where an exchange is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Place {
    /// Its head has come; nothing is decided.
    #[default]
    Begun,
    /// Its body is read first: somebody must decide by it, or keep it.
    Collecting,
    /// Python decides, or answers.
    Python,
    /// Waits until its request is in the ahead log.
    Ahead,
    /// Waits for a connection to the monolith.
    Waiting,
    /// On a connection to the monolith.
    Upstream,
    /// Its answer has been given, or nobody wants one.
    Ended,
}

/// Made once and used again and again: its buffers keep their room.
#[derive(Default)]
pub struct Exchange {
    /// Names it outside; never used again.
    pub id: u64,
    /// The client's connection; none: it has gone.
    pub client: Option<usize>,
    /// The connection to the monolith.
    pub up: Option<usize>,
    /// Where it is.
    pub place: Place,
    /// Of the request line.
    pub method: Vec<u8>,
    /// Of the request line.
    pub target: Vec<u8>,
    /// HTTP/1.0.
    pub version_10: bool,
    /// The client's connection goes on behind it.
    pub keep_alive: bool,
    /// Its body comes in chunks.
    pub chunked: bool,
    /// The client asks for another protocol, and may.
    pub upgrade: bool,
    /// The client waits before it sends its body.
    pub awaits_continue: bool,
    /// We have told the client that its body may come.
    pub continued: bool,
    /// X-Request-Id, the client's or ours.
    pub request_id: Vec<u8>,
    /// Content-Type; empty: none.
    pub content_type: Vec<u8>,
    /// X-HTTP-Method-Override; empty: none.
    pub method_override: Vec<u8>,
    /// Of the field that names the account; several are joined, which no account's name is.
    pub identity: Vec<u8>,
    /// The routes that it may be.
    pub found: Option<Found>,
    /// Order entry, or perhaps.
    pub is_order: bool,
    /// Head and body as they go upstream, not yet written.
    pub out: Vec<u8>,
    /// Of an order entry's body; none: not kept, or too large.
    pub body: Option<Vec<u8>>,
    /// Of the whole body so far.
    pub body_size: usize,
    /// The whole request has come.
    pub request_done: bool,
    /// When it began: seconds of the plane's clock.
    pub began: f64,
    /// Its answer has begun.
    pub response_started: bool,
    /// Of the answer; 0: none.
    pub status: u16,
    /// Of the answer to an order entry; none: too large.
    pub response_body: Option<Vec<u8>>,
    /// Servers that were tried, one bit each.
    pub tried: u64,
    /// When it was sent, or its request was complete: seconds of the plane's clock.
    pub since: f64,
    /// Monotonic clock; 0: not sent.
    pub sent_mono_ns: u64,
    /// Wall clock.
    pub sent_at_ns: u64,
    /// Monotonic clock; 0: not answered.
    pub answered_mono_ns: u64,
    /// Python has heard of it, and wants to hear of its end.
    pub known: bool,
    /// Its record in the ahead log; 0: none.
    pub ahead_id: u64,
}

impl Exchange {
    /// As new, for another request.
    pub fn reset(&mut self, id: u64, client: usize, now: f64) {
        let mut fresh = Self {
            id,
            client: Some(client),
            began: now,
            ..Self::default()
        };
        fresh.keep_alive = true;
        for (mine, theirs) in [
            (&mut fresh.method, &mut self.method),
            (&mut fresh.target, &mut self.target),
            (&mut fresh.request_id, &mut self.request_id),
            (&mut fresh.content_type, &mut self.content_type),
            (&mut fresh.method_override, &mut self.method_override),
            (&mut fresh.identity, &mut self.identity),
            (&mut fresh.out, &mut self.out),
        ] {
            std::mem::swap(mine, theirs);
            mine.clear();
            if mine.capacity() > ROOM_KEPT {
                *mine = Vec::new();
            }
        }
        *self = fresh;
    }

    /// Its client waits for a word before it sends the body. Without one nobody can tell whether
    /// that, or the next request, comes next.
    pub fn may_lack_body(&self) -> bool {
        self.awaits_continue && !self.continued && !self.request_done
    }

    /// Keeps a piece of an order entry's body. Too large, it is forgotten whole: never a part.
    pub fn keep(&mut self, data: &[u8], bytes_max: usize) {
        self.body_size += data.len();
        if let Some(body) = &mut self.body {
            if self.body_size > bytes_max {
                self.body = None;
            } else {
                body.extend_from_slice(data);
            }
        }
    }

    /// Keeps a piece of the answer to an order entry, likewise.
    pub fn keep_answer(&mut self, data: &[u8], bytes_max: usize) {
        if let Some(body) = &mut self.response_body {
            if body.len() + data.len() > bytes_max {
                self.response_body = None;
            } else {
                body.extend_from_slice(data);
            }
        }
    }

    /// What its route asks for; none for a request of no route.
    pub fn action(&self) -> Option<Action> {
        self.found.as_ref().and_then(Found::action)
    }

    /// What the route's placeholders matched.
    pub fn path_params(&self) -> &[(String, String)] {
        self.found.as_ref().map_or(&[], Found::path_params)
    }

    /// The account that the identity names; 0 for none or an unreadable one.
    pub fn account(&self) -> u64 {
        let text = crate::head::trim(&self.identity);
        if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
            return 0;
        }
        let number = text
            .iter()
            .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        if i64::try_from(number).is_ok() {
            number
        } else {
            0
        }
    }
}

/// The exchange of this id, unless it is over and its place another's.
pub(crate) fn named(exchanges: &mut Slab<Exchange>, id: u64) -> Option<&mut Exchange> {
    exchanges
        .get_mut(key_of(id))
        .filter(|exchange| exchange.id == id)
}

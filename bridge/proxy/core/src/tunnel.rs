//! Two connections after their protocol was switched: bytes pass both ways, unread.
//!
//! Each knows the other, until both go: whoever loses one side closes the other.

use crate::client::State;
use crate::plane::Plane;
use crate::upstream::Phase;

impl Plane {
    pub(crate) fn switch(&mut self, index: usize) {
        let Some(id) = self.ups[index].exchange else {
            return;
        };
        self.tell_ended(id);
        let Some(client) = self.exchange(id).and_then(|exchange| exchange.client) else {
            self.drop_up(index);
            return self.forget(id);
        };
        self.forget(id);
        let idle_s = self.settings.limits.tunnel_keepalive_s;
        let (one, up) = (&mut self.clients[client], &mut self.ups[index]);
        one.stream.keep_alive(idle_s);
        up.stream.keep_alive(idle_s);
        one.exchange = None;
        one.state = State::Tunnel(index);
        up.exchange = None;
        up.phase = Phase::Tunnel(client);
        self.flush_client(client);
        self.wake_client(client);
    }

    pub(crate) fn pass_to_up(&mut self, client: usize, up: usize) {
        let (Some(from), Some(to)) = (self.clients.get_mut(client), self.ups.get_mut(up)) else {
            return;
        };
        let count = from.inbox.len();
        to.outbox.push(from.inbox.bytes());
        from.inbox.take(count);
        self.flush_up(up);
        self.pass_ends(client);
    }

    pub(crate) fn pass_to_client(&mut self, up: usize, client: usize) {
        let (Some(from), Some(to)) = (self.ups.get_mut(up), self.clients.get_mut(client)) else {
            return;
        };
        let count = from.inbox.len();
        to.outbox.push(from.inbox.bytes());
        from.inbox.take(count);
        self.flush_client(client);
    }

    /// Passes the end of each side on, behind all that it has sent; behind both it is over.
    pub(crate) fn pass_ends(&mut self, client: usize) {
        let Some(one) = self.clients.get(client) else {
            return;
        };
        let State::Tunnel(index) = one.state else {
            return;
        };
        let Some(up) = self.ups.get(index) else {
            return;
        };
        let is_sent = one.has_ended() && up.outbox.is_empty();
        let is_received = up.read_closed && one.outbox.is_empty();
        if is_received && (is_sent || up.is_dead || up.write_failed) {
            return self.lose_client(client);
        }
        if is_sent {
            up.stream.end_writing();
        }
        if is_received {
            one.stream.end_writing();
        }
    }

    /// The monolith's side has broken off: the client gets what came of it.
    pub(crate) fn tunnel_breaks(&mut self, up: usize, client: usize) {
        self.drop_up(up);
        self.close_client(client);
    }
}

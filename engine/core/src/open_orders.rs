//! Open orders: the only functions by which they come, and by which they go otherwise than by
//! trading; so that ids, sessions, accounts and books agree about them.

use crate::ids::NIL;
use crate::market::Market;
use crate::slab::Node;
use crate::taker::Taker;

impl Market {
    /// An order begins to rest or to wait.
    #[inline(always)]
    pub(crate) fn open(&mut self, at: u32, order: &mut Taker) {
        if order.node.is_iceberg() {
            order.extra.displayed = order.node.leaves.min(order.extra.display.into());
        }
        self.open_as_it_is(at, order);
    }

    /// An order is open as it was, with what it displays.
    #[inline(always)]
    pub(crate) fn open_as_it_is(&mut self, at: u32, order: &Taker) {
        let mut place = order.place;
        if place == NIL {
            place = self.nodes.add(&order.node, &order.extra);
            self.order_ids.insert(order.node.order_id, place);
        } else {
            self.nodes.put(place, &order.node, &order.extra);
        }
        self.instruments[at as usize]
            .book
            .enter(&mut self.nodes, place);
        self.sessions[order.node.session as usize].open += 1;
        self.accounts.opened(order.node.account, order.node.leaves);
    }

    /// An open order is in no queue and no index any more, but its node is kept for it.
    #[inline(always)]
    pub(crate) fn take_out(&mut self, at: u32) -> Taker {
        self.leave(at);
        Taker {
            node: *self.nodes.get(at),
            extra: self.nodes.extra(at),
            place: at,
        }
    }

    /// No node is kept for an order any more.
    #[inline(always)]
    pub(crate) fn discard(&mut self, order: &Taker) {
        if order.place != NIL {
            self.order_ids.remove(order.node.order_id);
            self.nodes.release(order.place);
        }
    }

    /// The node that is kept for an order goes under another id.
    #[inline(always)]
    pub(crate) fn rename(&mut self, at: u32, order_id: u64, new_id: u64) {
        if order_id != new_id {
            self.order_ids.remove(order_id);
            self.order_ids.insert(new_id, at);
        }
    }

    /// An open order is open no more.
    #[inline(always)]
    pub(crate) fn close(&mut self, at: u32) {
        self.leave(at);
        self.order_ids.remove(self.nodes.get(at).order_id);
        self.nodes.release(at);
    }

    /// An open order that rests and has no extra is open no more; accounts may be counted.
    #[inline(always)]
    pub(crate) fn close_plain(&mut self, at: u32) {
        let &Node {
            order_id,
            account,
            leaves,
            book,
            session,
            side,
            ..
        } = self.nodes.get(at);
        self.sessions[session as usize].open -= 1;
        let book = &mut self.instruments[book as usize].book;
        book.leave_plain(&mut self.nodes, at, side, leaves);
        self.order_ids.remove(order_id);
        self.accounts.lost(account, leaves, true);
        self.nodes.release_plain(at);
    }

    #[inline(always)]
    fn leave(&mut self, at: u32) {
        let node = self.nodes.get(at);
        let (account, leaves) = (node.account, node.leaves);
        self.sessions[node.session as usize].open -= 1;
        self.instruments[node.book as usize]
            .book
            .leave(&mut self.nodes, at);
        self.accounts.lost(account, leaves, true);
    }
}

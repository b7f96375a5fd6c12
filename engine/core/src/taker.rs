//! An order on its way: new, replaced or just triggered; and what events say of an order.

use crate::codes::{EventKind, OrderType, Reason, TimeInForce};
use crate::ids::NIL;
use crate::slab::{Extra, Node};
use crate::wire::Event;

/// An order that is in no queue and no index at the moment.
#[derive(Clone, Copy)]
pub(crate) struct Taker {
    /// `prev`, `next`, `extra` and `level` mean nothing.
    pub(crate) node: Node,
    pub(crate) extra: Extra,
    /// The node that is kept for it, under its id; NIL for none.
    pub(crate) place: u32,
}

impl Taker {
    /// An order without a node and an entry under its id.
    #[inline]
    pub(crate) fn outside(node: Node, extra: Extra) -> Self {
        Self {
            node,
            extra,
            place: NIL,
        }
    }

    /// None: any price will do.
    #[inline]
    pub(crate) fn limit(&self) -> Option<i64> {
        (self.node.ord_type != OrderType::Market as u8).then_some(self.node.price)
    }

    /// Whether what does not trade at once stays open.
    #[inline]
    pub(crate) fn rests(&self) -> bool {
        rests(self.node.tif)
    }

    /// What all its events say.
    #[inline]
    pub(crate) fn event(&self, kind: EventKind) -> Event {
        event_of(&self.node, kind)
    }

    pub(crate) fn canceled(&self, reason: Reason) -> Event {
        canceled(&self.node, reason)
    }

    /// From now on it is no stop.
    pub(crate) fn trigger(&mut self) {
        self.extra.stop_price = 0;
        self.extra.entry = 0;
        if self.node.ord_type == OrderType::Stop as u8 {
            self.node.ord_type = OrderType::Market as u8;
            self.node.tif = TimeInForce::Ioc as u8;
        } else {
            self.node.ord_type = OrderType::Limit as u8;
        }
    }
}

/// Whether an order of this time in force may stay open.
#[inline]
pub(crate) fn rests(tif: u8) -> bool {
    tif != TimeInForce::Ioc as u8 && tif != TimeInForce::Fok as u8
}

/// What all events of one order say.
#[inline]
pub(crate) fn event_of(node: &Node, kind: EventKind) -> Event {
    Event {
        side: node.side as u8,
        ord_type: node.ord_type,
        tif: node.tif,
        order_id: node.order_id,
        contra_id: node.account,
        price: node.price,
        ..Event::of(kind)
    }
}

/// All that is left of it is gone.
#[inline]
pub(crate) fn canceled(node: &Node, reason: Reason) -> Event {
    Event {
        reason,
        qty: node.leaves,
        ..event_of(node, EventKind::Canceled)
    }
}

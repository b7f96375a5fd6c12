//! All open orders of a market, in one slab that its books share.
//!
//! A node is one cache line with what matching and canceling touch. What few orders have - an
//! expiry, a hidden part, a stop price - stands in a slab of its own.

use crate::codes::{DISPLAY, OrderType, Side};
use crate::ids::NIL;

/// An open order, or a free node.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Node {
    pub order_id: u64,
    pub account: u64,
    pub price: i64,
    pub leaves: u64,
    /// As ordered.
    pub qty: u64,
    /// In the queue of its price.
    pub prev: u32,
    /// In the queue of its price; of a free node the next free one.
    pub next: u32,
    /// Its `Extra`, or NIL.
    pub extra: u32,
    /// The place of its price's level in the book, while it rests.
    pub level: u32,
    /// The place of its instrument in the market.
    pub book: u16,
    /// The place of its session in the market.
    pub session: u16,
    pub side: Side,
    /// 0: the node is free.
    pub ord_type: u8,
    pub tif: u8,
    /// Its flags, and its mode of self-trade prevention: see `marks`.
    pub marks: u8,
}

const _: () = assert!(size_of::<Node>() == 64);

/// Both in one byte, which keeps the node within a cache line.
#[inline]
pub fn marks(flags: u8, stp: u8) -> u8 {
    flags | stp << 4
}

impl Node {
    #[inline]
    pub fn flags(&self) -> u8 {
        self.marks & 0xF
    }

    #[inline]
    pub fn stp(&self) -> u8 {
        self.marks >> 4
    }

    /// Whether it shows a part of its quantity only.
    #[inline]
    pub fn is_iceberg(&self) -> bool {
        self.marks & DISPLAY != 0
    }

    /// Whether it waits for a trade, or is to.
    #[inline]
    pub fn is_stop(&self) -> bool {
        self.ord_type >= OrderType::Stop as u8
    }
}

/// What only some orders have; 0 where it means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// An iceberg's: how much of its leaves is shown.
    pub displayed: u64,
    pub stop_price: i64,
    /// A pending stop's: its place in the order of entry.
    pub entry: u64,
    pub expiry_s: u32,
    /// An iceberg's, as ordered.
    pub display: u32,
}

/// All nodes of a market.
#[derive(Default)]
pub struct Nodes {
    nodes: Vec<Node>,
    extras: Vec<Extra>,
    free_extras: Vec<u32>,
    free: Option<u32>,
    open: u32,
}

impl Nodes {
    /// How many orders are open.
    #[inline]
    pub fn open(&self) -> u32 {
        self.open
    }

    #[inline]
    pub fn get(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    #[inline]
    pub fn get_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    /// What this open order has beyond its node; all zeros for most.
    #[inline]
    pub fn extra(&self, at: u32) -> Extra {
        match self.get(at).extra {
            NIL => Extra::default(),
            extra => self.extras[extra as usize],
        }
    }

    /// Of an order that was added with one.
    #[inline]
    pub fn extra_mut(&mut self, at: u32) -> &mut Extra {
        let extra = self.get(at).extra;
        &mut self.extras[extra as usize]
    }

    /// How much of an open order is shown.
    #[inline]
    pub fn displayed(&self, at: u32) -> u64 {
        let node = self.get(at);
        if node.is_iceberg() {
            self.extras[node.extra as usize].displayed
        } else {
            node.leaves
        }
    }

    /// Every open order, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.ord_type != 0)
    }

    /// Adds an open order. The market never holds more than OPEN_ORDERS_MAX, which 32 bits count.
    #[inline]
    pub fn add(&mut self, node: &Node, extra: &Extra) -> u32 {
        let at = self.add_plain(*node);
        self.join(at, NIL, extra);
        at
    }

    /// Adds an open order that has no extra.
    #[inline(always)]
    pub fn add_plain(&mut self, node: Node) -> u32 {
        self.open += 1;
        if let Some(at) = self.free {
            let slot = &mut self.nodes[at as usize];
            self.free = (slot.next != NIL).then_some(slot.next);
            *slot = node;
            return at;
        }
        self.push(node)
    }

    #[inline(never)]
    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Puts an order into the place of another one, which is in no queue and no index.
    #[inline]
    pub fn put(&mut self, at: u32, node: &Node, extra: &Extra) {
        let slot = &mut self.nodes[at as usize];
        let kept = slot.extra;
        *slot = *node;
        self.join(at, kept, extra);
    }

    /// Gives a new node its extra, if it has any; `kept` is one to be used again.
    #[inline]
    fn join(&mut self, at: u32, kept: u32, extra: &Extra) {
        let mut joined = NIL;
        if kept != NIL || *extra != Extra::default() {
            joined = self.replace_extra(kept, extra);
        }
        let slot = &mut self.nodes[at as usize];
        (slot.prev, slot.next, slot.extra) = (NIL, NIL, joined);
    }

    #[inline(never)]
    fn replace_extra(&mut self, kept: u32, extra: &Extra) -> u32 {
        if kept != NIL {
            self.free_extras.push(kept);
        }
        if *extra == Extra::default() {
            return NIL;
        }
        if let Some(at) = self.free_extras.pop() {
            self.extras[at as usize] = *extra;
            return at;
        }
        self.extras.push(*extra);
        (self.extras.len() - 1) as u32
    }

    /// Gives up a node that no queue and no index holds any more.
    #[inline]
    pub fn release(&mut self, at: u32) {
        let extra = self.get(at).extra;
        if extra != NIL {
            self.free_extras.push(extra);
        }
        self.release_plain(at);
    }

    /// Gives up a node that has no extra.
    #[inline(always)]
    pub fn release_plain(&mut self, at: u32) {
        let next = self.free.unwrap_or(NIL);
        let node = &mut self.nodes[at as usize];
        node.ord_type = 0;
        node.next = next;
        self.free = Some(at);
        self.open -= 1;
    }

    /// Whether each node is open or on the list of free ones, and each extra belongs to one order.
    pub fn check(&self) -> Result<(), String> {
        let mut free = 0;
        let mut at = self.free.unwrap_or(NIL);
        while at != NIL {
            let node = &self.nodes[at as usize];
            if node.ord_type != 0 || free == self.nodes.len() {
                return Err(format!("the list of free nodes is broken at {at}"));
            }
            free += 1;
            at = node.next;
        }
        if free + self.open as usize != self.nodes.len() {
            return Err(format!(
                "{} nodes, but {free} free and {} open",
                self.nodes.len(),
                self.open
            ));
        }
        let mut used = vec![false; self.extras.len()];
        let held = self.iter().map(|node| node.extra).filter(|&at| at != NIL);
        for at in held.chain(self.free_extras.iter().copied()) {
            if std::mem::replace(&mut used[at as usize], true) {
                return Err(format!("the extra {at} is held twice"));
            }
        }
        if used.contains(&false) {
            return Err("an extra belongs to nobody".into());
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::codes::TimeInForce;

    /// A plain limit order, not yet in any queue.
    pub(crate) fn limit(order_id: u64, side: Side, price: i64, qty: u64) -> Node {
        Node {
            order_id,
            account: 1,
            price,
            leaves: qty,
            qty,
            prev: NIL,
            next: NIL,
            extra: NIL,
            level: NIL,
            book: 0,
            session: 0,
            side,
            ord_type: OrderType::Limit as u8,
            tif: TimeInForce::Gtc as u8,
            marks: 0,
        }
    }

    #[test]
    fn a_node_and_its_extra_are_used_again_after_their_order_has_gone() {
        let mut nodes = Nodes::default();
        for id in 0..1_000 {
            let extra = Extra {
                expiry_s: 1 + id as u32 % 2,
                ..Extra::default()
            };
            let at = nodes.add(&limit(id, Side::Buy, 100, 5), &extra);
            assert_eq!(nodes.extra(at), extra);
            nodes.check().unwrap();
            nodes.release(at);
        }
        assert_eq!((nodes.nodes.len(), nodes.extras.len()), (1, 1));
        nodes.check().unwrap();
    }

    #[test]
    fn an_order_without_extras_takes_none_and_shows_all_of_itself() {
        let mut nodes = Nodes::default();
        let at = nodes.add(&limit(1, Side::Buy, 100, 5), &Extra::default());
        assert_eq!((nodes.displayed(at), nodes.extras.len()), (5, 0));
        assert_eq!(nodes.extra(at), Extra::default());
    }

    #[test]
    fn check_finds_an_extra_that_two_orders_hold() {
        let mut nodes = Nodes::default();
        let extra = Extra {
            expiry_s: 1,
            ..Extra::default()
        };
        let first = nodes.add(&limit(1, Side::Buy, 100, 5), &extra);
        let second = nodes.add(&limit(2, Side::Buy, 100, 5), &extra);
        nodes.get_mut(second).extra = nodes.get(first).extra;
        assert!(nodes.check().is_err());
    }
}

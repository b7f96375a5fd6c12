//! One instrument's open orders: price-time priority, the stops, what expires when.
//! `engine/reference/book.py` is the specification.

use std::collections::BTreeSet;

use crate::codes::Side;
use crate::ids::NIL;
use crate::levels::{Ladder, Level, rank, reach};
use crate::slab::Nodes;
use crate::stops::Stops;

/// The open orders of one instrument.
#[derive(Default)]
pub struct Book {
    pub bids: Ladder,
    pub asks: Ladder,
    pub stops: Stops,
    /// Second of expiry, order id, node: of those that expire.
    pub expiries: BTreeSet<(u32, u64, u32)>,
    resting: u32,
    icebergs: u32,
}

impl Book {
    /// How many orders rest.
    #[inline]
    pub fn resting(&self) -> u32 {
        self.resting
    }

    /// How many of those that rest are icebergs.
    pub fn icebergs(&self) -> u32 {
        self.icebergs
    }

    /// How many orders are open: those that rest, and the stops.
    #[inline]
    pub fn open(&self) -> u32 {
        self.resting + self.stops.len()
    }

    #[inline(always)]
    pub fn ladder(&self, side: Side) -> &Ladder {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        }
    }

    #[inline(always)]
    pub fn ladder_mut(&mut self, side: Side) -> &mut Ladder {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    /// Whether a new order of this side would meet another now. A limit of None is a market
    /// order's.
    #[inline(always)]
    pub fn crosses(&self, side: Side, limit: Option<i64>) -> bool {
        self.ladder(side.opposite()).meets(reach(side, limit))
    }

    /// Files a node that has just been added: at the end of its price's queue, or as the youngest
    /// stop.
    #[inline]
    pub fn enter(&mut self, nodes: &mut Nodes, at: u32) {
        let node = nodes.get(at);
        let (side, extra, is_iceberg) = (node.side, node.extra, node.is_iceberg());
        if node.is_stop() {
            self.stops.append(nodes, at);
        } else {
            self.ladder_mut(side).append(nodes, at);
            self.resting += 1;
            self.icebergs += u32::from(is_iceberg);
        }
        if extra != NIL {
            let expiry_s = nodes.extra(at).expiry_s;
            if expiry_s != 0 {
                self.expiries.insert((expiry_s, nodes.get(at).order_id, at));
            }
        }
    }

    /// Files a node without an extra, which rests, shows all of itself and does not expire.
    #[inline(always)]
    pub fn enter_plain(&mut self, nodes: &mut Nodes, at: u32, side: Side, price: i64, leaves: u64) {
        self.ladder_mut(side)
            .append_shown(nodes, at, rank(side, price), leaves);
        self.resting += 1;
    }

    /// Takes a node out that was filed so, or could have been.
    #[inline(always)]
    pub fn leave_plain(&mut self, nodes: &mut Nodes, at: u32, side: Side, leaves: u64) {
        self.ladder_mut(side).remove_shown(nodes, at, leaves);
        self.resting -= 1;
    }

    /// Takes an open order of this book out of all that holds it.
    #[inline]
    pub fn leave(&mut self, nodes: &mut Nodes, at: u32) {
        let node = nodes.get(at);
        let (side, is_stop, is_iceberg) = (node.side, node.is_stop(), node.is_iceberg());
        if node.extra != NIL {
            self.forget_expiry(nodes, at);
        }
        if is_stop {
            self.stops.remove(nodes, at);
        } else {
            self.ladder_mut(side).remove(nodes, at);
            self.resting -= 1;
            self.icebergs -= u32::from(is_iceberg);
        }
    }

    #[inline(never)]
    fn forget_expiry(&mut self, nodes: &Nodes, at: u32) {
        let expiry_s = nodes.extra(at).expiry_s;
        self.expiries
            .remove(&(expiry_s, nodes.get(at).order_id, at));
    }

    /// Takes the oldest order of the best price out, of which nothing is left. Cheaper than
    /// `leave`.
    #[inline]
    pub fn leave_best(&mut self, nodes: &mut Nodes, side: Side) {
        let at = self.ladder_mut(side).remove_best(nodes);
        if nodes.get(at).extra != NIL {
            self.icebergs -= u32::from(nodes.get(at).is_iceberg());
            self.forget_expiry(nodes, at);
        }
        self.resting -= 1;
    }

    /// The nodes of the resting orders: bids, then asks; best price first, then oldest first.
    pub fn walk<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + 'a {
        self.bids.walk(nodes).chain(self.asks.walk(nodes))
    }

    /// All nodes: those that rest, then the stops, oldest first.
    pub fn walk_all<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + 'a {
        self.walk(nodes).chain(self.stops.walk())
    }

    /// Walks every invariant.
    pub fn check(&self, nodes: &Nodes, book: u16, last_price: i64) -> Result<(), String> {
        let mut count = 0;
        for (side, ladder) in [(Side::Buy, &self.bids), (Side::Sell, &self.asks)] {
            ladder.check()?;
            let mut hidden = 0;
            for level in ladder.best_first() {
                let (orders, unseen) = check_level(nodes, book, side, level)?;
                count += orders;
                hidden += usize::from(unseen > 0);
                if ladder.hidden.get(&level.rank).copied().unwrap_or(0) != unseen {
                    return Err(format!("book {book}: what it hides at {}", level.rank));
                }
            }
            if hidden != ladder.hidden.len() {
                return Err(format!("book {book}: it hides at prices that it has not"));
            }
        }
        if count != self.resting {
            return Err(format!(
                "book {book}: {count} orders, {} counted",
                self.resting
            ));
        }
        if let (Some(bid), Some(ask)) =
            (self.bids.best_first().next(), self.asks.best_first().next())
            && bid.rank >= !ask.rank
        {
            return Err(format!(
                "book {book}: crossed, {} and {}",
                bid.rank, !ask.rank
            ));
        }
        let icebergs = self.walk(nodes).filter(|&at| nodes.get(at).is_iceberg());
        if icebergs.count() != self.icebergs as usize {
            return Err(format!("book {book}: {} icebergs counted", self.icebergs));
        }
        self.stops.check(nodes, book, last_price)?;
        self.check_expiries(nodes, book)
    }

    fn check_expiries(&self, nodes: &Nodes, book: u16) -> Result<(), String> {
        let mut expiring = 0;
        for at in self.walk_all(nodes) {
            let (order_id, expiry_s) = (nodes.get(at).order_id, nodes.extra(at).expiry_s);
            expiring += usize::from(expiry_s != 0);
            if expiry_s != 0 && !self.expiries.contains(&(expiry_s, order_id, at)) {
                return Err(format!("book {book}: order {order_id} never expires"));
            }
        }
        if expiring != self.expiries.len() {
            return Err(format!("book {book}: what is not there is to expire"));
        }
        Ok(())
    }
}

/// Walks one queue. Returns how long it is, and what it hides.
fn check_level(nodes: &Nodes, book: u16, side: Side, level: &Level) -> Result<(u32, u128), String> {
    let (mut count, mut shown, mut leaves) = (0, 0, 0);
    let mut prev = NIL;
    let mut at = level.head;
    while at != NIL {
        let node = nodes.get(at);
        let holds = !node.is_stop()
            && node.book == book
            && node.prev == prev
            && node.side == side
            && node.price > 0
            && rank(side, node.price) == level.rank
            && node.leaves > 0
            && node.leaves <= node.qty
            && (1..=node.leaves).contains(&nodes.displayed(at))
            && count < nodes.open();
        if !holds {
            return Err(format!("book {book}: order {} is misplaced", node.order_id));
        }
        count += 1;
        shown += u128::from(nodes.displayed(at));
        leaves += u128::from(node.leaves);
        prev = at;
        at = node.next;
    }
    if prev != level.tail || count == 0 {
        return Err(format!("book {book}: a queue does not end where it says"));
    }
    if count != level.count || shown != level.shown() {
        return Err(format!(
            "book {book}: {count} orders show {shown} at {}, {} and {} counted",
            level.rank,
            level.count,
            level.shown()
        ));
    }
    Ok((count, leaves - shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::DISPLAY;
    use crate::slab::{Extra, Node, tests::limit};

    fn entered(book: &mut Book, nodes: &mut Nodes, node: Node, extra: Extra) -> u32 {
        let at = nodes.add(&node, &extra);
        book.enter(nodes, at);
        at
    }

    fn plain(book: &mut Book, nodes: &mut Nodes, id: u64, side: Side, price: i64) -> u32 {
        entered(book, nodes, limit(id, side, price, 5), Extra::default())
    }

    fn ids(book: &Book, nodes: &Nodes) -> Vec<u64> {
        book.walk_all(nodes)
            .map(|at| nodes.get(at).order_id)
            .collect()
    }

    #[test]
    fn removing_first_middle_last_and_only_order_leaves_the_others_in_place() {
        for (gone, left) in [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])] {
            let (mut book, mut nodes) = (Book::default(), Nodes::default());
            let at: Vec<u32> = (1..=3)
                .map(|id| plain(&mut book, &mut nodes, id, Side::Buy, 100))
                .collect();
            book.leave(&mut nodes, at[gone - 1]);
            nodes.release(at[gone - 1]);
            assert_eq!(ids(&book, &nodes), left);
            book.check(&nodes, 0, 0).unwrap();
        }
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        let only = plain(&mut book, &mut nodes, 1, Side::Sell, 100);
        book.leave(&mut nodes, only);
        nodes.release(only);
        assert!(!book.crosses(Side::Buy, None));
        book.check(&nodes, 0, 0).unwrap();
        nodes.check().unwrap();
    }

    #[test]
    fn the_ends_of_the_price_range_are_prices_like_others() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        plain(&mut book, &mut nodes, 1, Side::Sell, i64::MAX);
        plain(&mut book, &mut nodes, 2, Side::Buy, 1);
        book.check(&nodes, 0, 0).unwrap();
        assert!(book.crosses(Side::Buy, Some(i64::MAX)));
        assert!(!book.crosses(Side::Buy, Some(i64::MAX - 1)));
        assert!(book.crosses(Side::Sell, Some(1)));
        assert!(!book.crosses(Side::Sell, Some(2)));
    }

    #[test]
    fn an_iceberg_comes_back_behind_the_others_until_nothing_is_hidden() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        let iceberg = Node {
            marks: DISPLAY,
            ..limit(1, Side::Sell, 100, 5)
        };
        let extra = Extra {
            displayed: 3,
            display: 3,
            ..Extra::default()
        };
        let at = entered(&mut book, &mut nodes, iceberg, extra);
        plain(&mut book, &mut nodes, 2, Side::Sell, 100);
        book.check(&nodes, 0, 0).unwrap();
        // As a taker of 3 leaves it.
        nodes.get_mut(at).leaves = 2;
        book.asks.met(i64::MIN).unwrap().hide(3);
        book.asks.refill_best(&mut nodes);
        assert_eq!(ids(&book, &nodes), [2, 1]);
        assert_eq!((nodes.displayed(at), book.asks.hidden.len()), (2, 0));
        book.check(&nodes, 0, 0).unwrap();
    }

    #[test]
    fn what_expires_is_filed_until_it_leaves() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        let extra = Extra {
            expiry_s: 9,
            ..Extra::default()
        };
        let at = entered(&mut book, &mut nodes, limit(1, Side::Buy, 100, 5), extra);
        assert_eq!(book.expiries.first(), Some(&(9, 1, at)));
        book.check(&nodes, 0, 0).unwrap();
        book.leave_best(&mut nodes, Side::Buy);
        nodes.release(at);
        assert!(book.expiries.is_empty());
        book.check(&nodes, 0, 0).unwrap();
    }

    #[test]
    fn check_finds_a_broken_queue_and_a_wrong_sum() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        let first = plain(&mut book, &mut nodes, 1, Side::Buy, 100);
        plain(&mut book, &mut nodes, 2, Side::Buy, 100);
        nodes.get_mut(first).leaves = 4;
        assert!(book.check(&nodes, 0, 0).is_err());
        nodes.get_mut(first).leaves = 5;
        book.check(&nodes, 0, 0).unwrap();
        nodes.get_mut(first).next = NIL;
        assert!(book.check(&nodes, 0, 0).is_err());
    }
}

//! One instrument's book: price-time priority. `engine/book.py` is the specification.
//!
//! Orders are nodes of one slab that all books share; the queue of a price is a list through them.
//! A side is a sorted vector of its levels with the best at the tail, where nearly everything
//! happens.

use crate::codes::Side;
use crate::ids::NIL;
use crate::wire::OrderRecord;

/// Levels next to the best that a search looks at one by one before it halves the rest.
const SCAN_LEVELS: usize = 8;

/// An open order in the queue of its price, or a free node in the list of free ones.
#[derive(Clone, Copy)]
struct Node {
    order: OrderRecord,
    book: u32,
    prev: u32,
    next: u32,
    open: bool,
}

/// All nodes of a market.
#[derive(Default)]
pub struct Nodes {
    nodes: Vec<Node>,
    free: Option<u32>,
    open: u32,
}

impl Nodes {
    /// How many orders are open.
    pub fn open(&self) -> u32 {
        self.open
    }

    /// The order of an open node.
    #[inline]
    pub fn order(&self, at: u32) -> &OrderRecord {
        &self.nodes[at as usize].order
    }

    /// The book that an open node was added for.
    #[inline]
    pub fn book(&self, at: u32) -> u32 {
        self.nodes[at as usize].book
    }

    #[inline]
    fn add(&mut self, order: OrderRecord, book: u32) -> u32 {
        let node = Node {
            order,
            book,
            prev: NIL,
            next: NIL,
            open: true,
        };
        self.open += 1;
        match self.free {
            Some(at) => {
                let next = self.nodes[at as usize].next;
                self.free = (next != NIL).then_some(next);
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                // The market never holds more than OPEN_ORDERS_MAX, which 32 bits can count.
                (self.nodes.len() - 1) as u32
            }
        }
    }

    #[inline]
    fn release(&mut self, at: u32) {
        let next = self.free.unwrap_or(NIL);
        let node = &mut self.nodes[at as usize];
        node.open = false;
        node.next = next;
        self.free = Some(at);
        self.open -= 1;
    }

    /// Whether each node is open or on the list of free ones.
    pub fn check(&self) -> Result<(), String> {
        let mut free = 0;
        let mut at = self.free.unwrap_or(NIL);
        while at != NIL {
            let node = &self.nodes[at as usize];
            if node.open || free == self.nodes.len() {
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
        Ok(())
    }
}

/// The queue of one price, never empty.
#[derive(Clone, Copy)]
struct Level {
    /// Ascends towards the best: the price of a bid, its complement for an ask.
    rank: i64,
    head: u32,
    tail: u32,
}

#[derive(Default)]
struct Ladder {
    levels: Vec<Level>,
}

impl Ladder {
    /// Where the level of this rank is, or where it would go.
    #[inline]
    fn find(&self, rank: i64) -> Result<usize, usize> {
        let mut at = self.levels.len();
        let near = at.saturating_sub(SCAN_LEVELS);
        while at > near {
            let level = self.levels[at - 1].rank;
            if level <= rank {
                return if level == rank { Ok(at - 1) } else { Err(at) };
            }
            at -= 1;
        }
        self.levels[..near].binary_search_by(|level| level.rank.cmp(&rank))
    }
}

/// One meeting of a taker with a maker, at the maker's price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Trade {
    pub maker_id: u64,
    pub price: i64,
    pub qty: u64,
    /// 0: the maker has left the book.
    pub maker_leaves: u64,
}

/// The open orders of one instrument.
#[derive(Default)]
pub struct Book {
    bids: Ladder,
    asks: Ladder,
    open: u32,
}

#[inline]
fn rank(side: Side, price: i64) -> i64 {
    match side {
        Side::Buy => price,
        Side::Sell => !price,
    }
}

/// The lowest rank on the other side that this order still trades with; a limit of None takes any.
#[inline]
fn reach(side: Side, limit: Option<i64>) -> i64 {
    limit.map_or(i64::MIN, |price| rank(side.opposite(), price))
}

impl Book {
    /// How many orders are open.
    #[inline]
    pub fn open(&self) -> u32 {
        self.open
    }

    #[inline]
    fn ladder(&mut self, side: Side) -> &mut Ladder {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    /// Whether a new order of this side would trade now. A limit of None is a market order's.
    pub fn crosses(&self, side: Side, limit: Option<i64>) -> bool {
        let other = match side {
            Side::Buy => &self.asks,
            Side::Sell => &self.bids,
        };
        let reach = reach(side, limit);
        other.levels.last().is_some_and(|best| best.rank >= reach)
    }

    /// Takes up to `qty` from the other side, best price first, then oldest first, never beyond the
    /// limit. Returns what is left of it.
    #[inline]
    pub fn take(
        &mut self,
        nodes: &mut Nodes,
        side: Side,
        limit: Option<i64>,
        mut qty: u64,
        mut on_trade: impl FnMut(Trade),
    ) -> u64 {
        let reach = reach(side, limit);
        let mut gone = 0;
        let levels = &mut self.ladder(side.opposite()).levels;
        while qty > 0 {
            let Some(level) = levels.last_mut().filter(|level| level.rank >= reach) else {
                break;
            };
            let at = level.head;
            let node = &mut nodes.nodes[at as usize];
            let traded = qty.min(node.order.leaves);
            qty -= traded;
            node.order.leaves -= traded;
            on_trade(Trade {
                maker_id: node.order.order_id,
                price: node.order.price,
                qty: traded,
                maker_leaves: node.order.leaves,
            });
            if node.order.leaves > 0 {
                break;
            }
            let next = node.next;
            nodes.release(at);
            gone += 1;
            if next == NIL {
                levels.pop();
            } else {
                level.head = next;
                nodes.nodes[next as usize].prev = NIL;
            }
        }
        self.open -= gone;
        qty
    }

    /// Adds an order at the end of its price's queue and returns its node. It must not cross.
    #[inline]
    pub fn rest(&mut self, nodes: &mut Nodes, order: OrderRecord, book: u32) -> u32 {
        let added = nodes.add(order, book);
        let rank = rank(order.side, order.price);
        let ladder = self.ladder(order.side);
        match ladder.find(rank) {
            Ok(at) => {
                let level = &mut ladder.levels[at];
                nodes.nodes[level.tail as usize].next = added;
                nodes.nodes[added as usize].prev = level.tail;
                level.tail = added;
            }
            Err(at) => ladder.levels.insert(
                at,
                Level {
                    rank,
                    head: added,
                    tail: added,
                },
            ),
        }
        self.open += 1;
        added
    }

    /// Takes an open order of this book out, wherever in its queue it stands.
    #[inline]
    pub fn remove(&mut self, nodes: &mut Nodes, at: u32) -> OrderRecord {
        let Node {
            order, prev, next, ..
        } = nodes.nodes[at as usize];
        if prev == NIL || next == NIL {
            let ladder = self.ladder(order.side);
            let found = ladder.find(rank(order.side, order.price));
            let level = found.expect("an open order has a level");
            if prev == NIL && next == NIL {
                ladder.levels.remove(level);
            } else if prev == NIL {
                ladder.levels[level].head = next;
            } else {
                ladder.levels[level].tail = prev;
            }
        }
        if prev != NIL {
            nodes.nodes[prev as usize].next = next;
        }
        if next != NIL {
            nodes.nodes[next as usize].prev = prev;
        }
        nodes.release(at);
        self.open -= 1;
        order
    }

    /// Takes everything out.
    pub fn clear(&mut self, nodes: &mut Nodes, mut on_removed: impl FnMut(&OrderRecord)) {
        let open: Vec<u32> = self.walk(nodes).collect();
        for at in open {
            on_removed(nodes.order(at));
            nodes.release(at);
        }
        *self = Self::default();
    }

    /// The nodes of the open orders: bids, then asks; best price first, then oldest first.
    pub fn walk<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + 'a {
        let levels = self.bids.levels.iter().rev();
        levels
            .chain(self.asks.levels.iter().rev())
            .flat_map(move |level| {
                let first = (level.head != NIL).then_some(level.head);
                std::iter::successors(first, move |&at| {
                    let next = nodes.nodes[at as usize].next;
                    (next != NIL).then_some(next)
                })
            })
    }

    /// Walks every invariant.
    pub fn check(&self, nodes: &Nodes, book: u32) -> Result<(), String> {
        let mut count = 0;
        for (side, ladder) in [(Side::Buy, &self.bids), (Side::Sell, &self.asks)] {
            if !ladder
                .levels
                .is_sorted_by(|left, right| left.rank < right.rank)
            {
                return Err(format!("book {book}: its levels are out of order"));
            }
            for level in &ladder.levels {
                count += check_level(nodes, book, side, level)?;
            }
        }
        if count != self.open {
            return Err(format!(
                "book {book}: {count} orders, {} counted",
                self.open
            ));
        }
        if let (Some(bid), Some(ask)) = (self.bids.levels.last(), self.asks.levels.last())
            && bid.rank >= !ask.rank
        {
            return Err(format!(
                "book {book}: crossed, {} and {}",
                bid.rank, !ask.rank
            ));
        }
        Ok(())
    }
}

/// Walks one queue and returns how long it is.
fn check_level(nodes: &Nodes, book: u32, side: Side, level: &Level) -> Result<u32, String> {
    let mut count = 0;
    let mut prev = NIL;
    let mut at = level.head;
    while at != NIL {
        let node = &nodes.nodes[at as usize];
        let order = &node.order;
        let holds = node.open
            && node.book == book
            && node.prev == prev
            && order.side == side
            && order.price > 0
            && rank(side, order.price) == level.rank
            && order.leaves > 0
            && order.leaves <= order.qty
            && count < nodes.open;
        if !holds {
            return Err(format!(
                "book {book}: order {} is misplaced",
                order.order_id
            ));
        }
        count += 1;
        prev = at;
        at = node.next;
    }
    if prev != level.tail || count == 0 {
        return Err(format!("book {book}: a queue does not end where it says"));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(order_id: u64, side: Side, price: i64, qty: u64) -> OrderRecord {
        OrderRecord {
            order_id,
            account: 1,
            price,
            leaves: qty,
            qty,
            side,
        }
    }

    fn ids(book: &Book, nodes: &Nodes) -> Vec<u64> {
        book.walk(nodes)
            .map(|at| nodes.order(at).order_id)
            .collect()
    }

    fn take(
        book: &mut Book,
        nodes: &mut Nodes,
        side: Side,
        limit: Option<i64>,
        qty: u64,
    ) -> (Vec<(u64, u64)>, u64) {
        let mut trades = Vec::new();
        let left = book.take(nodes, side, limit, qty, |trade| {
            trades.push((trade.maker_id, trade.qty));
        });
        (trades, left)
    }

    #[test]
    fn takes_the_best_price_first_then_the_oldest_and_stops_at_the_limit() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        for (id, price) in [(1, 102), (2, 101), (3, 101), (4, 103)] {
            book.rest(&mut nodes, order(id, Side::Sell, price, 5), 0);
        }
        let (trades, left) = take(&mut book, &mut nodes, Side::Buy, Some(102), 17);
        assert_eq!(trades, [(2, 5), (3, 5), (1, 5)]);
        assert_eq!(left, 2);
        assert_eq!(ids(&book, &nodes), [4]);
        book.check(&nodes, 0).unwrap();
        nodes.check().unwrap();
    }

    #[test]
    fn a_partly_filled_maker_keeps_its_place() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        for id in [1, 2] {
            book.rest(&mut nodes, order(id, Side::Buy, 100, 5), 0);
        }
        take(&mut book, &mut nodes, Side::Sell, None, 3);
        assert_eq!(ids(&book, &nodes), [1, 2]);
        assert_eq!(
            take(&mut book, &mut nodes, Side::Sell, None, 3).0,
            [(1, 2), (2, 1)]
        );
        book.check(&nodes, 0).unwrap();
    }

    #[test]
    fn removing_first_middle_last_and_only_order_leaves_the_others_in_place() {
        for (gone, left) in [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])] {
            let (mut book, mut nodes) = (Book::default(), Nodes::default());
            let at: Vec<u32> = (1..=3)
                .map(|id| book.rest(&mut nodes, order(id, Side::Buy, 100, 5), 0))
                .collect();
            book.remove(&mut nodes, at[gone - 1]);
            assert_eq!(ids(&book, &nodes), left);
            book.check(&nodes, 0).unwrap();
        }
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        let only = book.rest(&mut nodes, order(1, Side::Sell, 100, 5), 0);
        book.remove(&mut nodes, only);
        assert!(!book.crosses(Side::Buy, None));
        book.check(&nodes, 0).unwrap();
        nodes.check().unwrap();
    }

    #[test]
    fn levels_far_from_the_best_are_found_too() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        // 7 and 100 have no common divisor: every price once, in no order.
        let at: Vec<u32> = (0..100)
            .map(|id| {
                book.rest(
                    &mut nodes,
                    order(id, Side::Buy, 1 + (id as i64 * 7) % 100, 5),
                    0,
                )
            })
            .collect();
        book.check(&nodes, 0).unwrap();
        for &node in &at[..99] {
            book.remove(&mut nodes, node);
            book.check(&nodes, 0).unwrap();
        }
        assert_eq!(ids(&book, &nodes), [99]);
    }

    #[test]
    fn a_node_is_used_again_after_its_order_has_gone() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        for id in 0..1_000 {
            let at = book.rest(&mut nodes, order(id, Side::Sell, 100, 5), 0);
            book.remove(&mut nodes, at);
        }
        assert_eq!(nodes.nodes.len(), 1);
        nodes.check().unwrap();
    }

    #[test]
    fn a_sweep_of_a_long_queue_loses_nobody() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        for id in 0..5_000 {
            book.rest(&mut nodes, order(id, Side::Sell, 100, 1), 0);
        }
        let (trades, left) = take(&mut book, &mut nodes, Side::Buy, Some(100), 5_001);
        assert_eq!(trades.len(), 5_000);
        assert!(trades.iter().map(|trade| trade.0).eq(0..5_000));
        assert_eq!((left, book.open(), nodes.open()), (1, 0, 0));
    }

    #[test]
    fn the_ends_of_the_price_range_are_prices_like_others() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        book.rest(&mut nodes, order(1, Side::Sell, i64::MAX, 5), 0);
        book.rest(&mut nodes, order(2, Side::Buy, 1, 5), 0);
        book.check(&nodes, 0).unwrap();
        assert!(book.crosses(Side::Buy, Some(i64::MAX)));
        assert!(!book.crosses(Side::Buy, Some(i64::MAX - 1)));
        assert!(book.crosses(Side::Sell, Some(1)));
        assert!(!book.crosses(Side::Sell, Some(2)));
    }

    #[test]
    fn check_finds_a_broken_queue() {
        let (mut book, mut nodes) = (Book::default(), Nodes::default());
        let first = book.rest(&mut nodes, order(1, Side::Buy, 100, 5), 0);
        book.rest(&mut nodes, order(2, Side::Buy, 100, 5), 0);
        nodes.nodes[first as usize].next = NIL;
        assert!(book.check(&nodes, 0).is_err());
    }
}

//! One side of a book: a sorted vector of its prices with the best at the tail, where nearly
//! everything happens.

use std::collections::BTreeMap;

use crate::codes::Side;
use crate::ids::NIL;
use crate::slab::Nodes;

/// Levels next to the best that a search looks at one by one before it halves the rest.
const SCAN_LEVELS: usize = 8;

/// Ascends towards the best: the price of a bid, its complement for an ask.
#[inline]
pub fn rank(side: Side, price: i64) -> i64 {
    match side {
        Side::Buy => price,
        Side::Sell => !price,
    }
}

/// The lowest rank on the other side that an order of this side still trades with; a limit of None
/// takes any.
#[inline]
pub fn reach(side: Side, limit: Option<i64>) -> i64 {
    limit.map_or(i64::MIN, |price| rank(side.opposite(), price))
}

/// The queue of one price, never empty.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    pub rank: i64,
    /// What its orders show, modulo 2^64.
    shown_low: u64,
    /// And how often 2^64: quantities reach it, so their sum may pass it.
    shown_high: u32,
    /// How many orders.
    pub count: u32,
    pub head: u32,
    pub tail: u32,
}

const _: () = assert!(size_of::<Level>() == 32);

impl Level {
    /// What its orders show.
    pub fn shown(&self) -> u128 {
        u128::from(self.shown_high) << 64 | u128::from(self.shown_low)
    }

    #[inline]
    pub fn show(&mut self, qty: u64) {
        let (low, carry) = self.shown_low.overflowing_add(qty);
        self.shown_low = low;
        self.shown_high += u32::from(carry);
    }

    #[inline]
    pub fn hide(&mut self, qty: u64) {
        let (low, borrow) = self.shown_low.overflowing_sub(qty);
        self.shown_low = low;
        self.shown_high -= u32::from(borrow);
    }
}

/// One side.
#[derive(Default)]
pub struct Ladder {
    pub levels: Vec<Level>,
    /// What the icebergs of a price don't show; no entry where that is nothing.
    pub hidden: BTreeMap<i64, u128>,
}

impl Ladder {
    /// Where the level of this rank is, or where it would go.
    #[inline]
    pub fn find(&self, rank: i64) -> Result<usize, usize> {
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

    /// Best first.
    pub fn best_first(&self) -> impl Iterator<Item = &Level> {
        self.levels.iter().rev()
    }

    /// Whether an order that reaches so far would trade now.
    #[inline]
    pub fn meets(&self, reach: i64) -> bool {
        self.levels.last().is_some_and(|best| best.rank >= reach)
    }

    /// Puts a node at the end of its price's queue.
    #[inline]
    pub fn append(&mut self, nodes: &mut Nodes, at: u32) {
        let node = nodes.get(at);
        let (rank, shown) = (rank(node.side, node.price), nodes.displayed(at));
        let hidden = node.leaves - shown;
        match self.find(rank) {
            Ok(found) => {
                let level = &mut self.levels[found];
                nodes.get_mut(level.tail).next = at;
                nodes.get_mut(at).prev = level.tail;
                level.tail = at;
                level.count += 1;
                level.show(shown);
            }
            Err(place) => self.levels.insert(
                place,
                Level {
                    rank,
                    shown_low: shown,
                    shown_high: 0,
                    count: 1,
                    head: at,
                    tail: at,
                },
            ),
        }
        if hidden > 0 {
            self.hide(rank, hidden);
        }
    }

    /// Takes a node out, wherever in its queue it stands.
    #[inline]
    pub fn remove(&mut self, nodes: &mut Nodes, at: u32) {
        let node = nodes.get(at);
        let (prev, next, leaves) = (node.prev, node.next, node.leaves);
        let (rank, shown) = (rank(node.side, node.price), nodes.displayed(at));
        let found = self.find(rank).expect("a resting order has a level");
        let level = &mut self.levels[found];
        if level.count == 1 {
            self.levels.remove(found);
        } else {
            level.count -= 1;
            level.hide(shown);
            match prev {
                NIL => level.head = next,
                _ => nodes.get_mut(prev).next = next,
            }
            match next {
                NIL => level.tail = prev,
                _ => nodes.get_mut(next).prev = prev,
            }
        }
        if leaves > shown {
            self.unhide(rank, leaves - shown);
        }
    }

    /// Takes a part of a node's leaves away, in its place: what is hidden goes first.
    pub fn reduce(&mut self, nodes: &mut Nodes, at: u32, leaves: u64) {
        let (before, shown) = (nodes.get(at).leaves, nodes.displayed(at));
        let rank = rank(nodes.get(at).side, nodes.get(at).price);
        nodes.get_mut(at).leaves = leaves;
        let shows = shown.min(leaves);
        if nodes.get(at).is_iceberg() {
            nodes.extra_mut(at).displayed = shows;
        }
        let found = self.find(rank).expect("a resting order has a level");
        self.levels[found].hide(shown - shows);
        let unhidden = (before - shown) - (leaves - shows);
        if unhidden > 0 {
            self.unhide(rank, unhidden);
        }
    }

    #[inline(never)]
    fn hide(&mut self, rank: i64, qty: u64) {
        *self.hidden.entry(rank).or_default() += u128::from(qty);
    }

    /// Part of what is hidden at a price is shown now, or gone.
    #[inline(never)]
    pub fn unhide(&mut self, rank: i64, qty: u64) {
        let hidden = self.hidden.get_mut(&rank).expect("something was hidden");
        *hidden -= u128::from(qty);
        if *hidden == 0 {
            self.hidden.remove(&rank);
        }
    }

    /// The nodes of one level, oldest first.
    pub fn queue<'a>(&self, nodes: &'a Nodes, level: &Level) -> impl Iterator<Item = u32> + 'a {
        std::iter::successors(Some(level.head), move |&at| {
            let next = nodes.get(at).next;
            (next != NIL).then_some(next)
        })
    }

    /// Its nodes: best price first, then oldest first.
    pub fn walk<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + 'a {
        self.best_first()
            .flat_map(move |level| self.queue(nodes, level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::{Extra, tests::limit};

    #[test]
    fn levels_far_from_the_best_are_found_too() {
        let (mut ladder, mut nodes) = (Ladder::default(), Nodes::default());
        // 7 and 100 have no common divisor: every price once, in no order.
        let at: Vec<u32> = (0..100)
            .map(|id| limit(id, Side::Buy, 1 + (id as i64 * 7) % 100, 5))
            .map(|node| nodes.add(node, Extra::default()))
            .collect();
        for &node in &at {
            ladder.append(&mut nodes, node);
        }
        assert!(ladder.levels.is_sorted_by(|a, b| a.rank < b.rank));
        for price in 1..=100 {
            assert!(ladder.find(price).is_ok());
        }
        assert_eq!((ladder.find(0), ladder.find(101)), (Err(0), Err(100)));
        for &node in &at[..99] {
            ladder.remove(&mut nodes, node);
        }
        assert_eq!(ladder.walk(&nodes).collect::<Vec<_>>(), [at[99]]);
    }

    #[test]
    fn what_a_level_shows_may_pass_64_bits_and_comes_back() {
        let (mut ladder, mut nodes) = (Ladder::default(), Nodes::default());
        let at: Vec<u32> = (0..3)
            .map(|id| nodes.add(limit(id, Side::Sell, 100, u64::MAX), Extra::default()))
            .collect();
        for &node in &at {
            ladder.append(&mut nodes, node);
        }
        assert_eq!(ladder.levels[0].shown(), 3 * u128::from(u64::MAX));
        ladder.remove(&mut nodes, at[1]);
        ladder.reduce(&mut nodes, at[0], 1);
        assert_eq!(ladder.levels[0].shown(), u128::from(u64::MAX) + 1);
    }

    #[test]
    fn a_reduction_takes_what_is_hidden_first() {
        let (mut ladder, mut nodes) = (Ladder::default(), Nodes::default());
        let iceberg = crate::slab::Node {
            flags: crate::codes::DISPLAY,
            ..limit(1, Side::Buy, 100, 10)
        };
        let extra = Extra {
            displayed: 4,
            display: 4,
            ..Extra::default()
        };
        let at = nodes.add(iceberg, extra);
        ladder.append(&mut nodes, at);
        for (leaves, shown, hidden) in [(7, 4, Some(3)), (4, 4, None), (1, 1, None)] {
            ladder.reduce(&mut nodes, at, leaves);
            assert_eq!(ladder.levels[0].shown(), shown);
            assert_eq!(nodes.displayed(at), shown as u64);
            assert_eq!(ladder.hidden.get(&100).copied(), hidden);
        }
    }
}

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

/// One side. What a search and an insertion move is as narrow as it can be: the levels themselves
/// stay where they are.
#[derive(Default)]
pub struct Ladder {
    /// Ascending.
    ranks: Vec<i64>,
    /// The place of the level of each rank.
    places: Vec<u32>,
    levels: Vec<Level>,
    free: Vec<u32>,
    /// What the icebergs of a price don't show; no entry where that is nothing.
    pub hidden: BTreeMap<i64, u128>,
}

impl Ladder {
    /// How many different prices.
    #[inline]
    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    /// Where the level of this rank is among the ascending ones, or where it would go.
    #[inline]
    fn find(&self, rank: i64) -> Result<usize, usize> {
        let near = self.ranks.len().saturating_sub(SCAN_LEVELS);
        if near > 0 && rank < self.ranks[near] {
            return self.ranks[..near].binary_search(&rank);
        }
        let mut at = self.ranks.len();
        for &other in self.ranks[near..].iter().rev() {
            if other <= rank {
                return if other == rank { Ok(at - 1) } else { Err(at) };
            }
            at -= 1;
        }
        Err(at)
    }

    /// Whether there is a level of this rank.
    #[inline]
    pub fn has(&self, rank: i64) -> bool {
        self.find(rank).is_ok()
    }

    /// Best first.
    pub fn best_first(&self) -> impl Iterator<Item = &Level> {
        let places = self.places.iter().rev();
        places.map(|&place| &self.levels[place as usize])
    }

    /// The best, if an order that reaches so far would trade with it.
    #[inline]
    pub fn met(&mut self, reach: i64) -> Option<&mut Level> {
        if !self.meets(reach) {
            return None;
        }
        let place = *self.places.last()?;
        Some(&mut self.levels[place as usize])
    }

    /// Whether an order that reaches so far would trade now.
    #[inline]
    pub fn meets(&self, reach: i64) -> bool {
        self.ranks.last().is_some_and(|&best| best >= reach)
    }

    /// Puts a node at the end of its price's queue.
    #[inline]
    pub fn append(&mut self, nodes: &mut Nodes, at: u32) {
        let node = nodes.get(at);
        let (rank, shown) = (rank(node.side, node.price), nodes.displayed(at));
        let hidden = node.leaves - shown;
        let place = match self.find(rank) {
            Ok(found) => {
                let place = self.places[found];
                let level = &mut self.levels[place as usize];
                nodes.get_mut(level.tail).next = at;
                nodes.get_mut(at).prev = level.tail;
                level.tail = at;
                level.count += 1;
                level.show(shown);
                place
            }
            Err(found) => {
                let level = Level {
                    rank,
                    shown_low: shown,
                    shown_high: 0,
                    count: 1,
                    head: at,
                    tail: at,
                };
                let place = self.add(level);
                self.ranks.insert(found, rank);
                self.places.insert(found, place);
                place
            }
        };
        nodes.get_mut(at).level = place;
        if hidden > 0 {
            self.hide(rank, hidden);
        }
    }

    #[inline]
    fn add(&mut self, level: Level) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.levels[place as usize] = level;
                place
            }
            None => {
                self.levels.push(level);
                (self.levels.len() - 1) as u32 // no more than there are orders
            }
        }
    }

    /// Takes a node out, wherever in its queue it stands.
    #[inline]
    pub fn remove(&mut self, nodes: &mut Nodes, at: u32) {
        let shown = nodes.displayed(at);
        let node = nodes.get(at);
        let (prev, next, place) = (node.prev, node.next, node.level);
        let hidden = node.leaves - shown;
        let level = &mut self.levels[place as usize];
        let rank = level.rank;
        if level.count == 1 {
            self.drop_level(rank, place);
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
        if hidden > 0 {
            self.unhide(rank, hidden);
        }
    }

    #[inline]
    fn drop_level(&mut self, rank: i64, place: u32) {
        let found = self.find(rank).expect("a level is found by its rank");
        self.ranks.remove(found);
        self.places.remove(found);
        self.free.push(place);
    }

    /// Takes the oldest node of the best price out. Cheaper than `remove`; what it showed is
    /// subtracted already, and it hides nothing.
    #[inline]
    pub fn remove_best(&mut self, nodes: &mut Nodes) -> u32 {
        let place = *self.places.last().expect("there is a best price");
        let level = &mut self.levels[place as usize];
        let at = level.head;
        let next = nodes.get(at).next;
        if next == NIL {
            self.ranks.pop();
            self.places.pop();
            self.free.push(place);
        } else {
            level.head = next;
            level.count -= 1;
            nodes.get_mut(next).prev = NIL;
        }
        at
    }

    /// The iceberg at the head of the best price, which shows nothing any more, shows its next part
    /// and goes to the end of the queue.
    pub fn refill_best(&mut self, nodes: &mut Nodes) {
        let place = *self.places.last().expect("there is a best price");
        let level = &mut self.levels[place as usize];
        let (at, rank) = (level.head, level.rank);
        let leaves = nodes.get(at).leaves;
        let extra = nodes.extra_mut(at);
        let shows = leaves.min(extra.display.into());
        extra.displayed = shows;
        level.show(shows);
        let next = nodes.get(at).next;
        if next != NIL {
            let tail = level.tail;
            level.head = next;
            level.tail = at;
            nodes.get_mut(next).prev = NIL;
            nodes.get_mut(tail).next = at;
            let node = nodes.get_mut(at);
            node.prev = tail;
            node.next = NIL;
        }
        self.unhide(rank, shows);
    }

    /// Takes a part of a node's leaves away, in its place: what is hidden goes first.
    pub fn reduce(&mut self, nodes: &mut Nodes, at: u32, leaves: u64) {
        let (before, shown) = (nodes.get(at).leaves, nodes.displayed(at));
        let place = nodes.get(at).level;
        nodes.get_mut(at).leaves = leaves;
        let shows = shown.min(leaves);
        if nodes.get(at).is_iceberg() {
            nodes.extra_mut(at).displayed = shows;
        }
        let level = &mut self.levels[place as usize];
        level.hide(shown - shows);
        let rank = level.rank;
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

    /// Whether ranks, places and levels fit together.
    pub fn check(&self) -> Result<(), String> {
        let levels = self.ranks.iter().zip(&self.places);
        let mut used: Vec<u32> = self.free.iter().chain(&self.places).copied().collect();
        used.sort_unstable();
        let ascend = self.ranks.is_sorted_by(|left, right| left < right);
        let ranked = levels
            .into_iter()
            .all(|(&rank, &at)| self.levels[at as usize].rank == rank);
        let each_once = used.iter().copied().eq(0..self.levels.len() as u32);
        if !ascend || !ranked || !each_once || self.places.len() != self.ranks.len() {
            return Err("the levels of a side are out of order".into());
        }
        Ok(())
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
            .map(|node| nodes.add(&node, &Extra::default()))
            .collect();
        for &node in &at {
            ladder.append(&mut nodes, node);
        }
        ladder.check().unwrap();
        for price in 1..=100 {
            assert!(ladder.find(price).is_ok());
        }
        assert_eq!((ladder.find(0), ladder.find(101)), (Err(0), Err(100)));
        for &node in &at[..99] {
            ladder.remove(&mut nodes, node);
            ladder.check().unwrap();
        }
        assert_eq!(ladder.walk(&nodes).collect::<Vec<_>>(), [at[99]]);
    }

    #[test]
    fn what_a_level_shows_may_pass_64_bits_and_comes_back() {
        let (mut ladder, mut nodes) = (Ladder::default(), Nodes::default());
        let at: Vec<u32> = (0..3)
            .map(|id| nodes.add(&limit(id, Side::Sell, 100, u64::MAX), &Extra::default()))
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
            marks: crate::codes::DISPLAY,
            ..limit(1, Side::Buy, 100, 10)
        };
        let extra = Extra {
            displayed: 4,
            display: 4,
            ..Extra::default()
        };
        let at = nodes.add(&iceberg, &extra);
        ladder.append(&mut nodes, at);
        for (leaves, shown, hidden) in [(7, 4, Some(3)), (4, 4, None), (1, 1, None)] {
            ladder.reduce(&mut nodes, at, leaves);
            assert_eq!(ladder.levels[0].shown(), shown);
            assert_eq!(nodes.displayed(at), shown as u64);
            assert_eq!(ladder.hidden.get(&100).copied(), hidden);
        }
    }
}

//! One side of a book: its levels, each the queue of one price.

use std::collections::BTreeMap;

use crate::codes::Side;
use crate::ids::NIL;
use crate::rungs::{Rung, Rungs};
use crate::slab::{Node, Nodes};

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
    /// Where it was among the rungs when somebody looked: it can't be far from there.
    hint: u32,
}

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
    /// Ascending.
    rungs: Rungs,
    levels: Vec<Level>,
    free: Vec<u32>,
    /// What the icebergs of a price don't show; no entry where that is nothing.
    pub hidden: BTreeMap<i64, u128>,
}

impl Ladder {
    /// How many different prices.
    #[inline]
    pub fn len(&self) -> usize {
        self.rungs.len()
    }

    /// Whether there is a level of this rank.
    #[inline(never)]
    pub fn has(&self, rank: i64) -> bool {
        self.rungs.find(rank).is_ok()
    }

    /// Best first.
    pub fn best_first(&self) -> impl Iterator<Item = &Level> {
        let rungs = self.rungs.iter().rev();
        rungs.map(|rung| &self.levels[rung.place as usize])
    }

    /// The best, if an order that reaches so far would trade with it.
    #[inline(always)]
    pub fn met(&mut self, reach: i64) -> Option<&mut Level> {
        let best = self.rungs.best().filter(|best| best.rank >= reach)?;
        Some(&mut self.levels[best.place as usize])
    }

    /// Whether an order that reaches so far would trade now.
    #[inline(always)]
    pub fn meets(&self, reach: i64) -> bool {
        self.rungs.best().is_some_and(|best| best.rank >= reach)
    }

    /// Puts a node at the end of its price's queue.
    #[inline]
    pub fn append(&mut self, nodes: &mut Nodes, at: u32) {
        let node = nodes.get(at);
        let (rank, shown) = (rank(node.side, node.price), nodes.displayed(at));
        let hidden = node.leaves - shown;
        self.append_shown(nodes, at, rank, shown);
        if hidden > 0 {
            self.hide(rank, hidden);
        }
    }

    /// Puts a node that shows so much at the end of the queue of this rank.
    #[inline(always)]
    pub fn append_shown(&mut self, nodes: &mut Nodes, at: u32, rank: i64, shown: u64) {
        let found = self.rungs.find(rank);
        self.append_at(nodes, at, found, rank, shown);
    }

    /// The same, where it is known where the rank is among the rungs, or where it would go.
    #[inline(always)]
    fn append_at(
        &mut self,
        nodes: &mut Nodes,
        at: u32,
        found: Result<usize, usize>,
        rank: i64,
        shown: u64,
    ) {
        match found {
            Ok(rung) => {
                let place = self.rungs.place(rung);
                let level = &mut self.levels[place as usize];
                let tail = std::mem::replace(&mut level.tail, at);
                level.hint = rung as u32;
                level.count += 1;
                level.show(shown);
                nodes.get_mut(tail).next = at;
                let node = nodes.get_mut(at);
                (node.prev, node.next, node.level) = (tail, NIL, place);
            }
            Err(rung) => {
                let place = self.insert(rung, rank, at, shown);
                let node = nodes.get_mut(at);
                (node.prev, node.next, node.level) = (NIL, NIL, place);
            }
        }
    }

    /// A new level with one node; its place.
    #[inline(never)]
    fn insert(&mut self, rung: usize, rank: i64, at: u32, shown: u64) -> u32 {
        let place = self.add(Level {
            rank,
            shown_low: shown,
            shown_high: 0,
            count: 1,
            head: at,
            tail: at,
            hint: rung as u32,
        });
        self.rungs.insert(rung, Rung { rank, place });
        place
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
        let hidden = nodes.get(at).leaves - shown;
        let rank = self.remove_shown(nodes, at, shown);
        if hidden > 0 {
            self.unhide(rank, hidden);
        }
    }

    /// Takes a node out that shows so much. Returns its level's rank.
    #[inline(always)]
    pub fn remove_shown(&mut self, nodes: &mut Nodes, at: u32, shown: u64) -> i64 {
        let &Node {
            prev, next, level, ..
        } = nodes.get(at);
        let place = level;
        let level = &mut self.levels[place as usize];
        let rank = level.rank;
        if level.count == 1 {
            let hint = level.hint;
            self.drop_level(rank, hint, place);
            return rank;
        }
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
        rank
    }

    #[inline(never)]
    fn drop_level(&mut self, rank: i64, hint: u32, place: u32) {
        let found = self.rungs.find_near(rank, hint);
        let rung = found.expect("a level is found by its rank");
        self.rungs.remove(rung);
        self.free.push(place);
    }

    /// Puts a node that shows all of itself, now with these leaves, at the end of the queue of this
    /// rank. Cheaper than taking it out and putting it in again: a level of its own goes with it,
    /// and the way is short as a rule.
    #[inline(never)]
    pub fn relocate(&mut self, nodes: &mut Nodes, at: u32, to: i64, leaves: u64) {
        let node = nodes.get_mut(at);
        let before = std::mem::replace(&mut node.leaves, leaves);
        let place = node.level;
        let level = &mut self.levels[place as usize];
        let hint = level.hint;
        if level.count > 1 {
            self.remove_shown(nodes, at, before);
            let found = self.rungs.find_near(to, hint);
            return self.append_at(nodes, at, found, to, leaves);
        }
        level.hide(before);
        level.show(leaves);
        let from = std::mem::replace(&mut level.rank, to);
        if from != to {
            self.relocate_level(nodes, at, (from, to), leaves);
        }
    }

    /// The level of this one node gets another rank, or the node joins the level that has it.
    #[inline(never)]
    fn relocate_level(&mut self, nodes: &mut Nodes, at: u32, (from, to): (i64, i64), leaves: u64) {
        let place = nodes.get(at).level;
        let hint = self.levels[place as usize].hint;
        let old = self.rungs.find_near(from, hint);
        let old = old.expect("a level is found by its rank");
        let new = match self.rungs.find_near(to, old as u32) {
            Ok(rung) => {
                self.append_at(nodes, at, Ok(rung), to, leaves);
                self.rungs.remove(old);
                self.free.push(place);
                return;
            }
            Err(new) => self.rungs.change(old, new, Rung { rank: to, place }),
        };
        self.levels[place as usize].hint = new as u32;
    }

    /// Takes the oldest node of the best price out. Cheaper than `remove`; what it showed is
    /// subtracted already, and it hides nothing.
    #[inline]
    pub fn remove_best(&mut self, nodes: &mut Nodes) -> u32 {
        let place = self.rungs.best().expect("there is a best price").place;
        let level = &mut self.levels[place as usize];
        let at = level.head;
        let next = nodes.get(at).next;
        if next == NIL {
            self.rungs.pop();
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
        let place = self.rungs.best().expect("there is a best price").place;
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

    /// Whether rungs and levels fit together.
    pub fn check(&self) -> Result<(), String> {
        let places = self.rungs.iter().map(|rung| rung.place);
        let mut used: Vec<u32> = self.free.iter().copied().chain(places).collect();
        used.sort_unstable();
        let ranked = |rung: &Rung| self.levels[rung.place as usize].rank == rung.rank;
        let each_once = used.iter().copied().eq(0..self.levels.len() as u32);
        if !self.rungs.ascend() || !each_once || !self.rungs.iter().all(ranked) {
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
            assert!(ladder.has(price));
        }
        assert_eq!(
            (ladder.rungs.find(0), ladder.rungs.find(101)),
            (Err(0), Err(100))
        );
        for &node in &at[..99] {
            ladder.remove(&mut nodes, node);
            ladder.check().unwrap();
        }
        assert_eq!(ladder.walk(&nodes).collect::<Vec<_>>(), [at[99]]);
    }

    #[test]
    fn relocated_nodes_stand_as_if_taken_out_and_put_in_again() {
        let (mut ladder, mut nodes) = (Ladder::default(), Nodes::default());
        let (mut plain, mut others) = (Ladder::default(), Nodes::default());
        let at: Vec<u32> = (0..40)
            .map(|id| limit(id, Side::Buy, 1 + (id as i64 * 7) % 30, 5))
            .map(|node| {
                others.add(&node, &Extra::default());
                nodes.add(&node, &Extra::default())
            })
            .collect();
        for &node in &at {
            ladder.append(&mut nodes, node);
            plain.append(&mut others, node);
        }
        for step in 0..2_000_u64 {
            let node = at[(step * step % 37 % 40) as usize];
            let (to, leaves) = (1 + (step * 13 % 47) as i64, 1 + step % 9);
            nodes.get_mut(node).price = to;
            ladder.relocate(&mut nodes, node, to, leaves);
            plain.remove(&mut others, node);
            let other = others.get_mut(node);
            (other.price, other.leaves) = (to, leaves);
            (other.prev, other.next) = (NIL, NIL);
            plain.append(&mut others, node);
            ladder.check().unwrap();
            assert!(ladder.walk(&nodes).eq(plain.walk(&others)));
            let sums = |ladder: &Ladder| -> Vec<_> {
                let levels = ladder.best_first();
                levels
                    .map(|each| (each.rank, each.count, each.shown()))
                    .collect()
            };
            assert_eq!(sums(&ladder), sums(&plain));
        }
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

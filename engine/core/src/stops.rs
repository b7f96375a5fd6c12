//! The stops of one book that wait for their trade: found by price, worked off by age.

use std::collections::{BTreeMap, BTreeSet};

use crate::codes::Side;
use crate::slab::Nodes;

/// Whether a trade at this price triggers a stop.
#[inline]
pub fn satisfied(side: Side, stop_price: i64, traded_price: i64) -> bool {
    match side {
        Side::Buy => traded_price >= stop_price,
        Side::Sell => traded_price <= stop_price,
    }
}

/// Only orders that wait here pay for these indexes.
#[derive(Default)]
pub struct Stops {
    by_entry: BTreeMap<u64, u32>,
    /// Stop price and entry: of bids, then of asks.
    buys: BTreeSet<(i64, u64)>,
    sells: BTreeSet<(i64, u64)>,
    next_entry: u64,
}

impl Stops {
    pub fn len(&self) -> u32 {
        self.by_entry.len() as u32 // OPEN_ORDERS_PER_BOOK_MAX at most
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_entry.is_empty()
    }

    fn prices(&mut self, side: Side) -> &mut BTreeSet<(i64, u64)> {
        match side {
            Side::Buy => &mut self.buys,
            Side::Sell => &mut self.sells,
        }
    }

    /// Files an order as the youngest.
    pub fn append(&mut self, nodes: &mut Nodes, at: u32) {
        let entry = self.next_entry;
        self.next_entry += 1;
        let extra = nodes.extra_mut(at);
        extra.entry = entry;
        let stop_price = extra.stop_price;
        self.by_entry.insert(entry, at);
        self.prices(nodes.get(at).side).insert((stop_price, entry));
    }

    /// Forgets a stop that is filed here.
    pub fn remove(&mut self, nodes: &Nodes, at: u32) {
        let extra = nodes.extra(at);
        self.by_entry.remove(&extra.entry);
        self.prices(nodes.get(at).side)
            .remove(&(extra.stop_price, extra.entry));
    }

    /// Those that trades between these prices trigger, oldest first.
    pub fn triggered(&self, low: i64, high: i64) -> Vec<u32> {
        let buys = self.buys.range(..=(high, u64::MAX));
        let sells = self.sells.range((low, 0)..);
        let mut entries: Vec<u64> = buys.chain(sells).map(|&(_, entry)| entry).collect();
        entries.sort_unstable();
        entries.iter().map(|entry| self.by_entry[entry]).collect()
    }

    /// Their nodes, oldest first.
    pub fn walk(&self) -> impl Iterator<Item = u32> {
        self.by_entry.values().copied()
    }

    /// Walks every invariant.
    pub fn check(&self, nodes: &Nodes, book: u16, last_price: i64) -> Result<(), String> {
        for (&entry, &at) in &self.by_entry {
            let (node, extra) = (nodes.get(at), nodes.extra(at));
            let prices = match node.side {
                Side::Buy => &self.buys,
                Side::Sell => &self.sells,
            };
            let due = last_price > 0 && satisfied(node.side, extra.stop_price, last_price);
            let holds = node.is_stop()
                && node.book == book
                && extra.entry == entry
                && entry < self.next_entry
                && extra.stop_price > 0
                && node.leaves > 0
                && node.leaves <= node.qty
                && !due
                && prices.contains(&(extra.stop_price, entry));
            if !holds {
                return Err(format!("book {book}: stop {} is misplaced", node.order_id));
            }
        }
        if self.buys.len() + self.sells.len() != self.by_entry.len() {
            return Err(format!("book {book}: stop prices that no stop has"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::{Extra, tests::limit};

    fn pending(nodes: &mut Nodes, stops: &mut Stops, id: u64, side: Side, stop_price: i64) -> u32 {
        let node = crate::slab::Node {
            ord_type: crate::codes::OrderType::Stop as u8,
            ..limit(id, side, 0, 5)
        };
        let extra = Extra {
            stop_price,
            ..Extra::default()
        };
        let at = nodes.add(&node, &extra);
        stops.append(nodes, at);
        at
    }

    #[test]
    fn trades_trigger_both_sides_by_their_extremes_and_the_oldest_first() {
        let (mut nodes, mut stops) = (Nodes::default(), Stops::default());
        let sell = pending(&mut nodes, &mut stops, 1, Side::Sell, 90);
        let buy = pending(&mut nodes, &mut stops, 2, Side::Buy, 110);
        let far = pending(&mut nodes, &mut stops, 3, Side::Buy, 111);
        let near = pending(&mut nodes, &mut stops, 4, Side::Buy, 100);
        assert_eq!(stops.triggered(90, 110), [sell, buy, near]);
        assert_eq!(stops.triggered(91, 99), []);
        assert_eq!(stops.triggered(1, 111), [sell, buy, far, near]);
        stops.check(&nodes, 0, 95).unwrap();
        assert!(stops.check(&nodes, 0, 90).is_err());
    }

    #[test]
    fn a_removed_stop_is_not_triggered() {
        let (mut nodes, mut stops) = (Nodes::default(), Stops::default());
        let first = pending(&mut nodes, &mut stops, 1, Side::Buy, 100);
        let second = pending(&mut nodes, &mut stops, 2, Side::Buy, 100);
        stops.remove(&nodes, first);
        nodes.release(first);
        assert_eq!(stops.triggered(100, 100), [second]);
        assert_eq!((stops.len(), stops.walk().count()), (1, 1));
        stops.check(&nodes, 0, 0).unwrap();
    }
}

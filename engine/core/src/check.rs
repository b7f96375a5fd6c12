//! Every invariant that spans more than one book.

use crate::codes::Role;
use crate::market::Market;

impl Market {
    /// Walks every invariant and returns the first that does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.nodes.check()?;
        self.accounts.check(&self.nodes)?;
        self.check_instruments()?;
        self.check_sessions()
    }

    fn check_instruments(&self) -> Result<(), String> {
        let mut open = 0;
        for (at, instrument) in (0..).zip(&self.instruments) {
            let (number, book) = (instrument.number, &instrument.book);
            if self.instrument_ids.get(number) != Some(at) {
                return Err(format!("instrument {number} is not indexed"));
            }
            book.check(&self.nodes, at as u16, instrument.last_price)?;
            for node in book.walk_all(&self.nodes) {
                let id = self.nodes.get(node).order_id;
                if self.order_ids.get(id) != Some(node) {
                    return Err(format!("order {id} is not indexed"));
                }
            }
            let levels = book.bids.len().max(book.asks.len());
            let most = self.bounds.levels_per_side as usize + self.bounds.stops_per_book as usize;
            if book.open() > self.bounds.open_orders_per_book
                || book.stops.len() > self.bounds.stops_per_book
                || book.icebergs() > self.bounds.icebergs_per_book
                || (self.has_bounded_levels && levels > most)
            {
                return Err(format!("instrument {number} is too full"));
            }
            let limits = &instrument.limits;
            if limits.price_min < 1 || limits.price_min > limits.price_max {
                return Err(format!("instrument {number}: its price band"));
            }
            open += book.open();
        }
        if open != self.nodes.open() || open as usize != self.order_ids.len() {
            return Err("the index holds orders that no book has".into());
        }
        if open > self.bounds.open_orders {
            return Err("the shard is too full".into());
        }
        let numbers = self.ascending_instruments().map(|each| each.number);
        if self.ascending.len() != self.instruments.len()
            || !numbers.is_sorted_by(|left, right| left < right)
        {
            return Err("the instruments are not in the order of their numbers".into());
        }
        Ok(())
    }

    fn check_sessions(&self) -> Result<(), String> {
        let mut open = vec![0; self.sessions.len()];
        for node in self.nodes.iter() {
            open[node.session as usize] += 1;
        }
        for (at, session) in (0..).zip(&self.sessions) {
            let number = session.number;
            if self.session_ids.get(number.into()) != Some(at) {
                return Err(format!("session {number} is not indexed"));
            }
            if open[at as usize] != session.open {
                return Err(format!("session {number}: how many orders it has open"));
            }
            if session.options != 0 && session.role != Role::Trade {
                return Err(format!("session {number}: its options"));
            }
        }
        if self.accounts.configured() > self.bounds.accounts {
            return Err("too many accounts have settings".into());
        }
        Ok(())
    }
}

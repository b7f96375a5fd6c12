//! Commands about one order: whether they may, and what they do.

use crate::codes::{
    CommandKind, DISPLAY, EventKind, MIN_QTY, OrderType, POST_ONLY, Reason, Side, TimeInForce,
};
use crate::ids::NIL;
use crate::levels::rank;
use crate::limits::DAY_S;
use crate::market::{Instrument, Market, Sender, refuse, require};
use crate::rules;
use crate::slab::{Extra, Node, marks};
use crate::taker::{Taker, canceled, event_of, rests};
use crate::wire::{Emitter, Event, Events, Record};

impl Market {
    /// NEW.
    #[inline(never)]
    pub(crate) fn new_order_of_any_kind(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        rules: u16,
        out: &mut Events,
    ) -> Result<(), Reason> {
        let well_formed = if rules > 1 {
            rules::new_is_well_formed(command)
        } else {
            rules::new_was_well_formed(command)
        };
        require(well_formed, Reason::BadField)?;
        let (session, at) = self.enter(command, CommandKind::New, sender)?;
        let side = Side::from_number(command.side().into()).ok_or(Reason::BadField)?;
        self.check_new(command, at, side, rules)?;
        self.accounts.accepted(command.account(), self.last_ts_ns);
        let mut taker = self.ordered(command, at, session, side);
        let minimum = if command.tif() == TimeInForce::Fok as u8 {
            command.qty()
        } else if command.flags() & MIN_QTY != 0 {
            u64::from(command.aux() as u32)
        } else {
            0
        };
        let mut events = Emitter::new(out, command, self.last_seq, self.flags(at));
        events.emit(&Event {
            qty: command.qty(),
            leaves: command.qty(),
            contra_leaves: command.aux(),
            ..taker.event(EventKind::Accepted)
        });
        self.execute(at, &mut taker, minimum, &mut events);
        events.finish();
        Ok(())
    }

    fn check_new(
        &self,
        command: Record<'_>,
        at: u32,
        side: Side,
        rules: u16,
    ) -> Result<(), Reason> {
        let instrument = &self.instruments[at as usize];
        let is_stop = command.ord_type() >= OrderType::Stop as u8;
        let is_priced = command.ord_type() & 1 == 0; // limit, stop limit
        self.check_trader(command, instrument)?;
        let known = self.order_ids.get(command.order_id()).is_some();
        require(!known, Reason::DuplicateOrderId)?;
        let limits = &instrument.limits;
        refuse(limits.number_refusal(is_priced, command.price(), command.qty()))?;
        if is_stop {
            refuse(limits.stop_price_refusal(command.aux()))?;
        } else if command.flags() & DISPLAY != 0 {
            refuse(limits.display_refusal(command.aux() as u32, command.qty()))?;
        }
        if rests(command.tif()) {
            let book = &instrument.book;
            let full = book.open() >= self.bounds.open_orders_per_book
                || self.nodes.open() >= self.bounds.open_orders;
            // What meets another order either goes, or removes one and so makes room for itself.
            let stuck = full && (is_stop || !book.crosses(side, Some(command.price())));
            let icebergs_full =
                command.flags() & DISPLAY != 0 && book.icebergs() >= self.bounds.icebergs_per_book;
            require(!stuck && !icebergs_full, Reason::BookFull)?;
            if is_priced && rules > 1 {
                self.check_level(instrument, side, command.price())?;
            }
            let no_stop = is_stop && book.stops.len() >= self.bounds.stops_per_book;
            require(!no_stop, Reason::StopsFull)?;
        }
        self.check_account(command, rests(command.tif()).then_some(None))?;
        if command.flags() & MIN_QTY != 0 {
            refuse(limits.minimum_refusal(command.aux() as u32, command.qty()))?;
        }
        if command.tif() == TimeInForce::Gtd as u8 {
            require(command.aux() >> 32 > self.now_s(), Reason::AlreadyExpired)?;
        }
        let meets = command.flags() & POST_ONLY != 0
            && instrument.book.crosses(side, Some(command.price()));
        require(!meets, Reason::WouldTrade)
    }

    /// Orders that want to trade must be let; what lessens an account's orders always is.
    fn check_trader(&self, command: Record<'_>, instrument: &Instrument) -> Result<(), Reason> {
        require(!instrument.halted, Reason::InstrumentHalted)?;
        let account = self.accounts.get(command.account());
        let killed = account.is_some_and(|account| account.killed);
        require(!killed, Reason::AccountKilled)
    }

    /// Whether an order at this price would not be one price too many.
    fn check_level(&self, instrument: &Instrument, side: Side, price: i64) -> Result<(), Reason> {
        let ladder = instrument.book.ladder(side);
        let full = ladder.len() >= self.bounds.levels_per_side as usize;
        let needs_level = full && !ladder.has(rank(side, price));
        require(!needs_level, Reason::LevelsFull)
    }

    /// Whether the account may have so much open, if the order may stay open - then with what is
    /// left of the order that it replaces - and may send so much in this second.
    fn check_account(&self, command: Record<'_>, stays: Option<Option<u64>>) -> Result<(), Reason> {
        let Some(account) = self.accounts.get(command.account()) else {
            return Ok(());
        };
        if let Some(replaced) = stays {
            refuse(account.open_refusal(command.qty(), replaced))?;
        }
        refuse(account.rate_refusal(self.now_s()))
    }

    fn ordered(&self, command: Record<'_>, at: u32, session: u32, side: Side) -> Taker {
        let mut extra = Extra::default();
        if command.ord_type() >= OrderType::Stop as u8 {
            extra.stop_price = command.aux() as i64; // within the price band
        } else {
            extra.expiry_s = (command.aux() >> 32) as u32;
            if command.flags() & DISPLAY != 0 {
                extra.display = command.aux() as u32;
            }
        }
        if command.tif() == TimeInForce::Day as u8 {
            let day_end_s = self.instruments[at as usize].day_end_s;
            extra.expiry_s = day_ends_s(self.now_s(), day_end_s);
        }
        let node = Node {
            order_id: command.order_id(),
            account: command.account(),
            price: command.price(),
            leaves: command.qty(),
            qty: command.qty(),
            prev: NIL,
            next: NIL,
            extra: NIL,
            level: NIL,
            book: at as u16,         // INSTRUMENTS_MAX bounds it
            session: session as u16, // at most one for each of the 65,536 numbers
            side,
            ord_type: command.ord_type(),
            tif: command.tif(),
            marks: marks(command.flags() & !MIN_QTY, command.stp()), // met or not when it has entered
        };
        Taker::outside(node, extra)
    }

    /// The node of the command's order.
    fn owned(&self, command: Record<'_>, at: u32) -> Result<u32, Reason> {
        let node = self.order_ids.get(command.order_id());
        let node = node.ok_or(Reason::UnknownOrder)?;
        let order = self.nodes.get(node);
        require(u32::from(order.book) == at, Reason::UnknownOrder)?;
        require(order.account == command.account(), Reason::NotOwner)?;
        Ok(node)
    }

    /// CANCEL.
    #[inline(never)]
    pub(crate) fn cancel_of_any_kind(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        require(rules::cancel_is_well_formed(command), Reason::BadField)?;
        let (_, at) = self.enter(command, CommandKind::Cancel, sender)?;
        let node = self.owned(command, at)?;
        let events = Emitter::new(out, command, self.last_seq, self.flags(at));
        events.emit_only(&canceled(self.nodes.get(node), Reason::ByRequest));
        self.close(node);
        Ok(())
    }

    /// REDUCE.
    pub(crate) fn reduce(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        let (_, at) = self.enter(command, CommandKind::Reduce, sender)?;
        let node = self.owned(command, at)?;
        let order = self.nodes.get(node);
        let (leaves, side, account) = (order.leaves, order.side, order.account);
        let is_stop = order.is_stop();
        let instrument = &mut self.instruments[at as usize];
        refuse(instrument.limits.reduction_refusal(leaves, command.qty()))?;
        if is_stop {
            self.nodes.get_mut(node).leaves = command.qty();
        } else {
            let ladder = instrument.book.ladder_mut(side);
            ladder.reduce(&mut self.nodes, node, command.qty());
        }
        self.accounts.lost(account, leaves - command.qty(), false);
        let mut events = Emitter::new(out, command, self.last_seq, self.flags(at));
        events.emit(&Event {
            reason: Reason::ByRequest,
            qty: leaves - command.qty(),
            leaves: command.qty(),
            ..event_of(self.nodes.get(node), EventKind::Reduced)
        });
        events.finish();
        Ok(())
    }

    /// REPLACE: the order goes, and enters again as another.
    #[inline(never)]
    pub(crate) fn replace_of_any_kind(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        require(rules::replace_is_well_formed(command), Reason::BadField)?;
        let (session, at) = self.enter(command, CommandKind::Replace, sender)?;
        let node = self.check_replace(command, at)?;
        self.accounts.accepted(command.account(), self.last_ts_ns);
        let mut taker = self.take_out(node);
        let old_leaves = taker.node.leaves;
        self.rename(node, command.order_id(), command.aux());
        taker.node.order_id = command.aux();
        taker.node.price = command.price();
        taker.node.qty = command.qty();
        taker.node.leaves = command.qty();
        taker.node.session = session as u16;
        let mut events = Emitter::new(out, command, self.last_seq, self.flags(at));
        events.emit(&Event {
            contra_id: command.order_id(),
            qty: command.qty(),
            leaves: command.qty(),
            contra_leaves: old_leaves,
            ..taker.event(EventKind::Replaced)
        });
        self.execute(at, &mut taker, 0, &mut events);
        events.finish();
        Ok(())
    }

    /// The node of the order that may be replaced. The new one takes the room of the old one.
    fn check_replace(&self, command: Record<'_>, at: u32) -> Result<u32, Reason> {
        let instrument = &self.instruments[at as usize];
        self.check_trader(command, instrument)?;
        let taken =
            command.aux() != command.order_id() && self.order_ids.get(command.aux()).is_some();
        require(!taken, Reason::DuplicateOrderId)?;
        let at = self.owned(command, at)?;
        let order = self.nodes.get(at);
        let is_priced = order.ord_type != OrderType::Stop as u8;
        let limits = &instrument.limits;
        refuse(limits.number_refusal(is_priced, command.price(), command.qty()))?;
        let parts = order.is_iceberg()
            && rules::has_too_many_parts(self.nodes.extra(at).display, command.qty());
        require(!parts, Reason::BadDisplayQuantity)?;
        if is_priced {
            self.check_level(instrument, order.side, command.price())?;
        }
        self.check_account(command, Some(Some(order.leaves)))?;
        let meets = order.flags() & POST_ONLY != 0
            && instrument.book.crosses(order.side, Some(command.price()));
        require(!meets, Reason::WouldTrade)?;
        Ok(at)
    }
}

/// When the trading day of this second is over: at the first end of a day after it.
fn day_ends_s(now_s: u64, day_end_s: u32) -> u32 {
    let (day, day_end_s) = (u64::from(DAY_S), u64::from(day_end_s));
    // A day is added first, so that nothing is below zero.
    let days = (now_s + day - day_end_s) / day;
    (days * day + day_end_s).try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_the_first_end_after_its_second() {
        assert_eq!(day_ends_s(0, 0), 86_400);
        assert_eq!(day_ends_s(0, 5), 5);
        assert_eq!(day_ends_s(4, 5), 5);
        assert_eq!(day_ends_s(5, 5), 86_405);
        assert_eq!(day_ends_s(86_399, 0), 86_400);
        assert_eq!(day_ends_s(86_400, 0), 172_800);
        assert_eq!(day_ends_s(u64::MAX / 1_000_000_000, 86_399), u32::MAX);
    }
}

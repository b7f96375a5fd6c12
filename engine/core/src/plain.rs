//! The plain course of things, which nearly all commands take: a trading session, an instrument that
//! is live, accounts without limits, orders that rest without meeting another and are good till
//! canceled. What is found out here, without asking for reasons, is that none speaks against it;
//! what is done is what `orders` and `matching` would do. Everything else is left to them.

use crate::codes::{
    EventKind, FLAG_LIVE, Mode, OrderType, POST_ONLY, Reason, Role, SelfTrade, Side,
};
use crate::ids::NIL;
use crate::levels::{rank, reach};
use crate::limits::RULES;
use crate::market::{Instrument, Market, Sender};
use crate::rules;
use crate::slab::{Node, marks};
use crate::taker::canceled;
use crate::wire::{Emitter, Event, Events, Record};

/// Type and time in force of a plain order, where `Record::codes` has them.
const PLAIN_CODES: u64 = (OrderType::Limit as u64) << 8 | 1 << 16;
/// And what else may be in there: the side, post-only, any mode of self-trade prevention.
const PLAIN_MASK: u64 = !(0xFF | (POST_ONLY as u64) << 24 | 0xFF << 32);

impl Market {
    /// The places of session and instrument.
    #[inline(always)]
    fn plainly_enters(&self, command: Record<'_>, sender: Sender) -> Option<(u32, u32)> {
        let session = sender.session()?;
        let at = self.instrument_ids.get(command.instrument())?;
        let instrument = &self.instruments[at as usize];
        let enters = sender.is_fresh
            && self.sessions[session as usize].role == Role::Trade
            && instrument.mode == Mode::Live
            && instrument.epoch == command.epoch();
        enters.then_some((session, at))
    }

    /// The places of session and instrument for an order that wants to trade.
    #[inline(always)]
    fn plainly_trades(&self, command: Record<'_>, sender: Sender) -> Option<(u32, u32)> {
        let (session, at) = self.plainly_enters(command, sender)?;
        let instrument = &self.instruments[at as usize];
        let trades = !instrument.halted
            && !self.accounts.counting()
            && instrument.limits.fit(command.price(), command.qty());
        trades.then_some((session, at))
    }

    /// Whether an order of this side would meet nothing at its price, for which there is room.
    #[inline(always)]
    fn plainly_rests(&self, instrument: &Instrument, side: Side, price: i64) -> bool {
        let (own, other) = match side {
            Side::Buy => (&instrument.book.bids, &instrument.book.asks),
            Side::Sell => (&instrument.book.asks, &instrument.book.bids),
        };
        own.len() < self.bounds.levels_per_side as usize && !other.meets(reach(side, Some(price)))
    }

    /// NEW.
    #[inline(never)]
    pub(crate) fn new_order(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        rules: u16,
        out: &mut Events,
    ) -> Result<(), Reason> {
        if self.rest_plainly(command, sender, rules, out).is_some() {
            return Ok(());
        }
        self.new_order_of_any_kind(command, sender, rules, out)
    }

    #[inline(always)]
    fn rest_plainly(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        rules: u16,
        out: &mut Events,
    ) -> Option<()> {
        let side = match command.side() {
            1 => Side::Buy,
            2 => Side::Sell,
            _ => return None,
        };
        let plain = command.codes() & PLAIN_MASK == PLAIN_CODES
            && command.stp() <= SelfTrade::Decrement as u8
            && command.aux() == 0
            && rules == RULES;
        let (session, at) = self.plainly_trades(command, sender).filter(|_| plain)?;
        let vacancy = self.order_ids.vacancy(command.order_id())?;
        let instrument = &self.instruments[at as usize];
        let room = instrument.book.open() < self.bounds.open_orders_per_book
            && self.nodes.open() < self.bounds.open_orders;
        if !room || !self.plainly_rests(instrument, side, command.price()) {
            return None;
        }
        let place = self.nodes.add_plain(Node {
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
            marks: marks(command.flags(), command.stp()),
        });
        self.order_ids.fill(vacancy, place);
        self.sessions[session as usize].open += 1;
        let book = &mut self.instruments[at as usize].book;
        book.enter_plain(&mut self.nodes, place, side, command.price(), command.qty());
        let events = Emitter::new(out, command, self.last_seq, FLAG_LIVE);
        events.emit_only(&Event {
            side: command.side(),
            ord_type: command.ord_type(),
            tif: command.tif(),
            order_id: command.order_id(),
            contra_id: command.account(),
            price: command.price(),
            qty: command.qty(),
            leaves: command.qty(),
            ..Event::of(EventKind::Accepted)
        });
        Some(())
    }

    /// REPLACE.
    #[inline(never)]
    pub(crate) fn replace(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        if self.replace_plainly(command, sender, out).is_some() {
            return Ok(());
        }
        self.replace_of_any_kind(command, sender, out)
    }

    #[inline(always)]
    fn replace_plainly(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Option<()> {
        let (session, at) = self.plainly_trades(command, sender)?;
        let new_id = command.aux();
        let renamed = new_id != command.order_id();
        if command.codes() != 0 || (renamed && self.order_ids.get(new_id).is_some()) {
            return None;
        }
        let place = self.order_ids.get(command.order_id())?;
        let order = self.nodes.get_mut(place);
        let side = order.side;
        let instrument = &mut self.instruments[at as usize];
        let book = &mut instrument.book;
        let (own, other) = match side {
            Side::Buy => (&mut book.bids, &book.asks),
            Side::Sell => (&mut book.asks, &book.bids),
        };
        // Icebergs, stops and orders that expire have an extra.
        let plain = order.extra == NIL
            && u32::from(order.book) == at
            && order.account == command.account()
            && own.len() < self.bounds.levels_per_side as usize
            && !other.meets(reach(side, Some(command.price())));
        if !plain {
            return None;
        }
        let events = Emitter::new(out, command, self.last_seq, FLAG_LIVE);
        events.emit_only(&Event {
            side: side as u8,
            ord_type: order.ord_type,
            tif: order.tif,
            order_id: new_id,
            contra_id: command.order_id(),
            price: command.price(),
            qty: command.qty(),
            leaves: command.qty(),
            contra_leaves: order.leaves,
            ..Event::of(EventKind::Replaced)
        });
        let old_session = u32::from(order.session);
        order.session = session as u16;
        order.order_id = new_id;
        order.price = command.price();
        order.qty = command.qty();
        let rank = rank(side, command.price());
        own.relocate(&mut self.nodes, place, rank, command.qty());
        if renamed {
            self.rename(place, command.order_id(), new_id);
        }
        if old_session != session {
            self.sessions[old_session as usize].open -= 1;
            self.sessions[session as usize].open += 1;
        }
        Some(())
    }

    /// CANCEL.
    #[inline(never)]
    pub(crate) fn cancel(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        if self.cancel_plainly(command, sender, out).is_some() {
            return Ok(());
        }
        self.cancel_of_any_kind(command, sender, out)
    }

    #[inline(always)]
    fn cancel_plainly(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Option<()> {
        let (_, at) = self.plainly_enters(command, sender)?;
        let place = self.order_ids.get(command.order_id())?;
        let order = self.nodes.get(place);
        let plain = order.extra == NIL
            && u32::from(order.book) == at
            && order.account == command.account()
            && rules::cancel_is_well_formed(command);
        if !plain {
            return None;
        }
        let events = Emitter::new(out, command, self.last_seq, FLAG_LIVE);
        events.emit_only(&canceled(order, Reason::ByRequest));
        self.close_plain(place);
        Some(())
    }
}

//! What an order does when it enters: it trades with what it meets, the rest stays open or is
//! canceled, and its trades set off stops, which do the same.

use std::collections::VecDeque;

use crate::codes::{EventKind, Reason, SelfTrade, Side};
use crate::ids::NIL;
use crate::levels::reach;
use crate::market::Market;
use crate::reachable::Reachable;
use crate::slab::Node;
use crate::stops::satisfied;
use crate::taker::{Taker, canceled};
use crate::wire::{Emitter, Event};

/// The prices of the first and the last fill of one execution.
type Fills = Option<(i64, i64)>;

impl Market {
    /// Executes a new or replaced order. If less than the minimum can trade at once, it is canceled
    /// whole.
    #[inline(always)]
    pub(crate) fn execute(
        &mut self,
        at: u32,
        taker: &mut Taker,
        minimum: u64,
        events: &mut Emitter<'_>,
    ) {
        if taker.node.is_stop() {
            return self.enter_stop(at, taker, events);
        }
        let fills = self.trade(at, taker, minimum, events);
        if let Some(fills) = fills
            && !self.instruments[at as usize].book.stops.is_empty()
        {
            let mut triggered = VecDeque::new();
            self.set_off(at, taker.node.side, fills, &mut triggered);
            self.work_off(at, triggered, events);
        }
    }

    /// It waits, unless the last trade was what it waits for.
    #[inline(never)]
    fn enter_stop(&mut self, at: u32, taker: &mut Taker, events: &mut Emitter<'_>) {
        let last_price = self.instruments[at as usize].last_price;
        if last_price != 0 && satisfied(taker.node.side, taker.extra.stop_price, last_price) {
            self.work_off(at, VecDeque::from([*taker]), events);
        } else {
            self.open(at, taker);
        }
    }

    /// Triggered stops execute one after the other, in the order in which they were set off:
    /// whatever each of them sets off in turn comes after those that wait already. One of a killed
    /// account is canceled instead.
    #[inline(never)]
    fn work_off(&mut self, at: u32, mut triggered: VecDeque<Taker>, events: &mut Emitter<'_>) {
        while let Some(mut stop) = triggered.pop_front() {
            let account = self.accounts.get(stop.node.account);
            if account.is_some_and(|account| account.killed) {
                events.emit(&stop.canceled(Reason::AccountKilled));
                self.discard(&stop);
                continue;
            }
            events.emit(&Event {
                qty: stop.node.leaves,
                leaves: stop.node.leaves,
                contra_leaves: stop.extra.stop_price as u64, // positive
                ..stop.event(EventKind::Triggered)
            });
            stop.trigger();
            if let Some(fills) = self.trade(at, &mut stop, 0, events) {
                self.set_off(at, stop.node.side, fills, &mut triggered);
            }
        }
    }

    /// Appends the stops that these fills trigger, oldest first; they are not open any more.
    fn set_off(
        &mut self,
        at: u32,
        side: Side,
        (first, last): (i64, i64),
        triggered: &mut VecDeque<Taker>,
    ) {
        // Best price first: it got worse from fill to fill.
        let (low, high) = match side {
            Side::Buy => (first, last),
            Side::Sell => (last, first),
        };
        let stops = &self.instruments[at as usize].book.stops;
        for stop in stops.triggered(low, high) {
            triggered.push_back(self.take_out(stop));
        }
    }

    /// Trades, then opens or cancels what is left.
    #[inline(always)]
    fn trade(
        &mut self,
        at: u32,
        taker: &mut Taker,
        minimum: u64,
        events: &mut Emitter<'_>,
    ) -> Fills {
        if minimum > 0 && !self.reaches(at, taker, minimum) {
            events.emit(&taker.canceled(Reason::Unfilled));
            return None;
        }
        let fills = self.meet_all(at, taker, events);
        if taker.node.leaves > 0 && taker.rests() {
            self.open(at, taker);
            return fills;
        }
        if taker.node.leaves > 0 {
            events.emit(&taker.canceled(Reason::Unfilled));
        }
        self.discard(taker);
        fills
    }

    /// Until nothing is left of the taker, or there is nothing that it meets.
    #[inline(always)]
    fn meet_all(&mut self, at: u32, taker: &mut Taker, events: &mut Emitter<'_>) -> Fills {
        let side = taker.node.side;
        let reach = reach(side, taker.limit());
        let event = taker.event(EventKind::Fill);
        let mut fills = None;
        while taker.node.leaves > 0 {
            let book = &mut self.instruments[at as usize].book;
            let Some(level) = book.ladder_mut(side.opposite()).met(reach) else {
                break;
            };
            let head = level.head;
            let maker = self.nodes.get_mut(head);
            let stp = taker.node.stp() != 0;
            if stp && self.accounts.are_one(taker.node.account, maker.account) {
                self.prevent(at, head, taker, events);
                continue;
            }
            let price = maker.price;
            if maker.extra == NIL && taker.node.leaves < maker.leaves {
                // The usual end of a sweep: a plain order is met and stays.
                let traded = std::mem::take(&mut taker.node.leaves);
                maker.leaves -= traded;
                level.hide(traded);
                let (account, left) = (maker.account, maker.leaves);
                let maker_id = maker.order_id;
                self.accounts.lost(account, traded, false);
                events.emit(&met(&event, maker_id, price, traded, 0, left));
            } else {
                let met = self.take(at, head, taker, &event);
                events.emit(&met);
            }
            let first = fills.map_or(price, |(first, _)| first);
            fills = Some((first, price));
        }
        if let Some((_, last)) = fills {
            self.instruments[at as usize].last_price = last;
        }
        fills
    }

    /// The taker and the order at the head of the best price both lose as much as the smaller one
    /// has; of the maker counts what it displays.
    #[inline]
    fn take(&mut self, at: u32, head: u32, taker: &mut Taker, event: &Event) -> Event {
        let shown = self.nodes.displayed(head);
        let traded = shown.min(taker.node.leaves);
        taker.node.leaves -= traded;
        let side = taker.node.side.opposite();
        let book = &mut self.instruments[at as usize].book;
        let maker = self.nodes.get_mut(head);
        maker.leaves -= traded;
        let &mut Node {
            order_id,
            account,
            price,
            leaves,
            session,
            ..
        } = maker;
        let is_iceberg = maker.is_iceberg();
        if let Some(level) = book.ladder_mut(side).met(i64::MIN) {
            level.hide(traded);
        }
        self.accounts.lost(account, traded, leaves == 0);
        if leaves == 0 {
            book.leave_best(&mut self.nodes, side);
            self.order_ids.remove(order_id);
            self.sessions[session as usize].open -= 1;
            self.nodes.release(head);
        } else if is_iceberg {
            self.nodes.extra_mut(head).displayed = shown - traded;
            if shown == traded {
                book.ladder_mut(side).refill_best(&mut self.nodes);
            }
        }
        met(event, order_id, price, traded, taker.node.leaves, leaves)
    }

    /// The taker must not trade with the order that it meets: what happens instead is as the taker
    /// has it.
    #[inline(never)]
    fn prevent(&mut self, at: u32, head: u32, taker: &mut Taker, events: &mut Emitter<'_>) {
        use SelfTrade::{CancelBoth, CancelMaker, CancelTaker, Decrement};
        let mode = SelfTrade::from_number(taker.node.stp().into());
        if mode == Some(Decrement) {
            let event = taker.event(EventKind::Prevented);
            let met = self.take(at, head, taker, &event);
            events.emit(&met);
            return;
        }
        if matches!(mode, Some(CancelMaker | CancelBoth)) {
            events.emit(&canceled(self.nodes.get(head), Reason::SelfTrade));
            self.close(head);
        }
        if matches!(mode, Some(CancelTaker | CancelBoth)) {
            events.emit(&taker.canceled(Reason::SelfTrade));
            taker.node.leaves = 0;
        }
    }

    /// Whether at least so much could trade at once.
    #[inline(never)]
    fn reaches(&self, at: u32, taker: &Taker, minimum: u64) -> bool {
        let reachable = Reachable {
            book: &self.instruments[at as usize].book,
            nodes: &self.nodes,
            accounts: &self.accounts,
            taker,
            enough: minimum.into(),
        };
        reachable.is_enough()
    }
}

/// FILL or PREVENTED, after both have become smaller.
#[inline]
fn met(
    event: &Event,
    maker_id: u64,
    price: i64,
    qty: u64,
    leaves: u64,
    maker_leaves: u64,
) -> Event {
    Event {
        contra_id: maker_id,
        price,
        qty,
        leaves,
        contra_leaves: maker_leaves,
        ..*event
    }
}

//! What an order does when it enters: it trades with what it meets, the rest stays open or is
//! canceled, and its trades set off stops, which do the same.

use std::collections::VecDeque;

use crate::accounts::Accounts;
use crate::book::Book;
use crate::codes::{EventKind, OrderType, Reason, SelfTrade, Side, TimeInForce};
use crate::ids::NIL;
use crate::levels::reach;
use crate::market::Market;
use crate::slab::{Extra, Node, Nodes};
use crate::stops::satisfied;
use crate::wire::{Emitter, Event};

/// An order that is in no queue and no index at the moment.
#[derive(Clone, Copy)]
pub(crate) struct Taker {
    /// `prev`, `next`, `extra` and `level` mean nothing.
    pub(crate) node: Node,
    pub(crate) extra: Extra,
    /// The node that is kept for it, under its id; NIL for none.
    place: u32,
}

impl Taker {
    /// An order without a node and an entry under its id.
    #[inline]
    pub(crate) fn outside(node: Node, extra: Extra) -> Self {
        Self {
            node,
            extra,
            place: NIL,
        }
    }

    /// None: any price will do.
    #[inline]
    fn limit(&self) -> Option<i64> {
        (self.node.ord_type != OrderType::Market as u8).then_some(self.node.price)
    }

    /// Whether what does not trade at once stays open.
    #[inline]
    fn rests(&self) -> bool {
        rests(self.node.tif)
    }

    /// What all its events say.
    #[inline]
    pub(crate) fn event(&self, kind: EventKind) -> Event {
        event_of(&self.node, kind)
    }

    fn canceled(&self, reason: Reason) -> Event {
        canceled(&self.node, reason)
    }

    /// From now on it is no stop.
    fn trigger(&mut self) {
        self.extra.stop_price = 0;
        self.extra.entry = 0;
        if self.node.ord_type == OrderType::Stop as u8 {
            self.node.ord_type = OrderType::Market as u8;
            self.node.tif = TimeInForce::Ioc as u8;
        } else {
            self.node.ord_type = OrderType::Limit as u8;
        }
    }
}

/// Whether an order of this time in force may stay open.
#[inline]
pub(crate) fn rests(tif: u8) -> bool {
    tif != TimeInForce::Ioc as u8 && tif != TimeInForce::Fok as u8
}

/// What all events of one order say.
#[inline]
pub(crate) fn event_of(node: &Node, kind: EventKind) -> Event {
    Event {
        side: node.side as u8,
        ord_type: node.ord_type,
        tif: node.tif,
        order_id: node.order_id,
        contra_id: node.account,
        price: node.price,
        ..Event::of(kind)
    }
}

/// All that is left of it is gone.
#[inline]
pub(crate) fn canceled(node: &Node, reason: Reason) -> Event {
    Event {
        reason,
        qty: node.leaves,
        ..event_of(node, EventKind::Canceled)
    }
}

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

    // --- open orders: the only functions by which they come, and go otherwise than by trading

    /// An order begins to rest or to wait.
    #[inline(always)]
    pub(crate) fn open(&mut self, at: u32, order: &mut Taker) {
        if order.node.is_iceberg() {
            order.extra.displayed = order.node.leaves.min(order.extra.display.into());
        }
        self.open_as_it_is(at, order);
    }

    /// An order is open as it was, with what it displays.
    #[inline(always)]
    pub(crate) fn open_as_it_is(&mut self, at: u32, order: &Taker) {
        let mut place = order.place;
        if place == NIL {
            place = self.nodes.add(&order.node, &order.extra);
            self.order_ids.insert(order.node.order_id, place);
        } else {
            self.nodes.put(place, &order.node, &order.extra);
        }
        self.instruments[at as usize]
            .book
            .enter(&mut self.nodes, place);
        self.sessions[order.node.session as usize].open += 1;
        self.accounts.opened(order.node.account, order.node.leaves);
    }

    /// An open order is in no queue and no index any more, but its node is kept for it.
    #[inline(always)]
    pub(crate) fn take_out(&mut self, at: u32) -> Taker {
        self.leave(at);
        Taker {
            node: *self.nodes.get(at),
            extra: self.nodes.extra(at),
            place: at,
        }
    }

    /// No node is kept for an order any more.
    #[inline(always)]
    fn discard(&mut self, order: &Taker) {
        if order.place != NIL {
            self.order_ids.remove(order.node.order_id);
            self.nodes.release(order.place);
        }
    }

    /// The node that is kept for an order goes under another id.
    #[inline(always)]
    pub(crate) fn rename(&mut self, at: u32, order_id: u64, new_id: u64) {
        if order_id != new_id {
            self.order_ids.remove(order_id);
            self.order_ids.insert(new_id, at);
        }
    }

    /// An open order is open no more.
    #[inline(always)]
    pub(crate) fn close(&mut self, at: u32) {
        self.leave(at);
        self.order_ids.remove(self.nodes.get(at).order_id);
        self.nodes.release(at);
    }

    /// An open order that rests and has no extra is open no more; accounts may be counted.
    #[inline(always)]
    pub(crate) fn close_plain(&mut self, at: u32) {
        let &Node {
            order_id,
            account,
            leaves,
            book,
            session,
            side,
            ..
        } = self.nodes.get(at);
        self.sessions[session as usize].open -= 1;
        let book = &mut self.instruments[book as usize].book;
        book.leave_plain(&mut self.nodes, at, side, leaves);
        self.order_ids.remove(order_id);
        self.accounts.lost(account, leaves, true);
        self.nodes.release_plain(at);
    }

    #[inline(always)]
    fn leave(&mut self, at: u32) {
        let node = self.nodes.get(at);
        let (account, leaves) = (node.account, node.leaves);
        self.sessions[node.session as usize].open -= 1;
        self.instruments[node.book as usize]
            .book
            .leave(&mut self.nodes, at);
        self.accounts.lost(account, leaves, true);
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

/// What a taker would get within its limit. Quantity behind an order that ends its matching, or
/// takes from it without a trade, is not counted.
struct Reachable<'a> {
    book: &'a Book,
    nodes: &'a Nodes,
    accounts: &'a Accounts,
    taker: &'a Taker,
    enough: u128,
}

impl Reachable<'_> {
    fn is_enough(&self) -> bool {
        let side = self.taker.node.side;
        let reach = reach(side, self.taker.limit());
        let ladder = self.book.ladder(side.opposite());
        let within = ladder.best_first().take_while(|level| level.rank >= reach);
        let stp = self.taker.node.stp();
        if stp == SelfTrade::None as u8 {
            let mut reachable: u128 = ladder.hidden.range(reach..).map(|(_, &qty)| qty).sum();
            return reachable >= self.enough
                || within.into_iter().any(|level| {
                    reachable += level.shown();
                    reachable >= self.enough
                });
        }
        let skips_own = stp == SelfTrade::CancelMaker as u8;
        let mut reachable = 0;
        for level in within {
            let (mut shown, mut leaves) = (0, 0);
            for at in ladder.queue(self.nodes, level) {
                let maker = self.nodes.get(at);
                if self.is_own(maker) {
                    if skips_own {
                        continue;
                    }
                    // What icebergs ahead of the own order hide would come back behind it.
                    return reachable + shown >= self.enough;
                }
                shown += u128::from(self.nodes.displayed(at));
                leaves += u128::from(maker.leaves);
                if reachable + shown >= self.enough {
                    return true;
                }
            }
            reachable += leaves;
            if reachable >= self.enough {
                return true;
            }
        }
        false
    }

    fn is_own(&self, maker: &Node) -> bool {
        self.accounts
            .are_one(self.taker.node.account, maker.account)
    }
}

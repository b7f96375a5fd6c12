//! What a market is, as others see it.

use crate::accounts::Account;
use crate::book::Book;
use crate::codes::{Mode, Role, Side};
use crate::levels::rank;
use crate::market::{Instrument, Market, Session};
use crate::wire::{OrderState, name_text};

/// A session as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SessionState {
    pub number: u16,
    pub name: String,
    pub role: Role,
    pub options: u8,
    pub last_ref: u64,
}

/// An instrument as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct InstrumentState {
    pub number: u32,
    pub name: String,
    pub mode: Mode,
    pub epoch: u32,
    /// Resting.
    pub open_orders: u32,
    pub price_max: i64,
    pub qty_max: u64,
    pub price_min: i64,
    pub tick: u64,
    pub lot: u64,
    pub notional_max: u64,
    pub day_end_s: u32,
    pub halted: bool,
    pub last_price: i64,
    pub pending_stops: u32,
}

impl Market {
    /// Ascending by number.
    pub fn sessions(&self) -> Vec<SessionState> {
        let state = |each: &Session| SessionState {
            number: each.number,
            name: text(&each.name),
            role: each.role,
            options: each.options,
            last_ref: each.last_ref,
        };
        let mut states: Vec<_> = self.sessions.iter().map(state).collect();
        states.sort_unstable_by_key(|each| each.number);
        states
    }

    /// Ascending by number.
    pub fn instruments(&self) -> Vec<InstrumentState> {
        let state = |each: &Instrument| InstrumentState {
            number: each.number,
            name: text(&each.name),
            mode: each.mode,
            epoch: each.epoch,
            open_orders: each.book.resting(),
            price_max: each.limits.price_max,
            qty_max: each.limits.qty_max,
            price_min: each.limits.price_min,
            tick: each.limits.tick,
            lot: each.limits.lot,
            notional_max: each.limits.notional_max,
            day_end_s: each.day_end_s,
            halted: each.halted,
            last_price: each.last_price,
            pending_stops: each.book.stops.len(),
        };
        self.ascending_instruments().map(state).collect()
    }

    pub(crate) fn ascending_instruments(&self) -> impl Iterator<Item = &Instrument> {
        self.ascending
            .iter()
            .map(|&at| &self.instruments[at as usize])
    }

    /// Those with limits, a group or a kill switch of their own, ascending by number.
    pub fn accounts(&self) -> Vec<Account> {
        self.accounts.ascending()
    }

    /// Any account; while none has anything of its own, what it has open is counted now.
    pub fn account(&self, account: u64) -> Account {
        self.accounts.state(account, &self.nodes)
    }

    /// When the next order's time has come, in instruments that are not closed.
    pub fn next_expiry_ns(&self) -> Option<u64> {
        let open = self
            .instruments
            .iter()
            .filter(|each| each.mode != Mode::Closed);
        let next = open.filter_map(|each| each.book.expiries.first());
        next.map(|&(second, ..)| u64::from(second) * 1_000_000_000)
            .min()
    }

    fn book(&self, instrument: u32) -> Option<&Book> {
        let at = self.instrument_ids.get(instrument)?;
        Some(&self.instruments[at as usize].book)
    }

    /// The resting orders of an instrument, 48 bytes each: bids, then asks, best price first, then
    /// oldest first. None, here and below: there is no such instrument.
    pub fn orders(&self, instrument: u32) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for at in self.book(instrument)?.walk(&self.nodes) {
            let node = self.nodes.get(at);
            for number in [node.order_id, node.account, node.price as u64] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            for number in [node.leaves, node.qty, node.side as u64] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        Some(out)
    }

    /// Its stops that wait, 72 bytes each, oldest first.
    pub fn stops(&self, instrument: u32) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for at in self.book(instrument)?.stops.walk() {
            self.order_state(at).write(&mut out);
        }
        Some(out)
    }

    /// Its best prices, so many a side at most, with what is displayed there, 32 bytes each: bids,
    /// then asks, best first.
    pub fn depth(&self, instrument: u32, levels: usize) -> Option<Vec<u8>> {
        let book = self.book(instrument)?;
        let mut out = Vec::new();
        for side in [Side::Buy, Side::Sell] {
            for level in book.ladder(side).best_first().take(levels) {
                let price = rank(side, level.rank) as u64; // ranking twice gives the price
                let shown = u64::try_from(level.shown()).unwrap_or(u64::MAX);
                for number in [side as u64, price, shown, level.count.into()] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        Some(out)
    }

    /// Its best orders, so many a side at most, with what they display, 32 bytes each: bids, then
    /// asks, best price first, then oldest first.
    pub fn displayed_orders(&self, instrument: u32, count: usize) -> Option<Vec<u8>> {
        let book = self.book(instrument)?;
        let mut out = Vec::new();
        for side in [Side::Buy, Side::Sell] {
            for at in book.ladder(side).walk(&self.nodes).take(count) {
                let node = self.nodes.get(at);
                let shown = self.nodes.displayed(at);
                for number in [node.order_id, node.price as u64, shown, side as u64] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        Some(out)
    }

    /// All of one open order.
    pub(crate) fn order_state(&self, at: u32) -> OrderState {
        let (node, extra) = (self.nodes.get(at), self.nodes.extra(at));
        OrderState {
            order_id: node.order_id,
            account: node.account,
            price: node.price,
            leaves: node.leaves,
            qty: node.qty,
            displayed: self.nodes.displayed(at),
            stop_price: extra.stop_price,
            expiry_s: extra.expiry_s,
            display: extra.display,
            session: self.sessions[node.session as usize].number,
            side: node.side as u8,
            ord_type: node.ord_type,
            tif: node.tif,
            flags: node.flags(),
            stp: node.stp(),
        }
    }
}

/// Names are checked before they are kept.
fn text(padded: &[u8]) -> String {
    name_text(padded).unwrap_or_default().to_owned()
}

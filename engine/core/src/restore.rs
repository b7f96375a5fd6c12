//! Reading a snapshot. Refuses whatever no market could have written.

use std::collections::BTreeSet;

use crate::accounts::Account;
use crate::codes::{DISPLAY, OrderType, POST_ONLY, Side, TimeInForce};
use crate::ids::NIL;
use crate::limits;
use crate::market::Market;
use crate::slab::{Extra, Node, marks};
use crate::snapshot::MAGIC;
use crate::state_records::{
    Reader, SnapshotError, error, read_accounts, read_instrument, read_order, read_session, require,
};
use crate::stops::satisfied;
use crate::taker::{Taker, rests};
use crate::wire::{OrderState, part};

impl Market {
    /// A market in the state of a snapshot.
    pub fn restore(snapshot: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader { left: snapshot };
        let header = reader.take::<40>("the header")?;
        require(header[..8] == *MAGIC, || "it does not begin with RSWSNAP2")?;
        require(
            header[36..] == [0; 4],
            || "the padding of its header is not zero",
        )?;
        let mut market = Self {
            last_seq: u64::from_le_bytes(part(header, 8)),
            last_ts_ns: u64::from_le_bytes(part(header, 16)),
            has_bounded_levels: false,
            ..Self::default()
        };
        let sessions = u32::from_le_bytes(part(header, 24));
        let instruments = u32::from_le_bytes(part(header, 28));
        let accounts = u32::from_le_bytes(part(header, 32));
        require(
            instruments <= limits::INSTRUMENTS_MAX,
            || "it counts too many instruments",
        )?;
        require(
            accounts <= limits::ACCOUNTS_MAX,
            || "it counts too many accounts",
        )?;
        market.restore_sessions(&mut reader, sessions)?;
        let accounts = read_accounts(&mut reader, accounts, market.now_s())?;
        let mut names = BTreeSet::new();
        for _ in 0..instruments {
            let (instrument, orders, stops) = read_instrument(&mut reader)?;
            let last = market.instruments.last();
            let ascends = last.is_none_or(|each| each.number < instrument.number);
            require(ascends, || "its instruments don't ascend")?;
            require(
                names.insert(instrument.name),
                || "two instruments have one name",
            )?;
            let at = market.add_instrument(instrument);
            market.restore_orders(&mut reader, at, orders)?;
            market.restore_stops(&mut reader, at, stops)?;
        }
        let left = reader.left.len();
        require(left == 0, || format!("{left} bytes follow its end"))?;
        for read in accounts {
            market
                .accounts
                .configure(read.account, &market.nodes, |account| {
                    *account = Account {
                        open_orders: account.open_orders,
                        open_qty: account.open_qty,
                        ..read
                    };
                });
        }
        Ok(market)
    }

    fn restore_sessions(
        &mut self,
        reader: &mut Reader<'_>,
        count: u32,
    ) -> Result<(), SnapshotError> {
        let mut names = BTreeSet::new();
        for _ in 0..count {
            let session = read_session(reader)?;
            let last = self.sessions.last();
            let ascends = last.is_none_or(|each| each.number < session.number);
            require(ascends, || "its sessions don't ascend")?;
            require(names.insert(session.name), || "two sessions have one name")?;
            self.add_session(session);
        }
        Ok(())
    }

    fn restore_orders(
        &mut self,
        reader: &mut Reader<'_>,
        at: u32,
        count: u32,
    ) -> Result<(), SnapshotError> {
        let number = self.instruments[at as usize].number;
        let mut last: Option<(Side, i64)> = None;
        for _ in 0..count {
            let (order, side) = read_order(reader)?;
            let what = |problem: &str| format!("order {}: {problem}", order.order_id);
            let is_limit = order.ord_type == OrderType::Limit as u8;
            require(is_limit, || what("it rests and is no limit order"))?;
            let is_stop = order.stop_price != 0;
            require(!is_stop, || what("it rests and has a stop price"))?;
            let tif = TimeInForce::from_number(order.tif.into());
            let may_rest = tif.is_some() && rests(order.tif);
            require(may_rest, || what("its time in force"))?;
            let flags = order.flags & !(POST_ONLY | DISPLAY);
            require(flags == 0, || what("its flags"))?;
            require(order.price > 0, || what("its price is not positive"))?;
            let in_place = last.is_none_or(|last| ranks(last, (side, order.price)));
            require(in_place, || {
                format!("the orders of instrument {number} are not in their priority")
            })?;
            let book = &self.instruments[at as usize].book;
            let crosses = book.crosses(side, Some(order.price));
            require(!crosses, || {
                format!("the book of instrument {number} is crossed")
            })?;
            last = Some((side, order.price));
            self.restore_order(at, &order, side)?;
        }
        let icebergs = self.instruments[at as usize].book.icebergs();
        require(icebergs <= limits::ICEBERGS_PER_BOOK_MAX, || {
            format!("instrument {number} has too many icebergs")
        })?;
        Ok(())
    }

    fn restore_stops(
        &mut self,
        reader: &mut Reader<'_>,
        at: u32,
        count: u32,
    ) -> Result<(), SnapshotError> {
        for _ in 0..count {
            let (stop, side) = read_order(reader)?;
            let what = |problem: &str| format!("stop {}: {problem}", stop.order_id);
            let good_price = match OrderType::from_number(stop.ord_type.into()) {
                Some(OrderType::Stop) => stop.price == 0,
                Some(OrderType::StopLimit) => stop.price > 0,
                _ => false,
            };
            require(good_price, || what("its type, or its price"))?;
            let tif = TimeInForce::from_number(stop.tif.into());
            let may_wait = matches!(tif, Some(TimeInForce::Day | TimeInForce::Gtc));
            require(may_wait, || what("its time in force"))?;
            require(stop.flags == 0, || what("its flags"))?;
            let has_stop_price = stop.stop_price > 0;
            require(has_stop_price, || what("its stop price is not positive"))?;
            let last_price = self.instruments[at as usize].last_price;
            let due = last_price > 0 && satisfied(side, stop.stop_price, last_price);
            require(!due, || what("it waits for what has been traded"))?;
            self.restore_order(at, &stop, side)?;
        }
        Ok(())
    }

    fn restore_order(
        &mut self,
        at: u32,
        order: &OrderState,
        side: Side,
    ) -> Result<(), SnapshotError> {
        let id = order.order_id;
        let known = self.order_ids.get(id).is_some();
        require(!known, || format!("two open orders have the id {id}"))?;
        require(
            self.nodes.open() < limits::OPEN_ORDERS_MAX,
            || "it holds too many open orders",
        )?;
        let session = self
            .session_ids
            .get(order.session.into())
            .ok_or_else(|| error(format!("order {id}: its session is unknown")))?;
        let is_iceberg = order.flags & DISPLAY != 0;
        let extra = Extra {
            displayed: if is_iceberg { order.displayed } else { 0 },
            stop_price: order.stop_price,
            entry: 0,
            expiry_s: order.expiry_s,
            display: order.display,
        };
        let node = Node {
            order_id: id,
            account: order.account,
            price: order.price,
            leaves: order.leaves,
            qty: order.qty,
            prev: NIL,
            next: NIL,
            extra: NIL,
            level: NIL,
            book: at as u16,         // INSTRUMENTS_MAX bounds it
            session: session as u16, // at most one for each of the 65,536 numbers
            side,
            ord_type: order.ord_type,
            tif: order.tif,
            marks: marks(order.flags, order.stp),
        };
        self.open_as_it_is(at, &Taker::outside(node, extra));
        Ok(())
    }
}

/// Whether the two may stand next to each other in this order.
fn ranks((left_side, left): (Side, i64), (right_side, right): (Side, i64)) -> bool {
    match (left_side, right_side) {
        (Side::Buy, Side::Buy) => left >= right,
        (Side::Sell, Side::Sell) => left <= right,
        (Side::Buy, Side::Sell) => true,
        (Side::Sell, Side::Buy) => false,
    }
}

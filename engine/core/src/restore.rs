//! Reading a snapshot. Refuses whatever no market could have written.

use std::collections::BTreeSet;

use crate::accounts::Account;
use crate::book::Book;
use crate::codes::{DISPLAY, Mode, OrderType, POST_ONLY, Role, SelfTrade, Side, TimeInForce};
use crate::ids::NIL;
use crate::limits;
use crate::market::{Instrument, Market, Session};
use crate::matching::{Taker, rests};
use crate::rules::OrderLimits;
use crate::slab::{Extra, Node, marks};
use crate::snapshot::MAGIC;
use crate::stops::satisfied;
use crate::wire::{OrderState, STATE_BYTES, name_text, part};

const SESSION_BYTES: usize = 48;
const ACCOUNT_BYTES: usize = 56;
const INSTRUMENT_BYTES: usize = 104;

/// What makes bytes no snapshot, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotError(String);

impl std::fmt::Display for SnapshotError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for SnapshotError {}

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

/// What holds for orders that rest and for stops.
fn read_order(reader: &mut Reader<'_>) -> Result<(OrderState, Side), SnapshotError> {
    let record = reader.take::<STATE_BYTES>("an order")?;
    let order =
        OrderState::read(record).ok_or_else(|| error("the padding of an order is not zero"))?;
    let what = |problem: &str| format!("order {}: {problem}", order.order_id);
    let side = Side::from_number(order.side.into()).ok_or_else(|| error(what("it has no side")))?;
    let stp = SelfTrade::from_number(order.stp.into());
    require(stp.is_some(), || what("its self-trade prevention"))?;
    let leaves = 1..=order.qty;
    require(leaves.contains(&order.leaves), || what("its leaves"))?;
    let stays = order.tif == TimeInForce::Gtc as u8;
    require((order.expiry_s == 0) == stays, || what("its expiry"))?;
    let is_iceberg = order.flags & DISPLAY != 0;
    let has_display = order.display > 0;
    require(is_iceberg == has_display, || what("its display quantity"))?;
    let shows = if is_iceberg {
        let most = order.leaves.min(order.display.into());
        (1..=most).contains(&order.displayed)
    } else {
        order.displayed == order.leaves
    };
    require(shows, || what("what it displays"))?;
    Ok((order, side))
}

fn read_session(reader: &mut Reader<'_>) -> Result<Session, SnapshotError> {
    let record = reader.take::<SESSION_BYTES>("a session")?;
    let number = u16::from_le_bytes(part(record, 0));
    let what = |problem: &str| format!("session {number}: {problem}");
    let role =
        Role::from_number(record[2].into()).ok_or_else(|| error(what("it has an unknown role")))?;
    let options = record[3];
    let may = options == 0 || (options == 1 && role == Role::Trade);
    require(may, || what("it has options that its role can't have"))?;
    require(record[4..8] == [0; 4], || what("its padding is not zero"))?;
    let name: [u8; 32] = part(record, 16);
    require(name_text(&name).is_some(), || what("its name"))?;
    Ok(Session {
        last_ref: u64::from_le_bytes(part(record, 8)),
        number,
        role,
        options,
        open: 0,
        name,
    })
}

fn read_accounts(
    reader: &mut Reader<'_>,
    count: u32,
    now_s: u64,
) -> Result<Vec<Account>, SnapshotError> {
    let mut accounts: Vec<Account> = Vec::new();
    for _ in 0..count {
        let account = read_account(reader, now_s)?;
        let last = accounts.last();
        let ascends = last.is_none_or(|each| each.account < account.account);
        require(ascends, || "its accounts don't ascend")?;
        accounts.push(account);
    }
    Ok(accounts)
}

fn read_account(reader: &mut Reader<'_>, now_s: u64) -> Result<Account, SnapshotError> {
    let record = reader.take::<ACCOUNT_BYTES>("an account")?;
    let number = |at| u64::from_le_bytes(part(record, at));
    let account = Account {
        account: number(0),
        group: number(8),
        open_orders_max: number(16),
        open_qty_max: number(24),
        rate_max: number(32),
        rate_second: number(40),
        rate_count: u32::from_le_bytes(part(record, 48)),
        killed: record[52] == 1,
        open_orders: 0,
        open_qty: 0,
    };
    let what = |problem: &str| format!("account {}: {problem}", account.account);
    require(record[52] <= 1, || what("its kill switch"))?;
    require(record[53..] == [0; 3], || what("its padding is not zero"))?;
    require(account.is_configured(), || what("it has no settings"))?;
    let rate = account.rate_max <= i64::MAX as u64;
    require(rate, || what("its rate is too high"))?;
    let counts = account.rate_max != 0 && account.rate_count != 0;
    let counted = account.rate_second != 0 || account.rate_count != 0;
    require(counts || !counted, || what("it counts without a limit"))?;
    let past = account.rate_second <= now_s;
    require(past, || what("it has counted in the future"))?;
    Ok(account)
}

/// The instrument, and how many orders and stops follow it.
fn read_instrument(reader: &mut Reader<'_>) -> Result<(Instrument, u32, u32), SnapshotError> {
    let record = reader.take::<INSTRUMENT_BYTES>("an instrument")?;
    let short = |at| u32::from_le_bytes(part(record, at));
    let long = |at| u64::from_le_bytes(part(record, at));
    let number = short(0);
    let what = |problem: &str| format!("instrument {number}: {problem}");
    let mode =
        Mode::from_number(short(4).into()).ok_or_else(|| error(what("it has an unknown mode")))?;
    let (orders, stops, day_end_s, halted) = (short(12), short(16), short(20), record[24]);
    require(halted <= 1, || what("it is neither halted nor open"))?;
    require(record[25..32] == [0; 7], || what("its padding is not zero"))?;
    require(day_end_s < limits::DAY_S, || {
        what("its day ends after it is over")
    })?;
    let name: [u8; 16] = part(record, 32);
    require(name_text(&name).is_some(), || what("its name"))?;
    let limits = OrderLimits {
        price_min: long(48) as i64,
        price_max: long(56) as i64,
        qty_max: long(64),
        tick: long(72),
        lot: long(80),
        notional_max: long(88),
    };
    let last_price = long(96) as i64;
    let band = 1..=limits.price_max;
    require(limits.price_max > 0, || {
        what("its highest price is not positive")
    })?;
    require(band.contains(&limits.price_min), || {
        what("its lowest price is not in its band")
    })?;
    require(limits.qty_max > 0, || what("its largest quantity is zero"))?;
    let multiples = limits.tick > 0 && limits.lot > 0;
    require(multiples, || what("its tick or lot is zero"))?;
    let notional = limits.notional_max <= i64::MAX as u64;
    require(notional, || what("its notional is too large"))?;
    require(last_price >= 0, || what("its last price is negative"))?;
    let open = u64::from(orders) + u64::from(stops);
    let fits = open <= limits::OPEN_ORDERS_PER_BOOK_MAX.into();
    require(fits, || what("it has too many open orders"))?;
    let waits = stops <= limits::STOPS_PER_BOOK_MAX;
    require(waits, || what("it has too many stops"))?;
    let instrument = Instrument {
        number,
        epoch: short(8),
        mode,
        halted: halted == 1,
        limits,
        last_price,
        book: Book::default(),
        day_end_s,
        name,
    };
    Ok((instrument, orders, stops))
}

struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self, what: &str) -> Result<&'a [u8; N], SnapshotError> {
        let (record, left) = self
            .left
            .split_first_chunk()
            .ok_or_else(|| error(format!("it ends inside {what}")))?;
        self.left = left;
        Ok(record)
    }
}

fn require<P: Into<String>>(holds: bool, problem: impl FnOnce() -> P) -> Result<(), SnapshotError> {
    if holds { Ok(()) } else { Err(error(problem())) }
}

fn error(problem: impl Into<String>) -> SnapshotError {
    SnapshotError(problem.into())
}

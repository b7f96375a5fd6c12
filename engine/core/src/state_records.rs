//! The records of a snapshot, each refused where no market could have written it.

use crate::accounts::Account;
use crate::book::Book;
use crate::codes::{DISPLAY, Mode, Role, SelfTrade, Side, TimeInForce};
use crate::limits;
use crate::market::{Instrument, Session};
use crate::rules::OrderLimits;
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

/// What holds for orders that rest and for stops.
pub(crate) fn read_order(reader: &mut Reader<'_>) -> Result<(OrderState, Side), SnapshotError> {
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

pub(crate) fn read_session(reader: &mut Reader<'_>) -> Result<Session, SnapshotError> {
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

pub(crate) fn read_accounts(
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

pub(crate) fn read_account(reader: &mut Reader<'_>, now_s: u64) -> Result<Account, SnapshotError> {
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
pub(crate) fn read_instrument(
    reader: &mut Reader<'_>,
) -> Result<(Instrument, u32, u32), SnapshotError> {
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

pub(crate) struct Reader<'a> {
    pub(crate) left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(
        &mut self,
        what: &str,
    ) -> Result<&'a [u8; N], SnapshotError> {
        let (record, left) = self
            .left
            .split_first_chunk()
            .ok_or_else(|| error(format!("it ends inside {what}")))?;
        self.left = left;
        Ok(record)
    }
}

pub(crate) fn require<P: Into<String>>(
    holds: bool,
    problem: impl FnOnce() -> P,
) -> Result<(), SnapshotError> {
    if holds { Ok(()) } else { Err(error(problem())) }
}

pub(crate) fn error(problem: impl Into<String>) -> SnapshotError {
    SnapshotError(problem.into())
}

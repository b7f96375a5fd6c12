//! The state of a market as canonical bytes; `engine/snapshot.py` describes them.

use std::collections::BTreeSet;

use crate::codes::{Mode, Role, Side};
use crate::limits;
use crate::market::{Instrument, Market, Session};
use crate::wire::{ORDER_BYTES, OrderRecord, name_text, part};

const MAGIC: &[u8; 8] = b"RSWSNAP1";

/// What makes bytes no snapshot, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotError(String);

impl std::fmt::Display for SnapshotError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for SnapshotError {}

/// A session as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SessionState {
    pub number: u16,
    pub name: String,
    pub role: Role,
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
    pub open_orders: u32,
    pub price_max: i64,
    pub qty_max: u64,
}

impl Market {
    /// Ascending by number.
    pub fn sessions(&self) -> Vec<SessionState> {
        let state = |each: &Session| SessionState {
            number: each.number,
            name: text(&each.name),
            role: each.role,
            last_ref: each.last_ref,
        };
        let mut states: Vec<_> = self.sessions.iter().map(state).collect();
        states.sort_unstable_by_key(|each| each.number);
        states
    }

    /// Ascending by number.
    pub fn instruments(&self) -> Vec<InstrumentState> {
        let state = |each: &&Instrument| InstrumentState {
            number: each.number,
            name: text(&each.name),
            mode: each.mode,
            epoch: each.epoch,
            open_orders: each.book.open(),
            price_max: each.price_max,
            qty_max: each.qty_max,
        };
        self.ascending_instruments().iter().map(state).collect()
    }

    fn ascending_instruments(&self) -> Vec<&Instrument> {
        let mut instruments: Vec<_> = self.instruments.iter().collect();
        instruments.sort_unstable_by_key(|each| each.number);
        instruments
    }

    /// The whole state.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024 + self.nodes.open() as usize * ORDER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.last_seq.to_le_bytes());
        out.extend_from_slice(&self.last_ts_ns.to_le_bytes());
        out.extend_from_slice(&(self.sessions.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.instruments.len() as u32).to_le_bytes());
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_unstable_by_key(|each| each.number);
        for session in sessions {
            out.extend_from_slice(&session.number.to_le_bytes());
            out.extend_from_slice(&[session.role as u8, 0, 0, 0, 0, 0]);
            out.extend_from_slice(&session.last_ref.to_le_bytes());
            out.extend_from_slice(&session.name);
        }
        for instrument in self.ascending_instruments() {
            out.extend_from_slice(&instrument.number.to_le_bytes());
            out.extend_from_slice(&u32::from(instrument.mode as u8).to_le_bytes());
            out.extend_from_slice(&instrument.epoch.to_le_bytes());
            out.extend_from_slice(&instrument.book.open().to_le_bytes());
            out.extend_from_slice(&instrument.name);
            out.extend_from_slice(&instrument.price_max.to_le_bytes());
            out.extend_from_slice(&instrument.qty_max.to_le_bytes());
            self.write_orders(instrument, &mut out);
        }
        out
    }

    /// A market in the state of a snapshot. Refuses whatever no market could have written.
    pub fn restore(snapshot: &[u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader { left: snapshot };
        let header = reader.take::<32>("the header")?;
        require(header[..8] == *MAGIC, || "it does not begin with RSWSNAP1")?;
        let mut market = Self::default();
        market.last_seq = u64::from_le_bytes(part(header, 8));
        market.last_ts_ns = u64::from_le_bytes(part(header, 16));
        let sessions = u32::from_le_bytes(part(header, 24));
        let instruments = u32::from_le_bytes(part(header, 28));
        require(
            instruments <= limits::INSTRUMENTS_MAX,
            || "it counts too many instruments",
        )?;
        let mut names = BTreeSet::new();
        for at in 0..sessions {
            let session = read_session(&mut reader)?;
            let number = session.number;
            let ascends = market
                .sessions
                .last()
                .is_none_or(|each| each.number < number);
            require(ascends, || "its sessions don't ascend")?;
            require(names.insert(session.name), || "two sessions have one name")?;
            market.session_ids.insert(number.into(), at);
            market.sessions.push(session);
        }
        let mut names = BTreeSet::new();
        for at in 0..instruments {
            let (instrument, open_orders) = read_instrument(&mut reader)?;
            let number = instrument.number;
            let ascends = market
                .instruments
                .last()
                .is_none_or(|each| each.number < number);
            require(ascends, || "its instruments don't ascend")?;
            require(
                names.insert(instrument.name),
                || "two instruments have one name",
            )?;
            market.instrument_ids.insert(number.into(), at);
            market.instruments.push(instrument);
            market.restore_orders(&mut reader, at, open_orders)?;
        }
        let left = reader.left.len();
        require(left == 0, || format!("{left} bytes follow its end"))?;
        Ok(market)
    }

    fn restore_orders(
        &mut self,
        reader: &mut Reader<'_>,
        at: u32,
        count: u32,
    ) -> Result<(), SnapshotError> {
        let instrument = &mut self.instruments[at as usize];
        let number = instrument.number;
        let mut last: Option<OrderRecord> = None;
        for _ in 0..count {
            let record = reader.take::<ORDER_BYTES>("an order")?;
            let order = OrderRecord::read(record).ok_or_else(|| {
                error(format!(
                    "an order of instrument {number} has no side, or padding"
                ))
            })?;
            let id = order.order_id;
            require(order.price > 0, || {
                format!("order {id}: its price is not positive")
            })?;
            require(order.leaves > 0 && order.leaves <= order.qty, || {
                format!("order {id}: its leaves")
            })?;
            let in_place = last.is_none_or(|last| ranks(&last, &order));
            require(
                in_place && !instrument.book.crosses(order.side, Some(order.price)),
                || format!("the orders of instrument {number} are not in their priority, or cross"),
            )?;
            require(self.order_ids.get(id).is_none(), || {
                format!("two open orders have the id {id}")
            })?;
            require(
                self.nodes.open() < limits::OPEN_ORDERS_MAX,
                || "it holds too many open orders",
            )?;
            let node = instrument.book.rest(&mut self.nodes, order, at);
            self.order_ids.insert(id, node);
            last = Some(order);
        }
        Ok(())
    }
}

/// Whether the two may stand next to each other in this order.
fn ranks(left: &OrderRecord, right: &OrderRecord) -> bool {
    match (left.side, right.side) {
        (Side::Buy, Side::Buy) => left.price >= right.price,
        (Side::Sell, Side::Sell) => left.price <= right.price,
        (Side::Buy, Side::Sell) => true,
        (Side::Sell, Side::Buy) => false,
    }
}

fn read_session(reader: &mut Reader<'_>) -> Result<Session, SnapshotError> {
    let record = reader.take::<48>("a session")?;
    let number = u16::from_le_bytes(part(record, 0));
    let role = Role::from_number(record[2].into())
        .ok_or_else(|| error(format!("session {number} has an unknown role")))?;
    require(record[3..8] == [0; 5], || {
        format!("session {number}: its padding is not zero")
    })?;
    let name: [u8; 32] = part(record, 16);
    require(name_text(&name).is_some(), || {
        format!("session {number}: its name")
    })?;
    Ok(Session {
        number,
        name,
        role,
        last_ref: u64::from_le_bytes(part(record, 8)),
    })
}

/// The instrument, and how many orders follow it.
fn read_instrument(reader: &mut Reader<'_>) -> Result<(Instrument, u32), SnapshotError> {
    let record = reader.take::<48>("an instrument")?;
    let number = u32::from_le_bytes(part(record, 0));
    let mode = Mode::from_number(u32::from_le_bytes(part(record, 4)).into())
        .ok_or_else(|| error(format!("instrument {number} has an unknown mode")))?;
    let open_orders = u32::from_le_bytes(part(record, 12));
    let name: [u8; 16] = part(record, 16);
    let price_max = i64::from_le_bytes(part(record, 32));
    let qty_max = u64::from_le_bytes(part(record, 40));
    let what = |problem: &str| format!("instrument {number}: {problem}");
    require(name_text(&name).is_some(), || what("its name"))?;
    require(price_max > 0, || what("its highest price is not positive"))?;
    require(qty_max > 0, || what("its largest quantity is zero"))?;
    require(open_orders <= limits::OPEN_ORDERS_PER_BOOK_MAX, || {
        what("it has too many open orders")
    })?;
    let instrument = Instrument {
        number,
        name,
        mode,
        epoch: u32::from_le_bytes(part(record, 8)),
        price_max,
        qty_max,
        book: Default::default(),
    };
    Ok((instrument, open_orders))
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

/// Names are checked before they are kept.
fn text(padded: &[u8]) -> String {
    name_text(padded).unwrap_or_default().to_owned()
}

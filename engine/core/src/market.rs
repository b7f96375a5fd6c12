//! Instruments, sessions and their books: batches of commands in, events out.
//!
//! `engine/reference.py` is the specification. A command is checked completely before anything
//! changes: it applies whole, or it is rejected whole with the first reason that holds.

use crate::book::{Book, Nodes};
use crate::codes::{
    CommandKind, EventKind, FLAG_LIVE, Mode, OrderType, Reason, Role, Side, TimeInForce,
};
use crate::ids::IdMap;
use crate::limits;
use crate::rules;
use crate::wire::{COMMAND_BYTES, Command, EVENT_BYTES, Emitter, Event, OrderRecord};

pub(crate) struct Session {
    pub(crate) number: u16,
    pub(crate) name: [u8; 32],
    pub(crate) role: Role,
    pub(crate) last_ref: u64,
}

pub(crate) struct Instrument {
    pub(crate) number: u32,
    pub(crate) name: [u8; 16],
    pub(crate) mode: Mode,
    pub(crate) epoch: u32,
    pub(crate) price_max: i64,
    pub(crate) qty_max: u64,
    pub(crate) book: Book,
}

/// One shard.
pub struct Market {
    pub(crate) last_seq: u64,
    pub(crate) last_ts_ns: u64,
    pub(crate) sessions: Vec<Session>,
    pub(crate) instruments: Vec<Instrument>,
    pub(crate) session_ids: IdMap,
    pub(crate) instrument_ids: IdMap,
    pub(crate) order_ids: IdMap,
    pub(crate) nodes: Nodes,
    open_orders_per_book_max: u32,
    open_orders_max: u32,
}

/// A batch that could not be applied; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// Its length is no multiple of a command's.
    Length(usize),
    /// It needs more sequence numbers than are left.
    SequenceExhausted,
}

impl std::fmt::Display for BatchError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(length) => {
                write!(
                    out,
                    "a batch of {length} bytes is not made of 64-byte commands"
                )
            }
            Self::SequenceExhausted => write!(out, "the sequence numbers are used up"),
        }
    }
}

impl std::error::Error for BatchError {}

impl Default for Market {
    fn default() -> Self {
        Self::with_bounds(limits::OPEN_ORDERS_PER_BOOK_MAX, limits::OPEN_ORDERS_MAX)
    }
}

impl Market {
    /// Other bounds than `limits` are for tests: what a journal replays to depends on them.
    pub fn with_bounds(open_orders_per_book_max: u32, open_orders_max: u32) -> Self {
        Self {
            last_seq: 0,
            last_ts_ns: 0,
            sessions: Vec::new(),
            instruments: Vec::new(),
            session_ids: IdMap::default(),
            instrument_ids: IdMap::default(),
            order_ids: IdMap::default(),
            nodes: Nodes::default(),
            open_orders_per_book_max,
            open_orders_max: open_orders_max.min(limits::OPEN_ORDERS_MAX),
        }
    }

    /// The sequence number of the last command; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// When the last command happened; it never goes back.
    pub fn last_ts_ns(&self) -> u64 {
        self.last_ts_ns
    }

    /// Applies a batch of commands in order and appends their events, at least one for each.
    pub fn apply(
        &mut self,
        commands: &[u8],
        ts_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        let (commands, rest) = commands.as_chunks::<COMMAND_BYTES>();
        if !rest.is_empty() {
            return Err(BatchError::Length(
                commands.len() * COMMAND_BYTES + rest.len(),
            ));
        }
        let count = commands.len() as u64;
        if count == 0 {
            return Ok(());
        }
        if self.last_seq.checked_add(count).is_none() {
            return Err(BatchError::SequenceExhausted);
        }
        let happened_ns = ts_ns.saturating_add((count - 1).saturating_mul(limits::COMMAND_STEP_NS));
        self.last_ts_ns = self.last_ts_ns.max(happened_ns);
        out.reserve(commands.len() * EVENT_BYTES);
        for command in commands {
            self.last_seq += 1;
            self.apply_one(&Command::read(command), out);
        }
        Ok(())
    }

    #[inline]
    fn apply_one(&mut self, command: &Command, out: &mut Vec<u8>) {
        let kind = CommandKind::from_number(u64::from(command.kind));
        let instrument = self.instrument_ids.get(command.instrument.into());
        let session = self.session_ids.get(command.session.into());
        let verdict = match kind {
            None => Err(Reason::UnknownKind),
            Some(kind) => self.check_command(command, kind, session, instrument),
        };
        if let Some(session) = session
            && kind != Some(CommandKind::Session)
        {
            // A reference is used up by whatever was sent under it, rejected or not.
            let session = &mut self.sessions[session as usize];
            session.last_ref = session.last_ref.max(command.reference);
        }
        match verdict {
            Err(reason) => self.reject(command, kind, instrument, reason, out),
            Ok(Action::New { at, order }) => self.new_order(command, at, order, out),
            Ok(Action::Cancel { at, node }) => self.cancel(command, at, node, out),
            Ok(Action::Instrument) => self.define_instrument(command, instrument, out),
            Ok(Action::Mode { at, mode }) => self.change_mode(command, at, mode, out),
            Ok(Action::Clear { at }) => self.clear(command, at, out),
            Ok(Action::Session { role }) => self.define_session(command, role, out),
        }
    }

    // --- may it? The first reason that holds, in numeric order

    #[inline]
    fn check_command(
        &self,
        command: &Command,
        kind: CommandKind,
        session: Option<u32>,
        instrument: Option<u32>,
    ) -> Result<Action, Reason> {
        require(rules::well_formed(command, kind), Reason::BadField)?;
        if kind == CommandKind::Session {
            return self.check_session(command, session);
        }
        let session = &self.sessions[session.ok_or(Reason::NotPermitted)? as usize];
        require(
            command.reference > session.last_ref,
            Reason::RefNotIncreasing,
        )?;
        require(rules::permitted(session.role, kind), Reason::NotPermitted)?;
        if kind == CommandKind::Instrument {
            return self.check_instrument(command, instrument);
        }
        let at = instrument.ok_or(Reason::UnknownInstrument)?;
        let known = &self.instruments[at as usize];
        match kind {
            CommandKind::Mode => {
                refuse(rules::mode_refusal(command, known.mode, known.epoch))?;
                let mode = Mode::from_number(command.aux).ok_or(Reason::BadField)?;
                Ok(Action::Mode { at, mode })
            }
            CommandKind::Clear => {
                require(known.mode != Mode::Live, Reason::InstrumentLive)?;
                Ok(Action::Clear { at })
            }
            _ => {
                refuse(rules::entry_refusal(
                    command,
                    session.role,
                    known.mode,
                    known.epoch,
                ))?;
                if kind == CommandKind::Cancel {
                    self.check_cancel(command, at)
                } else {
                    self.check_new(command, at)
                }
            }
        }
    }

    fn check_session(&self, command: &Command, session: Option<u32>) -> Result<Action, Reason> {
        let name = command.name_32();
        let taken = session.is_some() || self.sessions.iter().any(|each| each.name == name);
        require(!taken, Reason::NotPermitted)?;
        let role = Role::from_number(command.aux).ok_or(Reason::BadField)?;
        Ok(Action::Session { role })
    }

    /// One number, one name, for good; what may change are the limits.
    fn check_instrument(&self, command: &Command, known: Option<u32>) -> Result<Action, Reason> {
        let name = command.name_16();
        let named = self.instruments.iter().position(|each| each.name == name);
        let same = named == known.map(|at| at as usize);
        require(same, Reason::InstrumentMismatch)?;
        require(command.price > 0, Reason::BadPrice)?;
        require(command.qty > 0, Reason::BadQuantity)?;
        let room = self.instruments.len() < limits::INSTRUMENTS_MAX as usize;
        require(known.is_some() || room, Reason::BookFull)?;
        Ok(Action::Instrument)
    }

    #[inline]
    fn check_cancel(&self, command: &Command, at: u32) -> Result<Action, Reason> {
        let node = self.order_ids.get(command.order_id);
        let node = node.filter(|&node| self.nodes.book(node) == at);
        let node = node.ok_or(Reason::UnknownOrder)?;
        let account = self.nodes.order(node).account;
        require(account == command.account, Reason::NotOwner)?;
        Ok(Action::Cancel { at, node })
    }

    #[inline]
    fn check_new(&self, command: &Command, at: u32) -> Result<Action, Reason> {
        let instrument = &self.instruments[at as usize];
        let known = self.order_ids.get(command.order_id).is_some();
        require(!known, Reason::DuplicateOrderId)?;
        refuse(rules::number_refusal(
            command,
            instrument.price_max,
            instrument.qty_max,
        ))?;
        let side = Side::from_number(command.side.into()).ok_or(Reason::BadField)?;
        let limit = (command.ord_type == OrderType::Limit as u8).then_some(command.price);
        let rests = command.tif == TimeInForce::Gtc as u8;
        let full = instrument.book.open() >= self.open_orders_per_book_max
            || self.nodes.open() >= self.open_orders_max;
        // An order that trades either fills, or fills a maker and so makes room for itself.
        let stuck = full && rests && !instrument.book.crosses(side, limit);
        require(!stuck, Reason::BookFull)?;
        let order = NewOrder { side, limit, rests };
        Ok(Action::New { at, order })
    }

    // --- it may not, or it may: say so, do it

    fn reject(
        &self,
        command: &Command,
        kind: Option<CommandKind>,
        instrument: Option<u32>,
        reason: Reason,
        out: &mut Vec<u8>,
    ) {
        // A session belongs to no instrument, though the number in its field may name one.
        let flags = match instrument {
            Some(at) if kind != Some(CommandKind::Session) => self.flags(at),
            _ => 0,
        };
        let mut events = Emitter::new(out, command, self.last_seq, flags);
        events.emit(&Event {
            reason,
            side: command.side,
            ord_type: command.ord_type,
            tif: command.tif,
            order_id: command.order_id,
            contra_id: command.account,
            price: command.price,
            qty: command.qty,
            ..Event::of(EventKind::Rejected)
        });
        events.finish();
    }

    #[inline]
    fn flags(&self, at: u32) -> u8 {
        match self.instruments[at as usize].mode {
            Mode::Live => FLAG_LIVE,
            Mode::Closed | Mode::Shadow => 0,
        }
    }

    #[inline]
    fn new_order(&mut self, command: &Command, at: u32, order: NewOrder, out: &mut Vec<u8>) {
        let flags = self.flags(at);
        let mut events = Emitter::new(out, command, self.last_seq, flags);
        let taker = Event {
            side: command.side,
            ord_type: command.ord_type,
            tif: command.tif,
            order_id: command.order_id,
            contra_id: command.account,
            price: command.price,
            qty: command.qty,
            leaves: command.qty,
            ..Event::of(EventKind::Accepted)
        };
        events.emit(&taker);
        let Self {
            instruments,
            nodes,
            order_ids,
            ..
        } = self;
        let book = &mut instruments[at as usize].book;
        let mut leaves = command.qty;
        let left = book.take(nodes, order.side, order.limit, command.qty, |trade| {
            leaves -= trade.qty;
            if trade.maker_leaves == 0 {
                order_ids.remove(trade.maker_id);
            }
            events.emit(&Event {
                kind: EventKind::Fill,
                contra_id: trade.maker_id,
                price: trade.price,
                qty: trade.qty,
                leaves,
                contra_leaves: trade.maker_leaves,
                ..taker
            });
        });
        if left > 0 && order.rests {
            let record = OrderRecord {
                order_id: command.order_id,
                account: command.account,
                price: command.price,
                leaves: left,
                qty: command.qty,
                side: order.side,
            };
            let node = book.rest(nodes, record, at);
            order_ids.insert(command.order_id, node);
        } else if left > 0 {
            events.emit(&Event {
                kind: EventKind::Canceled,
                reason: Reason::Unfilled,
                qty: left,
                leaves: 0,
                ..taker
            });
        }
        events.finish();
    }

    #[inline]
    fn cancel(&mut self, command: &Command, at: u32, node: u32, out: &mut Vec<u8>) {
        let book = &mut self.instruments[at as usize].book;
        let order = book.remove(&mut self.nodes, node);
        self.order_ids.remove(order.order_id);
        let flags = self.flags(at);
        let mut events = Emitter::new(out, command, self.last_seq, flags);
        events.emit(&Event {
            reason: Reason::ByRequest,
            side: order.side as u8,
            ord_type: OrderType::Limit as u8, // nothing else rests
            tif: TimeInForce::Gtc as u8,
            order_id: order.order_id,
            contra_id: order.account,
            price: order.price,
            qty: order.leaves,
            ..Event::of(EventKind::Canceled)
        });
        events.finish();
    }

    /// Its limits hold for orders to come; what rests already stays.
    fn define_instrument(&mut self, command: &Command, known: Option<u32>, out: &mut Vec<u8>) {
        let at = known.unwrap_or_else(|| {
            let at = self.instruments.len() as u32; // INSTRUMENTS_MAX at most
            self.instrument_ids.insert(command.instrument.into(), at);
            self.instruments.push(Instrument {
                number: command.instrument,
                name: command.name_16(),
                mode: Mode::Closed,
                epoch: 0,
                price_max: 0,
                qty_max: 0,
                book: Book::default(),
            });
            at
        });
        let instrument = &mut self.instruments[at as usize];
        instrument.price_max = command.price;
        instrument.qty_max = command.qty;
        let flags = self.flags(at);
        let mut events = Emitter::new(out, command, self.last_seq, flags);
        events.emit(&Event {
            order_id: command.order_id, // with the account: the name, as in the command
            contra_id: command.account,
            price: command.price,
            qty: command.qty,
            ..Event::of(EventKind::Instrument)
        });
        events.finish();
    }

    fn change_mode(&mut self, command: &Command, at: u32, mode: Mode, out: &mut Vec<u8>) {
        let instrument = &mut self.instruments[at as usize];
        instrument.mode = mode;
        instrument.epoch = command.epoch;
        let flags = self.flags(at);
        let mut events = Emitter::new(out, command, self.last_seq, flags);
        events.emit(&Event {
            contra_id: command.aux,
            leaves: command.epoch.into(),
            ..Event::of(EventKind::Mode)
        });
        events.finish();
    }

    fn clear(&mut self, command: &Command, at: u32, out: &mut Vec<u8>) {
        let Self {
            instruments,
            nodes,
            order_ids,
            ..
        } = self;
        let book = &mut instruments[at as usize].book;
        let removed = book.open();
        book.clear(nodes, |order| order_ids.remove(order.order_id));
        let mut events = Emitter::new(out, command, self.last_seq, 0);
        events.emit(&Event {
            qty: removed.into(),
            ..Event::of(EventKind::Cleared)
        });
        events.finish();
    }

    fn define_session(&mut self, command: &Command, role: Role, out: &mut Vec<u8>) {
        let at = self.sessions.len() as u32; // at most one for each of the 65,536 numbers
        self.session_ids.insert(command.session.into(), at);
        self.sessions.push(Session {
            number: command.session,
            name: command.name_32(),
            role,
            last_ref: 0,
        });
        let mut events = Emitter::new(out, command, self.last_seq, 0);
        events.emit(&Event {
            order_id: command.order_id, // with three more fields: the name, as in the command
            contra_id: command.account,
            price: command.price,
            qty: command.qty,
            leaves: command.aux,
            contra_leaves: command.session.into(),
            ..Event::of(EventKind::Session)
        });
        events.finish();
    }

    // --- what it is

    /// Appends the open orders of an instrument, best price first, then oldest first, bids before
    /// asks. False: there is no such instrument.
    pub fn orders(&self, instrument: u32, out: &mut Vec<u8>) -> bool {
        let Some(at) = self.instrument_ids.get(instrument.into()) else {
            return false;
        };
        self.write_orders(&self.instruments[at as usize], out);
        true
    }

    pub(crate) fn write_orders(&self, instrument: &Instrument, out: &mut Vec<u8>) {
        for node in instrument.book.walk(&self.nodes) {
            self.nodes.order(node).write(out);
        }
    }

    /// Walks every invariant and returns the first that does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.nodes.check()?;
        let mut open = 0;
        for (at, instrument) in (0..).zip(&self.instruments) {
            let number = instrument.number;
            if self.instrument_ids.get(number.into()) != Some(at) {
                return Err(format!("instrument {number} is not indexed"));
            }
            instrument.book.check(&self.nodes, at)?;
            for node in instrument.book.walk(&self.nodes) {
                let id = self.nodes.order(node).order_id;
                if self.order_ids.get(id) != Some(node) {
                    return Err(format!("order {id} is not indexed"));
                }
            }
            if instrument.book.open() > self.open_orders_per_book_max {
                return Err(format!("instrument {number} is too full"));
            }
            open += instrument.book.open();
        }
        if open != self.nodes.open() || open as usize != self.order_ids.len() {
            return Err("the index holds orders that no book has".into());
        }
        if open > self.open_orders_max {
            return Err("the shard is too full".into());
        }
        for (at, session) in (0..).zip(&self.sessions) {
            if self.session_ids.get(session.number.into()) != Some(at) {
                return Err(format!("session {} is not indexed", session.number));
            }
        }
        Ok(())
    }
}

/// A command that may be applied, with what its check has found out already.
enum Action {
    New { at: u32, order: NewOrder },
    Cancel { at: u32, node: u32 },
    Instrument,
    Mode { at: u32, mode: Mode },
    Clear { at: u32 },
    Session { role: Role },
}

struct NewOrder {
    side: Side,
    /// None: a market order's.
    limit: Option<i64>,
    /// Whether what is left of it stays in the book.
    rests: bool,
}

#[inline]
fn require(holds: bool, reason: Reason) -> Result<(), Reason> {
    if holds { Ok(()) } else { Err(reason) }
}

#[inline]
fn refuse(reason: Reason) -> Result<(), Reason> {
    require(reason == Reason::None, reason)
}

//! Instruments, sessions and their books: batches of commands in, events out.
//!
//! `engine/reference/` is the specification. A command is checked completely before anything
//! changes: it applies whole, or it is rejected whole with the first reason that holds.

use crate::accounts::Accounts;
use crate::book::Book;
use crate::codes::{CommandKind, EventKind, FLAG_LIVE, Mode, Reason, Role};
use crate::ids::{Directory, IdMap, NIL};
use crate::limits::{self, Bounds};
use crate::rules::{self, OrderLimits};
use crate::slab::Nodes;
use crate::wire::{COMMAND_BYTES, Emitter, Event, Events, Record};

pub(crate) struct Session {
    pub(crate) last_ref: u64,
    pub(crate) number: u16,
    pub(crate) role: Role,
    pub(crate) options: u8,
    /// How many of its orders are open.
    pub(crate) open: u32,
    pub(crate) name: [u8; 32],
}

pub(crate) struct Instrument {
    pub(crate) number: u32,
    pub(crate) epoch: u32,
    pub(crate) mode: Mode,
    pub(crate) halted: bool,
    pub(crate) limits: OrderLimits,
    /// Of its last fill; 0: none yet.
    pub(crate) last_price: i64,
    pub(crate) book: Book,
    /// When its trading day ends, in seconds after midnight UTC.
    pub(crate) day_end_s: u32,
    pub(crate) name: [u8; 16],
}

/// One shard.
pub struct Market {
    pub(crate) last_seq: u64,
    pub(crate) last_ts_ns: u64,
    pub(crate) sessions: Vec<Session>,
    pub(crate) instruments: Vec<Instrument>,
    /// The places of the instruments, ascending by their number.
    pub(crate) ascending: Vec<u32>,
    pub(crate) session_ids: Directory,
    pub(crate) instrument_ids: Directory,
    pub(crate) order_ids: IdMap,
    pub(crate) nodes: Nodes,
    pub(crate) accounts: Accounts,
    pub(crate) bounds: Bounds,
    /// Orders under the first rules met no bound on prices, and a restored book may hold them.
    pub(crate) has_bounded_levels: bool,
}

/// A batch that could not be applied; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// Its length is no multiple of a command's.
    Length(usize),
    /// It needs more sequence numbers than are left.
    SequenceExhausted,
    /// Nobody ever had such rules.
    Rules(u16),
}

impl std::fmt::Display for BatchError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(length) => write!(
                out,
                "a batch of {length} bytes is not made of 64-byte commands"
            ),
            Self::SequenceExhausted => write!(out, "the sequence numbers are used up"),
            Self::Rules(rules) => write!(
                out,
                "there are no rules {rules}: this market knows {} to {}",
                limits::RULES_OLDEST,
                limits::RULES
            ),
        }
    }
}

impl std::error::Error for BatchError {}

impl Default for Market {
    fn default() -> Self {
        Self::with_bounds(Bounds::default())
    }
}

impl Market {
    /// An empty market.
    pub fn with_bounds(bounds: Bounds) -> Self {
        Self {
            last_seq: 0,
            last_ts_ns: 0,
            sessions: Vec::new(),
            instruments: Vec::new(),
            ascending: Vec::new(),
            session_ids: Directory::default(),
            instrument_ids: Directory::default(),
            order_ids: IdMap::default(),
            nodes: Nodes::default(),
            accounts: Accounts::default(),
            bounds: Bounds {
                open_orders: bounds.open_orders.min(limits::OPEN_ORDERS_MAX),
                ..bounds
            },
            has_bounded_levels: true,
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

    /// Applies a batch of commands in order, under the rules of now, and appends their events, at
    /// least one for each.
    pub fn apply(
        &mut self,
        commands: &[u8],
        ts_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        self.apply_under(limits::RULES, commands, ts_ns, out)
    }

    /// Applies a batch under the rules under which it was sequenced.
    pub fn apply_under(
        &mut self,
        rules: u16,
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
        if !(limits::RULES_OLDEST..=limits::RULES).contains(&rules) {
            return Err(BatchError::Rules(rules));
        }
        if self.last_seq.checked_add(commands.len() as u64).is_none() {
            return Err(BatchError::SequenceExhausted);
        }
        self.has_bounded_levels &= rules > 1;
        let mut events = Events::after(std::mem::take(out), commands.len());
        let mut now_ns = ts_ns;
        for command in commands {
            self.last_seq += 1;
            self.last_ts_ns = self.last_ts_ns.max(now_ns);
            self.apply_one(Record(command), rules, &mut events);
            now_ns = now_ns.saturating_add(limits::COMMAND_STEP_NS);
        }
        *out = events.into_bytes();
        Ok(())
    }

    #[inline(always)]
    fn apply_one(&mut self, command: Record<'_>, rules: u16, out: &mut Events) {
        let mut sender = Sender {
            session: NIL,
            is_fresh: false,
        };
        if let Some(at) = self.session_ids.get(command.session().into()) {
            sender.session = at;
            if !rules::is_gateways(command.kind(), rules) {
                // A reference is used up by whatever was sent under it, rejected or not.
                let session = &mut self.sessions[at as usize];
                sender.is_fresh = command.reference() > session.last_ref;
                session.last_ref = session.last_ref.max(command.reference());
            }
        }
        const NEW: u8 = CommandKind::New as u8;
        const CANCEL: u8 = CommandKind::Cancel as u8;
        const REPLACE: u8 = CommandKind::Replace as u8;
        let done = match command.kind() {
            NEW => self.new_order(command, sender, rules, out),
            CANCEL => self.cancel(command, sender, out),
            REPLACE if rules > 1 => self.replace(command, sender, out),
            number => match rules::known_kind(number, rules) {
                Some(kind) => self.other(command, kind, sender, out),
                None => Err(Reason::UnknownKind),
            },
        };
        if let Err(reason) = done {
            self.reject(command, rules, reason, out);
        }
    }

    #[inline(never)]
    fn other(
        &mut self,
        command: Record<'_>,
        kind: CommandKind,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        require(rules::well_formed(command, kind), Reason::BadField)?;
        match kind {
            CommandKind::New | CommandKind::Cancel | CommandKind::Replace => {
                unreachable!("applied by their own functions")
            }
            CommandKind::Reduce => self.reduce(command, sender, out),
            CommandKind::MassCancel => self.mass_cancel(command, sender, out),
            CommandKind::Time => {
                self.time(command, out);
                Ok(())
            }
            CommandKind::Disconnected => self.disconnected(command, sender, out),
            CommandKind::Session => self.define_session(command, sender, out),
            CommandKind::SessionOptions => self.set_session_options(command, sender, out),
            _ => self.administrate(command, kind, sender, out),
        }
    }

    /// The place of the session, if its role may send this and the reference is new.
    #[inline(always)]
    pub(crate) fn admit(
        &self,
        command: Record<'_>,
        kind: CommandKind,
        sender: Sender,
    ) -> Result<u32, Reason> {
        let session = sender.session().ok_or(Reason::NotPermitted)?;
        require(sender.is_fresh, Reason::RefNotIncreasing)?;
        let role = self.sessions[session as usize].role;
        require(rules::permitted(command, role, kind), Reason::NotPermitted)?;
        Ok(session)
    }

    /// The places of session and instrument, if the session may touch the instrument's orders now.
    #[inline(always)]
    pub(crate) fn enter(
        &self,
        command: Record<'_>,
        kind: CommandKind,
        sender: Sender,
    ) -> Result<(u32, u32), Reason> {
        let session = self.admit(command, kind, sender)?;
        let at = self.instrument(command)?;
        let known = &self.instruments[at as usize];
        let role = self.sessions[session as usize].role;
        refuse(rules::entry_refusal(command, role, known.mode, known.epoch))?;
        Ok((session, at))
    }

    /// The place of the command's instrument.
    #[inline(always)]
    pub(crate) fn instrument(&self, command: Record<'_>) -> Result<u32, Reason> {
        self.instrument_ids
            .get(command.instrument())
            .ok_or(Reason::UnknownInstrument)
    }

    #[inline(never)]
    fn reject(&self, command: Record<'_>, rules: u16, reason: Reason, out: &mut Events) {
        let kind = rules::known_kind(command.kind(), rules);
        let flags = match self.instrument_ids.get(command.instrument()) {
            Some(at) if rules::concerns_instrument(command, kind) => self.flags(at),
            _ => 0,
        };
        let mut events = Emitter::new(out, command, self.last_seq, flags);
        events.emit(&Event {
            reason,
            side: command.side(),
            ord_type: command.ord_type(),
            tif: command.tif(),
            order_id: command.order_id(),
            contra_id: command.account(),
            price: command.price(),
            qty: command.qty(),
            ..Event::of(EventKind::Rejected)
        });
        events.finish();
    }

    /// Of an event of this instrument.
    #[inline]
    pub(crate) fn flags(&self, at: u32) -> u8 {
        match self.instruments[at as usize].mode {
            Mode::Live => FLAG_LIVE,
            Mode::Closed | Mode::Shadow => 0,
        }
    }

    /// The second in which the command happens that is being applied.
    #[inline]
    pub(crate) fn now_s(&self) -> u64 {
        self.last_ts_ns / 1_000_000_000
    }
}

/// Who has sent a command.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    /// The place of its session; NIL if there is no such session.
    session: u32,
    /// Whether the session had not used the command's reference, or a higher one.
    pub(crate) is_fresh: bool,
}

impl Sender {
    /// The place of its session, if there is such a session.
    #[inline(always)]
    pub(crate) fn session(self) -> Option<u32> {
        (self.session != NIL).then_some(self.session)
    }
}

#[inline]
pub(crate) fn require(holds: bool, reason: Reason) -> Result<(), Reason> {
    if holds { Ok(()) } else { Err(reason) }
}

#[inline]
pub(crate) fn refuse(reason: Reason) -> Result<(), Reason> {
    require(reason == Reason::None, reason)
}

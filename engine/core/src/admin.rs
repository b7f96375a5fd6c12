//! Commands that define instruments, sessions and accounts, and what may be done with them.

use crate::book::Book;
use crate::codes::{CommandKind, EventKind, Mode, Reason, Role};
use crate::limits;
use crate::market::{Instrument, Market, Sender, Session, refuse, require};
use crate::rules::{self, OrderLimits};
use crate::wire::{Emitter, Event, Events, Record};

impl Market {
    /// What an administrator sends, and CLEAR.
    pub(crate) fn administrate(
        &mut self,
        command: Record<'_>,
        kind: CommandKind,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        self.admit(command, kind, sender)?;
        match kind {
            CommandKind::AccountLimits => return self.limit_account(command, out),
            CommandKind::KillSwitch => return self.switch_account(command, out),
            CommandKind::Instrument => return self.define_instrument(command, out),
            _ => {}
        }
        let at = self.instrument(command)?;
        match kind {
            CommandKind::Mode => self.change_mode(command, at, out),
            CommandKind::Clear => self.clear(command, at, out),
            CommandKind::InstrumentLimits => self.limit_instrument(command, at, out),
            CommandKind::PriceBand => self.set_price_band(command, at, out),
            _ => {
                self.instruments[at as usize].halted = command.aux() == 1;
                let trading = Event {
                    contra_id: command.aux(),
                    ..Event::of(EventKind::Trading)
                };
                self.tell(command, self.flags(at), &trading, out);
                Ok(())
            }
        }
    }

    /// A command's only event.
    fn tell(&self, command: Record<'_>, flags: u8, event: &Event, out: &mut Events) {
        let mut events = Emitter::new(out, command, self.last_seq, flags);
        events.emit(event);
        events.finish();
    }

    /// One number, one name, for good; what may change are the limits, which hold for orders to
    /// come.
    fn define_instrument(&mut self, command: Record<'_>, out: &mut Events) -> Result<(), Reason> {
        let name = command.name_16();
        let known = self.instrument_ids.get(command.instrument());
        let named = self.instruments.iter().position(|each| each.name == name);
        let same = named == known.map(|at| at as usize);
        require(same, Reason::InstrumentMismatch)?;
        require(command.price() > 0, Reason::BadPrice)?;
        require(command.qty() > 0, Reason::BadQuantity)?;
        let room = self.instruments.len() < limits::INSTRUMENTS_MAX as usize;
        require(known.is_some() || room, Reason::BookFull)?;
        let at = known.unwrap_or_else(|| {
            self.add_instrument(Instrument {
                number: command.instrument(),
                epoch: 0,
                mode: Mode::Closed,
                halted: false,
                limits: OrderLimits {
                    price_min: 1,
                    price_max: command.price(),
                    qty_max: command.qty(),
                    tick: 1,
                    lot: 1,
                    notional_max: 0,
                },
                last_price: 0,
                book: Book::default(),
                day_end_s: 0,
                name,
            })
        });
        let limits = &mut self.instruments[at as usize].limits;
        limits.price_max = command.price();
        limits.price_min = limits.price_min.min(command.price());
        limits.qty_max = command.qty();
        let event = echo(EventKind::Instrument, command); // account and order id: the name
        self.tell(command, self.flags(at), &event, out);
        Ok(())
    }

    /// Files an instrument of a number that is not known yet.
    pub(crate) fn add_instrument(&mut self, instrument: Instrument) -> u32 {
        let at = self.instruments.len() as u32; // INSTRUMENTS_MAX at most
        let number = instrument.number;
        self.instrument_ids.insert(number, at);
        let below = |&other: &u32| self.instruments[other as usize].number < number;
        self.ascending
            .insert(self.ascending.partition_point(below), at);
        self.instruments.push(instrument);
        at
    }

    fn change_mode(
        &mut self,
        command: Record<'_>,
        at: u32,
        out: &mut Events,
    ) -> Result<(), Reason> {
        let instrument = &mut self.instruments[at as usize];
        let refusal = rules::mode_refusal(command, instrument.mode, instrument.epoch);
        refuse(refusal)?;
        instrument.mode = Mode::from_number(command.aux()).ok_or(Reason::BadField)?;
        instrument.epoch = command.epoch();
        let event = Event {
            contra_id: command.aux(),
            leaves: command.epoch().into(),
            ..Event::of(EventKind::Mode)
        };
        self.tell(command, self.flags(at), &event, out);
        Ok(())
    }

    fn limit_instrument(
        &mut self,
        command: Record<'_>,
        at: u32,
        out: &mut Events,
    ) -> Result<(), Reason> {
        require(command.qty() > 0, Reason::BadQuantity)?;
        let instrument = &mut self.instruments[at as usize];
        instrument.limits.tick = command.account();
        instrument.limits.lot = command.order_id();
        instrument.limits.notional_max = command.price() as u64; // not negative
        instrument.limits.qty_max = command.qty();
        instrument.day_end_s = command.aux() as u32; // less than a day
        let event = echo(EventKind::InstrumentLimits, command);
        self.tell(command, self.flags(at), &event, out);
        Ok(())
    }

    fn set_price_band(
        &mut self,
        command: Record<'_>,
        at: u32,
        out: &mut Events,
    ) -> Result<(), Reason> {
        let lowest = i64::try_from(command.aux()).unwrap_or(i64::MAX);
        let holds = lowest >= 1 && lowest <= command.price() && command.aux() == lowest as u64;
        require(holds, Reason::BadPrice)?;
        let limits = &mut self.instruments[at as usize].limits;
        limits.price_min = lowest;
        limits.price_max = command.price();
        let event = echo(EventKind::PriceBand, command);
        self.tell(command, self.flags(at), &event, out);
        Ok(())
    }

    fn limit_account(&mut self, command: Record<'_>, out: &mut Events) -> Result<(), Reason> {
        let rate_max = command.price() as u64; // not negative
        let sets = (command.order_id() | command.qty() | rate_max | command.aux()) != 0;
        self.check_account_room(command.account(), sets)?;
        self.accounts
            .configure(command.account(), &self.nodes, |account| {
                account.open_orders_max = command.order_id();
                account.open_qty_max = command.qty();
                account.rate_max = rate_max;
                account.group = command.aux();
                if rate_max == 0 {
                    account.rate_second = 0;
                    account.rate_count = 0;
                }
            });
        self.tell(command, 0, &echo(EventKind::AccountLimits, command), out);
        Ok(())
    }

    fn switch_account(&mut self, command: Record<'_>, out: &mut Events) -> Result<(), Reason> {
        self.check_account_room(command.account(), command.aux() == 1)?;
        self.accounts
            .configure(command.account(), &self.nodes, |account| {
                account.killed = command.aux() == 1;
            });
        self.tell(command, 0, &echo(EventKind::KillSwitch, command), out);
        Ok(())
    }

    /// An account that gets settings of its own needs room for them.
    fn check_account_room(&self, account: u64, sets_something: bool) -> Result<(), Reason> {
        let known = self.accounts.get(account);
        let has_some = known.is_some_and(|known| known.is_configured());
        let full = self.accounts.configured() >= self.bounds.accounts;
        let no_room = sets_something && !has_some && full;
        require(!no_room, Reason::AccountsFull)
    }

    /// SESSION: a name gets its number and role.
    pub(crate) fn define_session(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        let name = command.name_32();
        let named = self.sessions.iter().any(|each| each.name == name);
        let taken = sender.session().is_some() || named;
        require(!taken, Reason::NotPermitted)?;
        let role = Role::from_number(command.aux()).ok_or(Reason::BadField)?;
        self.add_session(Session {
            last_ref: 0,
            number: command.session(),
            role,
            options: 0,
            open: 0,
            name,
        });
        let event = Event {
            contra_leaves: command.session().into(),
            ..echo(EventKind::Session, command) // with account, price and quantity: the name
        };
        self.tell(command, 0, &event, out);
        Ok(())
    }

    /// Files a session of a number that is not known yet.
    pub(crate) fn add_session(&mut self, session: Session) {
        let at = self.sessions.len() as u32; // at most one for each of the 65,536 numbers
        self.session_ids.insert(session.number.into(), at);
        self.sessions.push(session);
    }

    /// SESSION_OPTIONS.
    pub(crate) fn set_session_options(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        let at = sender.session().ok_or(Reason::NotPermitted)?;
        let session = &mut self.sessions[at as usize];
        let may = command.aux() == 0 || session.role == Role::Trade;
        require(may, Reason::NotPermitted)?;
        session.options = command.aux() as u8; // 0 or 1
        let event = Event {
            contra_id: command.aux(),
            contra_leaves: command.session().into(),
            ..Event::of(EventKind::SessionOptions)
        };
        self.tell(command, 0, &event, out);
        Ok(())
    }
}

/// What was set is what the command says.
fn echo(kind: EventKind, command: Record<'_>) -> Event {
    Event {
        order_id: command.order_id(),
        contra_id: command.account(),
        price: command.price(),
        qty: command.qty(),
        leaves: command.aux(),
        ..Event::of(kind)
    }
}

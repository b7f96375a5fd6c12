//! Commands that remove many orders, in an order that is defined: instruments ascending, in each
//! bids, asks, best price first, oldest first, then the stops, oldest first.

use crate::codes::{CommandKind, EVERY_INSTRUMENT, EventKind, Mode, Reason, Role, Scope};
use crate::market::{Market, Sender, refuse, require};
use crate::rules;
use crate::slab::Node;
use crate::taker::canceled;
use crate::wire::{Emitter, Event, Events, Record};

/// What one command removes: as many as it may, and how many more there are.
#[derive(Default)]
struct Found {
    nodes: Vec<u32>,
    left: u64,
}

impl Found {
    fn add(&mut self, at: u32, most: u32) {
        if self.nodes.len() < most as usize {
            self.nodes.push(at);
        } else {
            self.left += 1;
        }
    }

    fn count(&self) -> u64 {
        self.nodes.len() as u64 + self.left
    }
}

/// Whose orders are meant. Where it is known how many there are, the search ends with the last.
struct Wanted {
    scope: Scope,
    session: u32,
    account: u64,
    /// 0: both.
    side: u8,
    /// At most so many orders can be meant.
    open: u64,
}

impl Wanted {
    fn has(&self, node: &Node) -> bool {
        let meant = match self.scope {
            Scope::Account => node.account == self.account,
            Scope::Instrument => true,
            Scope::Session => u32::from(node.session) == self.session,
        };
        meant && (self.side == 0 || self.side == node.side as u8)
    }
}

impl Market {
    /// MASS_CANCEL.
    pub(crate) fn mass_cancel(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        let session = self.admit(command, CommandKind::MassCancel, sender)?;
        let role = self.sessions[session as usize].role;
        let scope = Scope::from_number(command.aux()).ok_or(Reason::BadField)?;
        let wanted = self.wanted(scope, session, command.account(), command.side());
        let (found, flags) = if command.flags() & EVERY_INSTRUMENT != 0 {
            let mode = match role {
                Role::Shadow => Mode::Shadow,
                _ => Mode::Live,
            };
            (self.find_in(mode, &wanted), 0)
        } else {
            let at = self.instrument(command)?;
            let known = &self.instruments[at as usize];
            refuse(rules::entry_refusal(command, role, known.mode, known.epoch))?;
            let mut found = Found::default();
            self.find(at, &wanted, &mut found);
            (found, self.flags(at))
        };
        let mut events = Emitter::new(out, command, self.last_seq, flags);
        self.remove(&found, Reason::MassCancel, &mut events);
        events.emit(&mass_canceled(command, &found));
        events.finish();
        Ok(())
    }

    /// DISCONNECTED: what a session that is gone has left open, where it is live.
    pub(crate) fn disconnected(
        &mut self,
        command: Record<'_>,
        sender: Sender,
        out: &mut Events,
    ) -> Result<(), Reason> {
        let session = sender.session().ok_or(Reason::NotPermitted)?;
        let wanted = self.wanted(Scope::Session, session, 0, 0);
        let found = self.find_in(Mode::Live, &wanted);
        let mut events = Emitter::new(out, command, self.last_seq, 0);
        self.remove(&found, Reason::Disconnected, &mut events);
        events.emit(&mass_canceled(command, &found));
        events.finish();
        Ok(())
    }

    /// TIME: what is due expires, in instruments that are not closed.
    pub(crate) fn time(&mut self, command: Record<'_>, out: &mut Events) {
        let now_s = self.now_s();
        let mut found = Found::default();
        for &at in &self.ascending {
            let instrument = &self.instruments[at as usize];
            if instrument.mode == Mode::Closed {
                continue;
            }
            let expiries = instrument.book.expiries.iter();
            for &(_, _, node) in expiries.take_while(|&&(second, ..)| u64::from(second) <= now_s) {
                found.add(node, self.bounds.mass_cancel);
            }
        }
        let mut events = Emitter::new(out, command, self.last_seq, 0);
        self.remove(&found, Reason::Expired, &mut events);
        events.emit(&Event {
            qty: found.nodes.len() as u64,
            leaves: found.left,
            ..Event::of(EventKind::Time)
        });
        events.finish();
    }

    fn wanted(&self, scope: Scope, session: u32, account: u64, side: u8) -> Wanted {
        let open = match scope {
            Scope::Session => self.sessions[session as usize].open.into(),
            Scope::Account if self.accounts.counting() => self
                .accounts
                .get(account)
                .map_or(0, |known| known.open_orders),
            Scope::Account | Scope::Instrument => u64::MAX,
        };
        Wanted {
            scope,
            session,
            account,
            side,
            open,
        }
    }

    fn find_in(&self, mode: Mode, wanted: &Wanted) -> Found {
        let mut found = Found::default();
        for &at in &self.ascending {
            if self.instruments[at as usize].mode == mode {
                self.find(at, wanted, &mut found);
            }
        }
        found
    }

    fn find(&self, at: u32, wanted: &Wanted, found: &mut Found) {
        let book = &self.instruments[at as usize].book;
        if found.count() == wanted.open {
            return;
        }
        for node in book.walk_all(&self.nodes) {
            if wanted.has(self.nodes.get(node)) {
                found.add(node, self.bounds.mass_cancel);
                if found.count() == wanted.open {
                    return;
                }
            }
        }
    }

    fn remove(&mut self, found: &Found, reason: Reason, events: &mut Emitter<'_>) {
        for &node in &found.nodes {
            let order = self.nodes.get(node);
            let book = order.book.into();
            let event = canceled(order, reason);
            let number = self.instruments[book as usize].number;
            events.emit_of(number, self.flags(book), &event);
            self.close(node);
        }
    }

    /// CLEAR: a book that is not live begins again, without orders, and as if it had never traded.
    pub(crate) fn clear(
        &mut self,
        command: Record<'_>,
        at: u32,
        out: &mut Events,
    ) -> Result<(), Reason> {
        let instrument = &mut self.instruments[at as usize];
        require(instrument.mode != Mode::Live, Reason::InstrumentLive)?;
        instrument.last_price = 0;
        let open: Vec<u32> = instrument.book.walk_all(&self.nodes).collect();
        for &node in &open {
            self.close(node);
        }
        let mut events = Emitter::new(out, command, self.last_seq, 0);
        events.emit(&Event {
            qty: open.len() as u64,
            ..Event::of(EventKind::Cleared)
        });
        events.finish();
        Ok(())
    }
}

fn mass_canceled(command: Record<'_>, found: &Found) -> Event {
    Event {
        side: command.side(),
        contra_id: command.account(),
        qty: found.nodes.len() as u64,
        leaves: found.left,
        ..Event::of(EventKind::MassCanceled)
    }
}

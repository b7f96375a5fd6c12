//! What order entry adds to an exchange: Python's word, the ahead log, and the capture at its end.

use std::sync::atomic::Ordering;

use crate::capture::Outcome;
use crate::exchange::{Place, named};
use crate::json::{placed_order, placed_orders};
use crate::plane::{Plane, Ticket, told};
use crate::pool::monotonic_ns;
use crate::route::Action;
use crate::shared::{Known, Notice};

impl Plane {
    /// Python decides.
    pub(crate) fn hand_over(&mut self, id: u64) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        exchange.place = Place::Python;
        exchange.known = true;
        let told = told(exchange);
        self.shared.notify(Notice::Decide(told));
    }

    /// To the monolith; where orders wait for the ahead log, through that.
    pub(crate) fn forward(&mut self, id: u64) {
        let ahead = self.settings.ahead;
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        let is_kept = exchange.is_order && exchange.body.is_some() && exchange.ahead_id == 0;
        if !ahead || !is_kept {
            return self.send(id);
        }
        self.ahead_ids += 1;
        let Some(exchange) = named(&mut self.exchanges, id) else {
            return;
        };
        exchange.ahead_id = self.ahead_ids;
        exchange.place = Place::Ahead;
        exchange.sent_mono_ns = monotonic_ns();
        let record = self.shared.captures.record(exchange);
        self.new_records.push((id, record));
    }

    /// Hands the records of this turn over together.
    pub(crate) fn ship_records(&mut self) {
        if self.new_records.is_empty() {
            return;
        }
        let (mut exchanges, mut ids, mut records) = (Vec::new(), Vec::new(), Vec::new());
        for (id, record) in std::mem::take(&mut self.new_records) {
            let ahead_id = self.exchange(id).map_or(0, |exchange| exchange.ahead_id);
            exchanges.push(id);
            ids.extend_from_slice(&ahead_id.to_le_bytes());
            records.push(record);
        }
        self.serial += 1;
        let number = self.serial;
        let deadline = self.now + self.settings.limits.ahead_budget_s;
        self.tickets.push_back(Ticket {
            number,
            exchanges,
            deadline,
        });
        self.shared.notify(Notice::Ahead {
            ticket: number,
            ids,
            records,
        });
    }

    /// They are on the disk, or can't be: a ticket that was late is not known any more.
    pub(crate) fn release(&mut self, number: u64) {
        if let Some(at) = self
            .tickets
            .iter()
            .position(|ticket| ticket.number == number)
            && let Some(ticket) = self.tickets.remove(at)
        {
            self.release_all(ticket);
        }
    }

    pub(crate) fn release_late(&mut self) {
        while self
            .tickets
            .front()
            .is_some_and(|ticket| ticket.deadline <= self.now)
        {
            let Some(ticket) = self.tickets.pop_front() else {
                return;
            };
            let count = ticket.exchanges.len() as u64;
            self.shared
                .counters
                .ahead_late
                .fetch_add(count, Ordering::Relaxed);
            self.release_all(ticket);
        }
    }

    fn release_all(&mut self, ticket: Ticket) {
        for id in ticket.exchanges {
            let Some(exchange) = self.exchange(id) else {
                continue;
            };
            exchange.sent_mono_ns = 0;
            if exchange.client.is_some() {
                self.send(id);
            } else {
                self.never_sent(id);
            }
        }
    }

    /// The monolith has answered, to the end.
    pub(crate) fn answered(&mut self, id: u64) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        let outcome = match exchange.client {
            Some(_) => Outcome::Answered,
            None => Outcome::ClientGone,
        };
        self.ended(id, outcome);
        self.answered_client(id);
    }

    /// No answer came, or it broke off.
    pub(crate) fn fail(&mut self, id: u64, status: u16) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        let has_begun = exchange.response_started;
        exchange.up = None;
        exchange.place = Place::Ended;
        exchange.status = 0;
        exchange.response_body = Some(Vec::new());
        self.ended(id, Outcome::UpstreamFailed);
        if has_begun {
            self.break_off(id);
        } else {
            self.answer_status(id, status);
        }
    }

    /// It is no longer under way at the monolith. An order that was sent whole is captured; a part
    /// of a request is none.
    pub(crate) fn ended(&mut self, id: u64, outcome: Outcome) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        if exchange.is_order && exchange.request_done && exchange.sent_mono_ns != 0 {
            if exchange.status != 0 {
                exchange.answered_mono_ns = monotonic_ns();
            }
            self.record(id, outcome);
        } else if exchange.ahead_id != 0 {
            let ahead_id = exchange.ahead_id;
            self.shared.captures.give_up(ahead_id);
        }
        self.tell_ended(id);
    }

    /// Its client has gone, and not a byte of it has reached the monolith.
    pub(crate) fn never_sent(&mut self, id: u64) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        let ahead_id = exchange.ahead_id;
        if ahead_id != 0 {
            self.shared.captures.give_up(ahead_id);
        }
        self.tell_ended(id);
        self.forget(id);
    }

    /// The client of an exchange that is on a connection has gone. The monolith takes a whole order
    /// all the same.
    pub(crate) fn client_left_upstream(&mut self, id: u64) {
        let Some(exchange) = self.exchange(id) else {
            return;
        };
        if exchange.is_order && exchange.request_done && exchange.out.is_empty() {
            if let Some(up) = exchange.up {
                self.wake_up(up);
            }
        } else {
            self.abandon_upstream(id);
            self.forget(id);
        }
    }

    pub(crate) fn tell_ended(&mut self, id: u64) {
        if let Some(exchange) = self.exchange(id)
            && exchange.known
        {
            exchange.known = false;
            self.shared.notify(Notice::Ended(id));
        }
    }

    fn record(&mut self, id: u64, outcome: Outcome) {
        let Some(exchange) = named(&mut self.exchanges, id) else {
            return;
        };
        if self.shared.captures.offer(exchange, outcome) {
            self.shared.ring();
        }
        let Some(body) = exchange.response_body.as_ref() else {
            return;
        };
        if exchange.action() != Some(Action::Place) {
            return;
        }
        let (settings, mut placed) = (&self.settings, Vec::new());
        if exchange.status == settings.placed_status {
            placed.extend(placed_order(body, &settings.placed_keys));
        }
        if placed.is_empty() && exchange.status == settings.placed_many_status {
            placed = placed_orders(body, &settings.placed_keys);
        }
        let account = exchange.account();
        for (order_id, symbol) in placed {
            let known = Known { symbol, account };
            self.shared
                .learn(order_id, known, settings.limits.orders_known_max);
        }
    }
}

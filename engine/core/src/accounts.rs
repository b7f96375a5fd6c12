//! What accounts may do, and what they have open.
//!
//! Nothing is counted until the first account has limits, a group or a kill switch of its own:
//! until then no order pays for accounts. From then on there is a record for each account with
//! something open.

use std::collections::BTreeMap;

use crate::codes::Reason;
use crate::ids::IdMap;
use crate::slab::Nodes;

/// An account as others see it. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Account {
    pub account: u64,
    pub group: u64,
    pub open_orders_max: u64,
    pub open_qty_max: u64,
    pub rate_max: u64,
    /// The second that was counted last.
    pub rate_second: u64,
    /// In that second.
    pub rate_count: u32,
    pub killed: bool,
    pub open_orders: u64,
    pub open_qty: u128,
}

impl Account {
    /// Whether anything is not at its default.
    pub fn is_configured(&self) -> bool {
        self.killed || (self.group | self.open_orders_max | self.open_qty_max | self.rate_max) != 0
    }

    fn is_known(&self) -> bool {
        self.open_orders > 0 || self.is_configured()
    }

    /// Whether so many more open orders and so much more open quantity are too much; `replaced` is
    /// what an order leaves that makes room for this one.
    pub fn open_refusal(&self, qty: u64, replaced: Option<u64>) -> Reason {
        let more_orders = u64::from(replaced.is_none());
        let open_qty = self.open_qty - u128::from(replaced.unwrap_or(0)) + u128::from(qty);
        if self.open_orders_max > 0 && self.open_orders + more_orders > self.open_orders_max {
            Reason::AccountOpenOrders
        } else if self.open_qty_max > 0 && open_qty > u128::from(self.open_qty_max) {
            Reason::AccountOpenQuantity
        } else {
            Reason::None
        }
    }

    /// Whether it has sent all that it may in this second.
    pub fn rate_refusal(&self, second: u64) -> Reason {
        let count = if self.rate_second == second {
            self.rate_count
        } else {
            0
        };
        if self.rate_max > 0 && u64::from(count) >= self.rate_max {
            Reason::AccountRate
        } else {
            Reason::None
        }
    }
}

/// All accounts of a market that anything is known of.
#[derive(Default)]
pub struct Accounts {
    counting: bool,
    configured: u32,
    ids: IdMap,
    records: Vec<Account>,
    free: Vec<u32>,
}

impl Accounts {
    /// Whether any account has something of its own.
    #[inline]
    pub fn counting(&self) -> bool {
        self.counting
    }

    /// How many have.
    pub fn configured(&self) -> u32 {
        self.configured
    }

    /// What is known of an account, while accounts are counted.
    #[inline(always)]
    pub fn get(&self, account: u64) -> Option<&Account> {
        if self.counting {
            self.find(account)
        } else {
            None
        }
    }

    #[inline(never)]
    fn find(&self, account: u64) -> Option<&Account> {
        self.ids.get(account).map(|at| &self.records[at as usize])
    }

    /// Whether their orders must not trade with each other, where that is prevented.
    #[inline]
    pub fn are_one(&self, account: u64, other: u64) -> bool {
        account == other || (self.counting && self.are_grouped(account, other))
    }

    fn are_grouped(&self, account: u64, other: u64) -> bool {
        let group = |account| self.get(account).map_or(0, |known| known.group);
        group(account) != 0 && group(account) == group(other)
    }

    /// An order of this account is open from now on.
    #[inline]
    pub fn opened(&mut self, account: u64, leaves: u64) {
        if self.counting {
            self.change(account, |known| {
                known.open_orders += 1;
                known.open_qty += u128::from(leaves);
            });
        }
    }

    /// An open order of this account has lost so much, and is gone or not.
    #[inline]
    pub fn lost(&mut self, account: u64, qty: u64, gone: bool) {
        if self.counting {
            self.change(account, |known| {
                known.open_orders -= u64::from(gone);
                known.open_qty -= u128::from(qty);
            });
        }
    }

    /// A new order or a replacement of this account was accepted.
    #[inline]
    pub fn accepted(&mut self, account: u64, now_ns: u64) {
        if self.counting && self.get(account).is_some_and(|known| known.rate_max > 0) {
            let second = now_ns / 1_000_000_000;
            self.change(account, |known| {
                if known.rate_second != second {
                    known.rate_second = second;
                    known.rate_count = 0;
                }
                known.rate_count = known.rate_count.saturating_add(1);
            });
        }
    }

    /// Gives an account what it may do from now on.
    pub fn configure(&mut self, account: u64, nodes: &Nodes, set: impl FnOnce(&mut Account)) {
        if !self.counting {
            self.count(nodes);
        }
        let before = self.get(account).is_some_and(Account::is_configured);
        self.change(account, set);
        let after = self.get(account).is_some_and(Account::is_configured);
        self.configured = self.configured - u32::from(before) + u32::from(after);
        if self.configured == 0 {
            *self = Self::default();
        }
    }

    /// Changes the record of an account, which is made where there is none, and forgotten where
    /// nothing is left in it.
    #[inline(never)]
    fn change(&mut self, account: u64, change: impl FnOnce(&mut Account)) {
        let at = self.ids.get(account).unwrap_or_else(|| {
            let record = Account {
                account,
                ..Account::default()
            };
            let at = self.free.pop().unwrap_or_else(|| {
                self.records.push(record);
                (self.records.len() - 1) as u32 // open orders and ACCOUNTS_MAX bound it
            });
            self.records[at as usize] = record;
            self.ids.insert(account, at);
            at
        });
        let record = &mut self.records[at as usize];
        change(record);
        if !record.is_known() {
            self.ids.remove(account);
            self.free.push(at);
        }
    }

    fn count(&mut self, nodes: &Nodes) {
        self.counting = true;
        for node in nodes.iter() {
            self.opened(node.account, node.leaves);
        }
    }

    /// Those that have something of their own, ascending by number.
    pub fn ascending(&self) -> Vec<Account> {
        let its_own = |each: &&Account| each.is_configured(); // a free record never is
        let mut accounts: Vec<_> = self.records.iter().filter(its_own).copied().collect();
        accounts.sort_unstable_by_key(|each| each.account);
        accounts
    }

    /// What any account may do and has open.
    pub fn state(&self, account: u64, nodes: &Nodes) -> Account {
        let unknown = Account {
            account,
            ..Account::default()
        };
        if self.counting {
            return self.get(account).copied().unwrap_or(unknown);
        }
        let its = nodes.iter().filter(|node| node.account == account);
        its.fold(unknown, |mut state, node| {
            state.open_orders += 1;
            state.open_qty += u128::from(node.leaves);
            state
        })
    }

    /// Walks every invariant.
    pub fn check(&self, nodes: &Nodes) -> Result<(), String> {
        if !self.counting {
            return match self.records.len() {
                0 => Ok(()),
                kept => Err(format!("{kept} accounts are kept, and none counted")),
            };
        }
        let mut open: BTreeMap<u64, (u64, u128)> = BTreeMap::new();
        for node in nodes.iter() {
            let (orders, qty) = open.entry(node.account).or_default();
            *orders += 1;
            *qty += u128::from(node.leaves);
        }
        let configured = self.ascending();
        if configured.len() != self.configured as usize || configured.is_empty() {
            return Err(format!(
                "{} accounts counted as configured",
                self.configured
            ));
        }
        for each in &configured {
            open.entry(each.account).or_default();
        }
        if open.len() != self.ids.len() || self.ids.len() + self.free.len() != self.records.len() {
            return Err("accounts are kept that have nothing".into());
        }
        for (&account, &(orders, qty)) in &open {
            let known = self.get(account).copied().unwrap_or_default();
            if (known.open_orders, known.open_qty) != (orders, qty) {
                return Err(format!("account {account}: what it has open"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::Side;
    use crate::slab::{Extra, tests::limit};

    #[test]
    fn orders_from_before_the_first_limit_count_and_the_last_limit_forgets_all() {
        let mut nodes = Nodes::default();
        for id in 0..3 {
            nodes.add(&limit(id, Side::Buy, 100, 5), &Extra::default());
        }
        let mut accounts = Accounts::default();
        accounts.opened(1, 5);
        assert_eq!(accounts.get(1), None);
        assert_eq!(accounts.state(1, &nodes).open_qty, 15);
        accounts.configure(1, &nodes, |known| known.open_orders_max = 3);
        let known = *accounts.get(1).unwrap();
        assert_eq!((known.open_orders, known.open_qty), (3, 15));
        assert_eq!(known.open_refusal(1, None), Reason::AccountOpenOrders);
        assert_eq!(known.open_refusal(1, Some(5)), Reason::None);
        accounts.check(&nodes).unwrap();
        accounts.configure(1, &nodes, |known| known.open_orders_max = 0);
        assert!(!accounts.counting());
        accounts.check(&nodes).unwrap();
    }

    #[test]
    fn a_record_lives_as_long_as_its_account_has_something() {
        let nodes = Nodes::default();
        let mut accounts = Accounts::default();
        accounts.configure(9, &nodes, |known| known.killed = true);
        for account in 0..100 {
            accounts.opened(account, u64::MAX);
            accounts.opened(account, u64::MAX);
            accounts.lost(account, u64::MAX, true);
            accounts.lost(account, u64::MAX - 1, false);
            accounts.lost(account, 1, true);
        }
        assert_eq!(accounts.records.len(), 2);
        accounts.check(&nodes).unwrap();
    }

    #[test]
    fn a_rate_counts_accepted_orders_of_one_second() {
        let nodes = Nodes::default();
        let mut accounts = Accounts::default();
        accounts.configure(9, &nodes, |known| known.rate_max = 2);
        for now_ns in [0, 999_999_999] {
            assert_eq!(accounts.get(9).unwrap().rate_refusal(0), Reason::None);
            accounts.accepted(9, now_ns);
        }
        assert_eq!(
            accounts.get(9).unwrap().rate_refusal(0),
            Reason::AccountRate
        );
        assert_eq!(accounts.get(9).unwrap().rate_refusal(1), Reason::None);
        accounts.accepted(9, 1_000_000_000);
        assert_eq!(accounts.get(9).unwrap().rate_count, 1);
    }
}

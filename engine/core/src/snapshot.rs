//! The state of a market as canonical bytes; `engine/snapshot.py` describes them. `restore.rs`
//! reads them.

use crate::accounts::Account;
use crate::market::{Instrument, Market, Session};
use crate::wire::STATE_BYTES;

pub(crate) const MAGIC: &[u8; 8] = b"RSWSNAP2";

impl Market {
    /// The whole state.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096 + self.nodes.open() as usize * STATE_BYTES);
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_unstable_by_key(|each| each.number);
        let accounts = self.accounts();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.last_seq.to_le_bytes());
        out.extend_from_slice(&self.last_ts_ns.to_le_bytes());
        for count in [sessions.len(), self.instruments.len(), accounts.len(), 0] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for session in sessions {
            write_session(session, &mut out);
        }
        for account in &accounts {
            write_account(account, &mut out);
        }
        for instrument in self.ascending_instruments() {
            write_instrument(instrument, &mut out);
            for at in instrument.book.walk_all(&self.nodes) {
                self.order_state(at).write(&mut out);
            }
        }
        out
    }
}

fn write_session(session: &Session, out: &mut Vec<u8>) {
    out.extend_from_slice(&session.number.to_le_bytes());
    out.extend_from_slice(&[session.role as u8, session.options, 0, 0, 0, 0]);
    out.extend_from_slice(&session.last_ref.to_le_bytes());
    out.extend_from_slice(&session.name);
}

fn write_account(account: &Account, out: &mut Vec<u8>) {
    for number in [
        account.account,
        account.group,
        account.open_orders_max,
        account.open_qty_max,
        account.rate_max,
        account.rate_second,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&account.rate_count.to_le_bytes());
    out.extend_from_slice(&[account.killed.into(), 0, 0, 0]);
}

fn write_instrument(instrument: &Instrument, out: &mut Vec<u8>) {
    for number in [
        instrument.number,
        (instrument.mode as u8).into(),
        instrument.epoch,
        instrument.book.resting(),
        instrument.book.stops.len(),
        instrument.day_end_s,
        instrument.halted.into(),
        0,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&instrument.name);
    let limits = &instrument.limits;
    for number in [
        limits.price_min as u64,
        limits.price_max as u64,
        limits.qty_max,
        limits.tick,
        limits.lot,
        limits.notional_max,
        instrument.last_price as u64,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

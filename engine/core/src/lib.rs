//! The matching engine's core: what `engine/reference/` specifies, on fixed-width records.
//!
//! The state changes only by applying a command, and applying reads nothing but state and command:
//! no clock, no random number, no environment. Whatever iterates does so in a defined order.

mod accounts;
mod admin;
mod book;
mod check;
mod codes;
pub mod crc32c;
pub mod frame;
mod ids;
mod levels;
pub mod limits;
mod market;
mod mass;
mod matching;
mod open_orders;
mod orders;
mod plain;
mod reachable;
mod restore;
mod rules;
mod rungs;
mod slab;
mod snapshot;
mod state_records;
mod stops;
mod taker;
mod views;
mod wire;

pub use accounts::Account;
pub use codes::{CommandKind, EventKind, Mode, OrderType, Reason, Role, Side, TimeInForce};
pub use market::{BatchError, Market};
pub use state_records::SnapshotError;
pub use views::{InstrumentState, SessionState};
pub use wire::{COMMAND_BYTES, Command, EVENT_BYTES};

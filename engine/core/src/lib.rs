//! The matching engine's core: what `engine/reference.py` specifies, on fixed-width records.
//!
//! The state changes only by applying a command, and applying reads nothing but state and command:
//! no clock, no random number, no environment. Whatever iterates does so in a defined order.

mod book;
mod codes;
mod ids;
pub mod limits;
mod market;
mod rules;
mod snapshot;
mod wire;

pub use codes::{CommandKind, EventKind, Mode, OrderType, Reason, Role, Side, TimeInForce};
pub use market::{BatchError, Market};
pub use snapshot::{InstrumentState, SessionState, SnapshotError};
pub use wire::{COMMAND_BYTES, Command, EVENT_BYTES, ORDER_BYTES, OrderRecord};

//! What a command must look like, and who may send it when. `engine/rules.py` is the specification.

use crate::codes::{CommandKind, Mode, OrderType, Reason, Role, Side, TimeInForce};
use crate::wire::{Command, name_text};

/// Whether each field is 0 where it means nothing, and one of its codes where it has codes.
#[inline]
pub fn well_formed(command: &Command, kind: CommandKind) -> bool {
    match kind {
        CommandKind::New => new_is_well_formed(command),
        CommandKind::Cancel => no_order_codes(command) && no_numbers(command) && command.aux == 0,
        CommandKind::Instrument => {
            no_order_codes(command)
                && command.epoch == 0
                && command.aux == 0
                && name_text(&command.name_16()).is_some()
        }
        CommandKind::Mode => {
            no_order_codes(command)
                && no_identity(command)
                && no_numbers(command)
                && Mode::from_number(command.aux).is_some()
        }
        CommandKind::Clear => {
            no_order_codes(command)
                && no_identity(command)
                && no_numbers(command)
                && command.aux == 0
        }
        CommandKind::Session => {
            no_order_codes(command)
                && command.instrument == 0
                && command.epoch == 0
                && command.reference == 0
                && Role::from_number(command.aux).is_some()
                && name_text(&command.name_32()).is_some()
        }
    }
}

#[inline]
fn new_is_well_formed(command: &Command) -> bool {
    let tif = TimeInForce::from_number(u64::from(command.tif));
    let codes = match OrderType::from_number(u64::from(command.ord_type)) {
        Some(OrderType::Market) => tif == Some(TimeInForce::Ioc),
        Some(OrderType::Limit) => tif.is_some(),
        None => false,
    };
    codes
        && Side::from_number(u64::from(command.side)).is_some()
        && command.flags == 0
        && command.stp == 0
        && command.aux == 0
}

#[inline]
fn no_order_codes(command: &Command) -> bool {
    command.side == 0
        && command.ord_type == 0
        && command.tif == 0
        && command.flags == 0
        && command.stp == 0
}

#[inline]
fn no_identity(command: &Command) -> bool {
    command.account == 0 && command.order_id == 0
}

#[inline]
fn no_numbers(command: &Command) -> bool {
    command.price == 0 && command.qty == 0
}

/// Whether a session of this role may send commands of this kind. SESSION is the gateway's own.
#[inline]
pub fn permitted(role: Role, kind: CommandKind) -> bool {
    use CommandKind::{Cancel, Clear, Instrument, Mode, New};
    match role {
        Role::Trade => matches!(kind, New | Cancel),
        Role::Shadow => matches!(kind, New | Cancel | Clear),
        Role::Admin => matches!(kind, Instrument | Mode | Clear),
        Role::ReadOnly => false,
    }
}

/// Whether a session of this role may send orders and cancels to an instrument in this mode.
#[inline]
pub fn entry_refusal(command: &Command, role: Role, mode: Mode, epoch: u32) -> Reason {
    match (mode, role) {
        (Mode::Closed, _) => Reason::InstrumentClosed,
        (Mode::Live, Role::Shadow) => Reason::InstrumentLive,
        (Mode::Shadow, Role::Shadow) => Reason::None,
        (Mode::Shadow, _) => Reason::InstrumentInShadow,
        (Mode::Live, _) if command.epoch != epoch => Reason::StaleEpoch,
        (Mode::Live, _) => Reason::None,
    }
}

/// A new epoch may bring any mode. Within an epoch a mode may be repeated, and what is closed may
/// open.
pub fn mode_refusal(command: &Command, mode: Mode, epoch: u32) -> Reason {
    let same = command.aux == u64::from(mode as u8);
    if command.epoch > epoch || (command.epoch == epoch && (same || mode == Mode::Closed)) {
        Reason::None
    } else {
        Reason::StaleEpoch
    }
}

/// Price and quantity of a new order.
#[inline]
pub fn number_refusal(command: &Command, price_max: i64, qty_max: u64) -> Reason {
    if command.ord_type == OrderType::Market as u8 {
        if command.price != 0 {
            return Reason::BadPrice;
        }
    } else if command.price <= 0 {
        return Reason::BadPrice;
    } else if command.price > price_max {
        return Reason::PriceTooHigh;
    }
    if command.qty == 0 {
        Reason::BadQuantity
    } else if command.qty > qty_max {
        Reason::QuantityTooLarge
    } else {
        Reason::None
    }
}

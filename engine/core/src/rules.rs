//! What a command must look like, and who may send it when. `engine/rules.py` is the specification.

use crate::codes::{
    CommandKind, DISPLAY, EVERY_INSTRUMENT, MIN_QTY, Mode, OrderType, POST_ONLY, Reason, Role,
    Scope, SelfTrade, TimeInForce,
};
use crate::limits::{DAY_S, ICEBERG_PARTS_MAX, RULES};
use crate::wire::{Record, name_text};

/// The kind of a command, where these rules know it.
#[inline]
pub fn known_kind(number: u8, rules: u16) -> Option<CommandKind> {
    let kind = CommandKind::from_number(number.into());
    if rules > 1 {
        return kind;
    }
    use CommandKind::{Cancel, Clear, Instrument, Mode, New, Session};
    kind.filter(|kind| matches!(kind, New | Cancel | Instrument | Mode | Clear | Session))
}

/// Whether the gateway sends commands of this number by itself, without a reference.
#[inline(always)]
pub fn is_gateways(number: u8, rules: u16) -> bool {
    const FIRST: u8 = CommandKind::Session as u8;
    const LAST: u8 = CommandKind::Disconnected as u8;
    const TIME: u8 = CommandKind::Time as u8;
    number >= FIRST && (number == FIRST || (rules > 1 && (TIME..=LAST).contains(&number)))
}

/// Whether the command's own event can be one of a live instrument.
#[inline]
pub fn concerns_instrument(command: Record<'_>, kind: Option<CommandKind>) -> bool {
    match kind {
        None => true,
        Some(CommandKind::MassCancel) => command.flags() & EVERY_INSTRUMENT == 0,
        Some(CommandKind::AccountLimits | CommandKind::KillSwitch) => false,
        Some(kind) => !is_gateways(kind as u8, RULES),
    }
}

/// Whether each field is 0 where it means nothing, and has a meaning where it has one. The two kinds
/// that orders are made of have functions of their own.
pub fn well_formed(command: Record<'_>, kind: CommandKind) -> bool {
    use CommandKind as Kind;
    match kind {
        Kind::New => new_is_well_formed(command),
        Kind::Cancel => cancel_is_well_formed(command),
        Kind::Reduce => no_order_codes(command) && command.price() == 0 && command.aux() == 0,
        Kind::Replace => replace_is_well_formed(command),
        Kind::MassCancel => mass_cancel_is_well_formed(command),
        Kind::Instrument => {
            no_order_codes(command)
                && command.epoch() == 0
                && command.aux() == 0
                && name_text(&command.name_16()).is_some()
        }
        Kind::Mode => only_aux(command) && Mode::from_number(command.aux()).is_some(),
        Kind::Clear => only_aux(command) && command.aux() == 0,
        Kind::InstrumentLimits => {
            no_order_codes(command)
                && command.epoch() == 0
                && command.account() > 0
                && command.order_id() > 0
                && command.price() >= 0
                && command.aux() < DAY_S.into()
        }
        Kind::PriceBand => {
            no_order_codes(command)
                && command.epoch() == 0
                && no_identity(command)
                && command.qty() == 0
        }
        Kind::Trading => only_aux(command) && command.epoch() == 0 && command.aux() < 2,
        Kind::AccountLimits => {
            no_order_codes(command) && no_instrument(command) && command.price() >= 0
        }
        Kind::KillSwitch => {
            no_order_codes(command)
                && no_instrument(command)
                && command.order_id() == 0
                && no_numbers(command)
                && command.aux() < 2
        }
        Kind::Session | Kind::Time | Kind::SessionOptions | Kind::Disconnected => {
            gateways_is_well_formed(command, kind)
        }
    }
}

fn gateways_is_well_formed(command: Record<'_>, kind: CommandKind) -> bool {
    let bare = command.reference() == 0 && no_order_codes(command) && no_instrument(command);
    let empty = no_identity(command) && no_numbers(command);
    bare && match kind {
        CommandKind::Session => {
            Role::from_number(command.aux()).is_some() && name_text(&command.name_32()).is_some()
        }
        CommandKind::Time => empty && command.aux() == 0 && command.session() == 0,
        CommandKind::SessionOptions => empty && command.aux() < 2,
        _ => empty && command.aux() == 0,
    }
}

/// One bit for each time in force: a table in a register.
const TIMES_IN_FORCE: u8 = 1 << TimeInForce::Day as u8
    | 1 << TimeInForce::Gtc as u8
    | 1 << TimeInForce::Ioc as u8
    | 1 << TimeInForce::Fok as u8
    | 1 << TimeInForce::Gtd as u8;

/// NEW under the rules of now.
#[inline(always)]
pub fn new_is_well_formed(command: Record<'_>) -> bool {
    let codes = (1..=2).contains(&command.side()) && command.stp() <= SelfTrade::Decrement as u8;
    if command.ord_type() == OrderType::Limit as u8 && command.flags() == 0 && command.aux() == 0 {
        return codes && command.tif() < 8 && TIMES_IN_FORCE >> command.tif() & 1 != 0;
    }
    codes && special_is_well_formed(command)
}

/// The flags that an order of this type and time in force may have, and what they ask of `aux`.
#[inline(never)]
fn special_is_well_formed(command: Record<'_>) -> bool {
    use TimeInForce::{Day, Fok, Gtc, Gtd, Ioc};
    let ord_type = OrderType::from_number(command.ord_type().into());
    let (Some(ord_type), Some(tif)) = (ord_type, TimeInForce::from_number(command.tif().into()))
    else {
        return false;
    };
    let flags = command.flags();
    let possible = match (ord_type, tif) {
        (OrderType::Market | OrderType::Limit, Ioc) => flags == 0 || flags == MIN_QTY,
        (OrderType::Market | OrderType::Limit, Fok) => flags == 0,
        (OrderType::Limit, Day | Gtc | Gtd) => {
            flags & !(POST_ONLY | DISPLAY) == 0 || flags == MIN_QTY
        }
        (OrderType::Stop | OrderType::StopLimit, Day | Gtc) => return flags == 0, // any stop price
        _ => false,
    };
    let has_part = flags & (DISPLAY | MIN_QTY) != 0;
    possible && (has_part || command.aux() as u32 == 0) && (tif == Gtd || command.aux() >> 32 == 0)
}

/// NEW under the first rules.
pub fn new_was_well_formed(command: Record<'_>) -> bool {
    let limit = command.ord_type() == OrderType::Limit as u8;
    let market = command.ord_type() == OrderType::Market as u8;
    let good_till_canceled = command.tif() == TimeInForce::Gtc as u8;
    let at_once = command.tif() == TimeInForce::Ioc as u8;
    (1..=2).contains(&command.side())
        && ((limit && (good_till_canceled || at_once)) || (market && at_once))
        && (command.flags() | command.stp()) == 0
        && command.aux() == 0
}

#[inline]
pub fn cancel_is_well_formed(command: Record<'_>) -> bool {
    no_order_codes(command) && no_numbers(command) && command.aux() == 0
}

#[inline(always)]
pub fn replace_is_well_formed(command: Record<'_>) -> bool {
    no_order_codes(command)
}

fn mass_cancel_is_well_formed(command: Record<'_>) -> bool {
    let scope = Scope::from_number(command.aux());
    command.side() <= 2
        && command.flags() <= EVERY_INSTRUMENT
        && (command.ord_type() | command.tif() | command.stp()) == 0
        && command.order_id() == 0
        && no_numbers(command)
        && scope.is_some()
        && (command.account() == 0 || scope == Some(Scope::Account))
        && (command.flags() == 0 || no_instrument(command))
}

#[inline(always)]
fn no_order_codes(command: Record<'_>) -> bool {
    command.codes() == 0
}

#[inline]
fn no_identity(command: Record<'_>) -> bool {
    command.account() == 0 && command.order_id() == 0
}

#[inline]
fn no_numbers(command: Record<'_>) -> bool {
    command.price() == 0 && command.qty() == 0
}

fn no_instrument(command: Record<'_>) -> bool {
    command.instrument() == 0 && command.epoch() == 0
}

/// Beside its instrument and epoch.
fn only_aux(command: Record<'_>) -> bool {
    no_order_codes(command) && no_identity(command) && no_numbers(command)
}

/// Whether a session of this role may send this command.
#[inline]
pub fn permitted(command: Record<'_>, role: Role, kind: CommandKind) -> bool {
    use CommandKind as Kind;
    match kind {
        Kind::New | Kind::Cancel | Kind::Reduce | Kind::Replace => {
            matches!(role, Role::Trade | Role::Shadow)
        }
        Kind::MassCancel if command.aux() == Scope::Instrument as u64 => role == Role::Admin,
        Kind::MassCancel => role != Role::ReadOnly,
        Kind::Clear => matches!(role, Role::Shadow | Role::Admin),
        Kind::Instrument
        | Kind::Mode
        | Kind::InstrumentLimits
        | Kind::PriceBand
        | Kind::Trading
        | Kind::AccountLimits
        | Kind::KillSwitch => role == Role::Admin,
        Kind::Session | Kind::Time | Kind::SessionOptions | Kind::Disconnected => false,
    }
}

/// Whether a session of this role may touch the orders of an instrument in this mode.
#[inline]
pub fn entry_refusal(command: Record<'_>, role: Role, mode: Mode, epoch: u32) -> Reason {
    match (mode, role) {
        (Mode::Closed, _) => Reason::InstrumentClosed,
        (Mode::Live, Role::Shadow) => Reason::InstrumentLive,
        (Mode::Shadow, Role::Shadow) => Reason::None,
        (Mode::Shadow, _) => Reason::InstrumentInShadow,
        (Mode::Live, Role::Admin) => Reason::None,
        (Mode::Live, _) if command.epoch() != epoch => Reason::StaleEpoch,
        (Mode::Live, _) => Reason::None,
    }
}

/// A new epoch may bring any mode. Within an epoch a mode may be repeated, and what is closed may
/// open.
pub fn mode_refusal(command: Record<'_>, mode: Mode, epoch: u32) -> Reason {
    let same = command.aux() == u64::from(mode as u8);
    if command.epoch() > epoch || (command.epoch() == epoch && (same || mode == Mode::Closed)) {
        Reason::None
    } else {
        Reason::StaleEpoch
    }
}

/// What the prices and quantities of an instrument's orders must be.
#[derive(Clone, Copy, Debug)]
pub struct OrderLimits {
    pub price_min: i64,
    pub price_max: i64,
    pub qty_max: u64,
    pub tick: u64,
    pub lot: u64,
    /// 0: no limit.
    pub notional_max: u64,
}

impl OrderLimits {
    /// Price and quantity of an order, new or replaced; market orders and stops have no price.
    #[inline(always)]
    pub fn number_refusal(&self, is_priced: bool, price: i64, qty: u64) -> Reason {
        if is_priced {
            if price <= 0 {
                return Reason::BadPrice;
            } else if price > self.price_max {
                return Reason::PriceTooHigh;
            }
        } else if price != 0 {
            return Reason::BadPrice;
        }
        if qty == 0 {
            return Reason::BadQuantity;
        } else if qty > self.qty_max {
            return Reason::QuantityTooLarge;
        }
        if is_priced {
            if price < self.price_min {
                return Reason::PriceTooLow;
            } else if self.is_off_tick(price as u64) {
                return Reason::PriceOffTick;
            }
        }
        if self.is_off_lot(qty) {
            return Reason::QuantityOffLot;
        }
        let notional = || price as u128 * u128::from(qty);
        if is_priced && self.notional_max > 0 && notional() > u128::from(self.notional_max) {
            return Reason::NotionalTooLarge;
        }
        Reason::None
    }

    /// Whether `number_refusal` would have no reason against a priced order.
    #[inline(always)]
    pub fn fit(&self, price: i64, qty: u64) -> bool {
        price >= self.price_min // at least 1
            && price <= self.price_max
            && qty.wrapping_sub(1) < self.qty_max
            && !self.is_off_tick(price as u64)
            && !self.is_off_lot(qty)
            && self.notional_max == 0
    }

    pub fn stop_price_refusal(&self, stop_price: u64) -> Reason {
        let band = self.price_min as u64..=self.price_max as u64; // both positive
        if !band.contains(&stop_price) || self.is_off_tick(stop_price) {
            Reason::BadStopPrice
        } else {
            Reason::None
        }
    }

    /// Of an iceberg.
    pub fn display_refusal(&self, display: u32, qty: u64) -> Reason {
        let shows_a_part = 0 < display && u64::from(display) < qty;
        if !shows_a_part || self.is_off_lot(display.into()) || has_too_many_parts(display, qty) {
            Reason::BadDisplayQuantity
        } else {
            Reason::None
        }
    }

    pub fn minimum_refusal(&self, minimum: u32, qty: u64) -> Reason {
        let possible = 0 < minimum && u64::from(minimum) <= qty;
        if !possible || self.is_off_lot(minimum.into()) {
            Reason::BadMinimumQuantity
        } else {
            Reason::None
        }
    }

    pub fn reduction_refusal(&self, leaves: u64, new_leaves: u64) -> Reason {
        if new_leaves == 0 || new_leaves >= leaves {
            Reason::BadQuantity
        } else if self.is_off_lot(new_leaves) {
            Reason::QuantityOffLot
        } else {
            Reason::None
        }
    }

    #[inline(always)]
    fn is_off_tick(&self, price: u64) -> bool {
        self.tick != 1 && !price.is_multiple_of(self.tick)
    }

    #[inline(always)]
    fn is_off_lot(&self, qty: u64) -> bool {
        self.lot != 1 && !qty.is_multiple_of(self.lot)
    }
}

/// Whether an iceberg would come back too often.
pub fn has_too_many_parts(display: u32, qty: u64) -> bool {
    qty > u64::from(display) * u64::from(ICEBERG_PARTS_MAX)
}

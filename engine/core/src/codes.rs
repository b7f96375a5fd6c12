//! The numbers that commands and events carry: `engine/types.py` and `engine/reject.py` say what
//! they mean.

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident : $repr:ty { $($code:ident = $value:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr($repr)]
        #[allow(missing_docs)]
        pub enum $name { $($code = $value),+ }

        impl $name {
            /// None for a number that is not one of these codes.
            #[inline]
            pub fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($value => Some(Self::$code),)+
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Of an order.
    Side: u8 { Buy = 1, Sell = 2 }
}
codes! {
    /// Of an order.
    OrderType: u8 { Market = 1, Limit = 2, Stop = 3, StopLimit = 4 }
}
codes! {
    /// Of an order.
    TimeInForce: u8 { Day = 0, Gtc = 1, Ioc = 3, Fok = 4, Gtd = 6 }
}
codes! {
    /// What happens where an order meets one of its own group; the taker's decides.
    SelfTrade: u8 { None = 0, CancelTaker = 1, CancelMaker = 2, CancelBoth = 3, Decrement = 4 }
}
codes! {
    /// Whose orders a mass cancel removes.
    Scope: u8 { Account = 1, Instrument = 2, Session = 3 }
}
codes! {
    /// Who may send orders for an instrument.
    Mode: u8 { Closed = 0, Shadow = 1, Live = 2 }
}
codes! {
    /// What a session may send.
    Role: u8 { Trade = 1, Shadow = 2, Admin = 3, ReadOnly = 4 }
}
codes! {
    /// What enters.
    CommandKind: u8 {
        New = 1, Cancel = 2, Reduce = 3, Replace = 4, MassCancel = 5,
        Instrument = 16, Mode = 17, Clear = 18, Session = 19, InstrumentLimits = 20,
        PriceBand = 21, Trading = 22, AccountLimits = 23, KillSwitch = 24, Time = 25,
        SessionOptions = 26, Disconnected = 27,
    }
}
codes! {
    /// What leaves.
    EventKind: u8 {
        Accepted = 1, Rejected = 2, Fill = 3, Canceled = 4, Reduced = 5, Replaced = 6,
        Triggered = 7, Prevented = 8, MassCanceled = 9,
        Instrument = 16, Mode = 17, Cleared = 18, Session = 19, InstrumentLimits = 20,
        PriceBand = 21, Trading = 22, AccountLimits = 23, KillSwitch = 24, Time = 25,
        SessionOptions = 26,
    }
}
codes! {
    /// Why a command was rejected or an order canceled; the first that holds, in this order.
    Reason: u16 {
        None = 0,
        UnknownKind = 1, BadField = 2, RefNotIncreasing = 3,
        NotPermitted = 10, UnknownInstrument = 11, InstrumentClosed = 12, InstrumentInShadow = 13,
        InstrumentLive = 14, StaleEpoch = 15, InstrumentMismatch = 16, InstrumentHalted = 17,
        AccountKilled = 18,
        DuplicateOrderId = 20, UnknownOrder = 21, NotOwner = 22,
        BadPrice = 30, PriceTooHigh = 31, BadQuantity = 32, QuantityTooLarge = 33, PriceTooLow = 34,
        PriceOffTick = 35, QuantityOffLot = 36, NotionalTooLarge = 37, BadStopPrice = 38,
        BadDisplayQuantity = 39,
        BookFull = 40, LevelsFull = 41, StopsFull = 42, AccountsFull = 43, AccountOpenOrders = 44,
        AccountOpenQuantity = 45, AccountRate = 46,
        BadMinimumQuantity = 60, AlreadyExpired = 61, WouldTrade = 62,
        Unfilled = 100, ByRequest = 101, Expired = 102, SelfTrade = 103, MassCancel = 104,
        Disconnected = 105,
    }
}

/// Of an order: rejected where it would trade at once.
pub const POST_ONLY: u8 = 1;
/// Of an order: an iceberg.
pub const DISPLAY: u8 = 2;
/// Of an order: canceled whole where less than this could trade at once.
pub const MIN_QTY: u8 = 4;
/// Of a mass cancel.
pub const EVERY_INSTRUMENT: u8 = 1;

/// The last event of its command.
pub const FLAG_LAST: u8 = 1;
/// The instrument was live when the event happened.
pub const FLAG_LIVE: u8 = 2;

impl Side {
    /// The side that an order of this side trades with.
    #[inline]
    pub fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
}

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
    OrderType: u8 { Market = 1, Limit = 2 }
}
codes! {
    /// Of an order.
    TimeInForce: u8 { Gtc = 1, Ioc = 3 }
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
    CommandKind: u8 { New = 1, Cancel = 2, Instrument = 16, Mode = 17, Clear = 18, Session = 19 }
}
codes! {
    /// What leaves.
    EventKind: u8 {
        Accepted = 1, Rejected = 2, Fill = 3, Canceled = 4,
        Instrument = 16, Mode = 17, Cleared = 18, Session = 19,
    }
}
codes! {
    /// Why a command was rejected or an order canceled; the first that holds, in this order.
    Reason: u16 {
        None = 0,
        UnknownKind = 1, BadField = 2, RefNotIncreasing = 3,
        NotPermitted = 10, UnknownInstrument = 11, InstrumentClosed = 12, InstrumentInShadow = 13,
        InstrumentLive = 14, StaleEpoch = 15, InstrumentMismatch = 16,
        DuplicateOrderId = 20, UnknownOrder = 21, NotOwner = 22,
        BadPrice = 30, PriceTooHigh = 31, BadQuantity = 32, QuantityTooLarge = 33,
        BookFull = 40,
        Unfilled = 100, ByRequest = 101,
    }
}

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

//! The bounds of a market: part of the specification, repeated from `engine/limits.py` (a Python
//! test compares them).

/// The rules under which commands are applied now.
pub const RULES: u16 = 2;

/// The oldest rules that journals are still read by.
pub const RULES_OLDEST: u16 = 1;

/// Open orders of one book.
pub const OPEN_ORDERS_PER_BOOK_MAX: u32 = 1_000_000;

/// Open orders of all books together. Node numbers have 32 bits, and one of them means "none".
pub const OPEN_ORDERS_MAX: u32 = 16_777_216;

/// Instruments of a shard. An order keeps its instrument's place in 16 bits.
pub const INSTRUMENTS_MAX: u32 = 16_384;

/// Different prices on one side of a book.
pub const LEVELS_PER_SIDE_MAX: u32 = 131_072;

/// Stops that wait in one book.
pub const STOPS_PER_BOOK_MAX: u32 = 16_384;

/// Orders that one mass cancel, disconnection or expiry removes.
pub const MASS_CANCEL_MAX: u32 = 16_384;

/// Accounts with limits, a group or a kill switch of their own.
pub const ACCOUNTS_MAX: u32 = 1_048_576;

/// Icebergs that rest in one book.
pub const ICEBERGS_PER_BOOK_MAX: u32 = 1_024;

/// An iceberg's quantity, in parts of what it displays.
pub const ICEBERG_PARTS_MAX: u32 = 1_000;

/// Seconds of a day.
pub const DAY_S: u32 = 86_400;

/// Command `i` of a batch happens at the batch's time plus `i` steps.
pub const COMMAND_STEP_NS: u64 = 1_000;

const _: () = assert!(OPEN_ORDERS_PER_BOOK_MAX <= OPEN_ORDERS_MAX && OPEN_ORDERS_MAX < u32::MAX);
const _: () = assert!(INSTRUMENTS_MAX <= u16::MAX as u32);

/// The bounds of one market. Others than `limits` are for tests: what a journal replays to depends
/// on them.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Bounds {
    pub open_orders_per_book: u32,
    pub open_orders: u32,
    pub levels_per_side: u32,
    pub stops_per_book: u32,
    pub icebergs_per_book: u32,
    pub accounts: u32,
    pub mass_cancel: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            open_orders_per_book: OPEN_ORDERS_PER_BOOK_MAX,
            open_orders: OPEN_ORDERS_MAX,
            levels_per_side: LEVELS_PER_SIDE_MAX,
            stops_per_book: STOPS_PER_BOOK_MAX,
            icebergs_per_book: ICEBERGS_PER_BOOK_MAX,
            accounts: ACCOUNTS_MAX,
            mass_cancel: MASS_CANCEL_MAX,
        }
    }
}

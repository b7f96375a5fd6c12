//! The bounds of a market: part of the specification, repeated from `engine/limits.py` (a Python
//! test compares them).

/// Open orders of one book.
pub const OPEN_ORDERS_PER_BOOK_MAX: u32 = 1_000_000;

/// Open orders of all books together. Node numbers have 32 bits, and one of them means "none".
pub const OPEN_ORDERS_MAX: u32 = 16_777_216;

/// Instruments of a shard.
pub const INSTRUMENTS_MAX: u32 = 16_384;

/// Command `i` of a batch happens at the batch's time plus `i` steps.
pub const COMMAND_STEP_NS: u64 = 1_000;

const _: () = assert!(OPEN_ORDERS_PER_BOOK_MAX <= OPEN_ORDERS_MAX && OPEN_ORDERS_MAX < u32::MAX);

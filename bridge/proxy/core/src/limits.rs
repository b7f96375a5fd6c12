//! Bounds of what is read, with their reasons. Where the asyncio plane has the same rule,
//! `bridge/limits.py` has the same number, and a test holds them together; what else bounds the plane
//! comes from there in `Settings`.

/// Of a head: what Puma accepts (80 KiB) with a margin below it, so that the refusal is ours.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Of a request target: Puma's is 12 KiB.
pub const TARGET_BYTES_MAX: usize = 10 * 1024;
/// Of a head: far above what browsers and gateways send.
pub const FIELDS_MAX: usize = 256;
/// Of one chunk: nobody uses them; more is an attack on whoever reads them.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 256;
/// Read from a connection before its turn ends: others wait for theirs.
pub const TURN_BYTES_MAX: usize = 512 * 1024;
/// Waiting to be written to a connection before its other side is read no further.
pub const UNSENT_BYTES_MAX: usize = 128 * 1024;
/// Kept of requests that wait behind the one that is being answered, and of a body that has no
/// connection to the monolith yet.
pub const WAITING_BYTES_MAX: usize = 128 * 1024;
/// One read.
pub const READ_BYTES: usize = 64 * 1024;
/// Readiness that one poll tells; more waits for the next.
pub const EVENTS_MAX: usize = 1024;
/// Informational answers before the real one: a monolith sends one or two.
pub const INFORMATIONAL_MAX: u32 = 64;

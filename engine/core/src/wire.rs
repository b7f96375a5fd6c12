//! Fixed-width little-endian records, as `engine/wire.py` lays them out.

use crate::codes::{EventKind, Reason};

/// Size of a command.
pub const COMMAND_BYTES: usize = 64;
/// Size of an event.
pub const EVENT_BYTES: usize = 80;
/// Size of all of an open order.
pub const STATE_BYTES: usize = 72;

const EVENT_FLAGS_AT: usize = 6;

/// A command by its fields, for whoever writes some. Codes are numbers, so that any can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Command {
    pub kind: u8,
    pub side: u8,
    pub ord_type: u8,
    pub tif: u8,
    pub flags: u8,
    pub stp: u8,
    pub session: u16,
    pub instrument: u32,
    pub epoch: u32,
    pub reference: u64,
    pub account: u64,
    pub order_id: u64,
    pub price: i64,
    pub qty: u64,
    pub aux: u64,
}

impl Command {
    /// Its 64 bytes.
    pub fn bytes(&self) -> [u8; COMMAND_BYTES] {
        let mut bytes = [0; COMMAND_BYTES];
        bytes[..6].copy_from_slice(&[
            self.kind,
            self.side,
            self.ord_type,
            self.tif,
            self.flags,
            self.stp,
        ]);
        bytes[6..8].copy_from_slice(&self.session.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.instrument.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.reference.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.account.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.order_id.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.price.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.qty.to_le_bytes());
        bytes[56..].copy_from_slice(&self.aux.to_le_bytes());
        bytes
    }
}

/// A received command, read where it lies: a copy of all its fields would cost more than all that
/// is done with most of them. Every 64 bytes are one, if perhaps one that is going to be rejected.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a>(pub &'a [u8; COMMAND_BYTES]);

macro_rules! fields {
    ($($name:ident: $type:ty = $at:literal),+ $(,)?) => {
        $(#[inline(always)]
        pub fn $name(self) -> $type {
            <$type>::from_le_bytes(part(self.0, $at))
        })+
    };
}

impl Record<'_> {
    fields! {
        kind: u8 = 0, side: u8 = 1, ord_type: u8 = 2, tif: u8 = 3, flags: u8 = 4, stp: u8 = 5,
        session: u16 = 6, instrument: u32 = 8, epoch: u32 = 12, reference: u64 = 16,
        account: u64 = 24, order_id: u64 = 32, price: i64 = 40, qty: u64 = 48, aux: u64 = 56,
    }

    /// Side, type, time in force, flags and mode of self-trade prevention in one number: 0 where
    /// none is given.
    #[inline(always)]
    pub fn codes(self) -> u64 {
        u64::from_le_bytes(part(self.0, 0)) >> 8 & 0xFF_FFFF_FFFF
    }

    /// INSTRUMENT: the name, padded with zeros.
    pub fn name_16(self) -> [u8; 16] {
        part(self.0, 24)
    }

    /// SESSION: the name, padded with zeros.
    pub fn name_32(self) -> [u8; 32] {
        part(self.0, 24)
    }
}

/// What an event says beyond the command that it answers.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Event {
    pub kind: EventKind,
    pub reason: Reason,
    pub side: u8,
    pub ord_type: u8,
    pub tif: u8,
    pub order_id: u64,
    pub contra_id: u64,
    pub price: i64,
    pub qty: u64,
    pub leaves: u64,
    pub contra_leaves: u64,
}

impl Event {
    /// An event whose numbers are all zero.
    pub fn of(kind: EventKind) -> Self {
        Self {
            kind,
            reason: Reason::None,
            side: 0,
            ord_type: 0,
            tif: 0,
            order_id: 0,
            contra_id: 0,
            price: 0,
            qty: 0,
            leaves: 0,
            contra_leaves: 0,
        }
    }
}

/// Events for which room is made at once: some, so that what is cleared for them is still in the
/// first cache when they are written.
const ROOM_EVENTS: usize = 24;

/// The events of a batch. Room is made for some at once, so that each is written where it stays.
pub(crate) struct Events {
    bytes: Vec<u8>,
    used: usize,
}

impl Events {
    /// For those of so many commands, after what is there already.
    pub fn after(mut bytes: Vec<u8>, commands: usize) -> Self {
        bytes.reserve(commands * EVENT_BYTES);
        let used = bytes.len();
        Self { bytes, used }
    }

    #[inline(always)]
    fn next(&mut self) -> &mut [u8; EVENT_BYTES] {
        let at = self.used;
        if self.bytes.len() < at + EVENT_BYTES {
            self.grow();
        }
        self.used = at + EVENT_BYTES;
        let (_, free) = self.bytes.split_at_mut(at);
        free.first_chunk_mut().expect("it has grown")
    }

    #[inline(never)]
    fn grow(&mut self) {
        self.bytes.resize(self.used + ROOM_EVENTS * EVENT_BYTES, 0);
    }

    /// All of them.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.used);
        self.bytes
    }
}

/// Numbers the events of one command and appends them to the batch's.
pub(crate) struct Emitter<'a> {
    out: &'a mut Events,
    seq: u64,
    reference: u64,
    instrument: u32,
    flags: u8,
    sub: u32,
}

impl<'a> Emitter<'a> {
    /// For the events of one command.
    #[inline(always)]
    pub fn new(out: &'a mut Events, command: Record<'_>, seq: u64, flags: u8) -> Self {
        Self {
            out,
            seq,
            reference: command.reference(),
            instrument: command.instrument(),
            flags,
            sub: 0,
        }
    }

    /// Appends one event of another instrument than the command's.
    pub fn emit_of(&mut self, instrument: u32, flags: u8, event: &Event) {
        let own = (self.instrument, self.flags);
        (self.instrument, self.flags) = (instrument, flags);
        self.emit(event);
        (self.instrument, self.flags) = own;
    }

    /// Appends one event.
    #[inline(always)]
    pub fn emit(&mut self, event: &Event) {
        let bytes = self.out.next();
        bytes[0] = event.kind as u8;
        bytes[1] = event.side;
        bytes[2] = event.ord_type;
        bytes[3] = event.tif;
        bytes[4..6].copy_from_slice(&(event.reason as u16).to_le_bytes());
        bytes[EVENT_FLAGS_AT] = self.flags;
        bytes[7] = 0;
        bytes[8..12].copy_from_slice(&self.instrument.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.sub.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.reference.to_le_bytes());
        bytes[32..40].copy_from_slice(&event.order_id.to_le_bytes());
        bytes[40..48].copy_from_slice(&event.contra_id.to_le_bytes());
        bytes[48..56].copy_from_slice(&event.price.to_le_bytes());
        bytes[56..64].copy_from_slice(&event.qty.to_le_bytes());
        bytes[64..72].copy_from_slice(&event.leaves.to_le_bytes());
        bytes[72..].copy_from_slice(&event.contra_leaves.to_le_bytes());
        self.sub += 1;
    }

    /// Appends a command's only event.
    #[inline(always)]
    pub fn emit_only(mut self, event: &Event) {
        self.flags |= crate::codes::FLAG_LAST;
        self.emit(event);
    }

    /// Marks the event appended last as its command's last.
    #[inline]
    pub fn finish(self) {
        let at = self.out.used - EVENT_BYTES + EVENT_FLAGS_AT;
        self.out.bytes[at] |= crate::codes::FLAG_LAST;
    }
}

/// All of one open order, in numbers that anybody may have written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OrderState {
    pub order_id: u64,
    pub account: u64,
    pub price: i64,
    pub leaves: u64,
    pub qty: u64,
    pub displayed: u64,
    pub stop_price: i64,
    pub expiry_s: u32,
    pub display: u32,
    pub session: u16,
    pub side: u8,
    pub ord_type: u8,
    pub tif: u8,
    pub flags: u8,
    pub stp: u8,
}

impl OrderState {
    /// None unless the padding is as it must be.
    pub fn read(bytes: &[u8; STATE_BYTES]) -> Option<Self> {
        (bytes[71] == 0).then(|| Self {
            order_id: u64::from_le_bytes(part(bytes, 0)),
            account: u64::from_le_bytes(part(bytes, 8)),
            price: i64::from_le_bytes(part(bytes, 16)),
            leaves: u64::from_le_bytes(part(bytes, 24)),
            qty: u64::from_le_bytes(part(bytes, 32)),
            displayed: u64::from_le_bytes(part(bytes, 40)),
            stop_price: i64::from_le_bytes(part(bytes, 48)),
            expiry_s: u32::from_le_bytes(part(bytes, 56)),
            display: u32::from_le_bytes(part(bytes, 60)),
            session: u16::from_le_bytes(part(bytes, 64)),
            side: bytes[66],
            ord_type: bytes[67],
            tif: bytes[68],
            flags: bytes[69],
            stp: bytes[70],
        })
    }

    /// Appends its 72 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.order_id.to_le_bytes());
        out.extend_from_slice(&self.account.to_le_bytes());
        out.extend_from_slice(&self.price.to_le_bytes());
        out.extend_from_slice(&self.leaves.to_le_bytes());
        out.extend_from_slice(&self.qty.to_le_bytes());
        out.extend_from_slice(&self.displayed.to_le_bytes());
        out.extend_from_slice(&self.stop_price.to_le_bytes());
        out.extend_from_slice(&self.expiry_s.to_le_bytes());
        out.extend_from_slice(&self.display.to_le_bytes());
        out.extend_from_slice(&self.session.to_le_bytes());
        out.extend_from_slice(&[self.side, self.ord_type, self.tif, self.flags, self.stp, 0]);
    }
}

/// `N` bytes of a record, at an offset that lies within it.
#[inline(always)]
pub fn part<const N: usize, const SIZE: usize>(bytes: &[u8; SIZE], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The text of a name that is padded with zeros: None when it is empty, holds a zero, or is not
/// UTF-8.
pub fn name_text(padded: &[u8]) -> Option<&str> {
    let end = padded.iter().rposition(|&byte| byte != 0)? + 1;
    let name = &padded[..end];
    if name.contains(&0) {
        return None;
    }
    std::str::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_back_as_written() {
        let command = Command {
            kind: 1,
            side: 2,
            ord_type: 3,
            tif: 4,
            flags: 5,
            stp: 6,
            session: 0x0807,
            instrument: 9,
            epoch: 10,
            reference: 11,
            account: 0x2041,
            order_id: 0x42,
            price: -14,
            qty: u64::MAX,
            aux: 16,
        };
        let bytes = command.bytes();
        let read = Record(&bytes);
        let codes = [read.kind(), read.side(), read.ord_type(), read.tif()];
        assert_eq!(codes, [1, 2, 3, 4]);
        assert_eq!((read.flags(), read.stp(), read.session()), (5, 6, 0x0807));
        assert_eq!(read.codes(), 0x06_05_04_03_02);
        assert_eq!((read.instrument(), read.epoch()), (9, 10));
        assert_eq!((read.reference(), read.account()), (11, 0x2041));
        assert_eq!((read.order_id(), read.price()), (0x42, -14));
        assert_eq!((read.qty(), read.aux()), (u64::MAX, 16));
        assert_eq!(read.name_16(), *b"\x41\x20\0\0\0\0\0\0\x42\0\0\0\0\0\0\0");
        assert_eq!(read.name_32()[16..24], (-14_i64).to_le_bytes());
    }

    #[test]
    fn an_order_reads_back_as_written_and_its_padding_is_zero() {
        let mut record = [0; STATE_BYTES];
        for (at, byte) in record.iter_mut().enumerate().take(STATE_BYTES - 1) {
            *byte = at as u8 + 1;
        }
        let mut bytes = Vec::new();
        OrderState::read(&record).unwrap().write(&mut bytes);
        assert_eq!(bytes, record);
        record[STATE_BYTES - 1] = 1;
        assert_eq!(OrderState::read(&record), None);
    }

    #[test]
    fn a_name_is_text_without_zeros() {
        assert_eq!(name_text(b"BTC-USD\0\0"), Some("BTC-USD"));
        assert_eq!(name_text(b"full"), Some("full"));
        assert_eq!(name_text(b"\0\0"), None);
        assert_eq!(name_text(b"a\0b\0"), None);
        assert_eq!(name_text(b"\xff\0"), None);
    }
}

//! Fixed-width little-endian records, as `engine/wire.py` lays them out.

use crate::codes::{EventKind, Reason};

/// Size of a command.
pub const COMMAND_BYTES: usize = 64;
/// Size of an event.
pub const EVENT_BYTES: usize = 80;
/// Size of all of an open order.
pub const STATE_BYTES: usize = 72;

const EVENT_FLAGS_AT: usize = 6;

/// A decoded command; codes are still numbers, since anybody may have written them.
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
    /// Every 64 bytes are a command, if perhaps one that is going to be rejected.
    #[inline]
    pub fn read(bytes: &[u8; COMMAND_BYTES]) -> Self {
        Self {
            kind: bytes[0],
            side: bytes[1],
            ord_type: bytes[2],
            tif: bytes[3],
            flags: bytes[4],
            stp: bytes[5],
            session: u16::from_le_bytes(part(bytes, 6)),
            instrument: u32::from_le_bytes(part(bytes, 8)),
            epoch: u32::from_le_bytes(part(bytes, 12)),
            reference: u64::from_le_bytes(part(bytes, 16)),
            account: u64::from_le_bytes(part(bytes, 24)),
            order_id: u64::from_le_bytes(part(bytes, 32)),
            price: i64::from_le_bytes(part(bytes, 40)),
            qty: u64::from_le_bytes(part(bytes, 48)),
            aux: u64::from_le_bytes(part(bytes, 56)),
        }
    }

    /// The inverse of `read`.
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

    /// INSTRUMENT: the name, padded with zeros.
    pub fn name_16(&self) -> [u8; 16] {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&self.account.to_le_bytes());
        name[8..].copy_from_slice(&self.order_id.to_le_bytes());
        name
    }

    /// SESSION: the name, padded with zeros.
    pub fn name_32(&self) -> [u8; 32] {
        let mut name = [0; 32];
        name[..16].copy_from_slice(&self.name_16());
        name[16..24].copy_from_slice(&self.price.to_le_bytes());
        name[24..].copy_from_slice(&self.qty.to_le_bytes());
        name
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

/// Numbers the events of one command and appends them to the batch's.
pub struct Emitter<'a> {
    out: &'a mut Vec<u8>,
    seq: u64,
    reference: u64,
    instrument: u32,
    flags: u8,
    sub: u32,
}

impl<'a> Emitter<'a> {
    /// For the events of one command.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, command: &Command, seq: u64, flags: u8) -> Self {
        Self {
            out,
            seq,
            reference: command.reference,
            instrument: command.instrument,
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
    #[inline]
    pub fn emit(&mut self, event: &Event) {
        let mut bytes = [0; EVENT_BYTES];
        bytes[0] = event.kind as u8;
        bytes[1] = event.side;
        bytes[2] = event.ord_type;
        bytes[3] = event.tif;
        bytes[4..6].copy_from_slice(&(event.reason as u16).to_le_bytes());
        bytes[EVENT_FLAGS_AT] = self.flags;
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
        self.out.extend_from_slice(&bytes);
        self.sub += 1;
    }

    /// Marks the event appended last as its command's last.
    #[inline]
    pub fn finish(self) {
        let at = self.out.len() - EVENT_BYTES + EVENT_FLAGS_AT;
        self.out[at] |= crate::codes::FLAG_LAST;
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
#[inline]
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
        let mut bytes = [0; COMMAND_BYTES];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8 + 1;
        }
        assert_eq!(Command::read(&bytes).bytes(), bytes);
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

//! Whatever is sent, the market answers every command, keeps its invariants, and its snapshot
//! restores to the same market.
//!
//! An input is read as steps. Most are eleven bytes that name small numbers, so that orders meet;
//! some are a command of 64 bytes as it stands.

#![no_main]

use libfuzzer_sys::fuzz_target;
use railswitch_core::limits::Bounds;
use railswitch_core::{COMMAND_BYTES, Command, EVENT_BYTES, Market};

const START_NS: u64 = 1_800_000_000_000_000_000;
const KINDS: [u8; 20] = [
    1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 16, 17, 18, 20, 21, 22, 23, 24, 25, 27,
];

struct Steps<'a> {
    left: &'a [u8],
    refs: u64,
}

impl Steps<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.left.split_first().unwrap_or((&0, &[]));
        self.left = rest;
        *first
    }

    fn below(&mut self, bound: u8) -> u64 {
        u64::from(self.byte() % bound)
    }

    fn raw(&mut self) -> [u8; COMMAND_BYTES] {
        let mut command = [0; COMMAND_BYTES];
        let length = self.left.len().min(COMMAND_BYTES);
        command[..length].copy_from_slice(&self.left[..length]);
        self.left = &self.left[length..];
        // A session with a high reference would be silent from then on.
        self.refs += u64::from(command[16] % 4);
        let reference = if matches!(command[0], 19 | 25..) {
            0
        } else {
            self.refs
        };
        command[16..24].copy_from_slice(&reference.to_le_bytes());
        command
    }

    fn command(&mut self) -> [u8; COMMAND_BYTES] {
        let kind = match self.byte() {
            250.. => return self.raw(),
            byte => KINDS[usize::from(byte) % KINDS.len()],
        };
        self.refs += 1;
        let (tif, flags, aux) = (self.byte(), self.byte(), self.byte());
        let is_order = kind <= 5;
        let expiry_s = (START_NS / 1_000_000_000 + u64::from(aux % 4)) << 32;
        let of_gateway = kind >= 25;
        let command = Command {
            kind,
            side: if is_order && kind != 5 {
                1 + tif % 2
            } else {
                0
            },
            ord_type: if kind == 1 { 1 + (tif >> 1) % 4 } else { 0 },
            tif: if kind == 1 {
                [0, 1, 1, 3, 4, 6][usize::from(tif >> 3) % 6]
            } else {
                0
            },
            flags: if is_order { flags & 7 } else { 0 },
            stp: if kind == 1 { (flags >> 3) % 5 } else { 0 },
            session: match kind {
                25 => 0,
                16.. => 1,
                _ => 2 + u16::from(flags >> 7),
            },
            instrument: if of_gateway {
                0
            } else {
                1 + (self.below(8) == 0) as u32
            },
            epoch: if is_order { 1 } else { u32::from(kind == 17) },
            reference: if of_gateway { 0 } else { self.refs },
            account: 1 + self.below(3),
            order_id: self.below(24),
            price: self.below(12) as i64,
            qty: self.below(20),
            aux: u64::from(aux >> 2)
                | if kind == 1 && tif >> 7 == 1 {
                    expiry_s
                } else {
                    0
                },
        };
        command.bytes()
    }
}

fn opening() -> Vec<u8> {
    let session = |session: u16, role: u64| Command {
        kind: 19,
        session,
        account: u64::from(b'a') + u64::from(session),
        aux: role,
        ..Command::default()
    };
    let mut commands = vec![session(1, 3), session(2, 1), session(3, 2)];
    for instrument in [1, 2] {
        let order_id = 0;
        commands.push(Command {
            kind: 16,
            session: 1,
            instrument,
            reference: u64::from(instrument) * 2 - 1,
            account: u64::from(b'A' + instrument as u8),
            order_id,
            price: 1_000,
            qty: 1_000,
            ..Command::default()
        });
        commands.push(Command {
            kind: 17,
            session: 1,
            instrument,
            epoch: 1,
            reference: u64::from(instrument) * 2,
            aux: if instrument == 1 { 2 } else { 1 },
            ..Command::default()
        });
    }
    commands.iter().flat_map(Command::bytes).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut steps = Steps {
        left: data,
        refs: 4,
    };
    let mut market = Market::default();
    if steps.byte() % 2 == 1 {
        market = Market::with_bounds(Bounds {
            open_orders_per_book: 8,
            open_orders: 10,
            levels_per_side: 3,
            stops_per_book: 3,
            accounts: 2,
            mass_cancel: 3,
            icebergs_per_book: 2,
        });
    }
    let mut out = Vec::new();
    market
        .apply(&opening(), START_NS, &mut out)
        .expect("whole commands");
    let (mut batch, mut ts_ns, mut sent) = (Vec::new(), START_NS, 7);
    while !steps.left.is_empty() {
        let gap = steps.byte();
        batch.extend(steps.command());
        sent += 1;
        if gap.is_multiple_of(4) || steps.left.is_empty() {
            ts_ns += u64::from(gap) * 20_000_000;
            let rules = 1 + u16::from(gap != 252);
            market
                .apply_under(rules, &batch, ts_ns, &mut out)
                .expect("whole commands");
            batch.clear();
        }
    }
    assert_eq!(market.last_seq(), sent);
    assert_eq!(out.len() % EVENT_BYTES, 0);
    assert!(out.len() / EVENT_BYTES >= sent as usize);
    market.check().expect("its invariants");
    let snapshot = market.snapshot();
    let again = Market::restore(&snapshot).expect("its own snapshot");
    again.check().expect("the invariants of the restored one");
    assert_eq!(again.snapshot(), snapshot);
});

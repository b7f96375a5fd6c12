//! What the committer does with bytes of clients and of the market, on any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use railswitch_core::frame::{last_if_ascending, part_ends, reference, seal, stamp};
use railswitch_core::{COMMAND_BYTES, EVENT_BYTES};

const HEADER_BYTES: usize = 64;

fuzz_target!(|data: &[u8]| {
    let (head, rest) = data.split_at(data.len().min(16));
    let number = |at: usize| u64::from(head.get(at).copied().unwrap_or_default());
    let whole = rest.len() / COMMAND_BYTES * COMMAND_BYTES;
    let mut commands = rest[..whole].to_vec();
    stamp(&mut commands, number(0) as u16);
    let refs = commands
        .chunks_exact(COMMAND_BYTES)
        .map(|one| reference(one.try_into().unwrap()));
    let above = number(1) << (8 * (number(2) % 8));
    let ascends = refs
        .clone()
        .try_fold(above, |last, next| (next > last).then_some(next));
    if whole > 0 {
        assert_eq!(last_if_ascending(&commands, above), ascends);
        let mut frame = vec![0; HEADER_BYTES];
        frame.extend(&commands);
        seal(&mut frame, 2, number(3), number(4), number(5) as u32);
        assert_eq!(&frame[HEADER_BYTES..], commands);
    }
    let events = &rest[..rest.len() / EVENT_BYTES * EVENT_BYTES];
    let counts = head.iter().map(|&count| usize::from(count % 4) + 1);
    if let Some(ends) = part_ends(events, counts.clone()) {
        assert_eq!(ends.len(), counts.count());
        assert!(ends.is_sorted() && ends.iter().all(|end| *end <= events.len()));
    }
});

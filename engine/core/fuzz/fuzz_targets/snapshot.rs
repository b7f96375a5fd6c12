//! Bytes are refused as a snapshot, or they are that of a market that keeps its invariants, writes
//! the same bytes again, and goes on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use railswitch_core::{Command, Market};

fuzz_target!(|data: &[u8]| {
    let Ok(mut market) = Market::restore(data) else {
        return;
    };
    market.check().expect("its invariants");
    assert_eq!(market.snapshot(), data);
    if market.last_seq() > u64::MAX - 10 {
        return;
    }
    let mut commands = Command {
        kind: 25,
        ..Command::default()
    }
    .bytes()
    .to_vec();
    for session in market.sessions().iter().take(8) {
        let gone = Command {
            kind: 27,
            session: session.number,
            ..Command::default()
        };
        commands.extend(gone.bytes());
    }
    let mut out = Vec::new();
    market
        .apply(&commands, market.last_ts_ns(), &mut out)
        .expect("whole commands");
    market.check().expect("its invariants afterwards");
    let again = Market::restore(&market.snapshot()).expect("its own snapshot");
    assert_eq!(again.snapshot(), market.snapshot());
});

//! The market by its public face. What it must answer is the Python tests' matter, which hold it
//! equal to the reference; here: it never panics, keeps its invariants, and its snapshots are
//! whole.

use railswitch_core::{BatchError, COMMAND_BYTES, Command, EVENT_BYTES, Market};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn name_16(name: &[u8]) -> (u64, u64) {
    let mut padded = [0; 16];
    padded[..name.len()].copy_from_slice(name);
    let (low, high) = padded.split_at(8);
    let number = |half: &[u8]| u64::from_le_bytes(half.try_into().unwrap());
    (number(low), number(high))
}

/// Session 1 may define and switch, 2 trades, 3 feeds the shadow; instruments 1 (live) and 2
/// (shadow).
fn opened() -> Market {
    let mut market = Market::default();
    let session = |number: u16, role: u64| Command {
        kind: 19,
        session: number,
        account: u64::from(number) + u64::from(b'a'),
        aux: role,
        ..Command::default()
    };
    let mut commands = vec![session(1, 3), session(2, 1), session(3, 2)];
    for (instrument, name) in [(1, b"BTC-USD"), (2, b"ETH-USD")] {
        let (account, order_id) = name_16(name);
        commands.push(Command {
            kind: 16,
            session: 1,
            instrument,
            reference: commands.len() as u64,
            account,
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
            reference: commands.len() as u64,
            aux: if instrument == 1 { 2 } else { 1 },
            ..Command::default()
        });
    }
    let events = apply(&mut market, &commands);
    assert!(
        events.iter().all(|event| event[0] >= 16),
        "the set-up was rejected"
    );
    market
}

fn apply(market: &mut Market, commands: &[Command]) -> Vec<[u8; EVENT_BYTES]> {
    let bytes: Vec<u8> = commands.iter().flat_map(Command::bytes).collect();
    let mut events = Vec::new();
    let ts_ns = market.last_ts_ns() + 100_000_000;
    market.apply(&bytes, ts_ns, &mut events).unwrap();
    let (events, rest) = events.as_chunks();
    assert!(rest.is_empty());
    events.to_vec()
}

/// Everything that a trading session may send about its orders, and now and then the time.
fn order(random: &mut Random, reference: u64) -> Command {
    let instrument = 1 + random.below(2) as u32;
    let mut command = Command {
        kind: [1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 4, 25][random.below(12) as usize],
        session: if instrument == 1 { 2 } else { 3 },
        instrument,
        epoch: 1,
        reference,
        account: 7,
        order_id: random.below(500),
        ..Command::default()
    };
    match command.kind {
        1 => new_order(random, &mut command),
        3 => command.qty = 1 + random.below(20),
        4 => {
            command.price = 480 + random.below(40) as i64;
            command.qty = 1 + random.below(20);
            command.aux = random.below(500);
        }
        25 => {
            command = Command {
                kind: 25,
                ..Command::default()
            }
        }
        _ => {}
    }
    command
}

fn new_order(random: &mut Random, command: &mut Command) {
    command.side = 1 + random.below(2) as u8;
    command.ord_type = [2, 2, 2, 3, 4][random.below(5) as usize];
    command.stp = random.below(5) as u8;
    command.price = 480 + random.below(40) as i64;
    command.qty = 1 + random.below(20);
    match command.ord_type {
        2 => {
            command.tif = [0, 1, 1, 1, 3, 4, 6][random.below(7) as usize];
            if command.tif == 6 {
                command.aux = (1 + random.below(30)) << 32;
            }
            if command.tif < 3 && random.below(4) == 0 {
                command.flags = 2;
                command.aux |= 1 + random.below(3);
            }
        }
        ord_type => {
            command.tif = 1;
            command.aux = 480 + random.below(40);
            command.price *= i64::from(ord_type == 4);
        }
    }
}

#[test]
fn invariants_hold_over_a_long_history_and_every_event_stream_is_numbered() {
    let mut market = opened();
    let mut random = Random(42);
    let mut seq = market.last_seq();
    for batch in 0..200_u64 {
        let commands: Vec<Command> = (0..50)
            .map(|at| order(&mut random, 100 + batch * 50 + at))
            .collect();
        let (mut sub, mut ended) = (0, true);
        for event in apply(&mut market, &commands) {
            if ended {
                (seq, sub) = (seq + 1, 0);
            }
            assert_eq!(u64::from_le_bytes(event[16..24].try_into().unwrap()), seq);
            assert_eq!(u32::from_le_bytes(event[12..16].try_into().unwrap()), sub);
            sub += 1;
            ended = event[6] & 1 != 0;
        }
        assert!(ended);
        assert_eq!(seq, market.last_seq());
        market.check().unwrap();
    }
    assert!(
        market
            .instruments()
            .iter()
            .all(|each| each.open_orders > 10 && each.last_price > 0)
    );
}

#[test]
fn a_bookful_of_stops_goes_off_in_one_command() {
    let mut market = opened();
    let command = Command {
        kind: 1,
        side: 1,
        session: 2,
        instrument: 1,
        epoch: 1,
        tif: 1,
        ..Command::default()
    };
    let stops = (0..5_000).map(|id| Command {
        reference: 100 + id,
        order_id: id,
        ord_type: 4,
        price: 10,
        qty: 1,
        aux: 500,
        ..command
    });
    apply(&mut market, &stops.collect::<Vec<_>>());
    assert_eq!(market.instruments()[0].pending_stops, 5_000);
    let limit = |id: u64, side| Command {
        side,
        reference: id,
        order_id: id,
        ord_type: 2,
        price: 500,
        qty: 1,
        ..command
    };
    let events = apply(&mut market, &[limit(10_000, 2), limit(10_001, 1)]);
    assert_eq!(events.iter().filter(|event| event[0] == 7).count(), 5_000);
    let state = &market.instruments()[0];
    assert_eq!((state.pending_stops, state.open_orders), (0, 5_000));
    market.check().unwrap();
}

#[test]
fn random_bytes_are_answered_and_break_nothing() {
    let mut market = opened();
    let mut random = Random(7);
    for _ in 0..2_000 {
        let mut bytes = [0; COMMAND_BYTES];
        for byte in &mut bytes {
            // Small numbers mostly: they name sessions, instruments and kinds that there are.
            *byte = if random.below(3) == 0 {
                random.next() as u8
            } else {
                random.below(4) as u8
            };
        }
        let mut events = Vec::new();
        market.apply(&bytes, random.next(), &mut events).unwrap();
        assert!(events.len() >= EVENT_BYTES);
    }
    market.check().unwrap();
}

#[test]
fn a_restored_market_is_the_same_and_a_damaged_snapshot_never_breaks_one() {
    let mut market = opened();
    let mut random = Random(1);
    let commands: Vec<Command> = (0..60).map(|at| order(&mut random, 100 + at)).collect();
    apply(&mut market, &commands);
    let snapshot = market.snapshot();
    let restored = Market::restore(&snapshot).unwrap();
    restored.check().unwrap();
    assert_eq!(restored.snapshot(), snapshot);
    for at in 0..snapshot.len() {
        assert!(Market::restore(&snapshot[..at]).is_err());
        let mut damaged = snapshot.clone();
        damaged[at] ^= 1 << random.below(8);
        if let Ok(other) = Market::restore(&damaged) {
            other.check().unwrap();
            assert_eq!(other.snapshot(), damaged);
        }
    }
}

#[test]
fn a_batch_under_rules_that_nobody_had_is_refused_whole() {
    let mut market = opened();
    let before = market.snapshot();
    for rules in [0, 3] {
        let refused = market.apply_under(rules, &[0; 64], 9, &mut Vec::new());
        assert_eq!(refused, Err(BatchError::Rules(rules)));
    }
    assert_eq!(market.snapshot(), before);
}

#[test]
fn a_batch_of_another_length_is_refused_whole() {
    let mut market = opened();
    let before = market.snapshot();
    let mut events = Vec::new();
    let refused = market.apply(&[0; 65], 9, &mut events);
    assert_eq!(refused, Err(BatchError::Length(65)));
    assert!(events.is_empty());
    assert_eq!(market.snapshot(), before);
}

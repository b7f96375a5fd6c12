//! Applies a file of 64-byte commands, as a loop of the engine would, and says how long it took.
//!
//! ```text
//! railswitch bench core --export pair.commands --commands 200000
//! cargo build --release --manifest-path engine/core/Cargo.toml --example single_pair
//! BINARY=engine/core/target/release/examples/single_pair
//! $BINARY pair.commands
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null $BINARY pair.commands
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null $BINARY pair.commands 100000
//! ```
//!
//! Instructions for each command: the difference between callgrind's two totals, divided by the
//! difference in commands. What loading costs is in both.

use std::process::ExitCode;
use std::time::Instant;

use railswitch_core::{COMMAND_BYTES, Market};

/// As many commands as a frame of a busy engine has.
const BATCH_COMMANDS: usize = 1_024;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (path, count) = (arguments.next(), arguments.next());
    let count = count.map_or(Ok(usize::MAX), |count| count.parse());
    let (Some(path), Ok(count)) = (path, count) else {
        eprintln!("usage: single_pair FILE [COMMANDS]");
        return ExitCode::FAILURE;
    };
    match std::fs::read(&path) {
        Ok(commands) => run(&commands[..commands.len().min(count.saturating_mul(COMMAND_BYTES))]),
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(commands: &[u8]) -> ExitCode {
    let mut market = Market::default();
    let mut events = Vec::new();
    let mut answers = 0;
    let started = Instant::now();
    for (ts_s, batch) in (0..).zip(commands.chunks(BATCH_COMMANDS * COMMAND_BYTES)) {
        events.clear();
        if let Err(error) = market.apply(batch, ts_s * 1_000_000_000, &mut events) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
        answers += events.len() / railswitch_core::EVENT_BYTES;
    }
    let elapsed = started.elapsed();
    let count = commands.len() / COMMAND_BYTES;
    let each_ns = elapsed.as_nanos() as f64 / count as f64;
    println!("{count} commands, {answers} events, {each_ns:.1} ns a command");
    ExitCode::SUCCESS
}

//! Captures: what the tee keeps of an order's exchange, in MessagePack as `shadow/capture.py` reads
//! it, numbered without gaps, and bounded.

use std::collections::{BTreeMap, VecDeque};
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;

use crate::exchange::Exchange;
use crate::route::Action;

/// How an exchange ended, as far as the proxy could see: `shadow.capture.Outcome`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The client has its answer.
    Answered,
    /// The client left before the answer; the monolith may have taken the order.
    ClientGone,
    /// Refused, reset or timed out: whether the monolith took it is unknown.
    UpstreamFailed,
    /// What a record of the ahead log says until the exchange ends.
    WorkerLost,
}

impl Outcome {
    fn text(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ClientGone => "client-gone",
            Self::UpstreamFailed => "upstream-failed",
            Self::WorkerLost => "worker-lost",
        }
    }
}

/// The file of eight bytes that says how many numbers are used up, made if it is not there.
pub fn map_count_file(path: &Path) -> io::Result<MmapMut> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.set_len(8)?;
    // SAFETY: the file is this worker's own, named after it; whoever reads it when the worker is
    // dead does not change its length.
    #[allow(unsafe_code, reason = "see above")]
    unsafe {
        MmapMut::map_mut(&file)
    }
}

/// Consecutive captures of one worker.
#[derive(Debug)]
pub struct Batch {
    /// Number of the first.
    pub first: u64,
    /// So many.
    pub count: usize,
    /// A MessagePack array of them.
    pub data: Vec<u8>,
    /// Their ids in the ahead log, eight bytes each, little-endian.
    pub ahead: Vec<u8>,
}

struct Kept {
    number: u64,
    data: Vec<u8>,
    ahead_id: u64,
}

#[derive(Default)]
struct Inside {
    kept: VecDeque<Kept>,
    bytes: usize,
    dropped: BTreeMap<&'static str, u64>,
    given_up: Vec<u8>,
    count_file: Option<MmapMut>,
}

/// The captures that wait to be shipped. The plane's thread puts them in, Python's takes them.
pub struct Captures {
    worker: String,
    captures_max: usize,
    bytes_max: usize,
    captured: AtomicU64,
    inside: Mutex<Inside>,
}

impl Captures {
    /// `count_file`: eight bytes that always say how many numbers are used up.
    pub fn new(
        worker: String,
        captures_max: usize,
        bytes_max: usize,
        count_file: Option<MmapMut>,
    ) -> Self {
        let inside = Mutex::new(Inside {
            count_file,
            ..Inside::default()
        });
        Self {
            worker,
            captures_max,
            bytes_max,
            captured: AtomicU64::new(0),
            inside,
        }
    }

    /// Numbers used up, kept or not.
    pub fn captured(&self) -> u64 {
        self.captured.load(Ordering::Relaxed)
    }

    /// Captures dropped, by reason.
    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        self.inside().dropped.clone()
    }

    /// Takes the next number for this exchange, and keeps it if there is room. True when the queue
    /// was empty before.
    pub fn offer(&self, exchange: &Exchange, outcome: Outcome) -> bool {
        let number = self.captured.load(Ordering::Relaxed) + 1;
        self.captured.store(number, Ordering::Relaxed);
        let mut inside = self.inside();
        if let Some(file) = &mut inside.count_file {
            file[..8].copy_from_slice(&number.to_le_bytes());
        }
        let reason = if exchange.body.is_none() {
            "request-too-large"
        } else if exchange.response_body.is_none() {
            "answer-too-large"
        } else if inside.kept.len() >= self.captures_max || inside.bytes >= self.bytes_max {
            "queue-full"
        } else {
            ""
        };
        if !reason.is_empty() {
            *inside.dropped.entry(reason).or_default() += 1;
            if exchange.ahead_id != 0 {
                inside
                    .given_up
                    .extend_from_slice(&exchange.ahead_id.to_le_bytes());
            }
            return false;
        }
        let data = encode(exchange, &self.worker, number, outcome);
        let was_empty = inside.kept.is_empty();
        inside.bytes += data.len() + 64;
        inside.kept.push_back(Kept {
            number,
            data,
            ahead_id: exchange.ahead_id,
        });
        was_empty
    }

    /// The oldest ones, consecutive; a gap ends a batch.
    pub fn take(&self, count_max: usize, bytes_max: usize) -> Option<Batch> {
        let mut inside = self.inside();
        let first = inside.kept.front()?.number;
        let (mut data, mut ahead, mut count) = (vec![0xdd, 0, 0, 0, 0], Vec::new(), 0u32);
        while (count as usize) < count_max && data.len() < bytes_max {
            match inside.kept.front() {
                Some(next) if next.number == first + u64::from(count) => {}
                _ => break,
            }
            let Some(kept) = inside.kept.pop_front() else {
                break;
            };
            inside.bytes -= kept.data.len() + 64;
            data.extend_from_slice(&kept.data);
            if kept.ahead_id != 0 {
                ahead.extend_from_slice(&kept.ahead_id.to_le_bytes());
            }
            count += 1;
        }
        data[1..5].copy_from_slice(&count.to_be_bytes());
        Some(Batch {
            first,
            count: count as usize,
            data,
            ahead,
        })
    }

    /// This record of the ahead log stands for nothing any more.
    pub fn give_up(&self, ahead_id: u64) {
        self.inside()
            .given_up
            .extend_from_slice(&ahead_id.to_le_bytes());
    }

    /// Ids in the ahead log of captures that were dropped here, since it was asked last.
    pub fn given_up(&self) -> Vec<u8> {
        std::mem::take(&mut self.inside().given_up)
    }

    /// How many wait, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let inside = self.inside();
        (inside.kept.len(), inside.bytes)
    }

    /// A record for the ahead log: the request, before it is sent.
    pub fn record(&self, exchange: &Exchange) -> Vec<u8> {
        encode(
            exchange,
            &self.worker,
            exchange.ahead_id,
            Outcome::WorkerLost,
        )
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        // A panic while it was held has ended the process.
        self.inside
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn encode(exchange: &Exchange, worker: &str, number: u64, outcome: Outcome) -> Vec<u8> {
    let none = Vec::new();
    let body = exchange.body.as_ref().unwrap_or(&none);
    let response_body = exchange.response_body.as_ref().unwrap_or(&none);
    let mut out =
        Vec::with_capacity(256 + body.len() + response_body.len() + exchange.target.len() * 2);
    out.extend_from_slice(&[0xdc, 0, 16]);
    write_text(&mut out, worker.as_bytes());
    write_unsigned(&mut out, number);
    write_text(
        &mut out,
        exchange.action().map_or("", Action::text).as_bytes(),
    );
    write_latin(&mut out, &exchange.method);
    write_latin(&mut out, &exchange.target);
    let params = exchange.path_params();
    out.push(0xde);
    out.extend_from_slice(&(params.len() as u16).to_be_bytes());
    for (name, value) in params {
        write_text(&mut out, name.as_bytes());
        write_text(&mut out, value.as_bytes());
    }
    write_latin(&mut out, &exchange.content_type);
    write_bytes(&mut out, body);
    write_unsigned(&mut out, exchange.account());
    write_latin(&mut out, &exchange.request_id);
    write_text(&mut out, outcome.text().as_bytes());
    write_unsigned(&mut out, u64::from(exchange.status));
    write_bytes(&mut out, response_body);
    write_unsigned(&mut out, exchange.sent_mono_ns);
    write_unsigned(&mut out, exchange.answered_mono_ns);
    write_unsigned(&mut out, exchange.sent_at_ns);
    out
}

fn write_unsigned(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        length @ 0..=31 => out.push(0xa0 | length as u8),
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// Bytes as Latin-1 has them, in UTF-8.
fn write_latin(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_ascii() {
        write_text(out, bytes);
    } else {
        let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
        write_text(out, text.as_bytes());
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(0xc6);
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

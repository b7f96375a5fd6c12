//! The commit path: a thread of its own writes a frame, applies it and waits for the disk, while
//! Python gathers the next one. It takes whatever has been gathered as soon as it is free, so that
//! no order waits for the interpreter between arriving and being durable.
//!
//! A failure ends the thread: what it had not finished is never told.

use std::any::Any;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, PipeWriter, Write};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use railswitch_core::frame::{self, FRAME_HEADER_BYTES};
use railswitch_core::limits::COMMAND_STEP_NS;
use railswitch_core::{COMMAND_BYTES, EVENT_BYTES};

use crate::State;

/// Emptied buffers that wait to be used again, and how large they may be.
const SPARE_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 4 << 20;

/// Commands of one session that were added together.
pub struct Part {
    pub owner: Py<PyAny>,
    pub count: usize,
}

/// A frame being gathered: room for the header, then commands.
#[derive(Default)]
pub struct Draft {
    pub bytes: Vec<u8>,
    pub parts: Vec<Part>,
    now_ns: u64,
}

impl Draft {
    fn new(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(FRAME_HEADER_BYTES, 0);
        Self {
            bytes,
            ..Self::default()
        }
    }

    pub fn commands(&self) -> &[u8] {
        &self.bytes[FRAME_HEADER_BYTES..]
    }

    pub fn count(&self) -> usize {
        self.commands().len() / COMMAND_BYTES
    }
}

/// A frame that is durable.
pub struct Settled {
    pub draft: Draft,
    pub first_seq: u64,
    pub ts_ns: u64,
    pub events: Vec<u8>,
    pub ends: Vec<usize>, // of each part's events
}

pub enum Failure {
    Journal(io::Error),
    Rotation(PyErr),
    Market(u64, String),
}

#[derive(Default)]
pub struct Gathered {
    pub drafts: VecDeque<Draft>,
    pub incoming: Vec<u8>,
    spare: Vec<Vec<u8>>,
    pub is_held: bool,   // nothing more is to be taken
    pub is_parked: bool, // and nothing is in hand any more
    pub is_stopped: bool,
}

impl Gathered {
    fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(buffer);
        }
    }

    /// Adds what is in `incoming`.
    pub fn gather(&mut self, py: Python<'_>, owner: &Py<PyAny>, now_ns: u64, commands_max: usize) {
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = &incoming[..];
        while !rest.is_empty() {
            if self
                .drafts
                .back()
                .is_none_or(|last| last.count() >= commands_max)
            {
                let bytes = self.spare();
                self.drafts.push_back(Draft::new(bytes));
            }
            let Some(draft) = self.drafts.back_mut() else {
                unreachable!()
            };
            let count = (rest.len() / COMMAND_BYTES).min(commands_max - draft.count());
            let (taken, left) = rest.split_at(count * COMMAND_BYTES);
            draft.bytes.extend_from_slice(taken);
            draft.parts.push(Part {
                owner: owner.clone_ref(py),
                count,
            });
            draft.now_ns = now_ns;
            rest = left;
        }
        self.incoming = incoming;
    }
}

#[derive(Default)]
pub struct Finished {
    pub frames: Vec<Settled>,
    pub failure: Option<Failure>,
}

pub struct Shared {
    pub gathered: Mutex<Gathered>,
    pub work: Condvar,
    pub finished: Mutex<Finished>,
    pub progress: Arc<AtomicU64>,
    pub is_rung: AtomicBool,
    pub bell: PipeWriter,
    pub commands_max: usize,
}

impl Shared {
    pub fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn finished(&self) -> MutexGuard<'_, Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a frame; None: stop.
    fn take(&self) -> Option<(Draft, Vec<u8>)> {
        let mut gathered = self.gathered();
        loop {
            if gathered.is_stopped {
                return None;
            }
            if gathered.is_held {
                if !gathered.is_parked {
                    gathered.is_parked = true;
                    self.ring();
                }
            } else if let Some(draft) = gathered.drafts.pop_front() {
                return Some((draft, gathered.spare()));
            }
            gathered = self
                .work
                .wait(gathered)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One byte in the pipe says that there is something to be fetched.
    fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            // Nobody listens only when the whole is being dropped.
            let _ = (&self.bell).write_all(&[0]);
        }
    }
}

/// Where the next frame goes, and what it must follow.
pub struct Journal {
    pub file: File,
    pub offset: u64,
    pub size: u64,
    pub rules: u16,
    pub next_seq: u64,
    pub next_ts_ns: u64,
    pub crc: u32,
    pub header: Vec<u8>, // the last frame's; empty before the first
    pub rotate: Py<PyAny>,
    pub progress: Arc<AtomicU64>, // the offset, for others to read; 0 while it rotates
}

impl Journal {
    pub fn open(path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).open(path)
    }

    fn write(&mut self, bytes: &mut [u8], ts_ns: u64) -> Result<(), Failure> {
        if self.offset + bytes.len() as u64 > self.size {
            self.rotate(bytes.len())?;
        }
        self.crc = frame::seal(bytes, self.rules, self.next_seq, ts_ns, self.crc);
        self.file
            .write_all_at(bytes, self.offset)
            .map_err(Failure::Journal)?;
        begin_to_sync(&self.file, self.offset, bytes.len());
        let count = ((bytes.len() - FRAME_HEADER_BYTES) / COMMAND_BYTES) as u64;
        self.header.clear();
        self.header.extend_from_slice(&bytes[..FRAME_HEADER_BYTES]);
        self.offset += bytes.len() as u64;
        self.progress.store(self.offset, Ordering::Relaxed);
        self.next_seq += count;
        self.next_ts_ns = ts_ns + count * COMMAND_STEP_NS;
        Ok(())
    }

    /// The only place where the thread waits for the interpreter: once in a segment.
    fn rotate(&mut self, frame_bytes: usize) -> Result<(), Failure> {
        self.progress.store(0, Ordering::Relaxed);
        let next: PyResult<(PathBuf, u64, u64)> = Python::attach(|py| {
            let header = PyBytes::new(py, &self.header);
            let after = (self.next_seq, self.next_ts_ns, header, frame_bytes);
            let next = self.rotate.call1(py, after)?;
            next.extract(py)
        });
        let (path, offset, size) = next.map_err(Failure::Rotation)?;
        self.file = Self::open(&path).map_err(Failure::Journal)?;
        (self.offset, self.size) = (offset, size);
        Ok(())
    }
}

/// Has the disk begin, so that it works while the frame is applied; whether it was written well is
/// told by `sync_data` alone.
#[cfg(target_os = "linux")]
fn begin_to_sync(file: &File, offset: u64, bytes: usize) {
    let (fd, offset, bytes) = (file.as_raw_fd(), offset as i64, bytes as i64);
    // SAFETY: the call is given four numbers and no memory of this process. The descriptor is that
    // of a file which is borrowed, so open, until it returns.
    let _ = unsafe { libc::sync_file_range(fd, offset, bytes, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(not(target_os = "linux"))]
fn begin_to_sync(_: &File, _: u64, _: usize) {}

/// Everything that happens to one frame.
fn commit(
    journal: &mut Journal,
    market: &Mutex<State>,
    mut draft: Draft,
    mut events: Vec<u8>,
) -> Result<Settled, Failure> {
    let first_seq = journal.next_seq;
    let ts_ns = draft.now_ns.max(journal.next_ts_ns);
    journal.write(&mut draft.bytes, ts_ns)?;
    let failed = |why: String| Failure::Market(first_seq, why);
    events.clear();
    let mut state = market.lock().unwrap_or_else(PoisonError::into_inner);
    let applied = state
        .market
        .apply_under(journal.rules, draft.commands(), ts_ns, &mut events);
    drop(state);
    applied.map_err(|error| failed(error.to_string()))?;
    let counts = draft.parts.iter().map(|part| part.count);
    let ends = frame::part_ends(&events, counts).ok_or_else(|| {
        let (count, size) = (draft.count(), events.len() / EVENT_BYTES);
        failed(format!(
            "{count} commands, and {size} events that end more or fewer"
        ))
    })?;
    journal.file.sync_data().map_err(Failure::Journal)?;
    Ok(Settled {
        draft,
        first_seq,
        ts_ns,
        events,
        ends,
    })
}

fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    text.or(owned).unwrap_or("it panicked").to_owned()
}

/// The thread, until it is stopped or fails.
pub fn run(shared: &Shared, journal: &mut Journal, market: &Mutex<State>) {
    while let Some((draft, events)) = shared.take() {
        let first_seq = journal.next_seq;
        let work = AssertUnwindSafe(|| commit(journal, market, draft, events));
        let settled = catch_unwind(work)
            .unwrap_or_else(|panic| Err(Failure::Market(first_seq, told(&*panic))));
        let mut finished = shared.finished();
        let has_failed = settled.is_err();
        match settled {
            Ok(settled) => finished.frames.push(settled),
            Err(failure) => finished.failure = Some(failure),
        }
        drop(finished);
        shared.ring();
        if has_failed {
            return;
        }
    }
}

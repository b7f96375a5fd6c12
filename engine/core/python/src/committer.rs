//! What Python sees of the commit path.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use railswitch_core::COMMAND_BYTES;
use railswitch_core::frame::{self, FRAME_HEADER_BYTES};

use crate::Market;
use crate::commit::{Draft, Failure, Journal, Settled, Shared, run};

/// (owner, commands, first reference, last reference, events) of commands that were added together.
type PartRow<'py> = (Py<PyAny>, usize, u64, u64, Bound<'py, PyBytes>);
/// (first sequence number, commands, time, events, parts) of a frame.
type FrameRow<'py> = (u64, usize, u64, Bound<'py, PyBytes>, Vec<PartRow<'py>>);

/// See `engine.commit`. Its methods never wait for the disk, but for `stop`.
#[pyclass(frozen, module = "engine._core")]
pub struct Committer {
    shared: Arc<Shared>,
    bell: PipeReader,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl Committer {
    /// `rotate(next_seq, next_ts_ns, header of the last frame, bytes of the next)` gives (path,
    /// offset, size) of another segment, and is called by the thread.
    #[new]
    #[pyo3(signature = (
        market, rotate, *, path, offset, size, rules, next_seq, next_ts_ns, crc, commands_max
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        market: &Bound<'_, Market>,
        rotate: Py<PyAny>,
        path: PathBuf,
        offset: u64,
        size: u64,
        rules: u16,
        next_seq: u64,
        next_ts_ns: u64,
        crc: u32,
        commands_max: usize,
    ) -> PyResult<Self> {
        let file = Journal::open(&path)?;
        let (listening, bell) = io::pipe()?;
        let progress = Arc::new(AtomicU64::new(offset));
        let shared = Arc::new(Shared {
            gathered: Mutex::default(),
            work: Condvar::new(),
            finished: Mutex::default(),
            progress: Arc::clone(&progress),
            is_rung: AtomicBool::new(false),
            bell,
            commands_max,
        });
        let mut journal = Journal {
            file,
            offset,
            size,
            rules,
            next_seq,
            next_ts_ns,
            crc,
            header: Vec::new(),
            rotate,
            progress,
        };
        let market = market.get().shared();
        let its = Arc::clone(&shared);
        let thread = Builder::new()
            .name("commit".into())
            .spawn(move || run(&its, &mut journal, &market))?;
        Ok(Self {
            shared,
            bell: listening,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Readable when `settled` has something to give.
    fn fileno(&self) -> i32 {
        self.bell.as_raw_fd()
    }

    /// Where in its segment the next frame begins; 0 while it rotates.
    #[getter]
    fn offset(&self) -> u64 {
        self.shared.progress.load(Ordering::Relaxed)
    }

    /// Gathers commands of one session for the next frame, whatever their references.
    fn add(
        &self,
        py: Python<'_>,
        owner: Py<PyAny>,
        session: u16,
        commands: &Bound<'_, PyAny>,
        now_ns: u64,
    ) -> PyResult<()> {
        self.gather(py, &owner, session, commands, now_ns, |_| Some(0))
            .map(|_| ())
    }

    /// As `add`, if the references ascend from above `above_ref`; returns the last one, or 0: none
    /// was taken.
    fn offer(
        &self,
        py: Python<'_>,
        owner: Py<PyAny>,
        session: u16,
        commands: &Bound<'_, PyAny>,
        above_ref: u64,
        now_ns: u64,
    ) -> PyResult<u64> {
        let last = |bytes: &[u8]| frame::last_if_ascending(bytes, above_ref);
        let taken = self.gather(py, &owner, session, commands, now_ns, last)?;
        Ok(taken.unwrap_or(0))
    }

    /// Nothing more is taken: once what is in hand is durable, `settled` says so.
    fn hold(&self) {
        let mut gathered = self.shared.gathered();
        (gathered.is_held, gathered.is_parked) = (true, false);
        self.shared.work.notify_one();
    }

    fn resume(&self) {
        let mut gathered = self.shared.gathered();
        (gathered.is_held, gathered.is_parked) = (false, false);
        self.shared.work.notify_one();
    }

    /// Frames that have become durable, and whether it holds now, all of them fetched.
    fn settled<'py>(&self, py: Python<'py>) -> PyResult<(Vec<FrameRow<'py>>, bool)> {
        if self.shared.is_rung.load(Ordering::Acquire) {
            (&self.bell).read_exact(&mut [0])?;
            self.shared.is_rung.store(false, Ordering::Release);
        }
        let is_parked = self.shared.gathered().is_parked;
        let frames = std::mem::take(&mut self.shared.finished().frames);
        Ok((
            frames
                .into_iter()
                .map(|frame| self.row(py, frame))
                .collect(),
            is_parked,
        ))
    }

    /// Why the thread ended before its time: (first sequence number or 0, exception).
    fn failure(&self, py: Python<'_>) -> Option<(u64, Py<PyAny>)> {
        let failure = self.shared.finished().failure.take()?;
        let (first_seq, error) = match failure {
            Failure::Journal(error) => (0, PyErr::from(error)),
            Failure::Rotation(error) => (0, error),
            Failure::Market(first_seq, why) => (first_seq, PyRuntimeError::new_err(why)),
        };
        Some((first_seq, error.into_value(py).into_any()))
    }

    /// Finishes the frame in hand, and ends. What is only gathered is dropped.
    fn stop(&self, py: Python<'_>) {
        self.shared.gathered().is_stopped = true;
        self.shared.work.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic has been told as a failure.
            let _ = py.detach(|| thread.join());
        }
    }
}

impl Committer {
    fn gather(
        &self,
        py: Python<'_>,
        owner: &Py<PyAny>,
        session: u16,
        commands: &Bound<'_, PyAny>,
        now_ns: u64,
        last_ref: impl Fn(&[u8]) -> Option<u64>,
    ) -> PyResult<Option<u64>> {
        let commands = PyBuffer::<u8>::get(commands)?;
        let size = commands.len_bytes();
        if size == 0 || size % COMMAND_BYTES != 0 {
            let told = format!("{size} bytes of commands: each is {COMMAND_BYTES}");
            return Err(PyValueError::new_err(told));
        }
        let mut gathered = self.shared.gathered();
        gathered.incoming.resize(size, 0);
        commands.copy_to_slice(py, &mut gathered.incoming)?;
        let last = last_ref(&gathered.incoming);
        if last.is_some() {
            frame::stamp(&mut gathered.incoming, session);
            let is_first = gathered.drafts.is_empty();
            gathered.gather(py, owner, now_ns, self.shared.commands_max);
            if is_first {
                self.shared.work.notify_one();
            }
        }
        Ok(last)
    }

    fn row<'py>(&self, py: Python<'py>, settled: Settled) -> FrameRow<'py> {
        let Settled {
            draft,
            first_seq,
            ts_ns,
            events,
            ends,
        } = settled;
        let (count, Draft { bytes, parts, .. }) = (draft.count(), draft);
        let commands = bytes[FRAME_HEADER_BYTES..].as_chunks::<COMMAND_BYTES>().0;
        let whole = PyBytes::new(py, &events);
        let (mut at, mut start) = (0, 0);
        let mut rows = Vec::with_capacity(parts.len());
        for (part, end) in parts.into_iter().zip(ends) {
            let (first, last) = (&commands[at], &commands[at + part.count - 1]);
            let refs = (frame::reference(first), frame::reference(last));
            let told = match part.count == count {
                true => whole.clone(),
                false => PyBytes::new(py, &events[start..end]),
            };
            rows.push((part.owner, part.count, refs.0, refs.1, told));
            (at, start) = (at + part.count, end);
        }
        let row = (first_seq, count, ts_ns, whole, rows);
        let mut gathered = self.shared.gathered();
        gathered.keep(bytes);
        gathered.keep(events);
        row
    }
}

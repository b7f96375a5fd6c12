//! Zeroes a file ahead of need, in small synced steps, for as long as it may: without the
//! interpreter, since whoever waits for that makes orders wait.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

#[derive(Default)]
struct Wanted {
    bytes: u64,
    is_enough: bool,
}

/// See `engine.preparer.Zeroing`.
#[pyclass(frozen, module = "engine._core")]
#[derive(Default)]
pub struct Zeroing {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[pymethods]
impl Zeroing {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn want(&self, bytes: u64) {
        self.wanted().bytes = bytes;
        self.changed.notify_one();
    }

    fn enough(&self) {
        self.wanted().is_enough = true;
        self.changed.notify_one();
    }

    fn run(&self, py: Python<'_>, path: PathBuf, start: u64, end: u64, step: u64) -> PyResult<u64> {
        Ok(py.detach(|| self.zero(&path, start, end, step))?)
    }
}

impl Zeroing {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn zero(&self, path: &PathBuf, start: u64, end: u64, step: u64) -> io::Result<u64> {
        let file = File::options().write(true).open(path)?;
        let zeros = vec![0; step as usize];
        let mut done = start;
        while done < end && self.is_wanted(done) {
            let size = step.min(end - done);
            file.write_all_at(&zeros[..size as usize], done)?;
            file.sync_data()?;
            done += size;
        }
        Ok(done)
    }

    /// Waits until more is, or what is there is enough.
    fn is_wanted(&self, done: u64) -> bool {
        let is_idle = |wanted: &mut Wanted| !wanted.is_enough && wanted.bytes <= done;
        let wanted = self.changed.wait_while(self.wanted(), is_idle);
        !wanted.unwrap_or_else(PoisonError::into_inner).is_enough
    }
}

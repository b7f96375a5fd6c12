//! `engine._core`: the border between Python and the core. It converts and holds no logic.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyAssertionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use railswitch_core as core;
use railswitch_core::limits::{OPEN_ORDERS_MAX, OPEN_ORDERS_PER_BOOK_MAX};

/// A buffer of events larger than this is given back rather than kept for the next batch.
const KEPT_BYTES_MAX: usize = 4 << 20;

type InstrumentRow = (u32, String, u8, u32, u32, i64, u64);
type SessionRow = (u16, String, u8, u64);

#[derive(Default)]
struct State {
    market: core::Market,
    events: Vec<u8>,
}

/// Calls from several threads wait for each other. Nobody who holds the lock waits for the
/// interpreter.
#[pyclass(frozen, module = "engine._core")]
struct Market {
    state: Mutex<State>,
}

impl Market {
    fn of(market: core::Market) -> Self {
        let events = Vec::new();
        Self {
            state: Mutex::new(State { market, events }),
        }
    }

    /// A panic inside the core has been reported to its caller, who must stop; reading is still
    /// safe.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Market {
    #[new]
    #[pyo3(signature = (
        *, open_orders_per_book_max = OPEN_ORDERS_PER_BOOK_MAX, open_orders_max = OPEN_ORDERS_MAX
    ))]
    fn new(open_orders_per_book_max: u32, open_orders_max: u32) -> Self {
        Self::of(core::Market::with_bounds(
            open_orders_per_book_max,
            open_orders_max,
        ))
    }

    #[staticmethod]
    fn restore(py: Python<'_>, snapshot: &[u8]) -> PyResult<Self> {
        py.detach(|| core::Market::restore(snapshot))
            .map(Self::of)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[getter]
    fn last_seq(&self) -> u64 {
        self.lock().market.last_seq()
    }

    #[getter]
    fn last_ts_ns(&self) -> u64 {
        self.lock().market.last_ts_ns()
    }

    fn apply<'py>(
        &self,
        py: Python<'py>,
        commands: &[u8],
        ts_ns: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut events = py
            .detach(|| {
                let mut state = self.lock();
                let mut events = std::mem::take(&mut state.events);
                let applied = state.market.apply(commands, ts_ns, &mut events);
                applied.map(|()| events)
            })
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let bytes = PyBytes::new(py, &events);
        if events.capacity() <= KEPT_BYTES_MAX {
            events.clear();
            self.lock().events = events;
        }
        Ok(bytes)
    }

    fn orders<'py>(&self, py: Python<'py>, instrument: u32) -> Option<Bound<'py, PyBytes>> {
        let mut orders = Vec::new();
        let known = py.detach(|| self.lock().market.orders(instrument, &mut orders));
        known.then(|| PyBytes::new(py, &orders))
    }

    fn instruments(&self) -> Vec<InstrumentRow> {
        let row = |each: core::InstrumentState| {
            (
                each.number,
                each.name,
                each.mode as u8,
                each.epoch,
                each.open_orders,
                each.price_max,
                each.qty_max,
            )
        };
        self.lock()
            .market
            .instruments()
            .into_iter()
            .map(row)
            .collect()
    }

    fn sessions(&self) -> Vec<SessionRow> {
        let row =
            |each: core::SessionState| (each.number, each.name, each.role as u8, each.last_ref);
        self.lock().market.sessions().into_iter().map(row).collect()
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let snapshot = py.detach(|| self.lock().market.snapshot());
        PyBytes::new(py, &snapshot)
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.lock().market.check())
            .map_err(PyAssertionError::new_err)
    }
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Market>()?;
    module.add(
        "OPEN_ORDERS_PER_BOOK_MAX",
        core::limits::OPEN_ORDERS_PER_BOOK_MAX,
    )?;
    module.add("OPEN_ORDERS_MAX", core::limits::OPEN_ORDERS_MAX)?;
    module.add("INSTRUMENTS_MAX", core::limits::INSTRUMENTS_MAX)?;
    module.add("COMMAND_STEP_NS", core::limits::COMMAND_STEP_NS)?;
    Ok(())
}

//! `engine._core`: the border between Python and the core. It converts and holds no logic.

mod commit;
mod committer;
mod zeroing;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyAssertionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use railswitch_core as core;
use railswitch_core::limits::{self, Bounds};

/// A buffer of events larger than this is given back rather than kept for the next batch.
const KEPT_BYTES_MAX: usize = 4 << 20;

type InstrumentRow = (
    (u32, String, u8, u32, u32, i64, u64),
    (i64, u64, u64, u64, u32, bool, i64, u32),
);
type SessionRow = (u16, String, u8, u64, u8);
type AccountRow = (u64, u64, u64, u64, u64, bool, u64, u64, u64, u32);

#[derive(Default)]
struct State {
    market: core::Market,
    events: Vec<u8>,
}

/// Calls from several threads wait for each other. Nobody who holds the lock waits for the
/// interpreter.
#[pyclass(frozen, module = "engine._core")]
struct Market {
    state: Arc<Mutex<State>>,
}

impl Market {
    fn of(market: core::Market) -> Self {
        let events = Vec::new();
        Self {
            state: Arc::new(Mutex::new(State { market, events })),
        }
    }

    fn shared(&self) -> Arc<Mutex<State>> {
        Arc::clone(&self.state)
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
        *,
        open_orders_per_book_max = limits::OPEN_ORDERS_PER_BOOK_MAX,
        open_orders_max = limits::OPEN_ORDERS_MAX,
        levels_per_side_max = limits::LEVELS_PER_SIDE_MAX,
        stops_per_book_max = limits::STOPS_PER_BOOK_MAX,
        icebergs_per_book_max = limits::ICEBERGS_PER_BOOK_MAX,
        accounts_max = limits::ACCOUNTS_MAX,
        mass_cancel_max = limits::MASS_CANCEL_MAX,
    ))]
    fn new(
        open_orders_per_book_max: u32,
        open_orders_max: u32,
        levels_per_side_max: u32,
        stops_per_book_max: u32,
        icebergs_per_book_max: u32,
        accounts_max: u32,
        mass_cancel_max: u32,
    ) -> Self {
        Self::of(core::Market::with_bounds(Bounds {
            open_orders_per_book: open_orders_per_book_max,
            open_orders: open_orders_max,
            levels_per_side: levels_per_side_max,
            stops_per_book: stops_per_book_max,
            icebergs_per_book: icebergs_per_book_max,
            accounts: accounts_max,
            mass_cancel: mass_cancel_max,
        }))
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

    #[pyo3(signature = (commands, ts_ns, rules = limits::RULES))]
    fn apply<'py>(
        &self,
        py: Python<'py>,
        commands: &[u8],
        ts_ns: u64,
        rules: u16,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut events = py
            .detach(|| {
                let mut state = self.lock();
                let mut events = std::mem::take(&mut state.events);
                let applied = state
                    .market
                    .apply_under(rules, commands, ts_ns, &mut events);
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
        let orders = py.detach(|| self.lock().market.orders(instrument));
        orders.map(|bytes| PyBytes::new(py, &bytes))
    }

    fn stops<'py>(&self, py: Python<'py>, instrument: u32) -> Option<Bound<'py, PyBytes>> {
        let stops = py.detach(|| self.lock().market.stops(instrument));
        stops.map(|bytes| PyBytes::new(py, &bytes))
    }

    fn depth<'py>(
        &self,
        py: Python<'py>,
        instrument: u32,
        levels: usize,
    ) -> Option<Bound<'py, PyBytes>> {
        let depth = py.detach(|| self.lock().market.depth(instrument, levels));
        depth.map(|bytes| PyBytes::new(py, &bytes))
    }

    fn displayed_orders<'py>(
        &self,
        py: Python<'py>,
        instrument: u32,
        count: usize,
    ) -> Option<Bound<'py, PyBytes>> {
        let orders = py.detach(|| self.lock().market.displayed_orders(instrument, count));
        orders.map(|bytes| PyBytes::new(py, &bytes))
    }

    fn instruments(&self, py: Python<'_>) -> Vec<InstrumentRow> {
        let states = py.detach(|| self.lock().market.instruments());
        states.into_iter().map(instrument_row).collect()
    }

    fn sessions(&self, py: Python<'_>) -> Vec<SessionRow> {
        let row = |each: core::SessionState| {
            let role = each.role as u8;
            (each.number, each.name, role, each.last_ref, each.options)
        };
        let states = py.detach(|| self.lock().market.sessions());
        states.into_iter().map(row).collect()
    }

    fn accounts(&self, py: Python<'_>) -> Vec<AccountRow> {
        let states = py.detach(|| self.lock().market.accounts());
        states.into_iter().map(account_row).collect()
    }

    fn account(&self, py: Python<'_>, account: u64) -> AccountRow {
        account_row(py.detach(|| self.lock().market.account(account)))
    }

    fn next_expiry_ns(&self, py: Python<'_>) -> Option<u64> {
        py.detach(|| self.lock().market.next_expiry_ns())
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

fn instrument_row(each: core::InstrumentState) -> InstrumentRow {
    let mode = each.mode as u8;
    (
        (
            each.number,
            each.name,
            mode,
            each.epoch,
            each.open_orders,
            each.price_max,
            each.qty_max,
        ),
        (
            each.price_min,
            each.tick,
            each.lot,
            each.notional_max,
            each.day_end_s,
            each.halted,
            each.last_price,
            each.pending_stops,
        ),
    )
}

/// The open quantity may outgrow 64 bits, and is not told beyond.
fn account_row(each: core::Account) -> AccountRow {
    (
        each.account,
        each.group,
        each.open_orders_max,
        each.open_qty_max,
        each.rate_max,
        each.killed,
        each.open_orders,
        u64::try_from(each.open_qty).unwrap_or(u64::MAX),
        each.rate_second,
        each.rate_count,
    )
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Market>()?;
    module.add_class::<committer::Committer>()?;
    module.add_class::<zeroing::Zeroing>()?;
    module.add("RULES", limits::RULES)?;
    module.add("RULES_OLDEST", limits::RULES_OLDEST)?;
    module.add("COMMAND_STEP_NS", limits::COMMAND_STEP_NS)?;
    for (name, bound) in [
        ("OPEN_ORDERS_PER_BOOK_MAX", limits::OPEN_ORDERS_PER_BOOK_MAX),
        ("OPEN_ORDERS_MAX", limits::OPEN_ORDERS_MAX),
        ("INSTRUMENTS_MAX", limits::INSTRUMENTS_MAX),
        ("LEVELS_PER_SIDE_MAX", limits::LEVELS_PER_SIDE_MAX),
        ("STOPS_PER_BOOK_MAX", limits::STOPS_PER_BOOK_MAX),
        ("MASS_CANCEL_MAX", limits::MASS_CANCEL_MAX),
        ("ACCOUNTS_MAX", limits::ACCOUNTS_MAX),
        ("ICEBERG_PARTS_MAX", limits::ICEBERG_PARTS_MAX),
        ("ICEBERGS_PER_BOOK_MAX", limits::ICEBERGS_PER_BOOK_MAX),
        ("DAY_S", limits::DAY_S),
    ] {
        module.add(name, bound)?;
    }
    Ok(())
}

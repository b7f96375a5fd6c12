//! `bridge.proxy._core`: the border between Python and the data plane. It converts and holds no
//! logic.

mod reading;

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use mio::{Poll, Waker};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use railswitch_plane as core;
use railswitch_plane::capture::{Captures, map_count_file};
use railswitch_plane::json::PlacedKeys;
use railswitch_plane::plane::WAKER;
use railswitch_plane::route::{Route, Router};
use railswitch_plane::settings::{Address, Limits, Settings};
use railswitch_plane::shared::{Command, Notice, Shared, Told};

/// As `bridge.proxy.native.settings.PlaneSettings` has them.
#[derive(FromPyObject)]
struct GivenSettings {
    worker: String,
    upstreams: Vec<(String, u16)>,
    authority: Vec<u8>,
    identity: Vec<u8>,
    id_prefix: String,
    placed_status: u16,
    placed_many_status: u16,
    placed_root: String,
    placed_many_root: String,
    placed_id: String,
    placed_symbol: String,
    ahead: bool,
    special_orders: bool,
    special_reads: bool,
    count_file: String,
    routes: Vec<(String, String, String, String)>,
    method_override: bool,
    limits: GivenLimits,
}

#[derive(FromPyObject)]
struct GivenLimits {
    clients_max: usize,
    clients_turned_away_max: usize,
    order_body_bytes_max: usize,
    answer_body_bytes_max: usize,
    client_head_s: f64,
    client_idle_s: f64,
    client_stall_s: f64,
    client_linger_s: f64,
    client_pace_bytes: usize,
    order_body_s: f64,
    upstream_connect_s: f64,
    upstream_head_s: f64,
    upstream_wait_s: f64,
    upstream_idle_s: f64,
    upstream_fresh_s: f64,
    answer_stall_s: f64,
    answer_silence_s: f64,
    upstream_connections_max: usize,
    upstream_waiting_max: usize,
    upstream_fall: u32,
    sweep_s: f64,
    tunnel_keepalive_s: u64,
    ahead_budget_s: f64,
    tee_captures_max: usize,
    tee_bytes_max: usize,
    orders_known_max: usize,
}

/// One worker's plane: a thread of its own from the start to `close`.
#[pyclass(frozen, module = "bridge.proxy._core")]
struct Plane {
    shared: Arc<Shared>,
    bell: Mutex<UnixStream>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl Plane {
    /// `listener` is a descriptor that is bound and listens; the plane owns it from now on. -1: all
    /// clients are adopted.
    #[new]
    fn new(given: GivenSettings, listener: i32) -> PyResult<Self> {
        let listener = (listener >= 0).then(|| {
            // SAFETY: the caller has detached it from its socket object and hands it over.
            TcpListener::from(unsafe { OwnedFd::from_raw_fd(listener) })
        });
        let router = router(&given)?;
        let settings = settings(given)?;
        let count_file = settings
            .count_file
            .as_deref()
            .map(map_count_file)
            .transpose()?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let captures = Captures::new(
            settings.worker.clone(),
            settings.limits.tee_captures_max,
            settings.limits.tee_bytes_max,
            count_file,
        );
        let shared = Arc::new(Shared::new(captures, waker, ours));
        let mut plane =
            core::plane::Plane::new(settings, router, listener, poll, Arc::clone(&shared))?;
        let told = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("plane".into())
            .spawn(move || {
                let why = match catch_unwind(AssertUnwindSafe(|| plane.run())) {
                    Ok(Ok(())) => String::new(),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => {
                        // What of its captures can be saved after the defect.
                        let _ = catch_unwind(AssertUnwindSafe(|| plane.cut_off()));
                        "a defect: its message is on standard error".into()
                    }
                };
                told.notify(Notice::Over(why));
            })?;
        Ok(Self {
            shared,
            bell: Mutex::new(theirs),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Readable when there is news: notices, or captures where there were none.
    fn bell_fd(&self) -> i32 {
        self.bell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_raw_fd()
    }

    /// What has happened since; each a tuple that begins with its name.
    fn notices<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut heard = [0u8; 64];
        // It may have rung for what was read before.
        let _ = self
            .bell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(&mut heard);
        self.shared.answer_bell();
        let list = PyList::empty(py);
        for notice in self.shared.notices() {
            list.append(as_tuple(py, notice)?)?;
        }
        Ok(list)
    }

    /// The oldest captures: number of the first, how many, a MessagePack array, and their ids in
    /// the ahead log.
    fn take<'py>(
        &self,
        py: Python<'py>,
        count_max: usize,
        bytes_max: usize,
    ) -> Option<(u64, usize, Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let batch = self.shared.captures.take(count_max, bytes_max)?;
        let (data, ahead) = (
            PyBytes::new(py, &batch.data),
            PyBytes::new(py, &batch.ahead),
        );
        Some((batch.first, batch.count, data, ahead))
    }

    /// Ids in the ahead log of what will never be shipped.
    fn given_up<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.shared.captures.given_up())
    }

    /// How many captures wait.
    fn waiting(&self) -> usize {
        self.shared.captures.waiting().0
    }

    #[getter]
    fn captured(&self) -> u64 {
        self.shared.captures.captured()
    }

    /// Captures dropped, by reason.
    fn dropped<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (reason, count) in self.shared.captures.dropped() {
            dict.set_item(reason, count)?;
        }
        Ok(dict)
    }

    /// Counters, by name.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = &self.shared.counters;
        let dict = PyDict::new(py);
        for (name, counter) in [
            ("requests", &counters.requests),
            ("clients", &counters.clients),
            ("upstream_connections", &counters.upstream_connections),
            ("ahead_late", &counters.ahead_late),
            ("turns", &counters.turns),
            ("upstreams_down", &counters.upstreams_down),
        ] {
            dict.set_item(name, counter.load(Ordering::Relaxed))?;
        }
        Ok(dict)
    }

    /// Symbol and account of an order that passed by.
    fn known(&self, order_id: u64) -> Option<(String, u64)> {
        self.shared
            .known(order_id)
            .map(|known| (known.symbol, known.account))
    }

    fn special(&self, orders: bool, reads: bool, number: u64) {
        self.shared.tell(Command::Special {
            orders,
            reads,
            number,
        });
    }

    fn forward(&self, exchange: u64) {
        self.shared.tell(Command::Forward(exchange));
    }

    fn answer(&self, exchange: u64, status: u16, fields: &[u8], body: &[u8], closes: bool) {
        let (fields, body) = (fields.to_vec(), body.to_vec());
        self.shared.tell(Command::Answer {
            id: exchange,
            status,
            fields,
            body,
            closes,
        });
    }

    fn release(&self, ticket: u64) {
        self.shared.tell(Command::Release(ticket));
    }

    /// A client that was accepted elsewhere; the plane owns the descriptor from now on.
    fn adopt(&self, descriptor: i32, peer: &[u8]) {
        // SAFETY: the caller has detached it from its socket object and hands it over.
        let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        self.shared.tell(Command::Adopt {
            stream,
            peer: peer.to_vec(),
        });
    }

    fn set_upstream(&self, number: usize, is_up: bool) {
        self.shared.tell(Command::Upstream { number, is_up });
    }

    fn stop(&self) {
        self.shared.tell(Command::Stop);
    }

    fn close_idle(&self) {
        self.shared.tell(Command::CloseIdle);
    }

    /// Ends the thread, and waits for it.
    fn close(&self, py: Python<'_>) {
        self.shared.tell(Command::Abort);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // Its panic, if any, was told as a notice.
            let _ = py.detach(|| thread.join());
        }
    }
}

fn router(given: &GivenSettings) -> PyResult<Router> {
    let routes: Result<Vec<_>, String> = given
        .routes
        .iter()
        .map(|(method, path, action, pattern)| Route::new(method, path, action, pattern))
        .collect();
    Ok(Router::new(
        routes.map_err(PyValueError::new_err)?,
        given.method_override,
    ))
}

fn settings(given: GivenSettings) -> PyResult<Settings> {
    let upstreams: PyResult<Vec<_>> = given
        .upstreams
        .into_iter()
        .map(|(host, port)| {
            if port == 0 {
                return Ok(Address::Unix(host.into()));
            }
            let host = host
                .parse()
                .map_err(|_| PyValueError::new_err(format!("{host:?}")))?;
            Ok(Address::Tcp(std::net::SocketAddr::new(host, port)))
        })
        .collect();
    let limits = given.limits;
    Ok(Settings {
        worker: given.worker,
        upstreams: upstreams?,
        authority: given.authority,
        identity: given.identity,
        id_prefix: given.id_prefix,
        placed_status: given.placed_status,
        placed_many_status: given.placed_many_status,
        placed_keys: PlacedKeys {
            root: given.placed_root,
            many_root: given.placed_many_root,
            id: given.placed_id,
            symbol: given.placed_symbol,
        },
        ahead: given.ahead,
        special_orders: given.special_orders,
        special_reads: given.special_reads,
        count_file: (!given.count_file.is_empty()).then(|| given.count_file.into()),
        limits: Limits {
            clients_max: limits.clients_max,
            clients_turned_away_max: limits.clients_turned_away_max,
            order_body_bytes_max: limits.order_body_bytes_max,
            answer_body_bytes_max: limits.answer_body_bytes_max,
            client_head_s: limits.client_head_s,
            client_idle_s: limits.client_idle_s,
            client_stall_s: limits.client_stall_s,
            client_linger_s: limits.client_linger_s,
            client_pace_bytes: limits.client_pace_bytes,
            order_body_s: limits.order_body_s,
            upstream_connect_s: limits.upstream_connect_s,
            upstream_head_s: limits.upstream_head_s,
            upstream_wait_s: limits.upstream_wait_s,
            upstream_idle_s: limits.upstream_idle_s,
            upstream_fresh_s: limits.upstream_fresh_s,
            answer_stall_s: limits.answer_stall_s,
            answer_silence_s: limits.answer_silence_s,
            upstream_connections_max: limits.upstream_connections_max,
            upstream_waiting_max: limits.upstream_waiting_max,
            upstream_fall: limits.upstream_fall,
            sweep_s: limits.sweep_s,
            tunnel_keepalive_s: limits.tunnel_keepalive_s,
            ahead_budget_s: limits.ahead_budget_s,
            tee_captures_max: limits.tee_captures_max,
            tee_bytes_max: limits.tee_bytes_max,
            orders_known_max: limits.orders_known_max,
        },
    })
}

fn as_tuple(py: Python<'_>, notice: Notice) -> PyResult<Bound<'_, PyTuple>> {
    match notice {
        Notice::Decide(told) => ("decide", as_told(py, &told)?).into_pyobject(py),
        Notice::Gone(id) => ("gone", id).into_pyobject(py),
        Notice::Ended(id) => ("ended", id).into_pyobject(py),
        Notice::UnderWay { number, orders } => {
            let list = PyList::empty(py);
            for told in &orders {
                list.append(as_told(py, told)?)?;
            }
            ("under_way", number, list).into_pyobject(py)
        }
        Notice::Ahead {
            ticket,
            ids,
            records,
        } => {
            let records: Vec<_> = records.iter().map(|one| PyBytes::new(py, one)).collect();
            ("ahead", ticket, PyBytes::new(py, &ids), records).into_pyobject(py)
        }
        Notice::Empty => ("empty",).into_pyobject(py),
        Notice::Over(why) => ("over", why).into_pyobject(py),
    }
}

fn as_told<'py>(py: Python<'py>, told: &Told) -> PyResult<Bound<'py, PyTuple>> {
    let first = (
        told.id,
        PyBytes::new(py, &told.method),
        PyBytes::new(py, &told.target),
        PyBytes::new(py, &told.method_override),
        PyBytes::new(py, &told.content_type),
        PyBytes::new(py, &told.identity),
        PyBytes::new(py, &told.request_id),
        told.body.as_ref().map(|body| PyBytes::new(py, body)),
        PyBytes::new(py, &told.head),
        told.is_complete,
        told.version_10,
        told.keep_alive,
    );
    first.into_pyobject(py)
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Plane>()?;
    module.add_function(wrap_pyfunction!(reading::read_request, module)?)?;
    module.add_function(wrap_pyfunction!(reading::read_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(reading::find_route, module)?)?;
    module.add("HEAD_BYTES_MAX", core::limits::HEAD_BYTES_MAX)?;
    module.add("TARGET_BYTES_MAX", core::limits::TARGET_BYTES_MAX)?;
    module.add("FIELDS_MAX", core::limits::FIELDS_MAX)?;
    module.add("INFORMATIONAL_MAX", core::limits::INFORMATIONAL_MAX)?;
    module.add(
        "CHUNK_EXTENSION_BYTES_MAX",
        core::limits::CHUNK_EXTENSION_BYTES_MAX,
    )?;
    Ok(())
}

//! What the plane reads of given bytes: tests hold it against the asyncio plane.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use railswitch_plane as core;
use railswitch_plane::route::{Route, Router};

/// Content, trailers and bytes taken.
type Chunks<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, usize);
/// Action and placeholders.
type FoundRoute = (String, Vec<(String, String)>);

/// What the plane makes of the head of a request: ("incomplete",), ("refused", status), or ("read",
/// bytes taken, what the monolith gets of the head, the body's length or -1 for chunks, whether
/// the connection goes on, whether protocols may be switched).
#[pyfunction]
pub fn read_request<'py>(
    py: Python<'py>,
    data: &[u8],
    identity: &[u8],
) -> PyResult<Bound<'py, PyTuple>> {
    use core::body::Body;
    use core::head::{Scan, empty_lines, scan};
    let skipped = empty_lines(data, 0);
    let data = &data[skipped..];
    let end = match scan(data, 0) {
        Scan::Complete(end) => end,
        Scan::Malformed => return ("refused", 400).into_pyobject(py),
        Scan::Incomplete(_) if data.len() > core::limits::HEAD_BYTES_MAX => {
            return ("refused", 431).into_pyobject(py);
        }
        Scan::Incomplete(_) => return ("incomplete",).into_pyobject(py),
    };
    let around = core::request::Around {
        peer: b"192.0.2.1",
        secure: false,
        authority: b"upstream.test",
        request_id: b"0",
        identity,
    };
    let mut exchange = core::exchange::Exchange::default();
    let mut fields = Vec::new();
    match core::request::read(&data[..end], &around, &mut fields, &mut exchange) {
        Err(status) => ("refused", status).into_pyobject(py),
        Ok(body) => {
            let length: i128 = match body {
                Body::Length(length) => length.into(),
                _ => -1,
            };
            let out = PyBytes::new(py, &exchange.out);
            let (keeps, switches) = (exchange.keep_alive, exchange.upgrade);
            ("read", skipped + end, out, length, keeps, switches).into_pyobject(py)
        }
    }
}

/// The content and the trailers of a chunked body at the beginning of `data`, and the bytes taken;
/// None while it is incomplete. Raises ValueError for one that is not well-formed.
#[pyfunction]
pub fn read_chunks<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Option<Chunks<'py>>> {
    use core::body::{Body, Piece};
    let (mut body, mut content, mut at) = (Body::chunked(), Vec::new(), 0);
    loop {
        let (piece, taken) = body.next(&data[at..]);
        at += taken;
        match piece {
            Piece::Data(data) => content.extend_from_slice(data),
            Piece::More => return Ok(None),
            Piece::Malformed => return Err(PyValueError::new_err("not well-formed")),
            Piece::End(trailers) => {
                let mut fields = Vec::new();
                return match core::request::passing_trailers(&trailers, b"", &mut fields) {
                    None => Err(PyValueError::new_err("not well-formed")),
                    Some(passing) => Ok(Some((
                        PyBytes::new(py, &content),
                        PyBytes::new(py, &passing),
                        at,
                    ))),
                };
            }
        }
    }
}

/// What the router finds: None, or the action and placeholders of the route that counts in the end.
#[pyfunction]
pub fn find_route(
    routes: Vec<(String, String, String, String)>,
    line: (Vec<u8>, Vec<u8>),
    named: &[u8],
    content_type: &[u8],
    body: &[u8],
) -> PyResult<Option<FoundRoute>> {
    let routes: Result<Vec<_>, String> = routes
        .iter()
        .map(|(method, path, action, pattern)| Route::new(method, path, action, pattern))
        .collect();
    let router = Router::new(routes.map_err(PyValueError::new_err)?, true);
    let (method, target) = line;
    let whole = [method.as_slice(), b" ", &target].concat();
    let Some(mut found) = router.find(&whole, method.len(), named, content_type) else {
        return Ok(None);
    };
    found.settle(content_type, body);
    let action = found.action().map(|action| action.text().to_owned());
    Ok(action.map(|action| (action, found.path_params().to_vec())))
}

//! The proxy's data plane: HTTP between clients and the monolith, without Python on its way.
//!
//! One thread polls all connections of a worker. Requests and answers pass as they come; of orders a
//! capture is kept. Where Python must decide (an instrument is held, or answered by the engine) the
//! whole request is handed over, and Python's word is waited for. The asyncio plane in
//! `bridge/proxy` is the specification: the same tests run over both.

pub mod answer;
mod answering;
pub mod body;
pub mod capture;
mod client;
mod conn;
pub mod exchange;
pub mod head;
pub mod json;
pub mod limits;
mod orders;
pub mod plane;
mod pool;
mod reading;
pub mod request;
pub mod route;
pub mod settings;
pub mod shared;
mod tunnel;
mod upstream;

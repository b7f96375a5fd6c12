//! What a plane is told at its start. The numbers come from `bridge/limits.py`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::json::PlacedKeys;

/// Where the monolith listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Of one worker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The worker's name.
    pub worker: String,
    /// Where the monolith listens: one address or several.
    pub upstreams: Vec<Address>,
    /// What a request without a Host gets for one.
    pub authority: Vec<u8>,
    /// Name of the field that names the account, in lower case with hyphens; empty: none.
    pub identity: Vec<u8>,
    /// What request ids begin with.
    pub id_prefix: String,
    /// Status of the monolith's answer to an order that it took.
    pub placed_status: u16,
    /// And to several.
    pub placed_many_status: u16,
    /// Where those answers have id and symbol.
    pub placed_keys: PlacedKeys,
    /// Orders wait until they are in the ahead log.
    pub ahead: bool,
    /// Python decides every order, from the first one on.
    pub special_orders: bool,
    /// And every read of one.
    pub special_reads: bool,
    /// Eight bytes that say how many capture numbers are used up; none: not kept.
    pub count_file: Option<PathBuf>,
    /// All bounds.
    pub limits: Limits,
}

/// Bounds; `_s` are seconds, `_max` counts or bytes.
#[derive(Clone, Debug, Default)]
#[allow(
    missing_docs,
    reason = "bridge/limits.py explains each, under the same name"
)]
pub struct Limits {
    pub clients_max: usize,
    pub clients_turned_away_max: usize,
    pub order_body_bytes_max: usize,
    pub answer_body_bytes_max: usize,
    pub client_head_s: f64,
    pub client_idle_s: f64,
    pub client_stall_s: f64,
    pub client_linger_s: f64,
    pub client_pace_bytes: usize,
    pub order_body_s: f64,
    pub upstream_connect_s: f64,
    pub upstream_head_s: f64,
    pub upstream_wait_s: f64,
    pub upstream_idle_s: f64,
    pub upstream_fresh_s: f64,
    pub answer_stall_s: f64,
    pub answer_silence_s: f64,
    pub upstream_connections_max: usize,
    pub upstream_waiting_max: usize,
    pub upstream_fall: u32,
    pub sweep_s: f64,
    pub tunnel_keepalive_s: u64,
    pub ahead_budget_s: f64,
    pub tee_captures_max: usize,
    pub tee_bytes_max: usize,
    pub orders_known_max: usize,
}

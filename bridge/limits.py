"""Every bound of this package, with its reason."""

from __future__ import annotations

# Embedded servers: initdb and a long crash recovery on a slow disk fit; a stop that takes longer
# is forced.
SERVER_START_S = 120.0
SERVER_STOP_S = 20.0
SERVER_POLL_S = 0.02  # how often a starting or stopping server is looked at

# `railswitch up`. An engine replays about 3 million commands/s, so its readiness may take minutes
# after a long day; everything else is ready within a second or two.
CHILD_READY_S = 600.0
CHILD_STOP_S = 15.0  # a child that takes longer to leave after SIGTERM is killed
RESTART_BACKOFF_S_MIN = 0.2
RESTART_BACKOFF_S_MAX = 10.0  # never given up: each try is told, and the reason may pass
RESTART_RESET_S = 30.0  # a child that lived this long starts from the shortest backoff again
assert RESTART_BACKOFF_S_MIN < RESTART_BACKOFF_S_MAX < RESTART_RESET_S
ENGINE_START_S = 60.0  # a shadow that starts by itself waits so long for its engine
SERVER_WATCH_S = 0.5  # how often an embedded server is looked at
PORT_TRIES = 5  # for an embedded server: another program may take a free port before we do

# The command line's own patience.
CONTROL_ANSWER_S = 10.0  # a question to the control API
CONTROL_STEP_S = 120.0  # between two lines of a flip: preflight may wait for an old transaction
CONNECT_S = 5.0  # to a database, Redis or upstream, while diagnosing
DISK_FREE_BYTES_MIN = 2 << 30  # the journal of 30 million commands; doctor warns below it
assert CONNECT_S < CONTROL_ANSWER_S < CONTROL_STEP_S

# Gate: fewer latencies than this say nothing, whatever they are.
GATE_LATENCY_SAMPLES_MIN = 30

# Control store. Everything asked of it is a few rows: what takes longer waits for a lock that a
# stuck process holds, and a flip must rather give up.
STORE_CONNECT_S = 5
STORE_STATEMENT_MS = 10_000
STORE_IDLE_S = 1.0  # a connection unused for longer is tried before it is used

# Proxy, heads: what Puma accepts (80 KiB of head, 10 KiB of target) with a margin below it, so that
# the refusal is ours.
HEAD_BYTES_MAX = 64 * 1024
TARGET_BYTES_MAX = 10 * 1024
HEADER_NAMES_KNOWN_MAX = 4096  # spellings of header names kept classified; a client may invent any
PIPELINE_MAX = 1024  # requests read but not begun, of one connection; one read holds no more useful
CLIENTS_MAX = 10_000  # connections of a worker; beyond it new ones are closed at once

# Proxy, order entry: an order is a few hundred bytes; what is larger is no order that we could
# capture or answer.
ORDER_BODY_BYTES_MAX = 64 * 1024
ANSWER_BODY_BYTES_MAX = 64 * 1024  # captured of an answer: an order with some hundred trades

# Proxy, waiting. Puma keeps an idle connection for 20 s: ours ends first, so that a request never
# meets a closing one.
CLIENT_HEAD_S = 20.0  # from the first byte of a head to its last
CLIENT_IDLE_S = 75.0  # between two requests
CLIENT_STALL_S = 60.0  # without a byte of a body, or without reading any of an answer
CLIENT_LINGER_S = (
    2.0  # discarding what a client still sends after a final answer, lest a reset destroys it
)
UPSTREAM_CONNECT_S = 5.0
UPSTREAM_HEAD_S = (
    60.0  # from the whole request to the head of the answer: what balancers give Rails
)
UPSTREAM_IDLE_S = 15.0
UPSTREAM_FRESH_S = (
    0.05  # idle for longer: looked at before it is used again, it may have been closed
)
UPSTREAM_CONNECTIONS_MAX = 256  # of a worker; far above the threads of a monolith behind it
UPSTREAM_WAITING_MAX = 10_000  # requests waiting for one of those
SWEEP_S = 0.25  # how often all of these are looked at
assert SWEEP_S < CLIENT_LINGER_S < CLIENT_HEAD_S < CLIENT_IDLE_S
assert UPSTREAM_FRESH_S < UPSTREAM_IDLE_S < UPSTREAM_HEAD_S

# Proxy, stopping: connections in the middle of an exchange may finish it.
PROXY_STOP_S = 10.0
TEE_FLUSH_S = 3.0
assert TEE_FLUSH_S < PROXY_STOP_S < CHILD_STOP_S

# Tee: half a minute of a busy worker, and never more memory than this.
TEE_CAPTURES_MAX = 50_000
TEE_BYTES_MAX = 64 * 1024 * 1024
TEE_BATCH_CAPTURES_MAX = 512
TEE_BATCH_BYTES_MAX = 512 * 1024
TEE_LINGER_S = 0.002  # a batch waits so long for company; the shadow does not feel it
TEE_STREAM_ENTRIES_MAX = 50_000  # MAXLEN ~ of the stream: batches, some minutes of a busy exchange
TEE_RETRY_S = 10.0  # then the batch is dropped: the shadow has long counted its orders as gaps
REDIS_ANSWER_S = 2.0  # slower counts as away
assert TEE_BATCH_BYTES_MAX < TEE_BYTES_MAX
assert ORDER_BODY_BYTES_MAX + ANSWER_BODY_BYTES_MAX < TEE_BATCH_BYTES_MAX

# Holds: a flip's budget is 1 s; by 5 s whoever announced the hold is gone, and the control store is
# asked.
HOLD_REQUESTS_MAX = 10_000  # of one instrument in one worker: 5 s of 2,000 orders/s
HOLD_BYTES_MAX = 64 * 1024 * 1024  # of their bodies, of all instruments in one worker
HOLD_S = 5.0
HOLD_RETRY_AFTER_S = 1  # what a client that found no room is told
STORE_ANSWER_S = 1.0  # the control store's answer at that moment
WORKER_REPORT_S = 1.0
WORKER_REPORT_EXPIRY_S = 5
SNAPSHOT_AGE_S_MAX = (
    2.5  # Redis silent for so long: the control store is read instead, every report
)
assert WORKER_REPORT_S < SNAPSHOT_AGE_S_MAX < HOLD_S

# Live orders.
ENGINE_ANSWER_S = 5.0  # an engine recovers from its journal within this, mostly
ENGINE_RETRY_AFTER_S = 1
READ_BARRIER_S = 0.25  # a read waits so long for write-back; then it may show an older state
WRITTEN_ROW_S = 5.0  # a canceled order's row, of another worker's order, may still be on its way
ORDER_IDS_BLOCK = 1000  # from the monolith's sequence at once; another is fetched at half of it
ORDERS_KNOWN_MAX = 100_000  # order id -> instrument, some 30 MB; older ones are looked up
LEGACY_CONNECTIONS_MAX = 4  # of a worker, to the legacy database
LEGACY_ANSWER_S = 2.0

# The sandbox monolith. As many connections as a Puma worker has threads by default.
SANDBOX_POOL_CONNECTIONS = 5
SANDBOX_MAKERS_BLOCK = 16  # most orders meet fewer; a longer sweep asks again for 8 times as many
SANDBOX_ROWS_SHOWN_MAX = 100  # of a list without pages
SANDBOX_BODY_BYTES_MAX = 1 << 20
SANDBOX_IDLE_S = 20.0  # Puma's persistent_timeout
SANDBOX_STOP_S = 5.0  # requests that are being answered when it is told to stop may take so long
assert SANDBOX_MAKERS_BLOCK >= 2  # the fault that breaks time priority needs to see two

# Write-back. A group is one transaction: large enough that its round trips vanish beside its rows,
# small enough that it is over in some tens of ms, since a client's read waits for it.
WRITE_BACK_GROUP_BYTES = 256 * 1024  # of events, 80 bytes each
WRITE_BACK_FRAMES_MAX = 64  # read ahead; a frame of 4,096 busy commands is about 1 MB
WRITE_BACK_MOVE_S = 1.0  # how often the watermark moves while nothing live happens
WRITE_BACK_TRIES = 10  # of a transaction that met a deadlock or a serialisation failure
WRITE_BACK_AGAIN_S = 0.01  # grows with each try
WRITE_BACK_STATEMENT_MS = 60_000  # longer is a lock that nobody will release
WRITE_BACK_RETRY_S_MIN = 0.1  # after it stopped or lost a server
WRITE_BACK_RETRY_S_MAX = 5.0
assert WRITE_BACK_RETRY_S_MIN < WRITE_BACK_RETRY_S_MAX

# Control, what it hears of the workers. The channel is quick, the keys are sure.
WORKERS_RETRY_S = 0.2
WORKERS_READ_S = 0.5  # how often the keys are read
WORKERS_LOOK_S = 0.05  # and while a flip waits for them
assert WORKERS_LOOK_S < WORKERS_READ_S < WORKER_REPORT_S

# The load generator.
LOAD_TIMEOUT_S = 30.0  # longer than any pause that a flip or a recovering engine may cause
LOAD_LATENCY_US_MAX = 60_000_000
LOAD_SAMPLES_MAX = 2_000_000  # 14 bytes each; beyond, only the histograms grow
LOAD_BACKLOG_MAX = 100_000  # due requests without a free client; beyond: skipped, counted
LOAD_RETRY_S = 0.05  # a client that could not connect waits so long before its next request
assert LOAD_TIMEOUT_S * 1_000_000 < LOAD_LATENCY_US_MAX

# Flips and rollbacks.
MARKER_LOOK_S = 0.002  # how often it is asked whether the shadow has come to the fence
SETTLE_S = 10.0  # how long a failed flip's own driver tries to finish it; then the watch goes on
SETTLE_AGAIN_S = 0.25
# A rollback that nobody asked for begins because something is slow: writing back what is behind
# may take longer than an operator's flip ever may.
UNATTENDED_HOLD_MS_MAX = 30_000
# The control process's own questions and commands to the engine; in a hold the budget is shorter.
ENGINE_CONTROL_S = 3.0

# Fence: beyond the lock timeout that PostgreSQL keeps by itself, how long its answers may take.
FENCE_TIMEOUT_MARGIN_S = 0.5
FENCE_GIVE_BACK_S = 5.0  # waiting for writers, when no client's hold depends on it
DRAIN_SHARE = 0.5  # of the hold budget that the proxies' last requests may take
FENCE_SHARE = 0.5  # of what is left of the hold budget: the rest is for catching up and comparing
WRITERS_LOOK_S = 0.02

# The final audit: how many contradictions a check shows; the count says the rest.
AUDIT_EXAMPLES_MAX = 5
LAG_SHARE = 0.5  # of the hold budget that the shadow may be behind when a flip begins

# Control, its watch.
WATCH_S = 0.5  # stages are announced as often: a worker asks the store after SNAPSHOT_AGE_S_MAX
LAG_SAMPLES_MAX = 1_000  # heads of the engine that are not written back yet, one for each look
ROLLBACK_AGAIN_S = 60.0  # after an automatic rollback that did not succeed
assert 2 * WATCH_S < SNAPSHOT_AGE_S_MAX
LEAD_LOOK_S = 0.5  # how often a standby asks for the lead, and the leader makes sure of it
API_BODY_BYTES_MAX = 16 * 1024  # an actor, a reason and a few numbers
API_STOP_S = 5.0  # for a flip that is under way when the process is told to stop
assert API_STOP_S < CHILD_STOP_S
PORT_FREE_S = 5.0  # for the control process that led before us to leave its port
PORT_LOOK_S = 0.1

# The demo and the kill tests: how long real processes may take on a busy machine of two cores.
WORLD_START_S = 60.0
WORLD_STOP_S = 30.0
WORLD_POLL_S = 0.05
DEMO_LOOK_S = 0.5  # how often the demo looks at the status
DEMO_TELL_S = 5.0  # and how often it says what it saw, without a terminal
DEMO_GATE_S = 120.0  # for a gate to pass
DEMO_RECOVER_S = 30.0  # for a killed engine to answer again
DEMO_SETTLE_S = 30.0  # for write-back and comparison to finish after the last request
CANCEL_AGAIN_S = 0.1  # for a task that is being ended and has not noticed

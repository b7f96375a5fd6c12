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
PASSWORD_DAYS_MIN = 14  # doctor warns of a password that expires before
WAL_KEEP_H_MIN = 4  # that a shadow may stand still before the server gives its slot up: a night's
SLOT_KEPT_BYTES_MAX = 10 << 30  # doctor warns of a slot nobody reads that keeps more
PROGRESS_AFTER_S = 2.0  # of a question that takes longer it is said how far it is
DISK_FREE_BYTES_MIN = 2 << 30  # the journal of 30 million commands; doctor warns below it
assert CONNECT_S < CONTROL_ANSWER_S < CONTROL_STEP_S

# Gate: fewer latencies than this say nothing, whatever they are.
GATE_LATENCY_SAMPLES_MIN = 30

# Control store. Everything asked of it is a few rows: what takes longer waits for a lock that a
# stuck process holds, and a flip must rather give up.
STORE_CONNECT_S = 5
STORE_STATEMENT_MS = 10_000
STORE_IDLE_S = 1.0  # a connection unused for longer is tried before it is used

# Proxy, heads: what Puma accepts (80 KiB of head, 12 KiB of target) with a margin below it, so that
# the refusal is ours.
HEAD_BYTES_MAX = 64 * 1024
TARGET_BYTES_MAX = 10 * 1024
FIELDS_MAX = 256  # of a head, and of trailers; several times what browsers and balancers add up to
CHUNK_EXTENSION_BYTES_MAX = 256  # of one chunk: nobody uses them; more is an attack on who reads it
INFORMATIONAL_MAX = 64  # answers before the real one: a monolith sends one or two
HEADER_NAMES_KNOWN_MAX = 4096  # spellings of header names kept classified; a client may invent any
PIPELINE_MAX = 1024  # requests read but not begun, of one connection; one read holds no more useful
CLIENTS_MAX = 10_000  # connections of a worker, handshakes included; more are turned away
DESCRIPTORS_OTHERS = 256  # of a worker: Redis, databases, the engine, files of captures
CLIENTS_TURNED_AWAY_MAX = 256  # still reading why; beyond it new ones are closed without a word
CLIENTS_RETRY_AFTER_S = 1

# Proxy, order entry: an order is a few hundred bytes; what is larger is no order that we could
# capture or answer.
ORDER_BODY_BYTES_MAX = 64 * 1024
ANSWER_BODY_BYTES_MAX = 64 * 1024  # captured of an answer: an order with some hundred trades

# Proxy, waiting.
CLIENT_HEAD_S = 20.0  # from the first byte of a head to its last
CLIENT_IDLE_S = 75.0  # between two requests
CLIENT_STALL_S = 60.0  # for the next bytes of a body, or without reading any of an answer
CLIENT_PACE_BYTES = 1024  # of a body in each CLIENT_STALL_S; the slowest modem brought more
ORDER_BODY_S = 20.0  # a whole order entry's body: one packet, mostly; a flip's drain waits for it
CLIENT_LINGER_S = (
    2.0  # discarding what a client still sends after a final answer, lest a reset destroys it
)
UPSTREAM_CONNECT_S = 5.0
UPSTREAM_HEAD_S = (
    60.0  # from the whole request to the head of the answer: what balancers give Rails
)
UPSTREAM_WAIT_S = 30.0  # for a connection to come free: then the monolith is stuck, not busy
ANSWER_STALL_S = 60.0  # an order entry's answer that has begun, without a byte: the wire is cut
ANSWER_SILENCE_S = 900.0  # any other answer: server-sent events may be silent for long
TUNNEL_KEEPALIVE_S = 60  # an idle WebSocket may last; the kernel asks if its peer still lives
TLS_HANDSHAKE_S = 10.0
TLS_CLOSE_S = 2.0  # for the farewell that TLS wants at the end of a connection
ACCEPT_PAUSE_S = 0.5  # after a connection could not be accepted: descriptors may come free
# Puma keeps an idle connection for 20 s: ours ends first, so that a request never meets a closing
# one.
UPSTREAM_IDLE_S = 15.0
UPSTREAM_FRESH_S = (
    0.05  # idle for longer: looked at before it is used again, it may have been closed
)
UPSTREAM_CONNECTIONS_MAX = 256  # of a worker to each; far above the threads of a monolith
UPSTREAM_WAITING_MAX = 10_000  # requests waiting for one of those
SWEEP_S = 0.25  # how often all of these are looked at
assert SWEEP_S < CLIENT_LINGER_S < CLIENT_HEAD_S < CLIENT_IDLE_S
assert SWEEP_S < ORDER_BODY_S < CLIENT_STALL_S
assert UPSTREAM_FRESH_S < UPSTREAM_IDLE_S < UPSTREAM_HEAD_S
assert UPSTREAM_CONNECT_S < UPSTREAM_WAIT_S < ANSWER_STALL_S < ANSWER_SILENCE_S

# Proxy, stopping: connections in the middle of an exchange may finish it. An idle one stays for a
# moment: a request that is on its way to it gets its answer, and learns that it was the last.
PROXY_STOP_S = 10.0
PROXY_STOP_IDLE_S = 0.5
TEE_FLUSH_S = 3.0
assert PROXY_STOP_IDLE_S < TEE_FLUSH_S < PROXY_STOP_S < CHILD_STOP_S
# One that another process has replaced is in nobody's way: the longest answer may still come.
PROXY_DRAIN_S = UPSTREAM_HEAD_S + PROXY_STOP_S
PROXY_DRAIN_IDLE_S = 5.0

# Proxy, its processes.
LISTEN_BACKLOG = 1024  # connections that wait while a worker is replaced: a second of new ones
WORKER_READY_S = 60.0  # it needs the control store or Redis, and a busy machine starts it slowly
WORKER_STOP_S = PROXY_STOP_S + TEE_FLUSH_S + 1.0  # after SIGTERM; then it is killed
assert WORKER_STOP_S < CHILD_STOP_S  # its master goes after it, and is a child of `railswitch up`
WORKER_DRAIN_S = PROXY_DRAIN_S + TEE_FLUSH_S + 1.0  # and after it was replaced
WORKER_BEAT_S = 0.5  # how often it says that its event loop turns
WORKER_SILENT_S = 3.0  # no turn for so long is felt by clients: told
WORKER_STUCK_S = 20.0  # and this is no busy moment any more: killed and replaced
assert 2 * WORKER_BEAT_S < WORKER_SILENT_S < WORKER_STUCK_S
PROXY_LOOK_S = 0.1  # how often `proxy --restart` looks how far it is
RESTART_SLACK_S = 10.0  # for what it waits beyond each worker's own bounds
WORKER_FAILURES_MAX = 2  # in a row: then connections stop waiting for a process that may never come

# Tee: half a minute of a busy worker, and never more memory than this.
TEE_CAPTURES_MAX = 50_000
TEE_BYTES_MAX = 64 * 1024 * 1024
TEE_BATCH_CAPTURES_MAX = 512
TEE_BATCH_BYTES_MAX = 512 * 1024
TEE_LINGER_S = 0.002  # a batch waits so long for company; the shadow does not feel it
# The stream in Redis, of all workers together: about what a shadow reads in half a minute, and what
# a Redis shared with others can spare. What is older is trimmed, read or not.
TEE_STREAM_ENTRIES_MAX = 50_000
TEE_STREAM_BYTES_MAX = 256 * 1024 * 1024
TEE_ENTRY_EXTRA_BYTES = 256  # of an entry beside its captures
TEE_ENTRY_MEAN_SHARE = 1 / 16  # of the newest entry in the mean that the two bounds are joined by
TEE_RETRY_S = 10.0  # without a spool: then the batch is dropped, the shadow has long seen a gap
TEE_SLOW_S = 0.25  # a batch that takes longer is the last that goes past the spool
TEE_AGAIN_S = 0.25  # how often a Redis that is away is asked again
REDIS_ANSWER_S = 2.0  # slower counts as away
REDIS_BYTES_PER_S_MIN = 64 * 1024  # and what is written to it may take longer by this: a thin wire
assert TEE_BATCH_BYTES_MAX < TEE_BYTES_MAX
assert ORDER_BODY_BYTES_MAX + ANSWER_BODY_BYTES_MAX < TEE_BATCH_BYTES_MAX

# Captures on the disk, while Redis is away. A segment is what a kill may make us send twice.
SPOOL_SEGMENT_BYTES = 4 * 1024 * 1024
SPOOL_RECORD_BYTES_MAX = 2 * 1024 * 1024  # a batch and one capture more; longer is no record
# Faster than the captures of a busy worker, no faster than the shadow reads: it must not trim away
# what it brings back.
SPOOL_DRAIN_BYTES_PER_S = 16 * 1024 * 1024
DISK_S = 5.0  # a write or read that takes longer has failed
DISK_WAITING_MAX = 64  # of them, waiting for one that hangs
ADOPT_S = 5.0  # how often a worker looks for what dead ones have left
assert TEE_BATCH_BYTES_MAX + ORDER_BODY_BYTES_MAX + ANSWER_BODY_BYTES_MAX < SPOOL_RECORD_BYTES_MAX
assert SPOOL_RECORD_BYTES_MAX < SPOOL_SEGMENT_BYTES < TEE_STREAM_BYTES_MAX

# Requests on the disk before they go to the monolith: those under way, with an answer's time and a
# frozen Redis on top.
AHEAD_BYTES_MAX = 256 * 1024 * 1024
AHEAD_SEGMENT_BYTES = 8 * 1024 * 1024  # removed as soon as all in it are done
AHEAD_WAITING_BYTES_MAX = 16 * 1024 * 1024  # for a disk that hangs; more are released at once
assert AHEAD_WAITING_BYTES_MAX + AHEAD_SEGMENT_BYTES < AHEAD_BYTES_MAX

# Holds: a flip's budget is 1 s; by 5 s whoever announced the hold is gone, and the control store is
# asked.
HOLD_REQUESTS_MAX = 10_000  # of one instrument in one worker: 5 s of 2,000 orders/s
HOLD_BYTES_MAX = 64 * 1024 * 1024  # of their bodies, of all instruments in one worker
HOLD_S = 5.0
HOLD_RETRY_AFTER_S = 1  # what a client that found no room is told
STORE_ANSWER_S = 1.0  # the control store's answer at that moment
WORKER_REPORT_S = 1.0
WORKER_REPORT_EXPIRY_S = 5
WORKER_SHOWN_S = 60  # a lost one, in status: whoever is called at night finds its pid
SNAPSHOT_AGE_S_MAX = (
    2.5  # Redis silent for so long: the control store is read instead, every report
)
assert WORKER_REPORT_S < SNAPSHOT_AGE_S_MAX < HOLD_S
assert WORKER_REPORT_S < WORKER_SILENT_S < WORKER_REPORT_EXPIRY_S < WORKER_SHOWN_S

# Live orders.
ENGINE_ANSWER_S = 5.0  # an engine recovers from its journal within this, mostly
ENGINE_RETRY_AFTER_S = 1
READ_BARRIER_S = 0.25  # a read waits so long for write-back; then it may show an older state
WRITTEN_ROW_S = 5.0  # a canceled order's row, of another worker's order, may still be on its way
ORDER_IDS_BLOCK = 1000  # from the monolith's sequence at once; another is fetched at half of it
ORDERS_KNOWN_MAX = 100_000  # order id -> instrument, some 30 MB; older ones are looked up
# Of one bulk request, while some instrument is live or held; also of the monolith's orders that one
# cancel of everything cancels: each of those is a request of its own, one after the other.
BULK_ORDERS_MAX = 1_000
OWN_ANSWER_BYTES_MAX = 1024 * 1024  # of the monolith's answer to such a request
LEGACY_CONNECTIONS_MAX = 4  # of a worker, to the legacy database
LEGACY_ANSWER_S = 2.0

# Money of live orders, reserved in the legacy database before the engine has them.
FUNDS_ANSWER_S = 1.0  # then the client is told to come again: nothing was sent
FUNDS_CONNECTIONS_MAX = 4  # of a worker, beside the other ones: each reserves a batch at a time
FUNDS_BATCH_MAX = 64  # orders that are reserved in one transaction: some ms of row locks
FUNDS_TRIES = 3  # of a transaction that met a deadlock, a serialisation failure or a lost wire
FUNDS_LEFT_LOOK_S = 0.5  # how often a new worker looks whether it may release what a dead one left
# A released reservation stands in the way of a transaction that may still run.
RESERVATIONS_KEPT_S = 3600
assert FUNDS_ANSWER_S < RESERVATIONS_KEPT_S
# Looking whether orders change rows of accounts: the newest orders, and tables that look like it.
ACCOUNTS_ORDERS_MAX = 500
ACCOUNTS_TABLES_MAX = 5
ACCOUNTS_LOOK_S = 5  # reading all rows of a large table once

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

# `railswitch init`: a look at a running monolith's database. Few rows are enough for a proof by
# contradiction, and a few thousand newest ones by primary key cost it milliseconds.
ONBOARD_ROWS_MAX = 2_000  # of a table, newest first; and as many from anywhere in it
ONBOARD_LINKED_MAX = 4_000  # orders that the fills seen speak of: two each
ONBOARD_STATEMENT_MS = 10_000
ONBOARD_LOCK_MS = 1_000  # a catalogue lock behind a migration is not waited for
ONBOARD_TABLES_MAX = 2_000  # partitions apart; a large monolith has some hundreds
ONBOARD_INSTRUMENTS_MAX = 200  # written into the file
ONBOARD_VALUES_MAX = 20  # distinct ones of a column that enumerates
ONBOARD_PROOF_ROWS_MIN = 5  # fewer cases prove nothing
ONBOARD_ROUTES_BYTES_MAX = 8 << 20  # the largest monoliths print under 1 MiB
assert ONBOARD_PROOF_ROWS_MIN < ONBOARD_ROWS_MAX <= ONBOARD_LINKED_MAX

"""Every bound of this package, with its reason."""

from __future__ import annotations

# --- the monolith's rows -------------------------------------------------------------------------
PRICE_TICKS_MAX = 2**63 - 1  # the engine's prices are signed 64-bit
QTY_LOTS_MAX = 2**64 - 1  # its quantities, ids and accounts unsigned 64-bit
ID_MAX = 2**64 - 1
NUMERIC_CHARS_MAX = (
    100  # a NUMERIC may have 131,072 digits; no price or quantity needs more than this
)
SHOWN_CHARS_MAX = 40  # of a row's value quoted in a reason: reasons are kept, rows are not
SYMBOL_BYTES_MAX = 16  # the engine's names of instruments
SYMBOLS_READ_MAX = 10_000  # rows of a table of instruments; one with more is another table
FUNDS_STATEMENT_CHARS_MAX = 10_000  # of one that moves money: it runs with every order
EXPONENT_MAX = 18  # of integer amounts, either way: as many digits as fit 64 bits

# --- the monolith's database ---------------------------------------------------------------------
CONNECT_S = 5  # libpq counts whole seconds
CONNECT_ATTEMPTS = 2  # of a connection whose socket breaks while it is opened
QUERY_S = 10.0  # for our small questions to catalogs and our marks
SNAPSHOT_READ_S = 60.0  # open orders, a few hundred thousand rows at most
# Making a slot waits for every write transaction that is open at that moment. Longer than this, and
# somebody should know whose transaction it is.
SLOT_CREATE_S = 15.0
SLOT_BUSY_S = 10.0  # a reader that just ended leaves its slot within moments
# After a cut wire the server keeps our old session until its wal_sender_timeout, 60 s by default.
SLOT_BUSY_RECONNECT_S = 90.0
assert SLOT_BUSY_S < SLOT_BUSY_RECONNECT_S

# Of `railswitch mapping check`: what it reads of a running market, and says of it.
AUDIT_ORDERS = 10_000  # the newest orders, unless told
AUDIT_ORDERS_MAX = 200_000  # 2.5 kB each with their fills, in memory at once
AUDIT_ORDERS_DOCTOR = 1_000  # of `railswitch doctor`: enough for what is wrong with every row
AUDIT_LOOK_BACK = 20  # rows looked at for each that is wanted of a few instruments
AUDIT_FILLS_PAGE = 5_000  # rows of one question, newest first, until none concerns those orders
AUDIT_FILLS_PER_ORDER = 5  # rows looked at in all, for each order; what is older counts as unread
AUDIT_IDS_PAGE = 1_000  # orders asked for by their ids at once
AUDIT_COMMITS = 200  # newest rows whose commit times are asked for, where the server keeps them
AUDIT_STATEMENT_S = 20.0  # one question by primary key takes milliseconds; a scan is given up
AUDIT_SAMPLES_MAX = 5  # rows named in one finding
AUDIT_KINDS_MAX = 12  # reasons why rows are unreadable that are told one by one
AUDIT_RACE_US = 5_000_000  # between clocks of the monolith's machines, and its slow transactions
AUDIT_LATER_US = 60_000_000  # a job or daemon that matches later than this is stuck
AUDIT_FUTURE_US = 60_000_000  # a clock that is ahead by more is no clock that runs fast
AUDIT_HOUR_SLACK_US = 90_000_000  # from a whole hour or quarter: what a wrong zone leaves
AUDIT_EVIDENCE_MIN = 3  # rows that speak the same language before a cause is named
AUDIT_MANY = 50  # rows before what never occurs is worth a word
AUDIT_PRICES_MIN = 30  # different prices or quantities before their common divisor means anything
AUDIT_COARSER_MIN = 10  # ticks: below it a market may just have used a few prices
assert AUDIT_ORDERS_DOCTOR <= AUDIT_ORDERS <= AUDIT_ORDERS_MAX
assert AUDIT_IDS_PAGE <= AUDIT_FILLS_PAGE

# --- the change stream ---------------------------------------------------------------------------
# Rows of one transaction: an image is about 300 bytes, so 15 MB. A bulk update of more than that is
# no matching; the instruments it touched are tainted instead.
TRANSACTION_CHANGES_MAX = 50_000
BACKLOG_CHANGES_MAX = 100_000  # read and not yet taken by the consumer; then the socket waits
assert TRANSACTION_CHANGES_MAX <= BACKLOG_CHANGES_MAX
TURN_MESSAGES_MAX = 300  # decoded before other tasks of the process get a turn: about 5 ms
STATUS_S = 0.1  # a confirmed position reaches the server within about this
PING_S = 10.0  # and at least so often we ask the server for a sign of life
SILENCE_S = 90.0  # no sign of life: the connection is dead. Old servers are silent while they skip
assert STATUS_S < PING_S < SILENCE_S
INSPECT_S = 5.0  # how often is looked whether both tables are still published, and what is kept
PROGRESS_S = 10.0  # how often a consumer hears that only other tables have moved
# The same, for a reader that polls.
POLL_S = 0.05  # from one question to the next, while nothing is new
POLL_ROWS_MAX = 2_000  # of one page, about 1 kB each
POLL_WINDOWS_MAX = 20  # asked for at once
WINDOW_TRANSACTIONS_MAX = 1_000  # after a long absence there are more; then it is several windows
CLEAN_S = 1.0  # how often recorded changes are deleted
CLEAN_WINDOWS_MAX = 20  # by one statement
POLL_QUERY_S = 300.0  # what came during an absence of hours is found by one statement
TRUNCATE_LOCK_S = 0.05  # the monolith's writers wait behind it meanwhile
# Who has a transaction open: one question to pg_stat_activity, well under 1 ms of the server.
WRITERS_SAMPLE_S = 0.05
WRITERS_KEPT_MAX = 100_000  # transactions that were seen; older ones are judged long since
WRITERS_MAX = 50  # told apart for an instrument: application names may hold a host or a process id
WRITERS_TOLD = 5  # of them in one line
WRITERS_SEEN_TOLD = 10  # of all that were seen to write, the most active
RECONNECT_BACKOFF_S_MIN = 0.1
RECONNECT_BACKOFF_S_MAX = 2.0
LOSSES_AT_ONCE_MAX = 2  # a slot given up, and that its successor begins later; more are a loop
CLOSE_S = 2.0  # for the server to take our last confirmed position

# --- the comparison ------------------------------------------------------------------------------
CHANGES_WAITING_MAX = 50_000  # read from the stream and not applied; then the stream waits
OPERATIONS_PENDING_MAX = 20_000  # applied and not judged, about 2 kB each; then the stream waits
TURN_TRANSACTIONS_MAX = 256  # applied in one go, and sent to the engine as one batch
TURN_SETTLED_MAX = 64  # transactions judged in one go: about 1 ms, for which what is read waits
COMMANDS_IN_FLIGHT_MAX = 4_096  # fed and not answered; a batch of the gateway holds fewer
FEED_TIMEOUT_S = 7 * 24 * 3600.0  # the client sends again by itself; giving up would lose the order
FEED_RETRY_S = 0.5
OPERATIONS_PER_TRANSACTION_MAX = 2**16  # the index of an operation in its reference has 16 bits
assert TURN_TRANSACTIONS_MAX <= COMMANDS_IN_FLIGHT_MAX <= OPERATIONS_PENDING_MAX

# Of a monolith that matches later. Its queue is not seen: orders that commit so near to each other
# may have come to its daemon in either order, and fills say in which.
REORDER_S = 1.0  # between their commits, by the server's clock; and so long none is decided
REORDER_ORDERS_MAX = 16  # orders and cancels between them: more workers than most monoliths run
DECIDE_S = 0.2  # of the server's clock: how often what waits is looked at
UNDECIDED_S = 10.0  # a fill that is expected and does not come is missing after so long
UNDECIDED_MAX = 5_000  # orders and cancels of an instrument that wait to be decided, 2 kB each
REORDER_TRIES_MAX = 10_000  # orders put on trial for one that does not fit: about 100 ms
REORDER_MOVES_MAX = 3  # orders out of their place that are looked for at once
PENDING_KEPT_MAX = 100_000  # orders written and not given to the daemon yet
assert DECIDE_S < REORDER_S < UNDECIDED_S

# Captures. An operation without one is called dark only when the reader of captures had nothing
# left to read, this long after the operation was read.
CAPTURE_GRACE_S = 1.0
CAPTURE_GRACE_AT_MARKER_S = 0.1  # a flip waits for us: what is not here now is not waited for
CAPTURES_HELD_MAX = 100_000  # read and not settled, about 2 kB each; then they wait in Redis
# Workers may be far apart, after Redis was away for long: with so many held, of one that is ahead,
# an operation that has waited so long for a capture of another counts as a gap, and trade goes on.
CAPTURES_STUCK_S = 15.0
CAPTURE_ENTRIES_READ_MAX = 64  # entries of one read
CAPTURE_BLOCK_MS = 100  # longest wait of one read: how soon it is known that nothing is left
REDIS_S = 5.0  # an answer that takes longer will not come
CAPTURE_WORKERS_MAX = 1_000  # workers whose next number is kept; a new run of a worker is a new one
CAPTURE_HISTORY_ENTRIES_MAX = 10_000  # looked through at the first start, for the workers' numbers
GAP_CLAIM_S = 15.0  # a lost capture that no operation misses for so long counts as a gap
ANSWERED_UNWRITTEN_S = 10.0  # an answered order whose row is not there for so long is a mismatch
CLOCKS_APART_S = 2.0  # between the proxy's wall clock and ours
SETTLED_KEPT_MAX = 100_000  # operations settled without a capture, in case that it still comes
OWNERS_KEPT_MAX = 200_000  # orders whose instrument and account are remembered after they closed
assert CAPTURE_GRACE_AT_MARKER_S < CAPTURE_GRACE_S < ANSWERED_UNWRITTEN_S < GAP_CLAIM_S
assert CAPTURE_GRACE_S < CAPTURES_STUCK_S

# Objects made since the last look, and looks at the young before the older ones. A look at 50,000
# takes 50 ms while both cores are busy: as few as can be, of what lives for a second, are looked at
# at all (`work`). The oldest are looked at after a hundred million.
GARBAGE_THRESHOLDS = (50_000, 20, 100)

# Watermarks and verdicts.
FLUSH_S = 0.2  # verdicts are at most so old before they are recorded
FLUSH_VERDICTS = 5_000  # or so many
HEARTBEAT_S = 1.0  # an idle shadow still says that it is there
STORE_RETRY_S = 0.5
STOP_S = 5.0  # for what is settled to be recorded when the process is told to stop
CANCEL_AGAIN_S = 0.2
TURN_S = 0.02  # how often is looked whether anything has become too old
UNANSWERED_S = 2.0  # an engine that takes longer is away, and it is said
STORE_STATEMENT_MS = 20_000
STAGES_S = 0.25  # how often the stages are read
MARK_S = 1.0  # how often a mark is written: rejected cancels settle by them, and lag is measured
MARKS_OUTSTANDING_MAX = 60  # then no more are written until one came back
DEPENDANTS_STORED_MAX = 100  # rows for those that follow one root; all are counted
VERDICTS_STORED_MAX = 10_000  # rows of one run, roots apart; all are counted

# Books.
BOOK_CHECK_S = 5.0  # as often as the books are compared
BOOK_DIFFERENCES_KEPT_MAX = 20
SNAPSHOT_S = 30.0  # waits for old transactions of the monolith to end, then reads
BOOK_CHECK_SNAPSHOT_S = 0.5  # feeding stands still meanwhile: a check is not worth more
BOOK_CHECK_AGAIN_S = 20.0  # after one that took longer, since a long transaction may go on
RESYNC_AFTER_S = 2.0  # after the first divergence: long enough to see what follows from it
RESYNC_S = 5.0  # the shortest time between two loads of one instrument
RESYNCS_MAX = 500  # by itself, since it came into shadow: then a person must look
RESYNC_UNREADABLE_S = 60.0  # an order that can't be read stays: looked at again so often
LOAD_COMMANDS_MAX = 1_000  # of one batch
LOAD_TIMEOUT_S = 60.0
assert BOOK_CHECK_SNAPSHOT_S < BOOK_CHECK_S < BOOK_CHECK_AGAIN_S
assert RESYNC_AFTER_S <= RESYNC_S <= RESYNC_UNREADABLE_S

# Requests, as the monolith bounds them: beyond it refuses them with 400.
FORM_DEPTH_MAX = 100  # of Rails' nested parameters
FORM_PAIRS_MAX = 4096  # of Rack's, in one form or query
JSON_DEPTH_MAX = 100  # of Ruby's JSON parser

# Answers.
DECIMAL_PLACES_MAX = 30  # that an answer may be told to write; no tick is finer
FLOAT_WHOLE_DIGITS_MAX = 16  # Ruby writes a Float with more of them with an exponent
FLOAT_ZEROS_MAX = 3  # and one with more zeros behind the point

# Reading what was recorded.
LATENCY_WINDOWS_MAX = 60  # minutes that the evidence's latencies are taken from: the newest
LATENCY_WINDOWS_OPEN_MAX = 200  # kept in memory while their minute lasts, 140 kB each
LATENCY_SAMPLES_MAX = 1_000  # different ones, counted before they go into their histograms
LATENCY_US_MAX = 60_000_000  # longer ones are counted as this
EVIDENCE_ROOTS_MAX = 5
REPORT_RUNS_MAX = 50

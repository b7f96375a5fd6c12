"""Every bound of the engine, with its reason. The Rust core repeats the market's
(engine/core/src/limits.rs).
"""

from __future__ import annotations

# --- market: part of the specification. Changing one changes what a journal replays to.

# The rules under which commands are applied now, and the oldest that journals are still read by.
RULES = 2
RULES_OLDEST = 1

# One book's open orders. A market maker's flood on one instrument must not starve the others of
# memory: at about 90 bytes an order (node, id entry at half load) a full book is some 90 MB.
OPEN_ORDERS_PER_BOOK_MAX = 1_000_000

# All open orders of a shard: they fit the core's 32-bit node numbers with room, and about 1.5 GB.
OPEN_ORDERS_MAX = 16_777_216

# Instruments of a shard. The largest workload in sight has 10,000.
INSTRUMENTS_MAX = 16_384

# Different prices on one side of a book. Inserting one far from the best moves the others: at this
# many by 2 MB, some 100 us. The largest workload in sight has 100,000.
LEVELS_PER_SIDE_MAX = 131_072

# Stops that wait in one book. All of them can go off in one command.
STOPS_PER_BOOK_MAX = 16_384

# Icebergs in one book: with ICEBERG_PARTS_MAX it bounds what one order can set off to some two
# million fills, 160 MB.
ICEBERGS_PER_BOOK_MAX = 1_024

# Orders that one mass cancel, disconnection or expiry removes; the sender repeats it for the rest,
# so that others get their turn. 16,384 events are 1.3 MB.
MASS_CANCEL_MAX = 16_384

# Accounts with limits, a group or a kill switch of their own: some 64 MB.
ACCOUNTS_MAX = 1_048_576

# Parts that an iceberg shows one after the other: so many fills, at most, may one order cost that
# takes it whole.
ICEBERG_PARTS_MAX = 1_000

DAY_S = 86_400

# What the fields hold; arithmetic that would leave them is refused before it happens.
U16_MAX = 2**16 - 1
U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1

# A command's own microsecond within its batch: command i happens at ts_ns + 1000 * i.
COMMAND_STEP_NS = 1_000

assert OPEN_ORDERS_PER_BOOK_MAX <= OPEN_ORDERS_MAX < 2**32 - 1

# --- journal

# One frame's commands. At a million orders/s a frame holds some hundreds; the cap bounds what one
# sync, one apply and so one answer can have to wait for behind a burst.
FRAME_COMMANDS_MAX = 4_096

# A quiet shard takes this much disk; a busy one outgrows it in its first tenth of a second.
SEGMENT_BYTES_MIN = 4 * 2**20

# Some seconds of full load. Beginning another segment takes a millisecond or two, for which all
# orders wait: that has to be rare.
SEGMENT_BYTES_MAX = 256 * 2**20

# Each segment may be so many times as large as the one before it.
SEGMENT_GROWTH = 4

# The next segment is zeroed in steps of this size, each synced, so that the disk's queue never
# holds much that an order would have to wait behind: so many bytes of it at once, the rest in step
# with how full the one in use is, a quarter faster.
ZERO_STEP_BYTES = 256 * 2**10
PREPARE_AT_ONCE_BYTES = 4 * 2**20
PREPARE_AHEAD = 1.25

# A snapshot is made when the journal has grown by so much: some 16 million commands. That takes a
# low-priority process some ten seconds, and so bounds what a recovery replays to about twice as
# much: with 3 million commands/s some ten seconds.
SNAPSHOT_EVERY_BYTES = 2**30
# While the journal grows by more than this within so many looks (a quarter million commands/s), the
# snapshot waits: the process would take its time and its memory bandwidth from orders. It waits no
# longer than until this much has grown, which a recovery replays in less than a minute.
SNAPSHOT_BUSY_LOOKS = 10
SNAPSHOT_BUSY_BYTES = 160 * 2**20
SNAPSHOT_LATEST_BYTES = 8 * 2**30
# Of frames that a replay has applied, kept whole until it is known what of them is to be held.
HELD_WINDOW_BYTES = 128 * 2**20
SNAPSHOT_LOOK_S = 1.0  # between two looks at how much it has grown
# Of that process: next to orders it gets a sixtieth of a processor, and yet comes to an end where
# orders never leave it more.
SNAPSHOT_NICE = 19
SNAPSHOTS_KEPT = 2  # readable ones: should the newest fail on the day it is needed

# What a replay reads at once: a reader that follows, or recovers, pays for one call in some frames.
READ_AHEAD_BYTES = 2**20

# The journal's thread waits this long at most for the interpreter while the loop works.
# Python's own 5 ms would be added to every sync of a busy engine.
SWITCH_INTERVAL_S = 0.000_2

# Objects made since the last collection of the youngest (some tenths of a millisecond for so
# many), and how long nothing must have come before everything is collected (some tens of
# milliseconds): the collector runs in no other moment.
GARBAGE_YOUNG = 2_000
GARBAGE_IDLE_S = 5.0

# --- gateway

# One message with commands: a whole frame. A longer one is refused as soon as its header is read.
CLIENT_PAYLOAD_BYTES_MAX = FRAME_COMMANDS_MAX * 64

# Until a connection has logged in it may not make the engine hold more than this.
LOGIN_PAYLOAD_BYTES_MAX = 4_096
LOGIN_S = 5.0  # a connection that has not logged in by then is closed

# What clients accept. They trust their engine: the bound tells garbage from messages, of which the
# largest are the events of a frame that empties full books.
SERVER_PAYLOAD_BYTES_MAX = 2**31

# Received and not yet sequenced, for each connection; past it the engine stops reading from that
# socket. Four frames: enough to keep the next frame full while one is synced.
PENDING_BYTES_MAX = 4 * CLIENT_PAYLOAD_BYTES_MAX

# Answers that a client has not read yet. A second of one busy session's answers; a reader slower
# than that is disconnected, never waited for.
OUTBOUND_BYTES_MAX = 64 * 2**20

# A tail is sent no faster than its reader reads: this much may wait in the socket's buffer.
TAIL_BUFFER_BYTES_MAX = 2**20

CONNECTIONS_MAX = 512  # proxies, shadows, consoles: hundreds of machines; beyond it something leaks

# File descriptors beside one for each connection and as many again for those that are just coming
# or going: journal, snapshots, replays, Redis. Without one the next segment can't be begun.
FILES_RESERVE = 256
REFUSAL_S = 0.05  # a connection beyond CONNECTIONS_MAX is told so, and must be gone by then

SESSIONS_MAX = 256  # names ever used in a shard; each may hold OUTCOME_BYTES_MAX
SESSION_NAME_BYTES_MAX = 32  # its field in the SESSION command

# Original outcomes held for each session, for references sent again: several times what a client
# may have unanswered at once (CLIENT_UNANSWERED_MAX), whatever happens to it in between.
OUTCOME_BYTES_MAX = 16 * 2**20

# What a held outcome or tail frame costs beside its own bytes, so that many small ones are
# bounded too.
ITEM_BYTES = 256

# Questions of one connection that are not answered yet. Each costs a look at the market, some
# milliseconds of it, which everybody waits for; a client that asks one after the other needs one.
QUERIES_OPEN_MAX = 16

# Looks at the market while the commit path pauses; orders go on before there are more.
LOOKS_AT_ONCE = 64

HEARTBEAT_S = 1.0
SILENCE_S = 15.0  # nothing heard for so long: the other side is gone
CLOSE_GRACE_S = 2.0  # for the other side to read why it is disconnected

# After a restart, for sessions that want their orders canceled when they go: who has not logged in
# again by then is gone. Longer than a client that reconnects (RECONNECT_S_MAX) needs.
ABSENCE_GRACE_S = 5.0

# Between two looks at whether an order's time has come: so late, at most, it expires. Each look
# makes the commit path pause for a moment, and orders are good till a whole second.
EXPIRY_LOOK_S = 0.25

# --- tail

# Newest frames kept in memory. A subscriber that reconnects within some seconds of full load
# needs no replay.
TAIL_RING_BYTES_MAX = 64 * 2**20

# Each replay holds a second market and takes processor time from the first.
REPLAYS_MAX = 2
REPLAY_STEP_COMMANDS = 16_384  # replayed between two looks at whether the subscriber is still there
REPLAY_STEP_BYTES = 4 * 2**20  # of events handed over at once

# --- client

# Commands sent and not answered. All of them must still have their outcome held when they are
# sent again.
CLIENT_UNANSWERED_MAX = 16_384
CONNECT_S = 5.0  # one attempt: connecting and logging in
RECONNECT_S_MIN = 0.05
RECONNECT_S_MAX = 0.25  # while an instrument is live a client waits for each of these
TAIL_AHEAD_BYTES_MAX = 16 * 2**20  # of a tail, received and not yet iterated

# --- market data

# Events on their way to Redis, beside the ring; past it they wait in the ring.
FEED_BUFFER_BYTES_MAX = 16 * 2**20

# After an outage of Redis so many commands are read from the journal again, by implementation: some
# seconds of one core. What is older is told as a gap.
FEED_REPLAY_COMMANDS_MAX = {"rust": 10_000_000, "python": 200_000}

# Books read in one go, between two frames: the next order waits for it. It ends at whichever comes
# first.
FEED_VIEWS_MAX = 256
FEED_VIEWS_NS = 500_000
FEED_LOOK_BYTES_MAX = 2**20  # of events that happened meanwhile; beyond it books wait for a batch

# Publishing takes at most a fifth of a core from the engine, or half of one when it is behind: it
# rests so many times as long as it has worked, and conflates more instead.
FEED_REST_FACTOR = 4

FEED_ENTRY_TRADES_MAX = 1_024  # 40 KB: a reader gets them whole
FEED_STATES_KEPT = 32  # conflated: whoever is further behind reads the newest
FEED_STREAM_LENGTH_MAX = 10_000_000
FEED_INTERVAL_MS_MAX = 60_000
FEED_LEVELS_MAX = 1_000
FEED_REDIS_S = 2.0  # for one answer
FEED_RETRY_S_MIN = 0.1
FEED_RETRY_S_MAX = 2.0
FEED_ALIVE_S = 1.0  # how often it says that it publishes, also where nothing happens
FEED_ALIVE_EXPIRY_S = 5
FEED_READ_ENTRIES = 100  # of a stream, by a reader in one go

assert FRAME_COMMANDS_MAX * 64 + 4_160 < SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX
assert READ_AHEAD_BYTES > FRAME_COMMANDS_MAX * 64 + 4_160
assert PREPARE_AHEAD > 1
assert SEGMENT_GROWTH > 1
assert LOGIN_PAYLOAD_BYTES_MAX < CLIENT_PAYLOAD_BYTES_MAX <= PENDING_BYTES_MAX
assert CLIENT_UNANSWERED_MAX * (80 + ITEM_BYTES) < OUTCOME_BYTES_MAX
assert SESSIONS_MAX <= U16_MAX
assert HEARTBEAT_S * 3 < SILENCE_S
assert RECONNECT_S_MAX < ABSENCE_GRACE_S
assert RECONNECT_S_MIN < RECONNECT_S_MAX < CONNECT_S
assert 2 * FEED_ALIVE_S < FEED_ALIVE_EXPIRY_S
assert FEED_BUFFER_BYTES_MAX < TAIL_RING_BYTES_MAX

"""Every bound of the engine, with its reason. The Rust core repeats the market's
(engine/core/src/limits.rs).
"""

from __future__ import annotations

# --- market: part of the specification. Changing one changes what a journal replays to.

# One book's open orders. A market maker's flood on one instrument must not starve the others of
# memory: at about 90 bytes an order (node, id entry at half load) a full book is some 90 MB.
OPEN_ORDERS_PER_BOOK_MAX = 1_000_000

# All open orders of a shard: they fit the core's 32-bit node numbers with room, and about 1.5 GB.
OPEN_ORDERS_MAX = 16_777_216

# Instruments of a shard. The largest workload in sight has 10,000.
INSTRUMENTS_MAX = 16_384

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

# About a second of full load: rotation stays rare, and a damaged file holds little.
SEGMENT_BYTES_MAX = 64 * 2**20

# The next segment is zeroed in steps of this size, each synced, so that the disk's queue never
# holds much that an order would have to wait behind.
ZERO_STEP_BYTES = 512 * 2**10

# The journal's thread waits this long at most for the interpreter while the loop works.
# Python's own 5 ms would be added to every sync of a busy engine.
SWITCH_INTERVAL_S = 0.000_2

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
SESSIONS_MAX = 256  # names ever used in a shard; each may hold OUTCOME_BYTES_MAX
SESSION_NAME_BYTES_MAX = 32  # its field in the SESSION command

# Original outcomes held for each session, for references sent again: several times what a client
# may have unanswered at once (CLIENT_UNANSWERED_MAX), whatever happens to it in between.
OUTCOME_BYTES_MAX = 16 * 2**20

# What a held outcome or tail frame costs beside its own bytes, so that many small ones are
# bounded too.
ITEM_BYTES = 256

HEARTBEAT_S = 1.0
SILENCE_S = 15.0  # nothing heard for so long: the other side is gone
CLOSE_GRACE_S = 2.0  # for the other side to read why it is disconnected

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

assert FRAME_COMMANDS_MAX * 64 + 4_160 < SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX
assert ZERO_STEP_BYTES > FRAME_COMMANDS_MAX * 64 + 4_160
assert LOGIN_PAYLOAD_BYTES_MAX < CLIENT_PAYLOAD_BYTES_MAX <= PENDING_BYTES_MAX
assert CLIENT_UNANSWERED_MAX * (80 + ITEM_BYTES) < OUTCOME_BYTES_MAX
assert SESSIONS_MAX <= U16_MAX
assert HEARTBEAT_S * 3 < SILENCE_S
assert RECONNECT_S_MIN < RECONNECT_S_MAX < CONNECT_S

"""The statements of `store` and `evidence`, each with a sentence."""

from __future__ import annotations

# The group's row, before its first start has come anywhere.
ADD_POSITION = """
INSERT INTO railswitch.shadow_position (shadow, slot, applied_lsn)
VALUES (%s, %s, 0) ON CONFLICT DO NOTHING
"""

# Where the group stands, for the process that takes it over.
TAKE_POSITION = """
UPDATE railswitch.shadow_position SET writer = %s, flushes = flushes + 1 WHERE shadow = %s
RETURNING applied_lsn, capture_id, capture_next, trouble, flushes
"""

# Moves the watermark, if nobody else has since we did.
MOVE = """
UPDATE railswitch.shadow_position
SET applied_lsn = %(applied_lsn)s, capture_id = %(capture_id)s, capture_next = %(capture_next)s,
    trouble = %(trouble)s, writer = %(writer)s, flushes = flushes + 1, updated_at = now()
WHERE shadow = %(shadow)s AND flushes = %(flushes)s
"""

# Who moved it last.
WRITER = "SELECT writer, flushes FROM railswitch.shadow_position WHERE shadow = %s"

# Every instrument, with the history entry that its present epoch came from.
STAGES = """
SELECT symbol, instrument, stage, epoch, holding, coalesce(
    (SELECT stage_from FROM railswitch.stage_history h
     WHERE h.symbol = s.symbol AND h.epoch = s.epoch ORDER BY id DESC LIMIT 1), '') AS stage_from
FROM railswitch.stage s
"""

_NS = "(extract(epoch FROM {0}) * 1000000000)::bigint"

# All that the shadow knows of its instruments.
INSTRUMENTS = f"""
SELECT symbol, run, first_run, loaded_lsn, coalesce({_NS.format("loaded_at")}, 0) AS loaded_ns,
       epoch, following, loading, applied_lsn, resyncs, marker_flip_id, taint, root_order_id,
       root_verdict, root_reason, pending, book_equal, book_lsn,
       coalesce({_NS.format("book_checked_at")}, 0) AS book_checked_ns, book_differences, lag_ms
FROM railswitch.shadow_instrument
"""

_TIME = "to_timestamp(nullif(%({0})s, 0)::numeric / 1000000000)"

# The state of one instrument, whole.
SAVE_INSTRUMENT = f"""
INSERT INTO railswitch.shadow_instrument AS mine (
    symbol, run, first_run, loaded_lsn, loaded_at, epoch, following, loading, applied_lsn, resyncs,
    marker_flip_id, taint, root_order_id, root_verdict, root_reason, pending, book_equal, book_lsn,
    book_checked_at, book_differences, lag_ms, updated_at)
VALUES (
    %(symbol)s, %(run)s, %(first_run)s, %(loaded_lsn)s, {_TIME.format("loaded_ns")}, %(epoch)s,
    %(following)s, %(loading)s, %(applied_lsn)s, %(resyncs)s, %(marker_flip_id)s, %(taint)s,
    %(root_order_id)s, %(root_verdict)s, %(root_reason)s, %(pending)s, %(book_equal)s, %(book_lsn)s,
    {_TIME.format("book_checked_ns")}, %(book_differences)s, %(lag_ms)s, now())
ON CONFLICT (symbol) DO UPDATE SET
    run = excluded.run, first_run = excluded.first_run, loaded_lsn = excluded.loaded_lsn,
    loaded_at = excluded.loaded_at, epoch = excluded.epoch, following = excluded.following,
    loading = excluded.loading, applied_lsn = excluded.applied_lsn, resyncs = excluded.resyncs,
    marker_flip_id = excluded.marker_flip_id, taint = excluded.taint,
    root_order_id = excluded.root_order_id, root_verdict = excluded.root_verdict,
    root_reason = excluded.root_reason, pending = excluded.pending,
    book_equal = excluded.book_equal, book_lsn = excluded.book_lsn,
    book_checked_at = excluded.book_checked_at, book_differences = excluded.book_differences,
    lag_ms = excluded.lag_ms, updated_at = excluded.updated_at
"""

# A load, or a return by rollback.
ADD_RUN = """
INSERT INTO railswitch.shadow_run (symbol, run, epoch, loaded_lsn, orders, reason)
VALUES (%(symbol)s, %(run)s, %(epoch)s, %(loaded_lsn)s, %(orders)s, %(reason)s)
"""

# What a minute adds.
ADD_COUNTS = """
INSERT INTO railswitch.parity_count AS mine (
    symbol, run, window_at, seen, matched, known, mismatched, dependants, uncomparable, gaps, dark,
    reordered, fills)
VALUES (%(symbol)s, %(run)s, to_timestamp(%(minute_s)s), %(seen)s, %(matched)s, %(known)s,
    %(mismatched)s, %(dependants)s, %(uncomparable)s, %(gaps)s, %(dark)s, %(reordered)s, %(fills)s)
ON CONFLICT (symbol, run, window_at) DO UPDATE SET
    seen = mine.seen + excluded.seen, matched = mine.matched + excluded.matched,
    known = mine.known + excluded.known, mismatched = mine.mismatched + excluded.mismatched,
    dependants = mine.dependants + excluded.dependants,
    uncomparable = mine.uncomparable + excluded.uncomparable, gaps = mine.gaps + excluded.gaps,
    dark = mine.dark + excluded.dark, reordered = mine.reordered + excluded.reordered,
    fills = mine.fills + excluded.fills
"""

# Dark operations of a writer that was seen; beyond so many writers of a run they are others'.
ADD_DARK = """
INSERT INTO railswitch.dark_writer AS mine (symbol, run, role, application, operations)
SELECT %(symbol)s, %(run)s, CASE WHEN has_room THEN %(role)s ELSE '' END,
    CASE WHEN has_room THEN %(application)s ELSE '' END, %(operations)s
FROM (SELECT EXISTS (
        SELECT FROM railswitch.dark_writer WHERE symbol = %(symbol)s AND run = %(run)s
            AND role = %(role)s AND application = %(application)s)
    OR (SELECT count(*) < %(most)s FROM railswitch.dark_writer
        WHERE symbol = %(symbol)s AND run = %(run)s AND role <> '') AS has_room) AS room
ON CONFLICT (symbol, run, role, application) DO UPDATE SET
    operations = mine.operations + excluded.operations
"""

# Transactions of a writer that were seen, dark or not; bounded likewise.
ADD_WRITER = """
INSERT INTO railswitch.writer_seen AS mine (role, application, transactions)
SELECT CASE WHEN has_room THEN %(role)s ELSE '' END,
    CASE WHEN has_room THEN %(application)s ELSE '' END, %(transactions)s
FROM (SELECT EXISTS (SELECT FROM railswitch.writer_seen
        WHERE role = %(role)s AND application = %(application)s)
    OR (SELECT count(*) < %(most)s FROM railswitch.writer_seen
        WHERE role <> '') AS has_room) AS room
ON CONFLICT (role, application) DO UPDATE SET
    transactions = mine.transactions + excluded.transactions, last_at = now()
"""

# Makes room for writers that come.
FORGET_WRITERS = "DELETE FROM railswitch.writer_seen WHERE last_at < now() - interval '1 day'"

# A verdict that is not a plain match.
ADD_VERDICT = """
INSERT INTO railswitch.verdict (
    symbol, run, operation, order_id, verdict, kinds, root_order_id, commit_lsn, body)
VALUES (%(symbol)s, %(run)s, %(operation)s, %(order_id)s, %(verdict)s, %(kinds)s,
    %(root_order_id)s, %(commit_lsn)s, %(body)s)
"""

# Operations that a declared difference has explained.
ADD_HITS = """
INSERT INTO railswitch.known_hit AS mine (rule, hits) VALUES (%s, %s)
ON CONFLICT (rule) DO UPDATE SET hits = mine.hits + excluded.hits
"""

# Captures that are lost; found again after a restart, they are the same ones.
ADD_GAP = """
INSERT INTO railswitch.capture_gap (worker, first, last) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING
"""

# A window of latencies, and what it holds after more have been added.
LATENCY = """
SELECT histogram FROM railswitch.latency
WHERE symbol = %s AND run = %s AND side = %s AND window_at = to_timestamp(%s)
"""
SAVE_LATENCY = """
INSERT INTO railswitch.latency (symbol, run, side, window_at, histogram)
VALUES (%s, %s, %s, to_timestamp(%s), %s)
ON CONFLICT (symbol, run, side, window_at) DO UPDATE SET histogram = excluded.histogram
"""

# The newest verdicts that were kept.
NEWEST_VERDICTS = """
SELECT body FROM railswitch.verdict WHERE symbol = %s ORDER BY id DESC LIMIT %s
"""

_S = "coalesce(extract(epoch FROM {0})::float8, 0)"

# What evidence says of an instrument, counts and latencies apart.
EVIDENCE = f"""
SELECT s.symbol, s.stage, coalesce(i.epoch, 0) AS epoch, coalesce(i.run, 0) AS run,
       coalesce(i.first_run, 0) AS first_run, {_S.format("r.loaded_at")} AS loaded_at_s,
       extract(epoch FROM clock_timestamp())::float8 AS now_s, coalesce(i.pending, 0) AS pending,
       coalesce(i.taint, '') AS taint, i.book_equal,
       {_S.format("i.book_checked_at")} AS book_checked_at_s, i.lag_ms,
       {_S.format("i.updated_at")} AS updated_at_s,
       coalesce(i.book_differences, '[]') AS book_differences
FROM railswitch.stage s
LEFT JOIN railswitch.shadow_instrument i USING (symbol)
LEFT JOIN railswitch.shadow_run r ON r.symbol = s.symbol AND r.run = i.first_run
WHERE s.symbol = %s
"""

# What the shadow processes wait for.
TROUBLE = """
SELECT coalesce(string_agg(trouble, '; ' ORDER BY shadow), '') AS trouble
FROM railswitch.shadow_position WHERE trouble <> ''
"""

# Counts of each run since the instrument came into shadow.
COUNTS = """
SELECT run, sum(seen)::bigint AS seen, sum(matched)::bigint AS matched,
       sum(known)::bigint AS known, sum(mismatched)::bigint AS mismatched,
       sum(dependants)::bigint AS dependants, sum(uncomparable)::bigint AS uncomparable,
       sum(gaps)::bigint AS gaps, sum(dark)::bigint AS dark, sum(reordered)::bigint AS reordered,
       sum(fills)::bigint AS fills
FROM railswitch.parity_count WHERE symbol = %s AND run >= %s GROUP BY run ORDER BY run
"""

# Whose the dark operations were.
DARK = """
SELECT role, application, sum(operations)::bigint AS count FROM railswitch.dark_writer
WHERE symbol = %s AND run >= %s GROUP BY role, application HAVING sum(operations) > 0
"""

# Who was seen to write in the monolith's database.
WRITERS = """
SELECT role, application, transactions AS count FROM railswitch.writer_seen
WHERE last_at > now() - interval '1 day' AND role <> ''
ORDER BY transactions DESC, role, application LIMIT %s
"""

# The newest windows of one side's latencies.
LATENCIES = """
SELECT histogram FROM railswitch.latency
WHERE symbol = %s AND run >= %s AND side = %s ORDER BY window_at DESC LIMIT %s
"""

# The first roots since the instrument came into shadow.
ROOTS = """
SELECT run, body, extract(epoch FROM at)::float8 AS at_s FROM railswitch.verdict
WHERE symbol = %s AND run >= %s AND verdict = 'mismatch' AND root_order_id = 0
ORDER BY id LIMIT %s
"""

# How often each kind of difference was met.
KINDS = """
SELECT kind, count(*) AS n FROM railswitch.verdict, unnest(kinds) AS kind
WHERE symbol = %s AND run >= %s AND verdict = 'mismatch' GROUP BY kind ORDER BY n DESC, kind
"""

# How often each declared difference explained one.
KNOWN = """
SELECT body ->> 'reason' AS rules, count(*) AS n FROM railswitch.verdict
WHERE symbol = %s AND run >= %s AND verdict = 'known' GROUP BY rules ORDER BY n DESC, rules
"""

# The newest runs.
RUNS = """
SELECT symbol, run, epoch, loaded_lsn, orders, reason,
       extract(epoch FROM loaded_at)::float8 AS loaded_at_s
FROM railswitch.shadow_run WHERE symbol = %s ORDER BY run DESC LIMIT %s
"""

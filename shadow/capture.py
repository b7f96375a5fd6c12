"""What the proxy recorded of one order-entry exchange, and its encoding on the Redis stream.

Stream `CAPTURE_STREAM`: one entry for each batch, fields `worker`, `first` (number of the first
capture), `count`, and `batch` (MessagePack array of captures). A worker numbers its captures
from 1 without gaps, dropped ones included, so that every loss shows on the reading side as a
missing number. The last entry of a worker has `count` 0 and as `first` the number that would have
been next: it closes the sequence, so that what was lost at its end shows as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

CAPTURE_STREAM = "railswitch:captures"


class Outcome(StrEnum):
    """How the exchange ended, as far as the proxy could see."""

    ANSWERED = "answered"
    CLIENT_GONE = (
        "client-gone"  # the client left before the answer; the monolith may have taken the order
    )
    UPSTREAM_FAILED = (
        "upstream-failed"  # refused, reset or timed out: whether the monolith took it is unknown
    )
    WORKER_LOST = (
        "worker-lost"  # the worker died while it was under way; only the request was on the disk
    )


class Capture(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    worker: str  # unique for each run of a worker process: a new process starts a new sequence at 1
    number: int  # in the worker's own gap-free sequence, from 1
    action: str  # the mapped route's action: "place" or "cancel"
    method: str
    target: str  # path and query, as received
    path_params: dict[str, str]  # what the route's placeholders matched
    content_type: str  # of the request; "" when absent
    request_body: (
        bytes  # secrets have been removed; never truncated (too large: dropped and counted)
    )
    account: int  # from the mapped identity header; 0 when absent
    request_id: str
    outcome: Outcome
    status: int  # of the response; 0 when there was none
    response_body: bytes
    sent_mono_ns: int  # monotonic clock of this worker: the request went to the monolith
    answered_mono_ns: int  # monotonic clock: the last byte of the answer came back (0: never)
    sent_at_ns: int  # wall clock, UTC


def encode_batch(captures: Sequence[Capture]) -> dict[bytes, bytes]:
    """The fields of one stream entry. The captures are of one worker, with consecutive numbers."""
    data = msgspec.msgpack.encode(captures)
    return entry_fields(captures[0].worker, captures[0].number, len(captures), data)


def encode_closing(worker: str, last: int) -> dict[bytes, bytes]:
    """The entry that closes the sequence of a worker; `last` is the last number it used up."""
    return entry_fields(worker, last + 1, 0, msgspec.msgpack.encode([]))


def entry_fields(worker: str, first: int, count: int, data: bytes) -> dict[bytes, bytes]:
    return {
        b"worker": worker.encode(),
        b"first": b"%d" % first,
        b"count": b"%d" % count,
        b"batch": data,
    }


def decode_batch(fields: Mapping[bytes, bytes]) -> list[Capture]:
    """Raises KeyError or msgspec.DecodeError for an entry that is not a capture batch."""
    return msgspec.msgpack.decode(fields[b"batch"], type=list[Capture])

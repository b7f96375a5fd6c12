"""One session of PostgreSQL's streaming replication protocol, over psycopg's libpq layer.

psycopg starts the session and goes no further; this module moves the messages of the COPY BOTH
stream without ever blocking, so that the position can be reported however slow the reader is.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Self

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection, errors, sql
from psycopg.pq import DiagnosticField
from psycopg.rows import TupleRow

from shadow.errors import (
    LegacyNotReady,
    LegacyUnavailable,
    SlotBusy,
    SlotMissing,
    UndecodableChange,
)
from shadow.legacy.database import connect, target
from shadow.legacy.pgoutput import POSTGRES_EPOCH_US
from shadow.limits import CLOSE_S, CONNECT_S

_DATA_HEADER_BYTES = 25  # kind, position of the change, end of WAL, time
_KEEPALIVE = struct.Struct(">QqB")
_STATUS = struct.Struct(">cQQQqB")


class Keepalive(Struct, frozen=True):
    """Everything that committed before `end_lsn` has been sent."""

    end_lsn: int
    sent_at_us: int  # server clock, microseconds since 1970
    reply: bool  # the server wants to hear from us, e.g. because it is shutting down


class Session:
    """START_REPLICATION of a slot from where the slot stands: it knows better than we do."""

    def __init__(self, connection: AsyncConnection[TupleRow], url: str) -> None:
        self._connection = connection
        self._url = url
        self._ended = False  # nothing more can be said to the server
        self._failure: LegacyUnavailable | LegacyNotReady | None = None

    @classmethod
    async def start(cls, url: str, slot: str, publication: str) -> Self:
        """Raises LegacyUnavailable, SlotBusy, SlotMissing, LegacyNotReady."""
        connection = await connect(url, replication=True)
        names = sql.Literal(sql.Identifier(publication).as_string())
        command = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL 0/0"
            " (proto_version '1', publication_names {}, messages 'true')"
        ).format(sql.Identifier(slot), names)
        try:
            async with asyncio.timeout(CONNECT_S):
                await connection.execute(command)
        except BaseException as error:
            await connection.close()
            raise _start_error(url, slot, error) from error
        return cls(connection, url)

    def take(self, most: int) -> list[bytes | Keepalive]:
        """What has arrived, at most so many; a change is its pgoutput message.

        Raises LegacyUnavailable when the session has ended, LegacyNotReady when only a person can
        make it go on.
        """
        if self._failure is not None:
            raise self._failure
        taken: list[bytes | Keepalive] = []
        get_copy_data = self._connection.pgconn.get_copy_data
        try:
            while len(taken) < most:
                size, data = get_copy_data(1)
                if size == 0:
                    # What libpq has read at once is a few dozen messages: is there more by now?
                    self._connection.pgconn.consume_input()
                    size, data = get_copy_data(1)
                if size == 0:
                    break
                if size < 0:
                    self._failure = self._end_error()
                    break
                taken.append(_message(data))
        except psycopg.Error as error:
            self._ended = True  # told once what came before is taken
            said = f"reading changes from {target(self._url)}: {error}"
            self._failure = LegacyUnavailable(said)
        if self._failure is not None and not taken:
            raise self._failure
        return taken

    async def wait(self, timeout_s: float) -> bool:
        """Until something has arrived, or not; then `take` gives it. Raises LegacyUnavailable."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        pgconn = self._connection.pgconn
        try:
            socket = pgconn.socket
            loop.add_reader(socket, readable.set)
            try:
                async with asyncio.timeout(timeout_s):
                    await readable.wait()
            except TimeoutError:
                return False
            finally:
                loop.remove_reader(socket)
            pgconn.consume_input()
        except psycopg.Error as error:
            self._ended = True
            raise LegacyUnavailable(f"reading changes from {target(self._url)}: {error}") from error
        return True

    def report(self, confirmed_lsn: int, *, ping: bool) -> bool:
        """Tells the server what it may forget; `ping` asks it for a Keepalive. False: try again."""
        now_us = time.time_ns() // 1000 - POSTGRES_EPOCH_US
        lsn = confirmed_lsn
        try:
            sent = self._connection.pgconn.put_copy_data(
                _STATUS.pack(b"r", lsn, lsn, lsn, now_us, ping)
            )
            self._connection.pgconn.flush()
        except psycopg.Error as error:
            self._ended = True
            raise LegacyUnavailable(
                f"confirming changes to {target(self._url)}: {error}"
            ) from error
        return sent > 0

    async def close(self, confirmed_lsn: int) -> None:
        """Ends the session so that the server has taken this last report, if it still can."""
        try:
            if not self._ended:
                self._ended = True
                self.report(confirmed_lsn, ping=False)
                async with asyncio.timeout(CLOSE_S):
                    await self._end_copy()
        except (TimeoutError, psycopg.Error, LegacyUnavailable):
            pass  # the server will notice
        finally:
            await self._connection.close()

    async def _end_copy(self) -> None:
        pgconn = self._connection.pgconn
        pgconn.put_copy_end()
        pgconn.flush()
        while (size := pgconn.get_copy_data(1)[0]) >= 0:
            if size == 0:
                await self.wait(CLOSE_S)

    def _end_error(self) -> LegacyUnavailable | LegacyNotReady:
        self._ended = True
        pgconn = self._connection.pgconn
        result = None if pgconn.is_busy() else pgconn.get_result()  # which would wait
        said, state = "the server went away", None
        if result is not None and result.error_message:
            said = result.get_error_message().strip()
            state = result.error_field(DiagnosticField.SQLSTATE)
        if state == b"42704":  # the publication: at the slot's position it did not exist
            return LegacyNotReady(
                f"reading changes from {target(self._url)}: {said}; the slot is older than the"
                " publication, or the publication was dropped: drop the slot and load again"
            )
        return LegacyUnavailable(f"{target(self._url)} ended the change stream: {said}")


def _message(data: memoryview) -> bytes | Keepalive:
    kind = data[0]
    if kind == 0x77:  # w
        return bytes(data[_DATA_HEADER_BYTES:])
    if kind == 0x6B and len(data) == 1 + _KEEPALIVE.size:  # k
        end_lsn, sent_us, reply = _KEEPALIVE.unpack_from(data, 1)
        return Keepalive(end_lsn, sent_us + POSTGRES_EPOCH_US, bool(reply))
    raise UndecodableChange(f"{bytes(data[:16])!r}… is no message of streaming replication")


def _start_error(url: str, slot: str, error: BaseException) -> BaseException:
    if isinstance(error, errors.ObjectInUse):
        return SlotBusy(
            f"replication slot {slot} of {target(url)} is read by another process:"
            f" {error.diag.message_primary}; stop that one, or wait until it has ended"
        )
    if isinstance(error, errors.UndefinedObject):
        return SlotMissing(f"replication slot {slot} does not exist in {target(url)}")
    if isinstance(error, psycopg.Error | TimeoutError):
        said = str(error).strip() or "no answer"
        return LegacyUnavailable(f"reading changes from {target(url)}: {said}")
    return error

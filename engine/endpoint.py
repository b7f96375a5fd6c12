"""Where an engine listens and how it is reached: TCP, with TLS if wanted, or a Unix socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from engine import limits
from engine.errors import ListenFailed

Protocol = TypeVar("Protocol", bound=asyncio.Protocol)


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of an engine that listens with TLS."""

    certificate: Path  # PEM, with the chain up to the authority's
    key: Path  # PEM, without a password
    client_ca: Path | None = None  # set: clients need a certificate that one of these signed


class ClientTls(msgspec.Struct, frozen=True, kw_only=True):
    """Of a client. All are files in PEM."""

    ca: str = ""  # authorities that the engine's certificate may come from; "": this machine's
    certificate: str = ""  # shown to an engine that asks for one
    key: str = ""
    server_name: str = ""  # that the engine's certificate must be for; "": the host


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's address, for clients. With `unix_path` nothing else is looked at."""

    host: str = ""
    port: int = 0
    unix_path: str = ""
    tls: ClientTls | None = None

    def __str__(self) -> str:
        return f"unix:{self.unix_path}" if self.unix_path else f"{self.host}:{self.port}"

    async def connect(self, protocol: Callable[[], Protocol]) -> None:
        """Raises OSError; certificates that don't do are one. The files of `tls` are read each
        time, so that new ones are seen.
        """
        loop = asyncio.get_running_loop()
        if self.unix_path:
            await loop.create_unix_connection(protocol, self.unix_path)
        elif self.tls is None:
            await loop.create_connection(protocol, self.host, self.port)
        else:
            await loop.create_connection(
                protocol,
                self.host,
                self.port,
                ssl=_client_context(self.tls),
                server_hostname=self.tls.server_name or self.host,
                ssl_handshake_timeout=limits.CONNECT_S,
            )


def _client_context(tls: ClientTls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key or None)
    except OSError as error:
        files = ", ".join(filter(None, (tls.ca, tls.certificate, tls.key)))
        raise OSError(f"of {files} one can't be used: {error}") from error
    return context


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """Raises ListenFailed, with the file that does not do."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ValueError) as error:
        raise ListenFailed(
            f"the certificate {tls.certificate} with the key {tls.key} can't be used: {error}. "
            f"Correct `engine.tls`"
        ) from error
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ValueError) as error:
            raise ListenFailed(
                f"the client authorities in {tls.client_ca} can't be used: {error}. "
                f"Correct `engine.tls.client_ca`"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class UnixSocket:
    """A socket file that only its owner may connect to, from when it is bound until `remove`."""

    def __init__(self, path: Path) -> None:
        """Replaces what a process that is gone left there. Raises ListenFailed where one lives, or
        where something else than a socket is.
        """
        _make_room(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = path
        try:
            self.socket.bind(str(path))
            # Nobody can connect before it listens.
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            self._inode = path.stat().st_ino
        except OSError as error:
            self.socket.close()
            raise ListenFailed(
                f"the engine can't listen on unix:{path}: {error.strerror or error}. "
                f"Change `engine.listen`"
            ) from error

    def remove(self) -> None:
        """The file, if it is still this socket's."""
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def _make_room(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenFailed(
            f"the engine can't listen on unix:{path}: {error.strerror or error}"
        ) from error
    if not stat.S_ISSOCK(kind):
        raise ListenFailed(
            f"the engine can't listen on unix:{path}: it exists and is no socket. Move it away, or "
            f"change `engine.listen`"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Full of connections that wait, it would block; it lives then.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                raise ListenFailed(
                    f"the engine can't listen on unix:{path}: {error.strerror or error}"
                ) from error
    raise ListenFailed(
        f"the engine can't listen on unix:{path}: another program listens there. Stop it, or "
        f"change `engine.listen`"
    )

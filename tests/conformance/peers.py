"""Servers that nobody here wrote: aiohttp.web and Python's http.server. They tell what came."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict

PATIENCE_S = 20.0
LARGE = bytes(range(256)) * 12_000  # 3 MB
TEXT = b"market,maker,taker\n" + b"BTC-USD,0.10,0.20\n" * 200
PIECES = [b"piece %d\n" % number for number in range(5)]
PAGE = """<!doctype html><link rel="icon" href="data:,"><form method="post" action="/see-other">
<input name="_method" value="delete"><input name="note" value="ü"></form>page""".encode()
BODY_BYTES_MAX = 1 << 30


class Came(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the server's own parser tells it."""

    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]
    body: bytes


class Peer:
    """What both have in common: a port, what came, and steps that a client allows."""

    def __init__(self, directory: Path) -> None:
        self.port = 0
        self.came: list[Came] = []
        self.file = directory / "rates.csv"
        self.file.write_bytes(TEXT)
        self._allowed = threading.Semaphore(0)

    def allow(self) -> None:
        """The next piece of a stream may be written."""
        self._allowed.release()

    def wait(self) -> None:
        assert self._allowed.acquire(timeout=PATIENCE_S), "no client allowed the next piece"


class AioPeer(Peer):
    """aiohttp.web, on a loop in a thread of its own."""

    def __enter__(self) -> AioPeer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _start(self) -> int:
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        add = application.router.add_route
        add("*", "/refuse", self._unread, expect_handler=self._refuse)
        add("GET", "/events", self._events)
        add("*", "/file", self._send_file)
        add("GET", "/socket", self._socket)
        add("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=1.0, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _stop(self) -> None:
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _note(self, request: web.Request, *, body: bool = True) -> bytes:
        data = await request.read() if body else b""
        self.came.append(
            Came(
                method=request.method,
                target=request.raw_path,
                version=f"HTTP/{request.version.major}.{request.version.minor}",
                fields=tuple((n.decode(), v.decode("latin-1")) for n, v in request.raw_headers),
                body=data,
            )
        )
        return data

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await self._note(request)
        match request.path:
            case "/pieces":
                response = web.StreamResponse(headers={"Content-Type": "text/plain"})
                await response.prepare(request)
                for piece in PIECES:
                    await response.write(piece)
                await response.write_eof()
                return response
            case "/compressed":
                packed = web.Response(body=TEXT, content_type="text/csv")
                packed.enable_compression()
                return packed
            case "/allow":
                self.allow()
                return web.Response()
            case "/until-close":
                endless = web.StreamResponse(headers={"Content-Type": "text/plain"})
                endless.force_close()
                await endless.prepare(request)
                await endless.write(b"".join(PIECES))
                return endless
            case path:
                status, fields, sent = plain_answer(path, request.content_type, body)
                return web.Response(status=status, headers=_multi(fields), body=sent)

    async def _send_file(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        return web.FileResponse(self.file)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await asyncio.to_thread(self.wait)
            await response.write(b"event: trade\ndata: %d\n\n" % number)
        return response

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        await self._note(request, body=False)
        socket = web.WebSocketResponse(protocols=("actioncable-v1-json",), compress=True)
        await socket.prepare(request)
        async for message in socket:
            if message.type is web.WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        return socket

    async def _refuse(self, request: web.Request) -> web.Response:
        await self._note(request, body=False)
        return web.Response(status=413, text="too much", headers={"Connection": "close"})

    async def _unread(self, request: web.Request) -> web.Response:
        raise AssertionError("a request that was refused came with its body")


class StandardPeer(Peer):
    """Python's http.server, a thread for each connection."""

    def __enter__(self) -> StandardPeer:
        handler = type("Handler", (_Handler,), {"peer": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    peer: StandardPeer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not to standard error."""

    def _answer(self) -> None:
        body = self._note()
        match self.path.partition("?")[0]:
            case "/pieces":
                self._chunked(PIECES)
            case "/trailers":
                self._chunked(PIECES, trailers=b"Checksum: 17\r\nServer-Timing: total;dur=1\r\n")
            case "/events":
                self._chunked(self._events(), content_type="text/event-stream")
            case "/allow":
                self.peer.allow()
                self._whole(200, [], b"")
            case "/hints":
                self._hints()
            case "/until-close" | "/old" as path:
                self._until_close(old=path == "/old")
            case "/compressed":
                packed = "gzip" in self.headers.get("Accept-Encoding", "")
                self._whole(
                    200,
                    [("Content-Type", "text/csv"), ("Content-Encoding", "gzip")][: 1 + packed],
                    gzip.compress(TEXT, mtime=0) if packed else TEXT,
                )
            case path:
                path = "/text" if path == "/file" else path
                content_type = self.headers.get("Content-Type", "application/octet-stream")
                self._whole(*plain_answer(path, content_type, body))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def _note(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.peer.came.append(
            Came(
                method=self.command,
                target=self.path,
                version=self.request_version,
                fields=tuple(self.headers.items()),
                body=body,
            )
        )
        return body

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() != b"\r\n":
            pass

    def _whole(self, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def _chunked(
        self, pieces: Any, *, content_type: str = "text/plain", trailers: bytes = b""
    ) -> None:
        if self.request_version == "HTTP/1.0":
            self._until_close(old=False)
            return
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n" + trailers + b"\r\n")

    def _events(self) -> Iterator[bytes]:
        for number in range(3):
            self.peer.wait()
            yield b"event: trade\ndata: %d\n\n" % number

    def _hints(self) -> None:
        self.send_response_only(103)
        self.send_header("Link", "</style.css>; rel=preload")
        self.end_headers()
        self._whole(200, [], b"done")

    def _until_close(self, *, old: bool) -> None:
        """`old`: as http.server does where nobody tells it to speak 1.1."""
        if old:
            self.protocol_version = "HTTP/1.0"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        if not old:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"".join(PIECES))
        self.close_connection = True


def plain_answer(
    path: str, content_type: str, body: bytes
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, fields and body of what both servers answer alike."""
    match path.strip("/").split("/"):
        case ["status", code]:
            return int(code), [], b"" if code in ("204", "304") else b"status " + code.encode()
        case ["redirect"]:
            return 302, [("Location", "/text?from=redirect")], b""
        case ["see-other"]:
            return 303, [("Location", "/page?from=form")], b""
        case ["page"]:
            return 200, [("Content-Type", "text/html; charset=utf-8")], PAGE
        case ["text"]:
            return 200, [("Content-Type", "text/csv")], TEXT
        case ["large"]:
            return 200, [("Content-Type", "application/octet-stream")], LARGE
        case ["cookies"]:
            cookies = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/; HttpOnly")]
            return 200, [*cookies, ("X-Empty", ""), ("x-lower-CASE", "kept")], b"two"
        case _:
            return 200, [("Content-Type", content_type)], body


def _multi(fields: list[tuple[str, str]]) -> Mapping[str, str]:
    return CIMultiDict(fields)

"""The control API: JSON over HTTP, for the command line and the console. Decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from bridge.control.messages import (
    ActOutcome,
    ActRequest,
    DryRun,
    Refused,
    StageRequest,
    Status,
)
from bridge.control.switch import Switch
from bridge.errors import (
    BridgeError,
    FlipRunning,
    NotNow,
    RedisUnreachable,
    StageConflict,
    StepFailed,
    StoreUnreachable,
    UnknownInstrument,
)
from bridge.ledger_rows import Direction, FlipRow
from bridge.limits import API_BODY_BYTES_MAX, API_STOP_S
from bridge.steps import OPERATING_FAULTS, StepUpdate
from bridge.tasks import ended
from engine.errors import EngineError
from shadow.errors import ShadowError

_log = logging.getLogger(__name__)
_Request = TypeVar("_Request", ActRequest, StageRequest)
Line = StepUpdate | ActOutcome | DryRun | Refused

# The first that fits; what is not here is a defect, and 500.
_HTTP: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int, str], ...] = (
    (UnknownInstrument, 404, "use one of the configured symbols"),
    (NotNow, 409, "remove the reasons, then try again"),
    (FlipRunning, 409, "wait for it: `railswitch status` shows its step"),
    (StageConflict, 409, "look at `railswitch status` and try again"),
    (StepFailed, 409, "remove the reasons, then try again"),
    (msgspec.ValidationError, 400, "correct the body of the request"),
    ((StoreUnreachable, RedisUnreachable), 503, "see that it runs, then try again"),
    ((EngineError, ShadowError, OSError), 503, "see that it runs, then try again"),
    (BridgeError, 503, "remove the reason, then try again"),
)


class Api:
    def __init__(self, switch: Switch, status: Callable[[], Awaitable[Status]]) -> None:
        self._switch = switch
        self._status = status
        self._driving: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_told], client_max_size=API_BODY_BYTES_MAX)
        application.add_routes(
            [
                web.get("/status", self._get_status),
                web.get("/instruments/{symbol}/gate", self._get_gate),
                web.get("/instruments/{symbol}/{action:flip|rollback}", self._get_act),
                web.post("/instruments/{symbol}/{action:flip|rollback}", self._post_act),
                web.post("/instruments/{symbol}/stage", self._post_stage),
            ]
        )
        return application

    async def settle(self) -> None:
        """Gives what is driven the time to end; what does not is finished at the next start."""
        if self._driving:
            _, late = await asyncio.wait(self._driving, timeout=API_STOP_S)
            await ended(*late)

    async def _get_status(self, _: web.Request) -> web.Response:
        return _json(await self._status())

    async def _get_gate(self, request: web.Request) -> web.Response:
        return _json(await self._switch.gate(request.match_info["symbol"]))

    async def _get_act(self, request: web.Request) -> web.Response:
        action = _direction(request.match_info["action"])
        return _json(await self._switch.look(request.match_info["symbol"], action))

    async def _post_act(self, request: web.Request) -> web.StreamResponse:
        symbol, action = request.match_info["symbol"], _direction(request.match_info["action"])
        body = await _body(request, ActRequest)
        if not body.execute:
            return _lines(await self._switch.look(symbol, action))
        flip = await self._switch.begin(symbol, action, body)
        lines: asyncio.Queue[Line | None] = asyncio.Queue()
        # Its own task: it goes on when the client that asked for it has gone.
        task = asyncio.create_task(self._drive(flip, body, lines))
        self._driving.add(task)
        task.add_done_callback(self._driving.discard)
        return await _stream(request, lines)

    async def _post_stage(self, request: web.Request) -> web.Response:
        symbol = request.match_info["symbol"]
        body = await _body(request, StageRequest)
        if not body.execute:
            return _lines(await self._switch.look_at_stage(symbol, body.stage))
        return _lines(await self._switch.change_stage(symbol, body))

    async def _drive(
        self, flip: FlipRow, body: ActRequest, lines: asyncio.Queue[Line | None]
    ) -> None:
        try:
            outcome = await self._switch.carry(flip, lines.put_nowait)
            lines.put_nowait(outcome)
            if body.drill_s > 0 and flip.direction == "flip" and outcome.outcome == "done":
                await asyncio.sleep(body.drill_s)
                back = await self._switch.begin(flip.symbol, "rollback", body)
                lines.put_nowait(await self._switch.carry(back, lines.put_nowait))
        except Exception as error:
            if not isinstance(error, (*OPERATING_FAULTS, NotNow)):
                _log.exception("driving %s %d", flip.direction, flip.id)
            lines.put_nowait(refusal(error)[1])
        finally:
            lines.put_nowait(None)


def refusal(error: Exception) -> tuple[int, Refused]:
    """What the client is told of an error, and the HTTP status."""
    reasons = tuple(getattr(error, "reasons", ())) or (str(error),)
    status, step = next(
        ((code, step) for kind, code, step in _HTTP if isinstance(error, kind)),
        (500, "this is a defect in railswitch: the control process's log has more"),
    )
    return status, Refused(error=str(error) or type(error).__name__, reasons=reasons, next=step)


@web.middleware
async def _told(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _json(
            Refused(error=f"{request.method} {request.path}: {error.reason}"), error.status
        )
    except Exception as error:
        status, told = refusal(error)
        if status == 500:
            _log.exception("%s %s", request.method, request.path)
        return _json(told, status)


async def _stream(request: web.Request, lines: asyncio.Queue[Line | None]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    while (line := await lines.get()) is not None:
        await response.write(msgspec.json.encode(line) + b"\n")
    await response.write_eof()
    return response


async def _body(request: web.Request, kind: type[_Request]) -> _Request:
    # No page in an operator's browser can send this type here without being asked first.
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="send Content-Type: application/json")
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise msgspec.ValidationError(f"the body is not JSON: {error}") from error


def _direction(action: str) -> Direction:
    return "flip" if action == "flip" else "rollback"


def _json(value: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )


def _lines(value: Line) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value) + b"\n", content_type="application/x-ndjson"
    )

"""The control API as the command line sees it: ask, or act and read the steps as they happen."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import quote

import msgspec

from bridge.config_rules import host_port
from bridge.control.messages import (
    ActOutcome,
    ActRequest,
    DryRun,
    GateReport,
    Refused,
    StageRequest,
    Status,
)
from bridge.errors import ControlRefused, ControlUnreachable
from bridge.limits import CONTROL_ANSWER_S, CONTROL_STEP_S
from bridge.steps import StepUpdate

_Answer = TypeVar("_Answer", Status, GateReport)
Line = StepUpdate | DryRun | ActOutcome | Refused


class ControlClient:
    """Blocking; one connection for each call.

    Raises ControlRefused when a rule forbids what was asked, ControlUnreachable when control does
    not answer, or falls silent half-way: then `railswitch status` says what became of it.
    """

    def __init__(self, listen: str) -> None:
        self._listen = listen
        self._host, self._port = host_port(listen)

    def status(self) -> Status:
        return self._ask("/status", Status)

    def gate(self, symbol: str) -> GateReport:
        return self._ask(f"/instruments/{quote(symbol, safe='')}/gate", GateReport)

    def act(self, symbol: str, what: str, body: ActRequest | StageRequest) -> Iterator[Line]:
        """Each step as it is taken; the last line is the outcome, or the plan of a dry run."""
        path = f"/instruments/{quote(symbol, safe='')}/{what}"
        patience_s = CONTROL_STEP_S + (body.drill_s if isinstance(body, ActRequest) else 0.0)
        last: Line | None = None
        with self._exchange("POST", path, msgspec.json.encode(body), patience_s) as response:
            while line := response.readline():
                last = msgspec.json.decode(line, type=Line)
                yield last
        if last is None or isinstance(last, StepUpdate):
            raise ControlUnreachable(
                f"control at {self._listen} ended in the middle of the {what}: whoever takes over "
                "finishes it or takes it back; `railswitch status` says which"
            )

    def _ask(self, path: str, kind: type[_Answer]) -> _Answer:
        with self._exchange("GET", path, None, CONTROL_ANSWER_S) as response:
            return msgspec.json.decode(response.read(), type=kind)

    @contextlib.contextmanager
    def _exchange(
        self, method: str, path: str, body: bytes | None, patience_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=patience_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise _refusal(response)
            yield response
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
            raise ControlUnreachable(
                f"control at {self._listen} does not answer ({error or type(error).__name__}): "
                "see that `railswitch up` or `railswitch control` runs"
            ) from error
        finally:
            connection.close()


def _refusal(response: http.client.HTTPResponse) -> ControlRefused | ControlUnreachable:
    """From 500 on it is control itself that has a problem."""
    data: bytes = response.read()
    kind = ControlUnreachable if response.status >= 500 else ControlRefused
    try:
        refused = msgspec.json.decode(data, type=Refused)
    except msgspec.MsgspecError:
        return kind(data.decode(errors="replace").strip() or f"control said {response.status}")
    reasons = [f"  - {reason}" for reason in refused.reasons if reason not in refused.error]
    step = f"next: {refused.next}" if refused.next else ""
    return kind("\n".join(line for line in (refused.error, *reasons, step) if line))

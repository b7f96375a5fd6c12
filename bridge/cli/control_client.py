"""The control API as the command line sees it: ask, or act and read the steps as they happen."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from bridge.config_rules import host_port
from bridge.errors import ControlRefused, ControlUnreachable
from bridge.limits import CONTROL_ANSWER_S, CONTROL_STEP_S


class ControlClient:
    """Blocking; one connection for each call."""

    def __init__(self, listen: str) -> None:
        self._listen = listen
        self._host, self._port = host_port(listen)

    def status(self) -> dict[str, Any]:
        return self._ask("/status")

    def gate(self, symbol: str) -> dict[str, Any]:
        return self._ask(f"/instruments/{quote(symbol, safe='')}/gate")

    def act(self, symbol: str, what: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Each step as it is taken; the last one is the outcome.

        Raises ControlRefused when a rule forbids it, ControlUnreachable when control does not
        answer, or falls silent half-way: then `railswitch status` says what became of it.
        """
        path = f"/instruments/{quote(symbol, safe='')}/{what}"
        with self._exchange("POST", path, body, CONTROL_STEP_S) as response:
            while line := response.readline():
                yield json.loads(line)

    def _ask(self, path: str) -> dict[str, Any]:
        with self._exchange("GET", path, None, CONTROL_ANSWER_S) as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    @contextlib.contextmanager
    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None, patience_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=patience_s)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise ControlRefused(_reason(response))
            yield response
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ControlUnreachable(
                f"control at {self._listen} does not answer ({error or type(error).__name__}): "
                "see that `railswitch up` or `railswitch control` runs"
            ) from error
        finally:
            connection.close()


def _reason(response: http.client.HTTPResponse) -> str:
    """The `error` of a JSON answer, else all of it."""
    text = response.read().decode(errors="replace").strip()
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(text).get("error") or text)
    return text or f"control answered {response.status}"

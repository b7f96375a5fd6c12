"""What one client is answered in every manner that the exchange has, with what differs every time
taken out: to be asked of Rails itself, and of the engine later.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import requests
from rails_world import Caller

_ID = re.compile(r'(?<="id":)\d+')
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

FAR = {"side": "buy", "price": "1.00", "quantity": "0.50"}  # trades with nobody
JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    status: int
    content_type: str
    body: str


def answers(base_url: str, symbol: str, member: int) -> dict[str, Answer]:
    """By what was asked; leaves no open order."""
    client, other = Caller(base_url, member), Caller(base_url, member + 1)
    nobody = Caller(base_url, 0)
    order = {"market": symbol, **FAR}
    placed = client.place(**order)
    own = f"/orders/{placed.json()['order']['id']}"
    told = {
        "placed": placed,
        "another's": other.ask("DELETE", own),
        "read": client.ask("GET", own),
        "canceled": client.ask("DELETE", own),
        "canceled again": client.ask("DELETE", own),
        "of an id that is none": client.ask("DELETE", "/orders/none"),
        "wrong in all fields": client.place(
            market=symbol, side="up", time_in_force="x", price="-1", quantity="many"
        ),
        "off the grid": client.place(
            market=symbol, side="buy", price="1.001", quantity="0.000000001"
        ),
        "too large": client.place(market=symbol, side="buy", price="1", quantity="9000000000"),
        "a market order with a price": client.place(
            market=symbol, side="buy", order_type="market", price="1", quantity=""
        ),
        "of nobody": nobody.place(**order),
        "no JSON": client.ask("POST", "/orders", data="{", headers=JSON),
        "no order": client.ask("POST", "/orders", json={"order": {}}),
        "without its root": client.ask("POST", "/orders", json=order | {"time_in_force": "ioc"}),
        "a form": client.ask(
            "POST",
            "/orders",
            data={f"order[{k}]": v for k, v in (order | {"time_in_force": "ioc"}).items()},
        ),
    }
    return {name: _told(answer) for name, answer in told.items()}


def _told(answer: requests.Response) -> Answer:
    content_type = answer.headers["Content-Type"].lower()
    return Answer(answer.status_code, content_type, _TIME.sub("TIME", _ID.sub("N", answer.text)))

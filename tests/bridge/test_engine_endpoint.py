"""`engine.listen` and `[engine.tls]`: the engine, and all its clients, where the file says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from certificates import Authority

from bridge import app, config
from bridge.engine_admin import EngineAdmin
from bridge.errors import NotConfigured
from engine.types import Role

TEXT = (Path(__file__).parents[2] / "bridge" / "sandbox" / "railswitch.toml").read_text()


def written(directory: Path, listen: str, rest: str = "") -> config.Config:
    file = directory / "railswitch.toml"
    engine = f'[engine]\nlisten = "{listen}"\nimplementation = "python"\n{rest}'
    assert "[engine]" not in TEXT
    file.write_text(f"{TEXT}\n{engine}\n")
    return config.load(file)


async def asked(made: config.Config) -> tuple[str, int]:
    """Where the engine says it listens, and what two of its clients hear from it."""
    stop = asyncio.Event()
    ready: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(app.run_engine(made, stop, ready.set_result))
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    admin = EngineAdmin(app.engine_endpoint(made), key=app.engine_keys(made)[Role.ADMIN])
    reader = app.engine_client(made, name="reader", role=Role.READ_ONLY)
    try:
        await reader.start()
        assert reader.role == Role.READ_ONLY
        return ready.result()["listen"], await admin.head_seq()
    finally:
        await reader.close()
        await admin.close()
        stop.set()
        await running


def test_all_meet_at_a_socket_file(tmp_path: Path) -> None:
    path = tmp_path / "e.sock"
    made = written(tmp_path, f"unix:{path}")
    assert asyncio.run(asked(made)) == (f"unix:{path}", 2)


def test_all_meet_over_tls(tmp_path: Path, free_port: int) -> None:
    authority = Authority(tmp_path)
    authority.sign("engine")
    authority.sign("part", alternatives="DNS:part.example")
    tls = """[engine.tls]
enabled = true
certificate = "engine.pem"
key = "engine.key"
ca = "ca.pem"
client_ca = "ca.pem"
client_certificate = "part.pem"
client_key = "part.key"
"""
    made = written(tmp_path, f"127.0.0.1:{free_port}", tls)
    assert asyncio.run(asked(made)) == (f"127.0.0.1:{free_port}", 2)


def test_an_engine_with_tls_needs_a_certificate_and_its_clients_do_not(tmp_path: Path) -> None:
    made = written(tmp_path, "127.0.0.1:8320", "[engine.tls]\nenabled = true\n")
    with pytest.raises(NotConfigured, match=r"engine\.tls\.certificate and engine\.tls\.key"):
        app.engine_settings(made)
    assert app.engine_endpoint(made).tls is not None


@pytest.fixture
def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("line", "is_plain"), [("", True), ('orders = "plain"', True), ('orders = "all"', False)]
)
def test_only_plain_orders_are_taken_unless_the_file_says_otherwise(
    tmp_path: Path, line: str, is_plain: bool
) -> None:
    made = written(tmp_path, "127.0.0.1:0", line)
    assert app.engine_settings(made).plain_orders is is_plain

"""Unix sockets and TLS: the same service, reached another way, by those who may."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from certificates import Authority
from engine_harness import KEYS, WAIT_S, Raw, engine_process, orders, raw, run, service, started
from market_driver import BTC, define, new, set_mode

from engine import limits
from engine.client import ClientTls, EngineClient
from engine.endpoint import Endpoint, TlsSettings
from engine.errors import EngineUnavailable, ListenFailed
from engine.protocol import HEADER, VERSION, Login, MessageType, RejectCode, message, packed
from engine.types import EventKind, Mode, Role
from engine.wire import encode_commands


@asynccontextmanager
async def one_client(
    endpoint: Endpoint, name: str = "proxy-0", role: Role = Role.TRADE
) -> AsyncIterator[EngineClient]:
    one = EngineClient.at(endpoint, name=name, key=KEYS[role])
    await one.start(timeout_s=WAIT_S)
    try:
        yield one
    finally:
        await one.close()


async def trade(endpoint: Endpoint) -> None:
    """The whole of it: admin, orders, a batch, a question, the tail."""
    async with one_client(endpoint, "control", Role.ADMIN) as control:
        await control.send([define(BTC, "BTC-USD"), set_mode(Mode.LIVE, 1)], timeout_s=WAIT_S)
    async with one_client(endpoint) as one:
        (answer,) = await one.send([new(1)], timeout_s=WAIT_S)
        assert answer.events[0].kind == EventKind.ACCEPTED
        events = await one.send_batch(encode_commands(orders(10, 4_000)), timeout_s=WAIT_S)
        assert len(events) == 80 * 6_000
        assert len((await one.book(BTC)).orders) == 1
        async for batch in one.tail(1):
            if batch.last_seq == one.head_seq:
                break


# --- Unix sockets


def test_a_service_listens_on_a_socket_file_that_only_its_owner_may_open(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"

    async def story() -> None:
        async with service(tmp_path / "journal", host="", unix_path=path) as port:
            assert port == 0
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            await trade(Endpoint(unix_path=str(path)))
        assert not path.exists()

    run(story())


def test_a_service_listens_on_both(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"

    async def story() -> None:
        async with service(tmp_path / "journal", unix_path=path) as port:
            await trade(Endpoint(unix_path=str(path)))
            async with started(port) as one:
                assert len((await one.book(BTC)).orders) == 1

    run(story())


def test_bad_bytes_over_a_socket_file_are_told_why(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"

    async def story() -> None:
        async with service(tmp_path / "journal", host="", unix_path=path):
            one = Raw(*await asyncio.open_unix_connection(str(path)))
            await one.login()
            await one.send(HEADER.pack(64, ord("C"), VERSION + 1, 0))
            assert (await one.rejected()).code == RejectCode.PROTOCOL

    run(story())


def test_a_socket_file_of_a_process_that_is_gone_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with engine_process(tmp_path / "journal", host="", unix_path=path) as one:
        one.kill()
    assert path.is_socket()

    async def story() -> None:
        async with service(tmp_path / "journal", host="", unix_path=path):
            await trade(Endpoint(unix_path=str(path)))

    run(story())


def test_a_socket_file_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"

    async def story() -> None:
        async with service(tmp_path / "one", host="", unix_path=path):
            with pytest.raises(ListenFailed, match=r"engine\.sock: another program listens"):
                async with service(tmp_path / "two", host="", unix_path=path):
                    pass
            await trade(Endpoint(unix_path=str(path)))

    run(story())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.write_text("mine"), "is no socket"),
        (lambda path: path.mkdir(), "is no socket"),
        (lambda path: path.parent.rmdir(), "No such file"),
    ],
)
def test_what_is_no_socket_is_not_touched(tmp_path: Path, make: object, told: str) -> None:
    path = tmp_path / "there" / "engine.sock"
    path.parent.mkdir()
    make(path)  # type: ignore[operator]
    before = path.exists() and path.lstat().st_ino

    async def story() -> None:
        with pytest.raises(ListenFailed, match=told):
            async with service(tmp_path / "journal", host="", unix_path=path):
                pass
        assert (path.exists() and path.lstat().st_ino) == before

    run(story())


def test_a_service_that_is_told_nowhere_to_listen_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(ListenFailed, match="neither a host nor a socket file"):
            async with service(tmp_path, host=""):
                pass

    run(story())


def test_a_client_is_told_of_one_place() -> None:
    for wrong in (
        {},
        {"host": "127.0.0.1", "unix_path": "/tmp/x"},
        {"unix_path": "/tmp/x", "tls": ClientTls()},
    ):
        with pytest.raises(ValueError, match="an engine is at"):
            EngineClient(name="x", key="y", **wrong)  # type: ignore[arg-type]


def test_a_socket_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        one = EngineClient(unix_path=tmp_path / "none.sock", name="x", key="y")
        with pytest.raises(EngineUnavailable, match=r"unix:.*none\.sock .*Is it running"):
            await one.start(timeout_s=0.1)

    run(story())


# --- TLS


class Certificates:
    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.other = Authority(directory, "other")
        self.engine = self.authority.sign("engine")
        self.elsewhere = self.authority.sign("elsewhere", alternatives="DNS:elsewhere.example")
        self.client = self.authority.sign("client", alternatives="DNS:client.example")
        self.stranger = self.other.sign("stranger", alternatives="DNS:client.example")

    def settings(self, *, of_clients: bool = False, elsewhere: bool = False) -> TlsSettings:
        certificate, key = self.elsewhere if elsewhere else self.engine
        ca = self.authority.certificate if of_clients else None
        return TlsSettings(certificate=certificate, key=key, client_ca=ca)

    def trust(self, shown: tuple[Path, Path] | None = None, **rest: str) -> ClientTls:
        certificate, key = shown or ("", "")
        ca = {"ca": str(self.authority.certificate)} | rest
        return ClientTls(certificate=str(certificate), key=str(key), **ca)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def refused(port: int, tls: ClientTls | None, told: str) -> None:
    endpoint = Endpoint(host="127.0.0.1", port=port, tls=tls)
    one = EngineClient.at(endpoint, name="proxy-0", key=KEYS[Role.TRADE])
    with pytest.raises(EngineUnavailable, match=told):
        await one.start(timeout_s=0.1)
    await one.close()


def test_all_goes_through_tls(tmp_path: Path, made: Certificates) -> None:
    async def story() -> None:
        async with service(tmp_path, tls=made.settings()) as port:
            await trade(Endpoint(host="127.0.0.1", port=port, tls=made.trust()))

    run(story())


def test_a_client_does_not_talk_to_an_engine_that_it_can_not_know(
    tmp_path: Path, made: Certificates
) -> None:
    async def story() -> None:
        async with service(tmp_path, tls=made.settings()) as port:
            await refused(port, made.trust(ca=str(made.other.certificate)), "certificate verify")
            await refused(port, made.trust(server_name="other.example"), "Hostname mismatch")
            await refused(port, made.trust(ca=str(tmp_path / "none.pem")), r"none\.pem one can't")
            # The connection ends at the first byte that is no TLS.
            await refused(port, None, "connection was lost|does not answer|reset")

    run(story())


def test_a_certificate_may_be_for_a_name_that_is_given(tmp_path: Path, made: Certificates) -> None:
    async def story() -> None:
        async with service(tmp_path, tls=made.settings(elsewhere=True)) as port:
            tls = made.trust(server_name="elsewhere.example")
            await trade(Endpoint(host="127.0.0.1", port=port, tls=tls))
            await refused(port, made.trust(), "IP address mismatch")

    run(story())


def test_clients_may_have_to_show_a_certificate(tmp_path: Path, made: Certificates) -> None:
    async def story() -> None:
        async with service(tmp_path, tls=made.settings(of_clients=True)) as port:
            shown = made.trust(made.client)
            await trade(Endpoint(host="127.0.0.1", port=port, tls=shown))
            for wrong in (made.trust(), made.trust(made.stranger)):
                await refused(port, wrong, "connection was lost|can't be reached")

    run(story())


def test_reasons_are_read_through_tls_and_the_connection_ends_without_waiting(
    tmp_path: Path, made: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLOSE_GRACE_S", 60.0)  # not by being cut off in the end

    async def story() -> None:
        async with service(tmp_path, tls=made.settings()) as port:
            context = ssl.create_default_context(cafile=str(made.authority.certificate))
            one = Raw(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
            await one.send(packed(MessageType.LOGIN, Login(name="x", key="guess")))
            assert (await one.rejected()).code == RejectCode.LOGIN

    run(story())


def test_who_says_nothing_in_tls_keeps_nobody_waiting(
    tmp_path: Path, made: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOGIN_S", 0.3)

    async def story() -> None:
        async with service(tmp_path, tls=made.settings()) as port:
            async with raw(port) as silent, raw(port) as garbage:
                await garbage.send(message(MessageType.HEARTBEAT) * 100)
                endpoint = Endpoint(host="127.0.0.1", port=port, tls=made.trust())
                async with one_client(endpoint) as one:
                    assert (await one.status()).seq >= 1
                async with asyncio.timeout(WAIT_S):
                    for each in (silent, garbage):
                        try:
                            while await each.reader.read(100):
                                pass
                        except ConnectionResetError:
                            pass

    run(story())


def test_certificates_that_do_not_do_are_named(tmp_path: Path, made: Certificates) -> None:
    certificate, key = made.engine
    for tls, told in (
        (TlsSettings(certificate=tmp_path / "none.pem", key=key), r"none\.pem .*engine\.tls"),
        (TlsSettings(certificate=certificate, key=made.client[1]), "mismatch"),
        (TlsSettings(certificate=certificate, key=key, client_ca=key), r"engine\.tls\.client_ca"),
    ):

        async def story(tls: TlsSettings = tls, told: str = told) -> None:
            with pytest.raises(ListenFailed, match=told):
                async with service(tmp_path, tls=tls):
                    pass

        run(story())


def test_tls_is_of_tcp_only(tmp_path: Path, made: Certificates) -> None:
    path = tmp_path / "engine.sock"

    async def story() -> None:
        async with service(tmp_path / "journal", unix_path=path, tls=made.settings()) as port:
            await trade(Endpoint(unix_path=str(path)))
            endpoint = Endpoint(host="127.0.0.1", port=port, tls=made.trust())
            async with one_client(endpoint) as one:
                assert len((await one.book(BTC)).orders) == 1

    run(story())


def test_no_port_is_left_open_by_a_service_that_could_not_start(
    tmp_path: Path, made: Certificates
) -> None:
    path = tmp_path / "engine.sock"

    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(ListenFailed, match="in use"):
                async with service(tmp_path / "one", port=taken.getsockname()[1], unix_path=path):
                    pass
        assert not path.exists()

    run(story())

"""Bytes that two readers could read differently never pass, in either direction.

The corpus first, case by case; then bytes that Hypothesis makes of it. Whatever the proxy lets
through is read by h11, llhttp, http.server, a reader that knows no trailers and, where it is
installed, Puma: all of them, and whoever sent it, must mean the same requests.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import fuzz_http
import pytest
from fuzz_http import implementations
from golden_exchanges import EXCHANGES, OK, H, answer, get
from http_readers import MAY_PASS, STRANGERS, Read, Reading, strict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxy_rig import Front, run
from smuggling_answers import ANSWERS, BROKEN_OFF, STOLEN
from smuggling_corpus import PASSES, REQUESTS, Case
from wire import Malformed, Message, Upstream, Wire, connected, doing, take, when

FUZZING = Path(__file__).parents[1] / "engine" / "fuzzing.py"
FUZZ_S = int(os.environ.get("RAILSWITCH_FUZZ_S") or 2)


def names(cases: tuple[Case, ...]) -> list[str]:
    return [case.name if len(case.name) < 90 else case.name[:90] for case in cases]


# --- requests


class Asked:
    """What came of one client's bytes."""

    def __init__(self) -> None:
        self.streams: list[bytes] = []  # all that came on each connection to the monolith
        self.messages: list[list[Message]] = []  # the complete requests among it
        self.early = False  # something of a request came before the one before it was answered
        self.told = b""  # all that the client got

    @property
    def requests(self) -> tuple[Read, ...]:
        return tuple(
            Read(one.method, one.target, one.body) for each in self.messages for one in each
        )

    @property
    def statuses(self) -> list[int]:
        """Of the answers that the client got."""
        found, rest = [], self.told
        while whole := take(rest, answers=b"GET", ended=True):
            found.append(whole[0].status)
            rest = rest[whole[1] :]
        return [status for status in found if status >= 200]


async def serve(upstream: Upstream, asked: Asked) -> None:
    """Answers whatever comes, one request of a connection after the other."""
    while True:
        for at, wire in enumerate(upstream.wires):
            if at == len(asked.messages):
                asked.messages.append([])
            with suppress(Malformed):
                while wire.buffer and (whole := take(wire.buffer)):
                    wire.taken(whole[1])
                    asked.messages[at].append(whole[0])
                    asked.early |= bool(wire.buffer)
                    wire.send(OK)
        upstream.heard.clear()
        await upstream.heard.wait()


async def asked_once(pieces: list[bytes]) -> Asked:
    """Sends the bytes, says that no more will come, and reads to the end; then asks for more."""
    asked = Asked()
    async with Upstream() as upstream, Front(upstream.address) as front:
        async with doing(serve(upstream, asked)), connected(front.port) as client:
            await client.sent(pieces)
            client.fin()
            asked.told = await client.end()
        asked.streams = [bytes(wire.all) for wire in upstream.wires]
        asked.messages += [[] for _ in asked.streams[len(asked.messages) :]]
        async with doing(serve(upstream, Asked())), connected(front.port) as other:
            other.send(get())
            assert (await other.message(b"GET")).status == 200, "the proxy is no more"
    return asked


def check_all_read_alike(asked: Asked) -> None:
    """Each connection's stream, whole or broken off, to each reader."""
    for stream, messages in zip(asked.streams, asked.messages, strict=True):
        ours = tuple(Read(one.method, one.target, one.body) for one in messages)
        for name, reader in STRANGERS.items():
            reading = reader(stream)
            assert reading.agrees(ours), (name, stream, reading)
    assert not asked.early, "a request went before the one before it was answered"


def check_as_meant(sent: bytes, asked: Asked) -> None:
    meant = strict(sent)
    if MAY_PASS in meant.refused:
        return
    assert asked.requests == meant.requests[: len(asked.requests)], (sent, asked.requests)
    refused = [status for status in asked.statuses if status >= 400]
    if meant.refused and not meant.within:
        assert refused, (sent, "was not refused")
        assert refused[0] in meant.refused, (sent, refused, meant.refused)
    if not meant.refused:
        assert len(asked.requests) == len(meant.requests), (sent, asked.told)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("case", REQUESTS, ids=names(REQUESTS))
def test_a_request_is_refused_or_read_alike_by_all(case: Case, cut: bool) -> None:
    if cut and len(case.sent) > 4_000:
        pytest.skip("too long to be sent byte by byte")
    pieces = [case.sent[at : at + 1] for at in range(len(case.sent))] if cut else [case.sent]
    asked = run(asked_once(pieces))
    check_all_read_alike(asked)
    check_as_meant(case.sent, asked)
    if case.statuses != (PASSES,):
        assert asked.requests == ()
        assert asked.statuses or case.in_body
        assert set(asked.statuses) <= set(case.statuses), asked.told
        assert case.in_body or not any(asked.streams), "it was refused at the head, and went on"
    else:
        assert asked.requests


@pytest.mark.one_plane("no proxy in it")
def test_the_corpus_says_what_the_strict_reader_says() -> None:
    """Two descriptions of the same rules, neither of them the proxy's."""
    for case in REQUESTS:
        meant = strict(case.sent)
        if case.statuses == (PASSES,):
            assert meant.messages, case.name
        else:
            assert not meant.messages, case.name
            assert (
                meant.refused & set(case.statuses) or meant.within or b"\r\n\r\n" not in case.sent
            )


@pytest.mark.one_plane("no proxy in it")
def test_strangers_do_disagree_about_the_corpus_itself() -> None:
    """Else it would show nothing: these are the bytes that the proxy must not let through."""
    disagreed = sum(
        len({reader(case.sent).requests for reader in STRANGERS.values()}) > 1 for case in REQUESTS
    )
    assert disagreed > 60


def test_nothing_of_the_next_request_goes_before_the_answer() -> None:
    """Puma before 6 takes bytes behind a body of known length for a part of the body."""

    async def story() -> None:
        async with (
            Upstream() as upstream,
            Front(upstream.address) as front,
            connected(front.port) as client,
            connected(front.port) as other,
        ):
            body = get(b"Content-Length: 2", target=b"/1") + b"ab"
            client.send(body + get(target=b"/2") * 3)
            wire = await upstream.busy()
            assert (await wire.message()).body == b"ab"
            other.send(get(target=b"/other"))  # goes on meanwhile, by another connection
            assert (await (await upstream.busy()).message()).target == b"/other"
            assert not wire.buffer
            wire.send(OK)
            await client.message(b"GET")
            assert (await wire.message()).target == b"/2"

    run(story())


# --- Puma itself


def _ruby() -> str:
    return os.environ.get("RAILSWITCH_RUBY") or shutil.which("ruby") or ""


@pytest.fixture(scope="module")
def puma() -> Iterator[Callable[[list[bytes]], tuple[tuple[Read, ...], str]]]:
    """Reads the pieces of a stream as Puma does: the requests, and how it ended."""
    if not _ruby():
        pytest.skip("SKIPPED, not passed: ruby is not installed")
    script = Path(__file__).with_name("puma_reader.rb")
    found = subprocess.run([_ruby(), "-e", "require 'puma'"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("SKIPPED, not passed: ruby has no puma")
    process = subprocess.Popen(
        [_ruby(), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def read(pieces: list[bytes]) -> tuple[tuple[Read, ...], str]:
        assert process.stdin is not None
        assert process.stdout is not None
        encoded = [base64.b64encode(piece).decode() for piece in pieces]
        process.stdin.write(json.dumps(encoded) + "\n")
        process.stdin.flush()
        requests, end = json.loads(process.stdout.readline())
        return tuple(
            Read(method.encode(), target.encode("latin-1"), base64.b64decode(body))
            for method, target, body in requests
        ), end

    yield read
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


@pytest.mark.parametrize(
    "case", [case for case in REQUESTS if case.statuses == (PASSES,)], ids=lambda case: case.name
)
def test_puma_reads_what_passes_as_it_was_meant(
    case: Case, puma: Callable[[list[bytes]], tuple[tuple[Read, ...], str]]
) -> None:
    """As often as reads may end: behind every byte, and around the end of the body."""
    asked = run(asked_once([case.sent]))
    for messages, stream in zip(asked.messages, asked.streams, strict=True):
        if len(messages) != 1:
            continue  # one at a time, which Puma's reader here does not wait for
        wanted = (Read(messages[0].method, messages[0].target, messages[0].body),)
        for size in (len(stream), 1, 2, 3):
            pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
            assert Reading(*puma(pieces)).agrees(wanted), (stream, size)
        for at in range(max(len(stream) - 80, 1), len(stream)):
            assert Reading(*puma([stream[:at], stream[at:]])).agrees(wanted), (stream, at)


# --- answers


async def answered(sent: bytes, cut: bool) -> tuple[bytes, bytes]:
    """What two clients get: the first is answered with these bytes, and the second asks when all of
    them are there. What came later still, nobody could tell from its own answer.
    """
    said = asyncio.Event()

    async def monolith(upstream: Upstream) -> None:
        wire = await upstream.busy()
        await wire.message()
        await wire.sent([sent[at : at + 1] for at in range(len(sent))] if cut else [sent])
        if not case_waits(sent):
            wire.close()
        said.set()
        while True:
            other = await upstream.busy()
            await other.message()
            other.send(answer(body=b"second"))

    async with (
        Upstream() as upstream,
        Front(upstream.address) as front,
        doing(monolith(upstream)),
        connected(front.port) as first,
        connected(front.port) as second,
    ):
        first.send(get(b"Connection: close", target=b"/1"))
        told = await first.end()
        await said.wait()
        second.send(get(b"Connection: close", target=b"/2"))
        return told, await second.end()


def case_waits(sent: bytes) -> bool:
    """The monolith keeps its connection open: what it said is complete, and more."""
    return STOLEN in sent or sent.endswith(b"ok\r\n\r\n")


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("case", ANSWERS, ids=names(ANSWERS))
def test_an_answer_is_one_answer_or_none(case: Case, cut: bool) -> None:
    if cut and len(case.sent) > 4_000:
        pytest.skip("too long to be sent byte by byte")
    told, other = run(answered(case.sent, cut))
    assert other.startswith(b"HTTP/1.1 200 OK\r\n")
    assert other.endswith(b"\r\n\r\nsecond"), "another client got what was left over"
    whole = take(told, answers=b"GET")
    while whole and whole[0].status < 200:
        told = told[whole[1] :]
        whole = take(told, answers=b"GET")
    if case.statuses == (BROKEN_OFF,):
        assert whole is None
        assert STOLEN not in told
        return
    assert whole is not None, told
    assert told[whole[1] :] == b"", "more than one answer"
    if case.statuses != (PASSES,):
        assert whole[0].status == 502
    else:
        assert whole[0].status != 502


@pytest.mark.parametrize(
    "flood", [b"HTTP/1.1 103 H\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n"]
)
def test_a_flood_of_1xx_ends(flood: bytes) -> None:
    """A bounded number is passed on: nobody waits for ever behind a monolith that never answers."""

    async def monolith(wire: Wire) -> None:
        while not wire.ended:
            wire.send(flood * 10)
            await asyncio.sleep(0)

    async def story() -> None:
        async with (
            Upstream() as upstream,
            Front(upstream.address, upstream_head_s=1.0) as front,
            connected(front.port) as client,
        ):
            client.send(get())
            wire = await upstream.busy()
            await wire.message()
            async with doing(monolith(wire)):
                await when(wire.heard, lambda: wire.ended, "the monolith is not let go")
            await when(
                client.heard,
                lambda: client.ended or b"HTTP/1.1 50" in client.buffer[-2_000:],
                "the client waits for ever",
            )

    run(story())


# --- what nobody thought of

_SEEDS = [
    *(case.sent for case in REQUESTS if len(case.sent) < 2_000),
    *(
        step
        for exchange in EXCHANGES
        for step in exchange.client
        if isinstance(step, bytes) and len(step) < 2_000
    ),
]
_ODD = [
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b"\x0b", b"\x0c", b"\x7f", b"\x80"),
    *(b"\xff", b":", b";", b",", b"0", b"1", b"-", b"+", b"_", b"x", b"#", b"/", b"?", b"@", b"*"),
    *(b"0\r\n", b"0\r\n\r\n", b"3\r\nabc\r\n", b"chunked", b"identity", b"HTTP/1.0", b"HTTP/1.1"),
    *(b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content_Length: 3\r\n", H),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n", b"Connection: close\r\n"),
    *(b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Connection: content-length\r\n", b"X: y\r\n"),
    *(b"Expect: 100-continue\r\n", b" folded\r\n", b"GET /admin HTTP/1.1\r\n", get()),
]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes] = _SEEDS) -> bytes:
    """One or two known ones, with a few odd pieces put in, doubled or left out at ends of words."""
    data = b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 4))):
        places = [
            0,
            *(at + by for at, one in enumerate(data) if one in b"\r\n :;," for by in (0, 1)),
        ]
        at = draw(st.sampled_from(places))
        kind = draw(st.sampled_from("iiird"))
        piece = draw(st.sampled_from(_ODD))
        gone = 0 if kind == "i" else draw(st.integers(1, 6))
        data = data[:at] + (b"" if kind == "d" else piece) + data[at + gone :]
    return data


@pytest.mark.one_plane("reads with both codecs, and no proxy")
def test_whatever_is_made_of_the_corpus_is_read_alike_by_the_codec() -> None:
    @settings(max_examples=1_500, suppress_health_check=[HealthCheck.too_slow])
    @given(mutated(), st.integers(0, 40))
    def read_alike(stream: bytes, size: int) -> None:
        fuzz_http.requests(bytes([size]) + stream)

    read_alike()


@pytest.mark.one_plane("reads with both codecs, and no proxy")
def test_whatever_is_made_of_answers_is_read_alike_by_the_codec() -> None:
    seeds = [case.sent for case in ANSWERS if len(case.sent) < 2_000]

    @settings(max_examples=1_000, suppress_health_check=[HealthCheck.too_slow])
    @given(mutated(seeds), st.integers(0, 40))
    def read_alike(stream: bytes, size: int) -> None:
        fuzz_http.answers(bytes([size]) + stream)

    read_alike()


def test_whatever_is_made_of_the_corpus_is_read_alike_behind_the_proxy() -> None:
    @settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
    @given(mutated(), st.integers(0, 40))
    def read_alike(stream: bytes, size: int) -> None:
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)] if size else []
        asked = run(asked_once(pieces or [stream]))
        check_all_read_alike(asked)
        check_as_meant(stream, asked)

    read_alike()


@pytest.mark.one_plane("reads with both codecs, and no proxy")
@pytest.mark.parametrize("target", fuzz_http.TARGETS)
def test_what_a_run_of_the_fuzzer_begins_with_does_no_harm(target: str) -> None:
    for seed in fuzz_http.seeds(target):
        for size in (0, 1, 3, 64):
            fuzz_http.TARGETS[target](bytes([size]) + seed[1:])


@pytest.mark.one_plane("reads with both codecs, and no proxy")
@pytest.mark.parametrize("target", fuzz_http.TARGETS)
def test_no_bytes_that_reach_new_code_are_read_differently(target: str, tmp_path: Path) -> None:
    """`make fuzz SECONDS=3600` runs it for longer."""
    arguments = ["--only", "http", "--target", target, "--seconds", str(FUZZ_S)]
    ended = subprocess.run(
        [sys.executable, str(FUZZING), *arguments, "--directory", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    if "is not fuzzed" in ended.stdout:
        pytest.skip("SKIPPED, not passed: " + ended.stdout.splitlines()[0])
    logs = [log.read_text(errors="replace")[-4_000:] for log in tmp_path.rglob("log")]
    assert ended.returncode == 0, (ended.stdout, ended.stderr, logs)
    assert f"http {target}" in ended.stdout


@pytest.mark.one_plane("reads with both codecs, and no proxy")
def test_every_implementation_there_is_is_fuzzed() -> None:
    """Where the Rust plane is built, its reading is held against the Python one."""
    with suppress(ImportError):
        from bridge.proxy import _core  # noqa: F401

        assert set(implementations()) == {"python", "rust"}

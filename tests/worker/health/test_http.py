"""The health address against clients that mean ill: it answers, or lets go, and holds up no one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobq._worker.health import http
from jobq._worker.health.http import Answer, HealthServer
from jobq._worker.listen_address import Address
from jobq.errors import ConfigurationError

Exchange = Callable[[bytes], Awaitable[bytes]]


def answer(path: str) -> Answer:
    if path == "/broken":
        raise RuntimeError("a fault of ours")
    return Answer(200, "text/plain", b"x" * 5_000_000 if path == "/large" else path.encode())


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[str]:
    path = str(directory / "s")
    server = HealthServer(f"unix:{path}", answer)
    await server.start()
    try:
        yield path
    finally:
        await server.close()


async def exchange(path: str, request: bytes) -> bytes:
    """Send, and return what comes until the other end closes; nothing when it cuts the connection."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 20)
    except (ConnectionError, BrokenPipeError):
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        (b"GET /a?verbose=1 HTTP/1.0\r\n\r\n", 200),
        (b"HEAD /a HTTP/1.1\r\n\r\n", 200),
        (b"GET /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /b HT", 200),
        (b"GET /broken HTTP/1.1\r\n\r\n", 500),
        (b"POST /a HTTP/1.1\r\n\r\n", 405),
        (b"GET /a HTTP/2.0\r\n\r\n", 505),
        (b"GET  /a HTTP/1.1\r\n\r\n", 400),
        (b"GET /a\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"\xff\xfe\x00 / \r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /a HTTP/1.1\r\n" + b"X: y\r\n" * 2_000 + b"\r\n", 431),
    ],
)
async def test_each_request_has_its_status(tmp_path: Path, request_: bytes, status: int) -> None:
    async with serving(tmp_path) as path:
        said = await exchange(path, request_)
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close" in head
    (length,) = (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
    if request_.startswith(b"HEAD"):
        assert (body, length) == (b"", 2)
    else:
        assert len(body) == length > 0
    assert said.count(b"HTTP/1.1") == 1


async def test_who_says_nothing_or_reads_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DEADLINE", 0.3)
    async with serving(tmp_path) as path:
        silent = await asyncio.open_unix_connection(path)
        slow = await asyncio.open_unix_connection(path)
        slow[1].write(b"GET /a HT")
        deaf = await asyncio.open_unix_connection(path, limit=1)
        deaf[1].write(b"GET /large HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(silent[0].read(), 20) == b""
        assert await asyncio.wait_for(slow[0].read(), 20) == b""
        # Of the large answer no more than what the kernel and our reader had taken.
        taken = 0
        with pytest.MonkeyPatch.context():
            try:
                while part := await asyncio.wait_for(deaf[0].read(100_000), 20):
                    taken += len(part)
            except ConnectionError:
                pass
        assert taken < 5_000_000
        for _, writer in (silent, slow, deaf):
            writer.transport.abort()


async def test_connections_that_are_held_open_keep_nobody_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        idle = [await asyncio.open_unix_connection(path) for _ in range(5 * http.MAX_CONNECTIONS)]
        begun = time.monotonic()
        said = await exchange(path, b"GET /a HTTP/1.1\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 200")
        assert time.monotonic() - begun < http.DEADLINE
        gone = 0
        for reader, writer in idle:
            try:
                gone += await asyncio.wait_for(reader.read(), 0.01) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                gone += 1
            writer.transport.abort()
        assert gone >= 4 * http.MAX_CONNECTIONS


async def test_the_loop_goes_on_under_a_flood(tmp_path: Path) -> None:
    """Hundreds of requests at once, good and bad: the loop's own work is never put off for long."""
    longest = 0.0
    stop = asyncio.Event()

    async def beat() -> None:
        nonlocal longest
        while not stop.is_set():
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    async with serving(tmp_path) as path:
        beating = asyncio.create_task(beat())
        requests = [b"GET /a HTTP/1.1\r\n\r\n", b"x" * 50_000, b"GET", b"POST / HTTP/1.1\r\n\r\n"] * 100
        await asyncio.gather(*(exchange(path, each) for each in requests if each != b"GET"), return_exceptions=True)
        assert (await exchange(path, b"GET /a HTTP/1.1\r\n\r\n")).endswith(b"/a")
        stop.set()
        await beating
    # Generous: it stands for "not stalled", and the clients burden the same loop.
    assert longest < 5


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9642", Address(host="127.0.0.1", port=9642)),
        ("[::1]:0", Address(host="::1", port=0)),
        ("pod.example:80", Address(host="pod.example", port=80)),
        ("unix:/run/a b", Address(path="/run/a b")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", "a:b", "a", ":1", "1:2:3", "[a]", "unix:x", "unix:/\0", "h:1 ", "h:+1", "h:1_0"]
)
def test_malformed_addresses(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"health_address=.*: expected"):
        Address.parse(text)

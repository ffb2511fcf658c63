"""sd_notify against a real datagram socket."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobq._worker.health.systemd import Notifier
from tests.support.checks import some
from tests.support.notified import NotifySocket
from tests.support.waiting import wait_until


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    heard = NotifySocket(tmp_path / "n" if request.param == "path" else f"@jobq-test-{uuid.uuid4().hex}")
    yield heard
    heard.close()


def test_what_is_told_is_heard(manager: NotifySocket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address})
    notifier.tell(READY=1, STATUS="two\nlines\t and WATCHDOG=1")
    manager.wait("READY")
    assert [(heard.name, heard.value) for heard in manager.heard] == [
        ("READY", "1"),
        ("STATUS", "two lines and WATCHDOG=1"),
    ]
    notifier.close()
    notifier.tell(STATUS="after")
    assert len(manager.heard) == 2


def test_the_variables_are_taken_out_of_the_environment(manager: NotifySocket) -> None:
    """A program that a task starts must not speak for the worker, whichever program asks."""
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    notifier = Notifier.from_environment(env)
    assert env == {"A": "b"}
    assert notifier.watchdog == 0.5
    notifier.close()


@pytest.mark.parametrize(
    ("watchdog", "wanted"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": ""}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_whose_watchdog_it_is(watchdog: dict[str, str], wanted: float | None, tmp_path: Path) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "n"), **watchdog})
    assert notifier.watchdog == wanted
    notifier.close()
    assert Notifier.from_environment(dict(watchdog)).watchdog is None


@pytest.mark.parametrize(
    "address", [None, "", "relative", "vsock:2:1234", "@", "/", "/no/such/socket", "/" + "x" * 200]
)
def test_nobody_to_tell_is_no_error(address: str | None) -> None:
    notifier = Notifier.from_environment({} if address is None else {"NOTIFY_SOCKET": address})
    notifier.tell(READY=1)
    notifier.tell(WATCHDOG=1)
    notifier.close()
    notifier.close()


def test_a_manager_that_is_busy_is_told_later(tmp_path: Path) -> None:
    """READY is not lost on a full queue; a watchdog's word, which is about a moment, is."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "n"))
    stuffer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    stuffer.setblocking(False)
    stuffed = 0
    with contextlib.suppress(BlockingIOError):
        while stuffer.sendto(b"x", str(tmp_path / "n")):
            stuffed += 1
    notifier = Notifier(str(tmp_path / "n"), watchdog=1)
    notifier.tell(READY=1, STATUS="old")
    notifier.tell(WATCHDOG=1)
    for _ in some(range(stuffed)):
        assert listener.recv(100) == b"x"
    notifier.tell(STATUS="new")
    assert listener.recv(100) == b"READY=1\nSTATUS=new"
    for each in (listener, stuffer):
        each.close()
    notifier.close()


def test_a_manager_that_comes_back_hears_ready(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "n"))
    notifier.tell(READY=1)
    manager = NotifySocket(tmp_path / "n")
    notifier.tell(STATUS="here")
    wait_until(lambda: manager.values("READY") == ["1"], what="READY")
    manager.close()
    notifier.close()

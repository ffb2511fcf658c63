"""Lines of several processes, and of two streams of one, reach a reader whole, however slowly it reads."""

from __future__ import annotations

import os
import pty
import select
import socket
import subprocess
import sys
import tty

import pytest

from jobq._core.output_stream import Output
from tests.support.workers import ROOT

LINES = 40
WRITER = """
import os, sys
from jobq._core import output
output.guard()
for n in range(int(sys.argv[2])):
    for stream in (sys.stdout, sys.stderr):
        # Longer than what a pipe takes at once (4,096 bytes).
        stream.write(f"<{sys.argv[1]}{n:04d} " + sys.argv[1] * 9_000 + ">\\n")
output.finish(60)
"""


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_lines_are_not_mixed(kind: str) -> None:
    if kind == "pipe":
        ours, theirs = os.pipe()
    elif kind == "terminal":
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
    else:
        one, other = socket.socketpair()
        ours, theirs = one.detach(), other.detach()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name, str(LINES)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        )
        for name in "abc"
    ]  # fmt: skip
    os.close(theirs)
    text = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            # Less than a line: the writers wait in the midst of theirs.
            data = os.read(ours, 1 << 11)
        except OSError:  # a terminal's end
            break
        if not data:
            break
        text += data
    os.close(ours)
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = text.decode().split("\n")[:-1]
    assert sorted(lines) == sorted(
        f"<{name}{n:04d} " + name * 9_000 + ">" for name in "abc" for n in range(LINES) for _ in range(2)
    )


def test_without_a_thread_no_other_waits_for_the_rest_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Output, "_begin", lambda self: None)
    ours, theirs = os.pipe()
    output = Output(theirs)
    output.write("x" * 200_000 + "\n")
    assert output._waiting, "a part of it was written"
    assert output._write_lock.acquire(wait=False)
    output._write_lock.release()
    os.close(ours)
    os.close(theirs)

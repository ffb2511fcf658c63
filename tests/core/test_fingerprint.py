"""Errors of the same fault group together, those of different faults do not."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobq._core.fingerprint import REACH, fingerprint, normalise


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ""),
        ("", ""),
        ("boom", "boom"),
        ("first line\nsecond line", "first line"),
        ("\n  after a blank line", "after a blank line"),
        ("ValueError: invalid literal for int() with base 10: 'abc12'",
         "ValueError: invalid literal for int() with base <n>: <text>"),
        ("KeyError: 'customer_8841'", "KeyError: <text>"),
        ("IndexError: list index out of range", "IndexError: list index out of range"),
        ("ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 5432)",
         "ConnectionRefusedError: [Errno <n>] Connect call failed (<text>, <n>)"),
        ('connection to server at "10.0.3.7", port 5432 failed: Connection refused',
         "connection to server at <text>, port <n> failed: Connection refused"),
        ('duplicate key value violates unique constraint "users_email_key"\nDETAIL:  Key (email)=(a@b.com) already exists.',
         'duplicate key value violates unique constraint "users_email_key"'),
        ("Process 123 waits for ShareLock on transaction 88123; blocked by process 99.",
         "Process <n> waits for ShareLock on transaction <n>; blocked by process <n>."),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/data/in/2026-11-25/a b.pdf'",
         "FileNotFoundError: [Errno <n>] No such file or directory: <text>"),
        ("HTTP 503 from https://user:secret@api.example.com/v1/users/1234?token=abc after 30.2s",
         "HTTP <n> from https://api.example.com/<n>/users/<n> after <n>s"),
        ("AttributeError: 'NoneType' object has no attribute 'email'",
         "AttributeError: 'NoneType' object has no attribute 'email'"),
        ("TypeError: send() got an unexpected keyword argument 'colour'",
         "TypeError: send() got an unexpected keyword argument 'colour'"),
        ("ModuleNotFoundError: No module named 'app.tasks'", "ModuleNotFoundError: No module named 'app.tasks'"),
        ('column "total" does not exist', 'column "total" does not exist'),
        ("<Order object at 0x7f3a9c0012ab> is locked", "<Order object at <hex>> is locked"),
        ("job 550e8400-e29b-41d4-a716-446655440000 vanished at 2026-11-25T16:40:01.123Z", "job <uuid> vanished at <time>"),
        ("nothing since 2026-11-25 16:40:01+00", "nothing since <time>"),
        ("no mail to bob.x@example.com from 10.0.0.3:80 nor [2001:db8::1]:443", "no mail to <mail> from <host> nor <host>"),
        ("card ch_3Nabc8XYZ012 declined for cus_9s6XKzkNRiz8i3", "card <id> declined for <id>"),
        ("commit 3a80cf8 is gone", "commit <hex> is gone"),
        ("cannot open /tmp/tmpx8ab_c/in.bin", "cannot open <path>"),
        ("cannot open /srv/files/2024/invoice-99.pdf", "cannot open /srv/files/<n>/<n>"),
        ("cannot open /etc/app/settings.toml", "cannot open /etc/app/settings.toml"),
        ("ids 1, 2, 3 are missing", "ids <n> are missing"),
        ("it took -1.5e3 s, worker12 gave up", "it took <n> s, worker<n> gave up"),
        ("can't read the user's card", "can't read the user's card"),
        ("std::bad_alloc", "std::bad_alloc"),
        ("the quote 'is not closed", "the quote <text>"),
        ("а кириллица 42", "а кириллица <n>"),
    ],
)  # fmt: skip
def test_what_changes_is_left_out(error: str | None, expected: str) -> None:
    assert normalise(error) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timed out after 30 s", "timed out after 31.5 s"),
        ("KeyError: 'a'", "KeyError: 'bob'"),
        ("no row in 3fa85f64-5717-4562-b3fc-2c963f66afa6", "no row in 00000000-0000-0000-0000-000000000000"),
        ("at 0x1", "at 0xffffffffffff"),
        ("rows 1, 2", "rows 4, 5, 66"),
        ("at 0x0 of 3", "at 0x1f of 4"),
        ("at 10.0.0.3:80", "at 192.168.17.1:8080"),
        ("x" * REACH + "1", "x" * REACH + "another"),
    ],
)
def test_the_same_fault_has_one_fingerprint(one: str, other: str) -> None:
    assert fingerprint("app.task", one) == fingerprint("app.task", other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "boom"), ("b", "boom")),
        (("a", "boom"), ("a", "bang")),
        (("a", None), ("a", "bang")),
        (("a", "'X' object has no attribute 'y'"), ("a", "'X' object has no attribute 'z'")),
        (("ab", "c"), ("a", "bc")),
    ],
)
def test_different_faults_have_different_fingerprints(
    one: tuple[str, str | None], other: tuple[str, str | None]
) -> None:
    assert fingerprint(*one) != fingerprint(*other)


def test_a_fingerprint_stays_what_it_was() -> None:
    """Links to a group of failures are kept in tickets."""
    assert fingerprint("gallery.render", "ValueError: invalid literal for int() with base 10: 'x'") == "3fa407dacdaf"


@given(st.text(max_size=400) | st.text(alphabet="a1f-.:/'\"@ x[,\\~", max_size=400))
def test_any_text_has_a_fingerprint_and_its_beginning_the_same(error: str) -> None:
    shown = normalise(error)
    assert shown == normalise(error[:REACH])
    assert "\n" not in shown
    assert len(shown) <= 3 * REACH
    assert re.fullmatch("[0-9a-f]{12}", fingerprint("t", error))
    assert fingerprint("t", error) == fingerprint("t", error[:REACH])


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_numbers_do_not_tell_faults_apart(one: int, other: int) -> None:
    assert fingerprint("t", f"row {one} of batch{one} is bad") == fingerprint(
        "t", f"row {other} of batch{other} is bad"
    )


@pytest.mark.parametrize(
    "unit", ["a", "1", "'", '"', "-", ".", "a.", "a@", "a:", "a1-", "/a", "1.", "1,", "f", "[:", "~/", "http://", "`"]
)
def test_no_text_takes_long(unit: str) -> None:
    """A generous bound, for a regular expression that backtracks takes seconds or for ever."""
    begun = time.perf_counter()
    for _ in range(20):
        normalise(unit * REACH)
    assert time.perf_counter() - begun < 2

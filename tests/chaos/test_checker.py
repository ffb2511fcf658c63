"""The checker, checked: a clean history passes, and each way to break a promise is found, by its rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.scene.checker import check
from tests.chaos.scene.history import Final, JobRow, Limits
from tests.chaos.scene.ledger import Record, parse

SECOND = 1_000_000_000


def intent(
    *tokens: str, key: str | None = None, holds: str = "period", data: bool = True, line: str | None = None
) -> Record:
    jobs = [{"token": token, "key": key, "holds": holds, "data": data, "line": line} for token in tokens]
    return {"event": "intent", "transaction": tokens[0], "jobs": jobs}


def placed(token: str, job: int, *, created: bool = True, at: int = 0) -> Record:
    return {"event": "placed", "token": token, "job": job, "created": created, "at": at * SECOND}


def fate(token: str, what: str) -> Record:
    return {"event": what, "transaction": token}


def start(job: int, token: str, name: str, at: int, *, attempt: int = 1, **values: Any) -> Record:
    found = {
        "event": "start", "at": at * SECOND, "execution": name, "job": job, "token": token, "attempt": attempt,
        "max_attempts": 3, "pid": int(name.partition("-")[0]), "lock_free": True, "alive": [],
    }  # fmt: skip
    return found | values


def end(name: str, at: int, how: str = "ok", *, attempt: int = 1) -> Record:
    return {"event": "end", "at": at * SECOND, "execution": name, "how": how, "attempt": attempt}


def row(job: int, token: str, state: str = "succeeded", *, at: int | None = None, **values: Any) -> JobRow:
    defaults: dict[str, Any] = {"attempt": 1, "max_attempts": 3, "crashes": 0}
    return JobRow(
        id=job, token=token, state=state, finished_at=None if at is None else at * SECOND, **(defaults | values)
    )


def held(at: int, jobs: list[tuple[int, int]], **workers: int) -> Record:
    """A look: (job, worker) of what is `running`, and how many each worker holds."""
    return {"event": "held", "at": at * SECOND, "jobs": [[j, 1, f"w{w}"] for j, w in jobs], "workers": workers}


def called(key: str, version: int, *, created: bool = False, replaced: bool = False) -> Record:
    return {"event": "called", "key": key, "version": version, "created": created, "replaced": replaced, "at": 0}


def version(key: str, number: int) -> Record:
    return {"event": "version", "key": key, "version": number, "job": 70, "at": 0}


# One of everything that may happen.
LEDGER: list[Record] = [
    intent("plain"), placed("plain", 1), fate("plain", "committing"), fate("plain", "commit"),
    intent("undone"), placed("undone", 2), fate("undone", "rollback"),
    # Two whose commit was never answered: one had been done, one not.
    intent("maybe"), placed("maybe", 3), fate("maybe", "committing"), fate("maybe", "unknown"),
    intent("never"), placed("never", 4), fate("never", "committing"),
    # Its producer died before it said a word more.
    intent("silent"),
    # A key for good, wished for twice; and one until finished, given twice, one after the other.
    intent("first", key="k"), placed("first", 5), fate("first", "commit"),
    intent("second", key="k"), placed("second", 5, created=False), fate("second", "commit"),
    intent("before", key="f", holds="until_finished"), placed("before", 6, at=1), fate("before", "commit"),
    intent("after", key="f", holds="until_finished"), placed("after", 7, at=4), fate("after", "commit"),
    intent("doomed"), placed("doomed", 8), fate("doomed", "commit"),
    intent("deadly"), placed("deadly", 9), fate("deadly", "commit"),
    intent("unwanted"), placed("unwanted", 10), fate("unwanted", "commit"), {"event": "cancel", "job": 10},
    # An error and another try; a runner that died, and another that took over.
    start(1, "plain", "11-0", 10), end("11-0", 11, "error"),
    start(1, "plain", "11-1", 12, attempt=2),
    start(1, "plain", "12-0", 14, attempt=2), end("12-0", 15, attempt=2),
    start(3, "maybe", "11-2", 10), end("11-2", 12),
    start(5, "first", "11-3", 10), end("11-3", 12),
    start(6, "before", "11-4", 1), end("11-4", 2),
    start(7, "after", "11-5", 5), end("11-5", 6),
    *[line for n in (1, 2, 3) for line in (
        start(8, "doomed", f"11-{10 + n}", 10 * n, attempt=n), end(f"11-{10 + n}", 10 * n + 1, "error", attempt=n),
    )],
    *[start(9, "deadly", f"{20 + n}-0", 10 * n) for n in (1, 2, 3)],
    # A line of four: the first two lose their worker, and one other starts before they do again.
    *[line for n in (31, 32, 33, 34) for line in (
        intent(f"line-{n}", line="line"), placed(f"line-{n}", n), fate(f"line-{n}", "commit"),
    )],
    start(31, "line-31", "40-0", 1), start(32, "line-32", "40-1", 1),
    start(33, "line-33", "41-0", 4), end("41-0", 5),
    start(31, "line-31", "41-1", 5), end("41-1", 6), start(32, "line-32", "41-2", 6), end("41-2", 7),
    start(34, "line-34", "41-3", 7), end("41-3", 8),
    # Of two jobs in w1's name it holds one, which it executes; the other it has taken back before it was too long.
    held(11, [(1, 1), (10, 1)], w1=1), held(39, [(1, 1), (10, 1)], w1=1), held(45, [(10, 1)], w1=1),
    # What is executed still, for all that is known, is not suspected, whatever its worker counts.
    held(50, [(9, 1)], w1=0), held(85, [(9, 1)], w1=0),
    # A key whose job is replaced until it starts; one whose last call met the job that holds it still.
    called("k", 1, created=True), called("k", 2, replaced=True), version("k", 2), called("k", 3, created=True), version("k", 3),
    called("kept", 1, created=True), version("kept", 1), called("kept", 2),
]  # fmt: skip
FINAL = Final(
    finished=(
        row(1, "plain", at=16, attempt=2, crashes=1), row(3, "maybe", at=13), row(5, "first", at=13, key="k"),
        row(6, "before", at=3, key="f"), row(7, "after", at=7, key="f"), row(8, "doomed", "failed", at=32, attempt=3),
        row(9, "deadly", "failed", at=40, crashes=3), row(10, "unwanted", "cancelled", at=5, attempt=0),
        row(31, "line-31", at=6, crashes=1), row(32, "line-32", at=7, crashes=1), row(33, "line-33", at=5),
        row(34, "line-34", at=8),
    ),
    crashed=Counter({1: 1, 9: 3, 31: 1, 32: 1}),
    data=frozenset((
        "plain", "maybe", "first", "before", "after", "doomed", "deadly", "unwanted",
        "line-31", "line-32", "line-33", "line-34",
    )),
    given_back=((1, 13 * SECOND), (31, 3 * SECOND), (32, 3 * SECOND)),
    keys=frozenset(("kept",)),
)  # fmt: skip


LIMITS = Limits(ahead=1)


def test_a_clean_history_passes() -> None:
    assert check(LEDGER, FINAL, LIMITS) == []


def without(token: str, final: Final = FINAL) -> Final:
    return replace(final, finished=tuple(each for each in final.finished if each.token != token))


def with_row(*rows: JobRow, data: tuple[str, ...] = ()) -> Final:
    tokens = {each.token for each in rows}
    kept = tuple(each for each in FINAL.finished if each.token not in tokens)
    return replace(FINAL, finished=kept + rows, data=FINAL.data | set(data))


def changed(name: str, **values: Any) -> list[Record]:
    """The ledger with other values in the start line of one execution."""
    return [line | values if line["event"] == "start" and line["execution"] == name else line for line in LEDGER]


def cut(*events: Record) -> list[Record]:
    return [line for line in LEDGER if line not in events]


BROKEN: dict[str, tuple[str, list[Record], Final]] = {
    "a committed job is nowhere": ("lost", LEDGER, without("doomed")),
    "the holder that a duplicate was told of is nowhere": ("lost", LEDGER, without("first")),
    "a job has another id than was told": ("lost", LEDGER, with_row(row(99, "unwanted", "cancelled"))),
    "a job that was rolled back ran": ("ghost", [*LEDGER, start(2, "undone", "11-9", 10)], FINAL),
    "a job that was rolled back is there": ("ghost", LEDGER, with_row(row(2, "undone"), data=("undone",))),
    "a job whose producer never came to commit ran": ("ghost", [*LEDGER, start(11, "silent", "11-9", 10)], FINAL),
    "a job ran whose unanswered commit was not done": ("ghost", [*LEDGER, start(4, "never", "11-9", 10)], FINAL),
    "a job ran that was not enqueued": ("ghost", [*LEDGER, start(12, "stray", "11-9", 10)], FINAL),
    "a duplicate was inserted after all": ("ghost", LEDGER, with_row(row(13, "second"), data=("second",))),
    "a job without its data": ("torn", LEDGER, replace(FINAL, data=FINAL.data - {"plain"})),
    "data without its job": ("torn", LEDGER, replace(FINAL, data=FINAL.data | {"never"})),
    "a job finished twice": ("twice", LEDGER, replace(FINAL, finished=(*FINAL.finished, FINAL.finished[0]))),
    "a job is finished and live": ("twice", LEDGER, replace(FINAL, live=(row(1, "plain", "ready", attempt=2),))),
    "a job was inserted twice": ("twice", LEDGER, replace(FINAL, finished=(*FINAL.finished, row(14, "plain")))),
    "a job is left": ("stalled", LEDGER, replace(without("unwanted"), live=(row(10, "unwanted", "ready"),))),
    "an execution began before the end of the other": ("overlap", changed("12-0", at=12 * SECOND - 1), FINAL),
    "an execution began while the other had the lock": ("overlap", changed("12-0", lock_free=False), FINAL),
    "an execution began while the other's process was there": ("overlap", changed("12-0", alive=["11-1"]), FINAL),
    "an execution began after the job had finished": ("late", changed("12-0", at=20 * SECOND), FINAL),
    "an attempt above the most": ("attempts", changed("11-13", attempt=4), FINAL),
    "an attempt that is none": ("attempts", changed("11-13", attempt=0), FINAL),
    "attempts above the most are on record": ("attempts", LEDGER, with_row(row(8, "doomed", "failed", attempt=4))),
    "crashes above the limit": (
        "crashes", LEDGER, replace(with_row(row(9, "deadly", "failed", crashes=11)), crashed=Counter({1: 1, 9: 11})),
    ),
    "crashes that no attempt tells of": ("crashes", LEDGER, replace(FINAL, crashed=Counter({1: 1, 9: 2}))),
    "a crash that was not counted": ("crashes", LEDGER, replace(FINAL, crashed=Counter({1: 2, 9: 3}))),
    "a key for good has two jobs": ("keys", [
        *LEDGER, intent("third", key="k"), placed("third", 15), fate("third", "commit"),
    ], with_row(row(15, "third", "cancelled"), data=("third",))),
    "a key was given away while its job was live": ("keys", [
        *LEDGER, intent("third", key="f", holds="until_finished"), placed("third", 15, at=6), fate("third", "commit"),
    ], with_row(row(15, "third", at=9), data=("third",))),
    "a key's job ran after the key was given away": ("keys", [*LEDGER, start(6, "before", "11-9", 5)], FINAL),
    "a success without an execution": ("unfounded", LEDGER, with_row(row(10, "unwanted"))),
    "a success by an execution that failed": ("unfounded", LEDGER, with_row(row(8, "doomed", attempt=3))),
    "a success of another attempt": ("unfounded", LEDGER, with_row(row(1, "plain", attempt=3, crashes=1))),
    "a failure with attempts to spare": ("unfounded", LEDGER, with_row(row(1, "plain", "failed", crashes=1))),
    "a failure by too few crashes": (
        "unfounded", LEDGER, replace(with_row(row(9, "deadly", "failed", crashes=2)), crashed=Counter({1: 1, 9: 2})),
    ),
    "cancelled without a request": ("unfounded", cut({"event": "cancel", "job": 10}), FINAL),
    "a state that no job here can have": ("unfounded", LEDGER, with_row(row(10, "unwanted", "expired"))),
    "a job runs in the name of a worker that holds none": ("abandoned", [
        *LEDGER, *[held(at, [(10, 1)], w1=0) for at in range(50, 81, 10)],
    ], FINAL),
    "a job runs in the name of a worker that executes another": ("abandoned", [
        *LEDGER, start(8, "doomed", "11-20", 50), *[held(at, [(8, 1), (10, 1)], w1=1) for at in range(51, 90, 10)],
    ], FINAL),
    "others overtake a job that came back": (
        "places", changed("41-3", at=5 * SECOND), replace(FINAL, given_back=((32, 3 * SECOND),)),
    ),
    "a version that was taken never ran": ("versions", [*LEDGER, called("k", 4, replaced=True)], FINAL),
    "a version that was not taken though the key is free": ("versions", [*LEDGER, called("k", 4)], FINAL),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "ledger", "final"), BROKEN.values(), ids=BROKEN.keys())
def test_each_violation_is_found(rule: str, ledger: list[Record], final: Final) -> None:
    assert rule in {violation.rule for violation in check(ledger, final, LIMITS)}


def test_a_crash_where_nothing_was_killed() -> None:
    assert {violation.rule for violation in check(LEDGER, FINAL, Limits(ahead=1, blameless=True))} == {"crashes"}


@pytest.mark.parametrize(
    ("asleep", "broken"),
    [
        pytest.param({11}, set(), id="what slept may end late"),
        pytest.param({12}, {"overlap"}, id="what slept may not begin late"),
    ],
)
def test_of_what_slept_through_its_lease(asleep: set[int], broken: set[str]) -> None:
    ledger = [*changed("12-0", lock_free=False, alive=["11-1"]), end("11-1", 15, attempt=2)]
    found = check(ledger, FINAL, Limits(ahead=1, asleep=frozenset(asleep)))
    assert {violation.rule for violation in found} == broken


@pytest.mark.parametrize(
    ("number", "wakes_at", "broken"),
    [
        pytest.param(4, 20, set(), id="the few that had passed their last look"),
        pytest.param(5, 20, {"late"}, id="a stock of jobs"),
        pytest.param(1, 19, {"late"}, id="one that began while awake"),
    ],
)
def test_of_what_begins_as_it_wakes(number: int, wakes_at: int, broken: set[str]) -> None:
    wake = {"event": "fault", "what": "SIGCONT", "pids": [12], "at": wakes_at * SECOND}
    late = [start(1, "plain", f"12-9{n}", 20, attempt=2) for n in range(number)]
    found = check([*LEDGER, wake, *late], FINAL, Limits(ahead=1, slots=4, asleep=frozenset({12})))
    assert {violation.rule for violation in found} == broken
    assert "late" in {violation.rule for violation in check([*LEDGER, wake, *late], FINAL)}


def test_every_rule_is_broken_by_some_test() -> None:
    """A rule that is added without a history that breaks it would be trusted unseen."""
    broken = {rule for rule, _, _ in BROKEN.values()}
    rules: set[str] = set()
    names: tuple[Any, ...] = check.__code__.co_names
    module: dict[str, Callable[..., Any]] = check.__globals__
    for name in names:
        if name.startswith("_"):
            rules |= {
                constant
                for constant in module[name].__code__.co_consts
                if isinstance(constant, str) and constant in broken
            }
    assert rules == broken
    assert len([name for name in names if name.startswith("_")]) == len(rules)


def test_a_line_cut_short_by_kill_9_harms_no_other() -> None:
    text = '\n{"event":"a"}\n{"event":"b","at":1\n{"event":"c"}'
    assert [line["event"] for line in parse(text)] == ["a", "c"]

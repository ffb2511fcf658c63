"""The page's texts, hidden fields and pictures, without a database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobq.queries import Attempt, JobDetail, Minute, Throughput
from jobq.web import pictures, show
from jobq.web.redaction import Redactor, by_role

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (-1, "0 ms"), (0.0004, "0 ms"), (0.25, "250 ms"), (0.9996, "1.0 s"), (9.94, "9.9 s"), (9.96, "10 s"),
     (89.4, "89 s"), (90, "1 min 30 s"), (120, "2 min"), (599, "9 min 59 s"), (600, "10 min"), (5399, "89 min"),
     (5400, "1 h 30 min"), (7200, "2 h"), (129_599, "35 h 59 min"), (129_600, "1 d"), (864_000, "10 d")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "now"), (-0.4, "now"), (30, "30 s ago"), (-30, "in 30 s"), (150, "2 min ago")]
)
def test_ago(seconds: float, text: str) -> None:
    assert show.ago(NOW - timedelta(seconds=seconds), NOW) == text
    assert show.ago(None, NOW) == "–"


def test_texts_are_shortened() -> None:
    assert show.visible("abc", 2) == "ab… (1 more characters)"
    assert show.brief("one\ntwo") == "one…"
    assert show.brief({"a": "é"}) == '{"a": "é"}'
    assert show.brief(None) == ""
    assert show.count(10_000) == "10,000"
    assert show.count(10_001) == "10,000+"
    assert len(show.pretty(["x" * 50_000] * 50)) < 21_000
    assert '"z": 1' in show.pretty({"a": "x" * 50_000, "z": 1})


def test_hidden_fields() -> None:
    redact = Redactor()
    value = {"user": "ann", "PASSWORD": "p", "x-api-key": 1, "list": [{"accessToken": ["t"], "empty_token": None}]}
    assert redact(value) == {
        "user": "ann",
        "PASSWORD": "(hidden)",
        "x-api-key": "(hidden)",
        "list": [{"accessToken": "(hidden)", "empty_token": None}],
    }
    assert Redactor(["", "-"])({"password": 1}) == {"password": 1}
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    assert "nested too deeply" in show.pretty(redact(deep))


@pytest.mark.parametrize(
    ("field", "hidden"),
    [("args.card.number", True), ("ARGS.Card.Number", True), ("args.cards.number", False), ("*.number", True),
     ("args.*.number", True), ("*.card.*", True), ("args.card", True), ("result.card.number", False),
     ("card.number", False), ("args.number", False), ("args.card.number.x", False), ("args", False)],
)  # fmt: skip
def test_fields_hidden_by_path(field: str, hidden: bool) -> None:
    redact = Redactor([field])
    value = {"card": {"number": "4242"}, "plain": 1}
    assert ("4242" not in str(redact(value, "args"))) is hidden
    assert redact(value, "args")["plain"] == 1
    assert redact.hides("args.card.number") is hidden
    assert "4242" not in str(redact([{"deep": [value]}], "args")) or not field.startswith("*.n")
    # Items of a list are no level, and a name with a dot is two.
    assert ("4242" not in str(redact({"card": [{"number": "4242"}]}, "args"))) is hidden
    assert ("4242" not in str(redact({"card.number": "4242"}, "args"))) is hidden
    # From which column is not said: then whatever could be meant is hidden.
    if hidden:
        assert "4242" not in str(redact(value))


def test_what_is_hidden_cannot_be_searched_for_either() -> None:
    redact = Redactor(["password", "args.card.number", "args.who"])
    for path in (
        "args.password",
        "args.db_password.x",
        "args.card.number",
        "args.card.number.0",
        "args.who",
        "args.who.name",
    ):
        assert redact.hides(path), path
    for path in ("args.card", "args.order", "args.card.name"):
        assert not redact.hides(path), path


def test_hidden_fields_by_role() -> None:
    found = by_role(["secret", "args.iban"], {"viewer": ["salary"], "operator": ["args.deep.*"]}, "admin")
    value = {"secret": 1, "iban": 2, "salary": 3, "deep": {"er": 4}, "plain": 5}

    def seen(role: str | None) -> set[str]:
        return set(re.findall(r"\d", str(found[role](value, "args"))))

    assert (seen("viewer"), seen("operator"), seen("admin")) == ({"4", "5"}, {"3", "5"}, {"1", "2", "3", "4", "5"})
    # Who is not known sees least.
    assert seen(None) == {"5"}
    assert by_role(["secret"], {}, None)["admin"]({"secret": 1})["secret"] == "(hidden)"


def test_the_hour_shows_one_failure_among_thousands() -> None:
    minutes = [Minute(minutes_ago=ago, succeeded=3000 if ago == 1 else 0, failed=1) for ago in reversed(range(60))]
    drawn = pictures.hour(Throughput(minutes=minutes, since=None))
    assert drawn.top == 5000
    assert [bar.good for bar in drawn.bars[-2:]] == [60.0, 0.0]
    assert all(bar.bad == 2.0 for bar in drawn.bars)
    assert drawn.bars[-1].x + drawn.bars[-1].width <= pictures.WIDTH


def job(state: str, **changes: Any) -> JobDetail:
    values: dict[str, Any] = dict.fromkeys(JobDetail.__dataclass_fields__)
    values |= {
        "id": 1,
        "state": state,
        "attempt": 2,
        "created_at": NOW - timedelta(hours=1),
        "read_at": NOW,
        "attempts": [],
    }
    return JobDetail(**values | changes)


def attempt(number: int, start: float, end: float) -> Attempt:
    values: dict[str, Any] = dict.fromkeys(Attempt.__dataclass_fields__)
    values |= {"attempt": number, "claims": number, "outcome": "error"}
    values |= {"started_at": NOW - timedelta(seconds=start), "finished_at": NOW - timedelta(seconds=end)}
    return Attempt(**values)


def kinds(found: list[pictures.Span]) -> list[str]:
    return [span.kind for span in found]


def test_timelines() -> None:
    first = attempt(1, 1800, 1700)
    started = NOW - timedelta(seconds=10)
    assert kinds(pictures.timeline(job("ready"))) == ["wait"]
    assert kinds(pictures.timeline(job("running", started_at=started, attempts=[first]))) == [
        "wait",
        "error",
        "wait",
        "run",
    ]
    done = job("succeeded", started_at=started, finished_at=NOW, attempts=[first])
    assert kinds(pictures.timeline(done)) == ["wait", "error", "wait", "succeeded"]
    dead = job("failed", started_at=first.started_at, finished_at=first.finished_at, attempts=[first])
    assert kinds(pictures.timeline(dead)) == ["wait", "error"]
    retrying = job("scheduled", started_at=first.started_at, attempts=[first])
    assert kinds(pictures.timeline(retrying)) == ["wait", "error", "wait"]
    spans = pictures.timeline(done)
    assert sum(span.width for span in spans) == pytest.approx(pictures.WIDTH, abs=0.1)
    assert min(span.width for span in spans) > 10


def test_a_job_with_times_out_of_order_is_still_drawn() -> None:
    backwards = attempt(1, 4000, 5000)
    spans = pictures.timeline(job("running", started_at=NOW - timedelta(days=1), attempts=[backwards]))
    assert all(span.width > 0 and span.seconds >= 0 for span in spans)

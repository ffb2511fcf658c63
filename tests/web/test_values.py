"""The page's texts, hidden fields and pictures, without a database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobq.queries import Attempt, JobDetail
from jobq.web.rendering import charts, diffs, formatting, timeline
from jobq.web.rendering.redaction import Redactor, redactors_by_role
from tests.support.checks import some

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (-1, "0 ms"), (0.0004, "0 ms"), (0.25, "250 ms"), (0.9996, "1.0 s"), (9.94, "9.9 s"), (9.96, "10 s"),
     (89.4, "89 s"), (90, "1 min 30 s"), (120, "2 min"), (599, "9 min 59 s"), (600, "10 min"), (5399, "89 min"),
     (5400, "1 h 30 min"), (7200, "2 h"), (129_599, "35 h 59 min"), (129_600, "1 d"), (864_000, "10 d")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "now"), (-0.4, "now"), (30, "30 s ago"), (-30, "in 30 s"), (150, "2 min ago")]
)
def test_ago(seconds: float, text: str) -> None:
    assert formatting.ago(NOW - timedelta(seconds=seconds), NOW) == text
    assert formatting.ago(None, NOW) == "–"


def test_texts_are_shortened() -> None:
    assert formatting.visible("abc", 2) == "ab… (1 more characters)"
    assert formatting.brief("one\ntwo") == "one…"
    assert formatting.brief({"a": "é"}) == '{"a": "é"}'
    assert formatting.brief(None) == ""
    assert formatting.count(10_000) == "10,000"
    assert formatting.count(10_001) == "10,000+"
    assert len(formatting.pretty(["x" * 50_000] * 50)) < 21_000
    assert '"z": 1' in formatting.pretty({"a": "x" * 50_000, "z": 1})


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
    assert "nested too deeply" in formatting.pretty(redact(deep))


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
    assert redact.hides("args", ("card", "number")) is hidden
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
        assert redact.hides("args", path.split(".")[1:]), path
    for path in ("args.card", "args.order", "args.card.name"):
        assert not redact.hides("args", path.split(".")[1:]), path


@pytest.mark.parametrize(
    ("field", "names"),
    [
        # PostgreSQL counts items from the end, too, and takes signs and spaces before the digits.
        ("args.cards.number", ("cards", "0", "number")),
        ("args.cards.number", ("cards", "-1", "number")),
        ("args.cards.number", ("cards", "+0", "number")),
        ("args.cards.number", ("cards", " 0", "number")),
        ("args.cards.number", ("0", "cards", "-1", "number", "x")),
        # The same digits may be a name.
        ("args.*.iban", ("7", "iban")),
        ("args.7.iban", ("7", "iban")),
        ("*.iban", ("1", "2", "iban", "3")),
        # A name with a dot in it is one name, and reads as a path as well.
        ("apikey", ("api.key",)),
        ("args.card.number", ("card.number",)),
        ("args.card.number", ("x-card.number", "card")),
    ],
)
def test_no_way_of_writing_a_path_finds_what_is_hidden(field: str, names: tuple[str, ...]) -> None:
    redact = Redactor([field])
    assert redact.hides("args", names) is (names[0] != "x-card.number")
    assert not redact.hides("result", ("plain",))
    # Nor does a long one take long.
    assert not Redactor(["*.*.*.*.*.*.x"]).hides("args", ["0"] * 200)
    assert not Redactor([field], reveal=True).hides("args", names)


def test_hidden_fields_by_role() -> None:
    found = redactors_by_role(["secret", "args.iban"], {"viewer": ["salary"], "operator": ["args.deep.*"]}, "admin")
    value = {"secret": 1, "iban": 2, "salary": 3, "deep": {"er": 4}, "plain": 5}

    def seen(role: str | None) -> set[str]:
        return set(re.findall(r"\d", str(found[role](value, "args"))))

    assert (seen("viewer"), seen("operator"), seen("admin")) == ({"4", "5"}, {"3", "5"}, {"1", "2", "3", "4", "5"})
    # An unknown user sees least.
    assert seen(None) == {"5"}
    assert redactors_by_role(["secret"], {}, None)["admin"]({"secret": 1})["secret"] == "(hidden)"


@pytest.mark.parametrize(
    ("ids", "runs"),
    [([], []), ([7], [(7, 7)]), ([1, 2, 3, 7, 9, 10], [(1, 3), (7, 7), (9, 10)])],
)
def test_ids_without_gaps_are_runs(ids: list[int], runs: list[tuple[int, int]]) -> None:
    assert formatting.runs(ids) == runs


def test_bars_show_one_failure_among_thousands() -> None:
    drawn = charts.bars([[3000, 0], [1, 1]], height=100.0)
    assert drawn.top == 5000
    good, bad = drawn.paths
    assert good.count("M") == 1
    assert "v60.00" in good
    assert bad.count("v2.00") == 2


def test_lines_break_where_nothing_was_measured() -> None:
    (pieces, none), top = charts.lines([[1.0, None, 2.0, 4.0], [None] * 4], height=100.0)
    assert top == 4.0
    assert [len(points.split()) for points in pieces] == [1, 2]
    assert pieces[1].split()[-1] == "100.00,1.00"
    assert none == []
    assert charts.lines([[None, 0.0]], height=10.0) == ([[]], 0.0)


def test_sparklines() -> None:
    line = charts.spark([0, 5, 10])
    assert line.points.split() == ["0.00,23.00", "50.00,12.00", "100.00,1.00"]
    assert line.area.startswith("M0,24")
    assert charts.spark([0, 0]).points == charts.spark([]).points == ""


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


def attempt(number: int, start: float, end: float, **changes: Any) -> Attempt:
    values: dict[str, Any] = dict.fromkeys(Attempt.__dataclass_fields__)
    values |= {"attempt": number, "claims": number, "outcome": "error"}
    values |= {"started_at": NOW - timedelta(seconds=start), "finished_at": NOW - timedelta(seconds=end)}
    return Attempt(**values | changes)


def kinds(found: timeline.Timeline) -> list[str]:
    return [span.kind for span in found.spans]


def test_timelines() -> None:
    first = attempt(1, 1800, 1700)
    started = NOW - timedelta(seconds=10)
    due = {"run_at": NOW - timedelta(hours=1)}
    assert kinds(timeline.timeline(job("ready", **due))) == ["wait"]
    running = job("running", started_at=started, attempts=[first], **due)
    assert kinds(timeline.timeline(running)) == ["wait", "error", "wait", "run"]
    done = job("succeeded", started_at=started, finished_at=NOW, attempts=[first], **due)
    assert kinds(timeline.timeline(done)) == ["wait", "error", "wait", "succeeded"]
    dead = job("failed", started_at=first.started_at, finished_at=first.finished_at, attempts=[first], **due)
    assert kinds(timeline.timeline(dead)) == ["wait", "error"]


def test_a_wait_tells_back_off_from_the_queue() -> None:
    first = attempt(1, 1800, 1700, retry_at=NOW - timedelta(seconds=1000))
    started = NOW - timedelta(seconds=10)
    delayed = {"run_at": NOW - timedelta(seconds=1900)}
    done = job("succeeded", started_at=started, finished_at=NOW, attempts=[first], **delayed)
    assert kinds(timeline.timeline(done)) == ["wait", "error", "due", "wait", "succeeded"]
    waiting = job("scheduled", started_at=first.started_at, attempts=[first], run_at=NOW + timedelta(seconds=300))
    life = timeline.timeline(waiting)
    assert kinds(life) == ["wait", "error", "due"]
    assert life.now is not None
    assert 85 < life.now < 100
    untouched = timeline.timeline(job("scheduled", run_at=NOW + timedelta(hours=1)))
    assert kinds(untouched) == ["due"]
    assert untouched.now == pytest.approx(50, abs=0.1)


def test_the_only_attempt_is_not_cut_for_the_sake_of_the_wait_before_it() -> None:
    started = NOW - timedelta(seconds=167)
    running = job(
        "running", started_at=started, created_at=started - timedelta(seconds=3), run_at=NOW - timedelta(hours=1)
    )
    life = timeline.timeline(running)
    assert not life.cut
    width = {piece.span.kind: piece.width for piece in life.pieces}
    assert width["run"] == pytest.approx(100 * 167 / 170, abs=0.1)
    assert sum(width.values()) == pytest.approx(100, abs=0.1)


def test_a_life_is_to_scale() -> None:
    first = attempt(1, 1800, 1200)
    done = job("succeeded", started_at=NOW - timedelta(seconds=600), finished_at=NOW, attempts=[first], run_at=NOW)
    life = timeline.timeline(done)
    assert not life.cut
    width = {piece.span.kind: piece.width for piece in life.pieces}
    assert width["error"] == pytest.approx(width["succeeded"], abs=0.05)
    assert width["error"] == pytest.approx(100 / 6, abs=0.05)
    assert life.ticks[0].label == "0"
    assert life.ticks[-1].label == "+1 h"


def test_a_stretch_that_would_hide_the_rest_is_cut_and_said_so() -> None:
    short = job(
        "succeeded",
        created_at=NOW - timedelta(hours=1, seconds=3),
        run_at=NOW - timedelta(hours=1, seconds=3),
        started_at=NOW - timedelta(seconds=2),
        finished_at=NOW,
        attempts=[attempt(1, 3601, 3600)],
    )
    life = timeline.timeline(short)
    (cut,) = [piece for piece in life.pieces if piece.cut]
    assert cut.span.kind == "wait"
    width = {piece.span.kind: piece.width for piece in life.pieces if not piece.cut}
    # What is left is to scale: 2 s are twice as wide as 1 s.
    assert width["succeeded"] == pytest.approx(2 * width["error"], abs=0.05)
    assert all(piece.x >= 0 and piece.x + piece.width <= 100.01 for piece in some(life.pieces))


def test_a_job_with_times_out_of_order_is_still_drawn() -> None:
    backwards = attempt(1, 4000, 5000)
    life = timeline.timeline(job("running", started_at=NOW - timedelta(days=1), attempts=[backwards], run_at=NOW))
    assert all(piece.width > 0 and piece.span.seconds >= 0 for piece in some(life.pieces))
    assert timeline.timeline(job("ready", created_at=NOW, run_at=NOW)).pieces == []


def test_the_difference_of_two_tracebacks() -> None:
    first = attempt(1, 9, 8, traceback="a\nline 1\nValueError: 1")
    second = attempt(2, 7, 6, traceback="a\nline 1\nValueError: 2\u202e")
    third = attempt(3, 5, 4, traceback="a\nline 1\nValueError: 2\u202e")
    silent = attempt(4, 3, 2)
    found = diffs.diffs([first, second, third, silent])
    assert [(line.kind, line.text) for line in found[2] if line.kind != "same"] == [
        ("at", "@@ -1,3 +1,3 @@"),
        ("del", "-ValueError: 1"),
        ("add", "+ValueError: 2\\u202e"),
    ]
    assert found[3] == []
    assert set(found) == {2, 3}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (65_536, "66 kB"),
        (1_048_576, "1.0 MB"),
        (2_500_000_000_000, "2.5 TB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert formatting.size(count) == text


def test_estimates_have_the_digits_they_deserve() -> None:
    assert [formatting.rounded(n) for n in (123, 12_345, 4_812_345, 123_456_789)] == ["123", "12,000", "4.8M", "123M"]

"""Filters: from text to a value and back, and every way in which a text says nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobq.errors import InvalidFilter, InvalidOption
from jobq.filters import QUALIFIERS, ArgTerm, Bound, JobFilter, Prefix
from jobq.job import FINISHED_STATES, LIVE_STATES, STATES

WORKER = UUID("1b4e28ba-2fa1-11d2-883f-0016d3cca427")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("  \t\n ", {}),
        ("state:failed", {"states": ("failed",)}),
        ("state:cancelled,failed state:Ready", {"states": ("ready", "failed", "cancelled")}),
        ("queue:mail", {"queue": "mail"}),
        ("QUEUE:mail*", {"queue": Prefix("mail")}),
        ('queue:"mail*"', {"queue": "mail*"}),
        ('queue:"a b"*', {"queue": Prefix("a b")}),
        ('task:"say \\"hi\\" \\\\o/"', {"task": 'say "hi" \\o/'}),
        ("task:shop:send", {"task": "shop:send"}),
        ("key:receipt:7", {"key": "receipt:7"}),
        ("key:-x", {"key": "-x"}),
        ("group:customer:42", {"group": "customer:42"}),
        ("Group:customer*", {"group": Prefix("customer")}),
        ("tag:eu", {"tag": "eu"}),
        ("tag:e*", {"tag": Prefix("e")}),
        (f"worker:{WORKER}", {"worker": WORKER}),
        ('error:"connection refused"', {"error": "connection refused"}),
        ("error:100%*", {"error": "100%*"}),
        ("attempt:>3", {"attempt": Bound(">", 3)}),
        ("attempt:3", {"attempt": Bound("=", 3)}),
        ("attempt:<=3", {"attempt": Bound("<=", 3)}),
        ("age:>1h", {"age": Bound(">", 3600)}),
        ("age:>=1.5d", {"age": Bound(">=", 129600)}),
        ("age:<0.25s", {"age": Bound("<", 0.25)}),
        ("age:<2w", {"age": Bound("<", 1209600)}),
        ("args.order_id:42", {"args": (ArgTerm(("order_id",), "42"),)}),
        ('ARGS.order."a.b: c".0:""', {"args": (ArgTerm(("order", "a.b: c", "0"), ""),)}),
        ("args.X:1 args.y:2 args.X:1", {"args": (ArgTerm(("X",), "1"), ArgTerm(("y",), "2"))}),
        ("812", {"ids": (812,)}),
        ("9 id:3,812 9", {"ids": (3, 9, 812)}),
        ('queue:"a\\u000ab"', {"queue": "a\nb"}),
        ('queue:"\\\\u000a \\u12 \\u00e9"', {"queue": "\\u000a u12 é"}),
        ("queue:\\u000a", {"queue": "\\u000a"}),
        ("mail", {"task": Prefix("mail")}),
        ("mail.*", {"task": Prefix("mail.")}),
        ('"12"x', {"task": Prefix("12x")}),
        ("²", {"task": Prefix("²")}),
        ("مهمة:x".replace(":", '":"'), {"task": Prefix("مهمة:x")}),
    ],
)
def test_reading(text: str, wanted: dict[str, Any]) -> None:
    found = JobFilter.parse(text)
    assert found == JobFilter(**wanted)
    assert found.empty == (wanted == {})
    assert JobFilter.parse(str(found)) == found


@pytest.mark.parametrize("name", ["a\nb", "a\r\nb", "\x1b[31m", "\u2028", "\x85", "\\u000a", '"\\n"'])
def test_a_filter_is_one_visible_line(name: str) -> None:
    said = str(JobFilter(queue=name, args=((ArgTerm((name,), name)),)))
    assert said.isprintable()
    assert JobFilter.parse(said) == JobFilter(queue=name, args=(ArgTerm((name,), name),))


def test_canonical_text() -> None:
    text = 'task:mail.* 7 3 age:>7200s  state:failed,ready args.a."b c":"x y" attempt:3 error:"a\tb"'
    assert str(JobFilter.parse(text)) == (
        'state:ready,failed task:mail.* error:"a\\u0009b" attempt:=3 age:>2h args.a."b c":"x y" id:3,7'
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stat:failed", "there is no 'stat'; did you mean state?"),
        ("colour:red", "there is no 'colour'; there are state, queue"),
        ("state.x:failed", "there is no 'state.x'"),
        ("-state:failed", "cannot leave jobs out"),
        (":x", "there is no ''"),
        ("state:faild", "did you mean failed?"),
        ("state:", "no value; write state:failed"),
        ("state:failed,", "give one of ready"),
        ('queue:""', "queue: no value"),
        ("queue:*", "queue: no value"),
        ("*", "task: no value"),
        ('""', "task: no value"),
        ("queue:a*b", "* stands only at the end"),
        ("queue:a queue:b", "queue is said twice"),
        ("mail task:send", "task is said twice"),
        ("worker:box", "'box' is no worker's id; write worker:"),
        ("attempt:>abc", "'attempt:>abc': 'abc' is no whole number".replace("'abc'", "'>abc'")),
        ("attempt:>1.5", "is no whole number"),
        ("attempt:>3h", "is no whole number"),
        ("attempt:>-1", "is no whole number"),
        ("attempt:>٣", "is no whole number"),
        ("attempt:>99999999999", "give a number up to 2147483647"),
        ("age:>5parsecs", "'>5parsecs' is no age; write a number and s, m, h, d or w"),
        ("age:>5", "is no age"),
        ("age:5h", "write age:>5h"),
        ("age:=5h", "write age:>5h"),
        ("age:>99999999w", "at most a hundred years"),
        ("age:>99999999999999999999.99999999999999999999w", "at most a hundred years"),
        ("age:>nans", "is no age"),
        ("args:42", "the path to the argument is not whole; write args.order_id:42"),
        ("args.:42", "the path to the argument"),
        ("args.a..b:42", "the path to the argument"),
        ("args.a:", "no value"),
        ("args" + ".a" * 21 + ":1", "this one has 21"),
        ("id:x", "'x' is no job's id"),
        ("id:1,,2", "'' is no job's id"),
        ("9223372036854775808", "ids are numbers from 0 to 9223372036854775807"),
        ("9" * 1000, "is no job's id"),
        ("failure:xyz", "give the 12 characters"),
        ('task:"a b', "'\"a b': the quotes do not end"),
        ('task:"a\\', "the quotes do not end"),
        ("task:a\x00b", "NUL character"),
        ("task:a\ud800b", "lone surrogate"),
        (" ".join(f"args.a:{n}" for n in range(101)), "101 terms: write at most 100"),
        ("x" * 2001, "2,001 characters: write at most 2,000"),
        ('"' + " " * 1998 + '"', "when written in full"),
    ],
)
def test_bad_input_is_named_with_what_to_do(text: str, says: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        JobFilter.parse(text)
    assert says in str(caught.value)
    # It goes into pages, logs and terminals.
    assert len(str(caught.value)) < 500
    str(caught.value).encode()
    assert "\x00" not in str(caught.value)
    assert isinstance(caught.value, InvalidOption)


@pytest.mark.parametrize("name", QUALIFIERS)
def test_the_examples_in_messages_are_good(name: str) -> None:
    assert not JobFilter.parse(QUALIFIERS[name]).empty


@pytest.mark.parametrize(
    "values",
    [
        {"states": ("done",)},
        {"queue": "a\x00"},
        {"task": "\udfff"},
        {"tag": Prefix("")},
        {"args": (ArgTerm((), "1"),)},
        {"args": (ArgTerm(("a\x00",), "1"),)},
        {"args": (ArgTerm(("a",), "\x00"),)},
        {"ids": (-1,)},
        {"ids": (2**63,)},
        {"attempt": Bound(">", -1)},
        {"age": Bound(">", float("nan"))},
        {"failure": "x"},
        {"error": ""},
        {"error": "x" * 2001},
    ],
)
def test_a_filter_made_in_python_is_checked_too(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidFilter):
        JobFilter(**values)


def test_a_bound_compares() -> None:
    with pytest.raises(InvalidFilter, match="compare by one of"):
        Bound("; DROP", 1)


TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=30)
NAME = st.none() | TEXT | st.builds(Prefix, TEXT)
NUMBERS = st.integers(0, 2**31 - 1)
FILTERS = st.builds(
    JobFilter,
    states=st.lists(st.sampled_from(STATES), max_size=3).map(tuple),
    queue=NAME,
    task=NAME,
    tag=NAME,
    key=NAME,
    worker=st.none() | st.uuids(),
    error=st.none() | TEXT,
    failure=st.none() | st.from_regex("[0-9a-f]{12}", fullmatch=True),
    attempt=st.none() | st.builds(Bound, st.sampled_from(["<", "<=", "=", ">=", ">"]), NUMBERS),
    age=st.none()
    | st.builds(Bound, st.sampled_from(["<", "<=", ">=", ">"]), st.integers(0, 10**11).map(lambda ms: ms / 1000)),
    args=st.lists(
        st.builds(ArgTerm, st.lists(TEXT | st.just(""), min_size=1, max_size=4).map(tuple), TEXT), max_size=3
    ).map(tuple),
    ids=st.lists(st.integers(0, 2**63 - 1), max_size=3).map(tuple),
)


@pytest.mark.parametrize("path", [(".",), ("a.b",), ("a", "."), ("..", ""), ("a.b", "c")])
def test_a_name_with_a_dot_stays_one_name(path: tuple[str, ...]) -> None:
    jobs = JobFilter(args=(ArgTerm(path=path, value="0"),))
    assert JobFilter.parse(str(jobs)) == jobs


@given(FILTERS)
def test_text_and_back(jobs: JobFilter) -> None:
    assert JobFilter.parse(str(jobs)) == jobs
    assert str(JobFilter.parse(str(jobs))) == str(jobs)
    assert (str(jobs) == "") == jobs.empty


WORDS = st.sampled_from(
    [*QUALIFIERS, *QUALIFIERS.values(), *STATES, ":", ".", '"', "*", ",", "\\", " ", ">", "<=", "1h", "-"]
)


@given(st.lists(WORDS | st.text(max_size=5), max_size=30).map("".join) | st.text(st.characters()))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        found = JobFilter.parse(text)
    except InvalidFilter as error:
        str(error).encode()
    else:
        assert JobFilter.parse(str(found)) == found


@given(FILTERS, st.booleans())
def test_what_was_written_is_no_part_of_the_sql(jobs: JobFilter, live: bool) -> None:
    """Texts of two filters of one shape differ in nothing but the parameters."""
    query, params = jobs.conditions(live)
    text = query.as_string(None)
    other = JobFilter(
        states=jobs.states,
        queue=_other(jobs.queue),
        task=_other(jobs.task),
        tag=_other(jobs.tag),
        key=_other(jobs.key),
        error=jobs.error and "x",
        worker=jobs.worker and WORKER,
        failure=jobs.failure and "0" * 12,
        attempt=jobs.attempt and Bound(jobs.attempt.op, 1),
        age=jobs.age and Bound(jobs.age.op, 1),
        args=tuple(ArgTerm((str(n),), "x") for n, _ in enumerate(jobs.args)),
        ids=(1,) if jobs.ids else (),
    )
    assert other.conditions(live)[0].as_string(None) == text
    assert other.conditions(live)[1].keys() == params.keys()
    assert [name for name in params if f"%({name})s" not in text] == []


def _other(value: str | Prefix | None) -> str | Prefix | None:
    return Prefix("x") if isinstance(value, Prefix) else value and "x"


@pytest.mark.parametrize(
    ("text", "live", "finished"),
    [
        ("", "true", "true"),
        (f"state:{','.join(LIVE_STATES)}", "true", "false"),
        (f"state:{','.join(FINISHED_STATES)}", "false", "true"),
        ("state:failed", "false", "state = 'failed'"),
        (
            "state:ready,failed,expired",
            "state = 'ready' AND run_at <= statement_timestamp()",
            "state IN ('failed', 'expired')",
        ),
        ("state:ready,scheduled", "state = 'ready'", "false"),
        (
            "state:scheduled,running,parked",
            "((state = 'ready' AND run_at > statement_timestamp()) OR state IN ('running', 'parked'))",
            "false",
        ),
        ("error:x", "false", "strpos(lower(error), lower(%(filter_error)s::text)) > 0"),
        ("state:ready error:x", "false", "false"),
        ("failure:1f0c9ab23d45", "false", "state = 'failed'"),
        ("state:cancelled failure:1f0c9ab23d45", "false", "false"),
        (
            f"worker:{WORKER}",
            "state = 'running' AND worker_id = %(filter_worker)s::uuid",
            "worker_id = %(filter_worker)s::uuid",
        ),
    ],
)
def test_states_decide_what_is_read(text: str, live: str, finished: str) -> None:
    jobs = JobFilter.parse(text)
    assert jobs.conditions(True)[0].as_string(None) == live
    assert jobs.conditions(False)[0].as_string(None) == finished


@given(st.text())
def test_a_filter_without_a_failure_accepts_every_row(error: str) -> None:
    assert JobFilter(task="t").accepts({"task": "t", "error": error})


@given(FILTERS, FILTERS)
def test_equal_filters_are_equal_texts(one: JobFilter, other: JobFilter) -> None:
    assume(one != other)
    assert str(one) != str(other)

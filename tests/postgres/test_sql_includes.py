"""Fragments of SQL: how a text includes them, and that every statement which ends or inserts jobs includes the same ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jobq._postgres import sql
from jobq._postgres.sql.includes import expand, fragment
from tests.support.checks import some

ROOT = Path(__file__).resolve().parents[2]


def texts_in(*folder: str) -> dict[str, str]:
    return {
        file.stem: file.read_text(encoding="utf-8")
        for file in sorted(ROOT.joinpath(*folder).rglob("*.sql"))
        if "fragments" not in file.parts
    }


STATEMENTS = texts_in("jobq", "_postgres", "sql")
_FRAGMENTS = ROOT.joinpath("jobq", "_postgres", "sql", "fragments")
FRAGMENTS = {file.relative_to(_FRAGMENTS).with_suffix("").as_posix() for file in _FRAGMENTS.rglob("*.sql")}
FUNCTIONS = {f"{name}()": text for name, text in texts_in("migrations", "functions").items()}
SQL = {**STATEMENTS, **FUNCTIONS}

# Statements that end jobs, with the fragments that they leave out; why stands beside each.
ENDS: dict[str, set[str]] = {
    # Whoever acknowledges also claims, and tells of what is left itself.
    "ack_and_claim": {"notify_queues"},
    # It runs in the transaction of its task: the worker that hears of its commit tells the others.
    "ack_in_task_transaction": {"notify_queues"},
    "record_failures": set(),
    "rescue": set(),
    "release_orphans": set(),
    "cancel_idle": set(),
    "expire_jobs": set(),
    # A parked job holds no place in a group, nor is there one in a queue with rules.
    "parked_fail": {"group_ready", "notify_queues"},
    # A deleted job leaves nothing: no history, and no key, not even one that is held for a period.
    "delete_live": {"finish", "finished_columns"},
}
ALL = {"finished_columns", "finish", "on_finished", "group_ready", "notify_queues"}

# Columns that a statement sets beyond the list, where a job comes back as the one that it was.
MORE_COLUMNS = {
    "retry_finished": {"id", "claims", "created_at", "node_id", "node_item"},
    "enqueue_one()": {"id"},
    "enqueue_keyed()": {"id"},
    "workflow_start()": {"id", "claims", "node_id", "node_item"},
    "workflow_expand()": {"node_id", "node_item"},
}


def included(text: str) -> set[str]:
    """The names of the fragments that `text` includes, itself or by another fragment."""
    names = set(re.findall(r"^ *--include ([\w/]+)", text, re.MULTILINE))
    return names.union(*(included(fragment(name)) for name in names))


def code(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("--"))


def python_texts() -> dict[str, str]:
    files = [file for folder in ("jobq", "web") for file in (ROOT / folder).rglob("*.py")]
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


def from_parts(parts: dict[str, str]) -> Callable[[str], str]:
    return lambda name: parts[name]


def test_a_fragment_stands_where_it_is_included() -> None:
    parts = {"outer": "-- Of $nothing.\nFROM $table\n--include inner when=$table\n", "inner": "WHERE $when\n\n"}
    text = "SELECT 1\n    --include outer table=job\nORDER BY 1"
    assert expand(text, read=from_parts(parts)) == "SELECT 1\n    FROM job\n    WHERE job\nORDER BY 1"


def test_an_empty_fragment_leaves_nothing() -> None:
    parts = {"empty": "-- Nothing.\n"}
    assert expand("SELECT 1\n--include empty\n;", read=from_parts(parts)) == "SELECT 1\n;"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--include itself", "--include itself: it includes itself, by itself -> itself"),
        ("--include one", "--include one: it includes itself, by one -> other -> one"),
        ("--include wanting", r"--include wanting: no jobs= is given"),
        ("--include wanting jobs=a more=b", r"--include wanting: the fragment has no \$more"),
        ("--include", r"'--include': expected --include <name> \[<word>=<value> \.\.\.\]"),
        ("--includes one", "expected --include <name>"),
    ],
)
def test_a_wrong_include_says_so(line: str, message: str) -> None:
    parts = {"itself": "--include itself", "one": "--include other", "other": "--include one", "wanting": "$jobs"}
    with pytest.raises(ValueError, match=message):
        expand(f"SELECT 1\n{line}", read=from_parts(parts))


def test_a_fragment_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"no_such_part\.sql"):
        expand("--include no_such_part")


def test_every_fragment_is_used_and_every_include_is_right() -> None:
    assert set().union(*map(included, SQL.values())) == FRAGMENTS
    for text in SQL.values():
        assert "$jobs" not in expand(text)
        assert "--include" not in expand(text)


def test_what_ends_jobs_includes_the_fragments() -> None:
    """Found by what they do: they delete a live job, or write history."""
    does = re.compile(r"DELETE FROM \{schema\}\.job\b|INSERT INTO \{schema\}\.job_history")
    found = {name: included(text) for name, text in STATEMENTS.items() if does.search(code(expand(text)))}
    assert {name: ALL - parts for name, parts in found.items()} == ENDS
    # History is written, and keys are released for good, by the fragments alone.
    for name, text in STATEMENTS.items():
        assert "INSERT INTO {schema}.job_history" not in text, name
        assert not re.search(r"DELETE FROM \{schema\}\.job_key[^)]*holds (<> 'period'|= 'until_finished')", text), name
    # Nothing else ends jobs. A job that is taken back has not ended: its node waits again.
    for name, text in {**FUNCTIONS, **python_texts()}.items():
        if name == "workflow_retry_from()":
            continue
        assert not re.search(r"DELETE FROM \S+\.job\b|INSERT INTO \S+\.job_history\b", code(text)), name


def test_what_ends_jobs_ends_nodes_of_workflows() -> None:
    """Once: a second INSERT would not see the first one, and an end without it would leave the run waiting."""
    for name, parts in some(ENDS.items()):
        number = code(sql.statement(name, "jobq").text).count('INSERT INTO "jobq".workflow_result')
        assert number == (0 if "on_finished" in parts else 1), name


def inserts() -> list[tuple[str, str, str]]:
    """(name, its text, its columns) of each INSERT into the table of jobs."""
    pattern = re.compile(r"INSERT INTO \{schema\}\.job(?: AS \w+)? \(([^)]*)\)")
    return [(name, text, columns) for name, text in SQL.items() for columns in pattern.findall(code(expand(text)))]


def test_what_inserts_jobs_has_one_list_of_columns() -> None:
    plain = columns_of(expand("--include insert_job"))
    keyed = columns_of(expand("--include insert_job_keyed"))
    found = inserts()
    assert {name for name, _, _ in found} >= {"enqueue", "enqueue_one()", "schedule_insert_jobs", "retry_finished"}
    for name, text, columns in some(found):
        listed = columns_of(columns)
        more = set(listed) - set(keyed)
        assert more <= MORE_COLUMNS.get(name, set()), name
        assert [column for column in listed if column not in more] in (plain, keyed), name
        assert included(text) & {"insert_job", "insert_job_keyed"}, name
    # One that is written in another way is not overlooked.
    texts = {**SQL, **python_texts()}
    bare = [name for name, text in texts.items() for _ in re.findall(r"INSERT INTO \S+\.job\b", code(text))]
    assert sorted(bare) == sorted(name for name, _, _ in found)


def test_producers_may_insert_those_columns() -> None:
    roles = (ROOT / "deploy" / "roles.sql").read_text(encoding="utf-8")
    (granted,) = re.findall(r'GRANT INSERT \(([^)]*)\)\s+ON :"schema"\.job TO :"producer"', roles)
    assert sorted(columns_of(granted)) == sorted(columns_of(expand("--include insert_job")))


def columns_of(text: str) -> list[str]:
    return [column.strip() for column in code(text).split(",")]

"""What the command line does where there is little room: narrow terminals, full disks, closed pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobq.cli import main, output
from jobq.cli.config import unknown_variables
from jobq.cli.exits import Exit
from jobq.cli.output import fit


def jobq(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBQ_")}
    given: dict[str, object] = {"env": environment, "stderr": subprocess.PIPE, **options}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "jobq", *arguments], text=True, timeout=60, check=False, **given
    )


# --- Tables


@pytest.mark.parametrize(
    ("natural", "width", "expected"),
    [
        ([4, 10, 8], 80, [4, 10, 8]),
        ([4, 100, 8], 80, [4, 62, 8]),
        # Two long ones share what is left; one that wants less gets no more than that.
        ([4, 100, 100], 80, [4, 35, 35]),
        ([4, 20, 100], 80, [4, 20, 50]),
        # Nothing narrow is folded, and nothing to less than 16.
        ([4, 100, 100], 42, [4, 16, 16]),
        ([4, 100, 100], 41, None),
        ([12] * 8, 80, None),
    ],
)
def test_columns_of_a_narrow_table(natural: list[int], width: int, expected: list[int] | None) -> None:
    assert fit(natural, width) == expected


def test_rows_of_a_table_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    rows = [
        (4711, "scheduled", None, "mail.send_receipt", "ConnectionError: the mail server\nis away, and stays so"),
        (4712, "running", 3, "mail.send_receipt", ""),
    ]
    output.print_table(["id", "state", "attempt", "task", "error"], rows, empty="none", right=["id", "attempt"])
    assert capsys.readouterr().out == (
        "id       4711\n"
        "state    scheduled\n"
        "task     mail.send_receipt\n"
        "error    ConnectionError: the mail serve\n"
        "         r\\nis away, and stays so\n"
        "\n"
        "id       4712\n"
        "state    running\n"
        "attempt  3\n"
        "task     mail.send_receipt\n"
    )


def test_a_table_into_a_pipe_is_never_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    output.print_table(["id", "task"], [(1, "t" * 200)], empty="none")
    assert "t" * 200 in capsys.readouterr().out


# --- Where the output goes


@pytest.mark.parametrize(
    "arguments", [["config"], ["config", "--json"], ["--help"], ["schedules", "next", "--cron", "@daily"]]
)
def test_a_full_disk(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = jobq(*arguments, stdout=full)
    assert done.returncode == Exit.OUTPUT
    assert done.stderr == (
        "jobq: the output cannot be written: No space left on device; free some space, or write it elsewhere\n"
    )


def test_a_full_disk_for_errors_too() -> None:
    with Path("/dev/full").open("w") as full:
        assert jobq("config", stdout=full, stderr=full).returncode == Exit.OUTPUT
        # What goes wrong is still told by the code.
        assert jobq("config", "--nonsense", stdout=full, stderr=full).returncode == Exit.USAGE
        # Notes that cannot be written stop nothing.
        assert jobq("config", stderr=full, env={"JOBQ_NONSENSE": "1"}, stdout=subprocess.PIPE).returncode == 0


def test_a_reader_that_leaves() -> None:
    read, write = os.pipe()
    os.close(read)
    done = jobq("config", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_standard_output_at_all() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m jobq config >&-"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- Names and variables


@pytest.mark.parametrize("name", ["pg_jobs", "PG_jobs", "information_schema"])
def test_schema_names_that_postgres_keeps(name: str) -> None:
    done = CliRunner().invoke(main, ["--schema", name, "migrate", "--sql"])
    assert done.exit_code == Exit.CONFIGURATION
    assert f"schema={name!r}: PostgreSQL keeps this name for itself" in done.stderr


def test_variables_that_nothing_reads() -> None:
    with click.Context(main):
        known = {
            "JOBQ_DATABASE_URL": "",
            "JOBQ_WORKER_CONCURRENCY": "4",
            "JOBQ_JOBS_LIST_STATE": "failed",
            "JOBQ_WEB_SECRET_KEY": "x",
            "JOBQ_WEB_TRUSTED_PROXIES": "x",
            "JOBQ_LOG_LEVEL": "info",
            "JOBQ_ACTOR": "me",
            # Of a Kubernetes service called jobq-web.
            "JOBQ_WEB_SERVICE_HOST": "10.0.0.1",
            "JOBQ_WEB_SERVICE_PORT_HTTP": "80",
            "JOBQ_WEB_PORT": "tcp://10.0.0.1:80",
            "JOBQ_WEB_PORT_80_TCP_ADDR": "10.0.0.1",
            "PATH": "",
        }
        assert unknown_variables(known) == []
        wrong = {
            "JOBQ_WORKER_CONCURENCY": "4",
            "JOBQ_DATABASEURL": "x",
            "JOBQ_WEB_SECRETKEY": "x",
            "JOBQ_COLOUR": "red",
        }
        assert [(each.name, each.meant) for each in unknown_variables({**known, **wrong})] == [
            ("JOBQ_COLOUR", None),
            ("JOBQ_DATABASEURL", "JOBQ_DATABASE_URL"),
            ("JOBQ_WEB_SECRETKEY", "JOBQ_WEB_SECRET_KEY"),
            ("JOBQ_WORKER_CONCURENCY", "JOBQ_WORKER_CONCURRENCY"),
        ]


def test_such_variables_are_told_and_change_nothing() -> None:
    done = jobq("config", "--json", stdout=subprocess.PIPE, env={**os.environ, "JOBQ_POOLSIZE": "9"})
    assert done.returncode == 0
    assert done.stderr == (
        "jobq: the variable JOBQ_POOLSIZE is set but has no effect: jobq has no such variable; "
        "did you mean JOBQ_POOL_SIZE?\n"
    )
    assert '"pool_size"' in done.stdout


def test_the_worker_logs_such_variables() -> None:
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    done = jobq("worker", "json:loads", env={**os.environ, "JOBQ_DATABASE_URL": url, "JOBQ_WORKER_QUEUE": "mail"})
    assert '"level":"warning"' in done.stderr
    assert '"variable":"JOBQ_WORKER_QUEUE"' in done.stderr
    assert "did you mean JOBQ_WORKER_QUEUES?" in done.stderr

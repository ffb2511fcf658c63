"""The parts of the command line that need no database."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
from click.testing import CliRunner

from jobq.cli import COMMANDS, main, output
from jobq.cli.doctor import exit_code
from jobq.cli.enqueue import parse_arguments
from jobq.cli.options import parse_duration
from jobq.cli.session import actor
from jobq.dev.reload import Watcher
from jobq.dev.supervise import Program, how_it_ended, pause_before_restart
from jobq.diagnostics.finding import Fault, Finding, Status
from tests.support.waiting import wait_until

# --- Commands


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_tells_the_truth(name: str) -> None:
    module, text = COMMANDS[name]
    command = getattr(import_module(f"jobq.cli.{module}"), name)
    assert command.name == name
    assert command.short_help == text


def _commands(command: click.Command, path: str = "jobq") -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found += _commands(inner, f"{path} {name}")
    return found


@pytest.mark.parametrize(("path", "command"), _commands(main))
def test_every_command_has_help_and_every_option_a_text(path: str, command: click.Command) -> None:
    result = CliRunner().invoke(main, [*path.split()[1:], "--help"])
    assert result.exit_code == 0, result.output
    assert command.help
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert [option.opts for option in options if not option.help] == []
    without = ("version", "database_url", "database_url_file")
    assert [
        option.opts
        for option in options
        if not (option.show_envvar or "env var" in (option.help or "") or option.name in without)
    ] == []


def test_help_imports_no_command_and_no_database_driver() -> None:
    code = (
        "import sys\nfrom jobq.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('psycopg', 'sqlalchemy', 'rich', 'pydantic', 'flask', 'alembic')"
        " or m in ('jobq.cli.jobs', 'jobq.cli.worker')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "migrate" in done.stdout


def test_usage_errors_exit_with_64_and_one_line() -> None:
    for arguments in (["nope"], ["worker"], ["jobs", "show", "x"], ["enqueue"], ["--nope"]):
        result = CliRunner().invoke(main, arguments, env={"JOBQ_APP": None})
        assert result.exit_code == 64, arguments
        assert result.stdout == ""
        assert result.stderr.startswith("jobq: ")
        assert result.stderr.count("\n") == 1


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("jobq ")


def test_config_shows_values_origins_and_no_password() -> None:
    url = "postgresql://ann:hunter2@db/shop"
    variables = {"JOBQ_DATABASE_URL": url, "JOBQ_DIRECT_URL": f"{url}?sslpassword=secret"}
    result = CliRunner().invoke(main, ["config", "--json", "--schema", "other"], env=variables)
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["database_url"]["value"] == "postgresql://ann:***@db/shop"
    assert rows["direct_url"]["value"] == "postgresql://ann:***@db/shop?sslpassword=***"
    assert rows["database_url"]["origin"] == "JOBQ_DATABASE_URL"
    assert (rows["schema"]["value"], rows["schema"]["origin"]) == ("other", "argument")
    assert rows["pool_size"]["origin"] == "default"
    text = CliRunner().invoke(main, ["config"], env={"JOBQ_DATABASE_URL": url})
    assert "hunter2" not in text.output
    assert CliRunner().invoke(main, ["config"], env={"JOBQ_POOL_SIZE": "many"}).exit_code == 78
    assert CliRunner().invoke(main, ["config", "--schema", "no-name"]).exit_code == 78


def test_global_options_are_taken_before_and_after_the_command() -> None:
    for arguments in (["--schema", "abc", "config", "--json"], ["config", "--json", "--schema", "abc"]):
        rows = json.loads(CliRunner().invoke(main, arguments).stdout)
        assert {row["name"]: row["value"] for row in rows}["schema"] == "abc"


def test_a_missing_database_setting_is_a_configuration_error() -> None:
    for arguments in (["jobs", "list"], ["worker", "a:b"], ["web"], ["migrate"], ["doctor"], ["stats"]):
        result = CliRunner().invoke(main, arguments, env={"JOBQ_DATABASE_URL": None})
        assert result.exit_code == 78, arguments
        assert "JOBQ_DATABASE_URL" in result.stderr


# --- Parsing


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("1.5h", 5400),
        ("2D", 172800),
        (" 3m ", 180),
        ("10s", 10),
        ("2w", 1_209_600),
        ("5 min", 300),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(None, None, text) == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "-1", "soon", "inf", "nan", "5y", "-2h", "1h30m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected seconds"):
        parse_duration(None, None, text)  # type: ignore[arg-type]


def test_arguments_of_a_job() -> None:
    document = '{"a": 1, "b": {"c": null}}'
    pairs = ["a=2", "name=Ann Lee", 'text="3"', "flag=true", "list=[1,2]", "empty=", "x=a=b"]
    assert parse_arguments(pairs, document) == {
        "a": 2,
        "b": {"c": None},
        "name": "Ann Lee",
        "text": "3",
        "flag": True,
        "list": [1, 2],
        "empty": "",
        "x": "a=b",
    }
    assert parse_arguments([], None) == {}


@pytest.mark.parametrize(
    ("pairs", "document", "message"),
    [(["a"], None, "KEY=VALUE"), (["=1"], None, "KEY=VALUE"), ([], "[1]", "object"), ([], "{", "not valid JSON")],
)
def test_what_is_no_arguments(pairs: list[str], document: str | None, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        parse_arguments(pairs, document)


# --- Output


@dataclass
class Row:
    id: int
    at: datetime


def test_plain_values() -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert output.plain([Row(1, at), {2: timedelta(minutes=1)}, (b"a", {"x"}, UUID(int=0), None)]) == [
        {"id": 1, "at": "2030-01-02T03:04:05Z"},
        {"2": 60.0},
        ["a", ["x"], "00000000-0000-0000-0000-000000000000", None],
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.85, "850 ms"),
        (12.3, "12 s"),
        (5, "5 s"),
        (60, "60 s"),
        (200, "3 min 20 s"),
        (18120, "5 h 2 min"),
        (273600, "3 d"),
        (-5, "-5 s"),
        (59.9, "60 s"),
    ],
)
def test_durations_for_people(seconds: float | None, text: str) -> None:
    assert output.duration(seconds) == text


def test_text_for_a_terminal_steers_nothing() -> None:
    assert output.safe("a\x1b[2Jb\r") == "a\\x1b[2Jb\\r"
    assert output.safe(None) == ""
    assert output.safe(True) == "yes"
    assert output.safe(1.25) == "1.2"
    assert output.one_line("first\nsecond") == "first"
    assert output.one_line("x" * 80) == "x" * 69 + "…"
    assert output.plural(1, "job") == "1 job"
    assert output.plural(1200, "job") == "1,200 jobs"


def test_a_table_in_a_pipe_is_neither_cut_nor_folded(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("id", "text"), [(1, "[red]" + "x" * 300), (20, None)], empty="none", right=("id",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "[red]" + "x" * 300 in lines[2]
    output.print_table(("id",), [], empty="none")
    assert capsys.readouterr() == ("", "none\n")


def _ask(answer: str, *, yes: bool = False) -> Any:
    @click.command()
    def ask() -> None:
        output.confirm("Sure?", yes=yes)
        click.echo("done")

    return CliRunner().invoke(ask, input=answer)


def test_questions() -> None:
    assert _ask("y\n").stdout == _ask("Yes\n").stdout == _ask("", yes=True).stdout == "done\n"
    assert isinstance(_ask("\n").exception, Exception)
    assert "done" not in _ask("no\n").stdout
    assert "--yes" in _ask("").stderr


def test_who_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBQ_ACTOR", raising=False)
    assert actor().endswith(" (cli)")
    monkeypatch.setenv("JOBQ_ACTOR", "deploy")
    assert actor() == "deploy"


def test_the_doctors_exit_code() -> None:
    def finding(status: Status, fault: Fault = Fault.OTHER) -> Finding:
        return Finding(check="x", status=status, message="", fault=fault)

    assert exit_code([finding(Status.OK), finding(Status.WARN, Fault.CONFIGURATION)]) == 0
    assert exit_code([finding(Status.FAIL)]) == 1
    assert exit_code([finding(Status.FAIL), finding(Status.FAIL, Fault.CONFIGURATION)]) == 78
    assert exit_code([finding(Status.FAIL, Fault.UNAVAILABLE)]) == 69


# --- What `jobq dev` is made of


def test_a_change_is_reported_once_it_has_settled(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("1")
    for skipped in (".git", "__pycache__", "env"):
        (tmp_path / skipped).mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    watcher = Watcher(tmp_path)
    assert watcher.poll() == []
    for quiet in (".git/a.py", "__pycache__/a.py", "env/a.py", "pkg/readme.md"):
        (tmp_path / quiet).write_text("2")
    assert watcher.poll() == []
    (tmp_path / "pkg" / "a.py").write_text("22")
    assert watcher.poll() == []
    (tmp_path / "pkg" / "b.py").write_text("")
    assert watcher.poll() == []
    assert watcher.poll() == ["pkg/a.py", "pkg/b.py"]
    assert watcher.poll() == []
    (tmp_path / "pkg" / "b.py").unlink()
    assert [watcher.poll(), watcher.poll(), watcher.poll()] == [[], ["pkg/b.py"], []]


def test_the_pause_before_a_restart_grows_to_a_limit() -> None:
    assert [pause_before_restart(n) for n in (1, 2, 3, 7, 100)] == [0.5, 1, 2, 30, 30]


def test_how_a_process_ended() -> None:
    assert [how_it_ended(code) for code in (78, -9, -250)] == [
        "exited with 78",
        "was killed by SIGKILL",
        "was killed by signal 250",
    ]


def _has_ended(child: Program) -> bool:
    return not child.tick()


@pytest.fixture
def program(tmp_path: Path) -> Any:
    made: list[Program] = []

    def make(code: str, **options: Any) -> Program:
        made.append(Program("child", [sys.executable, "-c", code], environment={}, **{"patience": 20.0, **options}))
        return made[-1]

    yield make
    for child in made:
        child.stop()
        child.kill()
        wait_until(partial(_has_ended, child), what="the child's end")


def test_a_program_that_dies_is_reported_and_started_again(program: Callable[..., Program]) -> None:
    said: list[str] = []
    now = [100.0]
    child = program("raise SystemExit(3)", say=said.append, clock=lambda: now[0])
    child.start()
    wait_until(lambda: not child.tick(), what="the death")
    assert said == ["the child exited with 3; restarting it in 0.5 s"]
    assert child.tick() is False
    now[0] += 0.5
    assert child.tick() is True
    wait_until(lambda: not child.tick(), what="the second death")
    assert said[1:] == ["the child exited with 3; restarting it in 1 s"]
    child.restart()
    assert child.tick() is True
    now[0] += 100
    wait_until(lambda: not child.tick(), what="the third death")
    assert said[2].endswith("in 0.5 s")


def test_a_program_is_restarted_on_request_and_stopped_in_order(program: Callable[..., Program]) -> None:
    child = program("import time\ntime.sleep(600)", say=pytest.fail)
    child.start()
    first = child.pid
    child.restart()
    wait_until(lambda: child.tick() and child.pid != first, what="the new process")
    child.stop()
    wait_until(lambda: not child.tick(), what="the end")
    assert child.pid is None


def test_a_program_that_does_not_end_is_killed(program: Callable[..., Program], tmp_path: Path) -> None:
    said: list[str] = []
    now = [0.0]
    ready = tmp_path / "ready"
    code = f"import signal, time\nsignal.signal(15, signal.SIG_IGN)\nopen({str(ready)!r}, 'w').close()\ntime.sleep(600)"
    child = program(code, say=said.append, clock=lambda: now[0], patience=5.0)
    child.start()
    wait_until(ready.exists, what="the handler")
    child.stop()
    assert child.tick() is True
    now[0] = 5.0
    wait_until(lambda: not child.tick(), what="the end")
    assert said == ["the child did not exit within 5 s and is killed"]

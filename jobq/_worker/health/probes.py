"""The answers of the health address: `/livez`, `/readyz`, `/metrics`. The transport is in http.py.

`/livez` says whether a restart is needed. `/readyz` says whether this worker takes jobs at present,
or would take them if an operator had not asked it to be quiet. An outage of the database makes a
worker unready, but leaves it alive (see watchdog.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from jobq._worker.health.http import Answer
from jobq._worker.health.metrics import Metrics
from jobq._worker.health.state import WorkerHealth

# The claim loop queries the database at least every 5 s, whether idle or not.
PROBE_AGE = 10.0

_TEXT = "text/plain; charset=utf-8"
_NO_METRICS = "metrics need prometheus_client: pip install 'jobq[metrics]'\n"


class Health:
    """Answers requests from `vitals`, which `observe` updates first."""

    def __init__(self, vitals: WorkerHealth, metrics: Metrics | None, observe: Callable[[], None]) -> None:
        self._vitals = vitals
        self._metrics = metrics
        self._observe = observe

    def answer(self, path: str) -> Answer:
        """Return the answer to a GET of `path`."""
        match path:
            case "/livez":
                self._observe()
                stuck = self._vitals.stuck
                return Answer(200, _TEXT, b"ok\n") if stuck is None else Answer(503, _TEXT, f"{stuck}\n".encode())
            case "/readyz":
                self._observe()
                checks = readiness(self._vitals)
                ready = all(check["ok"] for check in checks.values())
                body = {
                    "status": "ready" if ready else "not ready",
                    "checks": checks,
                    "problems": self._vitals.problems,
                    "stalls": self._vitals.stalls,
                    "summary": self._vitals.line(),
                }
                return Answer(200 if ready else 503, "application/json", json.dumps(body, indent=2).encode() + b"\n")
            case "/metrics":
                if self._metrics is None:
                    return Answer(501, _TEXT, _NO_METRICS.encode())
                return Answer(200, self._metrics.content_type, self._metrics.render())
        return Answer(404, _TEXT, b"there are /livez, /readyz and /metrics\n")


def readiness(vitals: WorkerHealth) -> dict[str, dict[str, Any]]:
    """Return each check by name.

    Each has `ok`, `age` (seconds since the described state began or was last true) and `detail`.
    """
    now = time.monotonic()
    answered = vitals.claims.answered
    age = None if answered is None else now - answered
    claims = {
        "ok": age is not None and age < PROBE_AGE and vitals.claims.error is None,
        "age": _rounded(age),
        "detail": vitals.claims.error
        or (
            "no claim has been made yet"
            if age is None
            else f"the last claim or probe that succeeded is {age:.1f} s old; {PROBE_AGE:g} s are allowed"
        ),
    }
    beaten = now - (vitals.heartbeats.answered or vitals.started)
    heartbeats = {
        "ok": vitals.phase != "starting" and vitals.heartbeats.error is None and beaten < PROBE_AGE,
        "age": _rounded(beaten),
        # A read-only server answers every claim while there is nothing to claim. A heartbeat is a
        # write.
        "detail": vitals.heartbeats.error or f"the last heartbeat that succeeded is {beaten:.1f} s old",
    }
    if vitals.listener_connected:
        heard = "connected"
    elif vitals.polling:
        heard = "a pooler stands between, through which no notification passes: jobs are found by polling only"
    else:
        heard = "not connected: jobs are found by polling only"
    listener = {
        "ok": vitals.listener_connected or vitals.polling,
        "age": _rounded(None if vitals.listener_lost_since is None else now - vitals.listener_lost_since),
        "detail": heard,
    }
    runners = {
        "ok": vitals.runners_ready > 0,
        "age": None,
        "detail": f"{vitals.runners_ready} of {vitals.runners_wanted} take jobs",
    }
    if vitals.held is not None:
        claimed = f"nothing is claimed: {vitals.held}"
    else:
        # This is intended and no fault: an unready worker would stop a rollout or page an operator.
        claimed = "off: an operator has asked this worker to be quiet" if vitals.quiet else "on"
    claiming = {
        "ok": vitals.held is None,
        "age": None if vitals.held is None else _rounded(now - (vitals.heartbeats.answered or vitals.started)),
        "detail": claimed,
    }
    since = vitals.started if vitals.stopping_since is None else vitals.stopping_since
    phase = {"ok": vitals.phase == "working", "age": _rounded(now - since), "detail": vitals.phase}
    return {
        "claims": claims,
        "heartbeats": heartbeats,
        "listener": listener,
        "runners": runners,
        "claiming": claiming,
        "phase": phase,
    }


def _rounded(age: float | None) -> float | None:
    return None if age is None else round(age, 3)

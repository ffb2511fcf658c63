"""The steps of a durable job and its signals as rows of tables, without what the user may not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobq.queries import JobDetail, SignalInfo, StepInfo
from jobq.web.rendering import formatting
from jobq.web.rendering.redaction import Redactor
from jobq.web.rendering.workflow_times import Axis, Span, span

_LONGEST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One step as it is shown.

    `state`: as of `StepInfo`, or ``unfinished`` if the job has ended before it. `args` and `value`
    are texts on one line; `value` is what it returned, or the payload of its signal.
    """

    step: StepInfo
    state: str
    args: str
    value: str
    seconds: float | None
    bars: list[Span]

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        return self.state in ("waiting", "retrying")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRow:
    """One signal as it is shown."""

    signal: SignalInfo
    payload: str


def step_rows(job: JobDetail, steps: Sequence[StepInfo], on: Axis, redact: Redactor) -> list[StepRow]:
    """Return the rows of `job`'s steps, with their bars on the axis `on`."""
    return [_row(job, step, on, redact) for step in steps]


def signal_rows(signals: Sequence[SignalInfo], redact: Redactor) -> list[SignalRow]:
    """Return the rows of signals."""
    return [SignalRow(signal=one, payload=_value(redact(one.payload, "payload"), one.payload_bytes)) for one in signals]


def root(step: StepInfo) -> str:
    """Return the root of the paths that hide parts of the step's result."""
    return "payload" if step.kind == "signal" else "result"


def _row(job: JobDetail, step: StepInfo, on: Axis, redact: Redactor) -> StepRow:
    is_open = step.state in ("waiting", "retrying")
    state = "unfinished" if is_open and job.finished_at is not None else step.state
    end = step.finished_at or on.end
    return StepRow(
        step=step,
        state=state,
        args=_arguments(step, redact),
        # A step that ended by an error has no value.
        value="" if step.state != "done" else _value(redact(step.result, root(step)), step.result_bytes),
        seconds=None if step.kind == "since" else (end - step.started_at).total_seconds(),
        bars=_bars(step, state, end, on),
    )


def _arguments(step: StepInfo, redact: Redactor) -> str:
    if step.kind == "sleep":
        seconds = step.args.get("seconds") if isinstance(step.args, dict) else None
        return formatting.duration(seconds, rough=True) if isinstance(seconds, int | float) else ""
    if step.kind == "signal":
        # Which signal it was, and not what its function was given.
        taken = step.args if isinstance(step.args, dict) else {}
        by = f" by {formatting.line(taken['by'], 80)}" if taken.get("by") else ""
        return f"signal {taken['id']}{by}" if "id" in taken else ""
    if step.kind == "undo":
        # The name of the function that undoes, and no value.
        return formatting.brief(step.shortened_args, _LONGEST)
    if step.shortened_args is not None:
        return formatting.brief(redact.shortened(step.shortened_args), _LONGEST)
    # The arguments of a function without any say nothing.
    return formatting.brief(redact(step.args, "args") or None, _LONGEST)


def _value(value: Any, size: int | None) -> str:
    if value is None:
        # A JSON null is stored in a few bytes.
        return f"larger than 10 kB ({formatting.size(size)} as stored)" if size is not None and size > 1000 else "null"
    return formatting.brief(value, _LONGEST) if not isinstance(value, str) else f'"{formatting.brief(value, _LONGEST)}"'


def _bars(step: StepInfo, state: str, end: datetime, on: Axis) -> list[Span]:
    if step.kind == "since":
        return []
    if step.kind in ("sleep", "signal"):
        # The job holds no slot.
        return [span("wait", "waited", step.started_at, end, on)]
    kind = {"done": "succeeded", "failed": "failed", "unfinished": "cancelled", "retrying": "queue"}.get(state, "run")
    return [span(kind, "took", max(step.started_at, on.start), max(end, on.start), on)]

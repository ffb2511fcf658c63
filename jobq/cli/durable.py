"""The steps of a durable job and the signals to it, for ``jobq jobs show --steps``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from jobq.cli import output

if TYPE_CHECKING:
    import psycopg

    from jobq.queries import JobSteps, JobWaits, SignalInfo, StepInfo

_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Durable:
    """What one read has found."""

    steps: JobSteps
    waits: JobWaits
    signals: list[SignalInfo]

    def as_json(self) -> dict[str, Any]:
        """Return the fields for the JSON document of the job."""
        return {
            "steps": self.steps.steps,
            "steps_left_out": self.steps.left_out,
            "waits": self.waits.waits,
            "signals": self.signals,
        }

    def print(self) -> None:
        """Print two tables: the steps in their order, and the signals, newest first."""
        click.echo("\nsteps")
        output.print_table(
            ("#", "step", "kind", "state", "tries", "took", "arguments", "result, or its error"),
            (
                (
                    step.place, output.line(step.name), step.kind, step.state, step.tries, _took(step), _arguments(step),
                    _result(step),
                )
                for step in self.steps.steps
            ),
            empty="no steps",
            right=("#", "tries"),
        )  # fmt: skip
        if self.steps.left_out:
            output.note(f"{output.plural(self.steps.left_out, 'earlier step')}: --limit {self.steps.total}")
        click.echo("\nsignals")
        output.print_table(
            ("id", "signal", "sent", "by", "read", "payload"),
            (
                (
                    one.id, output.line(one.name), one.sent_at, output.one_line(one.sent_by, 40), one.taken_at or "unread",
                    _value(one.payload, one.payload_bytes),
                )
                for one in self.signals
            ),
            empty="no signals",
            right=("id",),
        )  # fmt: skip


def read(connection: psycopg.Connection[Any], schema: str, id: int, limit: int) -> Durable:
    """Return the steps and signals of a job, at most `limit` of each."""
    from jobq import queries

    return Durable(
        queries.job_steps(connection, schema, id, limit=limit),
        queries.job_waits(connection, schema, id),
        queries.job_signals(connection, schema, id, limit=limit),
    )


def _took(step: StepInfo) -> str:
    if step.finished_at is None or step.kind == "since":
        return ""
    return output.duration((step.finished_at - step.started_at).total_seconds())


def _arguments(step: StepInfo) -> str:
    if step.shortened_args is not None:
        return output.one_line(step.shortened_args, _WIDTH)
    return output.one_line(_text(step.args), _WIDTH) if step.args else ""


def _result(step: StepInfo) -> str:
    if step.error or step.error_type:
        return output.one_line(": ".join(part for part in (step.error_type, step.error) if part), _WIDTH * 2)
    if step.state == "waiting" and step.child_job is not None:
        return f"job {step.child_job} is {step.child_state}"
    if step.wake_at is not None and step.finished_at is None:
        return f"until {output.safe(step.wake_at)}"
    return (
        _value(step.result, step.result_bytes) if step.state == "done" and step.kind not in ("sleep", "since") else ""
    )


def _value(value: Any, size: int | None) -> str:
    if value is None and size is not None and size > 1000:
        return f"larger than 10 kB ({size:,} bytes as stored)"
    return output.one_line(_text(value), _WIDTH)


def _text(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)

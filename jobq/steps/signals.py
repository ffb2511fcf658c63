"""Signals as parameters and rows of the statement ``send_signal``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_jsonable_python

from jobq._core import json_text
from jobq._core.validation import check_text
from jobq.errors import InvalidArguments, SignalNotSent


def signal_parameters(
    name: str, payload: object, *, job: int | None, run: int | None, sent_by: str | None, max_bytes: int
) -> dict[str, Any]:
    """Return the parameters of send_signal.sql, for one of `job` and `run`.

    Raises:
        InvalidArguments: the payload is no JSON, or has more than `max_bytes` bytes.
        InvalidOption: the name or the sender is unusable.
    """
    check_text("name", name, 200)
    if sent_by is not None:
        check_text("sent_by", sent_by, 200)
    try:
        text = json_text.encode(to_jsonable_python(payload), f"signal {name!r}: its payload", max_bytes)
    except (ValueError, TypeError) as error:
        raise InvalidArguments(f"signal {name!r}: its payload cannot be stored: {error}") from None
    return {"job": job, "run": run, "name": name, "payload": text, "by": sent_by}


def sent_signal(parameters: dict[str, Any], rows: Sequence[tuple[Any, ...]]) -> int:
    """Return the signal's id from the rows of send_signal.sql. Raises SignalNotSent."""
    [(signal, outcome)] = rows
    if outcome == "sent":
        return int(signal)
    name, run = parameters["name"], parameters["run"]
    what = f"job {parameters['job']}" if run is None else f"workflow run {run}"
    raise SignalNotSent(
        f"signal {name!r}: {what} has finished: no signal was sent"
        if outcome == "finished"
        else f"signal {name!r}: there is no {what}: no signal was sent",
        str(outcome),
    )

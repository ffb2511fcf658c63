"""The forms that send signals to durable jobs and to runs of workflows."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import abort, request
from werkzeug.wrappers import Response

from jobq import operations
from jobq.errors import InvalidArguments, SignalNotSent
from jobq.web import forms
from jobq.web.context import current_page
from jobq.web.forms import redirect_with_note
from jobq.web.routes import Route


def job_signal(id: int) -> Response:
    """Send a signal to a durable job."""
    return _send(id, operations.send_signal, "job")


def workflow_signal(id: int) -> Response:
    """Send a signal to a run of a workflow."""
    return _send(id, operations.send_workflow_signal, "workflow")


def _send(id: int, send: Callable[..., int], endpoint: str) -> Response:
    page = current_page()
    # Not stripped: the name is what the task waits for.
    name = request.form.get("name", "")
    if not name.strip():
        abort(400, "name: expected the name of the signal that the task waits for.")
    sent = partial(send, actor=page.actor(), reason=forms.text("reason"), max_bytes=page.settings.max_args_bytes)
    payload = _payload()
    with page.database.write() as conn:
        try:
            sent(conn, page.settings.schema, id, name, payload)
        except InvalidArguments as error:
            abort(400, f"{error}.")
        except SignalNotSent as error:
            if error.outcome == "unknown":
                abort(404, f"{error}.")
            what = "job" if endpoint == "job" else "run"
            return redirect_with_note(endpoint, f"Nothing was sent: the {what} has finished.", id=id)
    return redirect_with_note(endpoint, f"The signal '{name[:200]}' is sent.", id=id)


def _payload() -> Any:
    """Return the value of the field `payload`, which is JSON; None if it is empty."""
    text = forms.text("payload")
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        abort(400, f'payload: not valid JSON: {error}. Put quotation marks around a text: "yes".')


ROUTES = [
    Route("/jobs/<int:id>/signal", "POST", job_signal, needs="signal"),
    Route("/workflows/<int:id>/signal", "POST", workflow_signal, needs="signal"),
]

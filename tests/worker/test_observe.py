"""What a dispatcher shows of how it learns of new jobs."""

from __future__ import annotations

import json

import pytest

from jobq._worker.dispatcher import Dispatcher
from jobq._worker.health.probes import Health
from jobq._worker.health.state import WorkerHealth
from jobq._worker.options import WorkerOptions
from jobq._worker.wakeup.policy import NotifyMode
from jobq.settings import Settings


@pytest.mark.parametrize("mode", [NotifyMode.NOTIFY, NotifyMode.POLL])
@pytest.mark.parametrize("polling", [False, True])
async def test_polling_for_a_poolers_sake_and_silent_inserts_are_two_facts(polling: bool, mode: NotifyMode) -> None:
    """The first says why this worker does not listen; the second, that producers do not notify."""
    options = WorkerOptions(app="-", settings=Settings(database_url="postgresql://nowhere"))
    dispatcher = Dispatcher(options, "test")
    dispatcher._wakeups.polling, dispatcher._wakeups.mode = polling, mode
    vitals: WorkerHealth = dispatcher.vitals
    dispatcher.observe(vitals)
    assert (vitals.polling, vitals.silent_inserts) == (polling, mode is NotifyMode.POLL)
    # Through a pooler, a worker without a listener is well.
    answer = Health(vitals, None, lambda: dispatcher.observe(vitals)).answer("/readyz")
    assert json.loads(answer.body)["checks"]["listener"]["ok"] is polling

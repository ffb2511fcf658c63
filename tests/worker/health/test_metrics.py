"""Metrics: bounded labels, each execution counted once, and what is said without prometheus_client."""

from __future__ import annotations

import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobq._worker.health import metrics
from jobq._worker.health.metrics import Metrics
from jobq._worker.health.probes import Health
from jobq._worker.health.state import WorkerHealth
from jobq._worker.ipc.messages import Disposition, Failure, Job, Success


def job(id_: int, task: str = "mail", queue: str = "default") -> Job:
    return Job(id_, 1, task, queue, b"{}", 1, 3, 0, None, b"{}")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.setattr(metrics, "RENDER_EVERY", 0)
    return Metrics(WorkerHealth(), lambda: None, lambda: ["mail", "bill"])


def samples(of: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(of.render().decode())
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        (Success(1, 1, 0, b"null", 0.1), "succeeded"),
        (Failure(1, 1, 0, Disposition.RETRY, recorded="error", seconds=0.1), "retried"),
        (Failure(1, 1, 0, Disposition.RETRY, recorded="timeout", seconds=0.1), "timed_out"),
        (Failure(1, 1, 0, Disposition.FAIL, recorded="crashed"), "crashed"),
        (Failure(1, 1, 0, Disposition.FAIL, recorded="error"), "failed"),
        (Failure(1, 1, 0, Disposition.EXPIRE), "expired"),
        (Failure(1, 1, 0, Disposition.RELEASE), "released"),
    ],
)
def test_outcomes(counted: Metrics, outcome: Success | Failure, name: str) -> None:
    counted.claimed([job(1)])
    for _ in range(2):
        if isinstance(outcome, Success):
            counted.succeeded([outcome])
        else:
            counted.ended(outcome)
    assert samples(counted, "jobq_executions_total") == {(name, "default", "mail"): 1}
    assert samples(counted, "jobq_execution_seconds_count") == ({} if outcome.seconds is None else {("mail",): 1})


def test_every_ending_has_a_name() -> None:
    assert set(metrics._OUTCOMES) == set(Disposition)


def test_what_is_no_longer_ours_is_not_counted(counted: Metrics) -> None:
    counted.claimed([job(1), job(2)])
    counted.forget()
    counted.succeeded([Success(1, 1, 0, b"null", 0.1), Success(7, 1, 0, b"null", 0.1)])
    assert samples(counted, "jobq_executions_total") == {}
    assert counted._under_way == {}


def test_names_from_the_database_cannot_make_series_without_end(counted: Metrics) -> None:
    for n in range(5_000):
        counted.claimed([job(n, f"made up {n}", f"queue {n}")])
        counted.succeeded([Success(n, 1, 0, b"null", 0.1)])
    found = samples(counted, "jobq_executions_total")
    assert sum(found.values()) == 5_000
    assert len(found) <= metrics.MAX_PAIRS + 1
    assert {task for _, _, task in found} == {"(unknown)"}
    assert len({queue for _, queue, _ in found}) == metrics.MAX_QUEUES + 1
    assert len(counted._labels) <= metrics.MAX_PAIRS
    assert samples(counted, "jobq_execution_seconds_count") == {("(unknown)",): 5_000}


def test_a_name_cannot_forge_a_line(counted: Metrics) -> None:
    queue = 'a"} 1\njobq_running 99\n'
    counted.claimed([job(1, queue=queue)])
    counted.succeeded([Success(1, 1, 0, b"null", 0.1)])
    assert samples(counted, "jobq_running") == {(): 0}
    assert samples(counted, "jobq_executions_total") == {("succeeded", queue, "mail"): 1}


def test_a_scraper_in_a_loop_gets_what_was_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = 0

    def observe() -> None:
        nonlocal rendered
        rendered += 1

    monkeypatch.setattr(metrics, "RENDER_EVERY", 3600)
    made = Metrics(WorkerHealth(), observe, list[str])
    assert made.render() == made.render()
    assert rendered == 1


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ModuleNotFoundError):
        Metrics(WorkerHealth(), lambda: None, list[str])
    answer = Health(WorkerHealth(), None, lambda: None).answer("/metrics")
    assert answer.status == 501
    assert b"pip install 'jobq[metrics]'" in answer.body


def test_names_and_units_are_prometheus_own(counted: Metrics) -> None:
    counted.claimed([job(1)])
    counted.succeeded([Success(1, 1, 0, b"null", 0.1)])
    parsed = text_string_to_metric_families(counted.render().decode())
    # prometheus_client adds to each counter when it began (`_created`).
    families = [f for f in parsed if f.name.startswith("jobq") and not f.name.endswith("_created")]
    assert len(families) >= 12
    for family in families:
        assert family.documentation.endswith("."), family.name
        timed = any(word in family.documentation.lower() for word in ("took", "since"))
        assert family.name.endswith("_seconds") is timed, family.name

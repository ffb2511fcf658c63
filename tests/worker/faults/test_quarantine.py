"""A task runs alone once its jobs have ended several runners, and that is no rare event among them."""

from __future__ import annotations

from jobq._worker.faults.quarantine import DEATHS, LASTS, SHARE, Quarantine


def test_a_task_runs_alone_until_it_has_ended_no_runner_for_a_while() -> None:
    told: list[tuple[str, int]] = []
    quarantine = Quarantine(lambda task, deaths: told.append((task, deaths)))
    assert not quarantine
    for n in range(DEATHS):
        assert "bad" not in quarantine
        quarantine.blame("bad", float(n))
    assert "bad" in quarantine
    assert "other" not in quarantine
    quarantine.blame("bad", 10.0)
    quarantine.tend(10.0 + LASTS)
    assert "bad" in quarantine
    quarantine.tend(10.1 + LASTS)
    assert "bad" not in quarantine
    assert not quarantine
    assert told == [("bad", DEATHS), ("bad", DEATHS + 1), ("bad", 0)]


def test_one_bad_job_among_many_does_not_slow_the_others() -> None:
    quarantine = Quarantine()
    for n in range(20):
        quarantine.blame("mostly good", float(n))
        quarantine.heard(["mostly good"] * (int(1 / SHARE) + 1))
        quarantine.tend(float(n))
    assert "mostly good" not in quarantine


def test_what_happens_now_and_then_is_forgotten() -> None:
    quarantine = Quarantine()
    for n in range(10):
        at = n * (LASTS + 1.0)
        quarantine.tend(at)
        quarantine.blame("now and then", at)
    assert "now and then" not in quarantine


def test_of_several_that_may_have_ended_a_runner_it_was_the_one_that_did_so_before() -> None:
    quarantine = Quarantine()
    quarantine.judged([], {"bad", "innocent"}, 0.0)
    assert not quarantine
    quarantine.judged(["bad"], set(), 1.0)
    for n in range(DEATHS - 1):
        quarantine.judged([], {"bad", "innocent"}, 2.0 + n)
    assert "bad" in quarantine
    assert "innocent" not in quarantine

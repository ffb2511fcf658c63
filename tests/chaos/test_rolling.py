"""A rolling deployment with two installed versions under load, in the order of docs/how-to.md, and in another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.installed import NEXT_REVISION, ROOT, Installed, install, newer, sources
from tests.support.rollout.scene import NEW, OLD, Scene, kill

RATE = 30.0  # transactions a second, of each of two producers


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Installed, Installed]:
    """This version, and the next one with a revision more, each installed."""
    home = tmp_path_factory.mktemp("installed")
    return install(sources(ROOT, home / "this"), home / "old"), install(newer(home / "next"), home / "new")


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "producers_last", [True, False], ids=["producers-last", "producers-before-the-last-old-worker"]
)
def test_a_rolling_deployment_loses_nothing(
    versions: tuple[Installed, Installed], empty_database_url: str, tmp_path: Path, producers_last: bool
) -> None:
    with Scene(tmp_path, empty_database_url, *versions) as scene:
        workers = [scene.start_worker(OLD) for _ in range(2)]
        producers = [scene.start_producer(OLD, RATE) for _ in range(2)]
        scene.more(100)

        assert NEXT_REVISION in scene.run(NEW, "migrate", "--yes")
        scene.more(100, OLD)
        assert [worker.poll() for worker in workers] == [None, None], "old workers go on"

        # What a supervisor does with a worker that has died, before its replacement is there.
        kill(workers[0])
        workers[0] = scene.start_worker(OLD)
        assert "is newer than this worker, and works with it" in scene.newest_log
        scene.more(50, OLD)

        def replace_producers() -> None:
            for number, former in enumerate(producers):
                producers[number] = scene.start_producer(NEW, RATE)
                scene.stop(former)

        for number, former in enumerate(workers):
            workers[number] = scene.start_worker(NEW)
            if number == 1 and not producers_last:
                replace_producers()
                # Old and new workers side by side meet the new code's jobs.
                scene.more(150, NEW)
                assert former.poll() is None
            scene.stop(former)
        scene.more(100, NEW)
        if producers_last:
            replace_producers()
        scene.more(150, NEW)
        for producer in producers:
            scene.stop(producer)
        told = scene.drain()
        assert told.errors == []
        assert (told.lost, told.left, told.dead) == (set(), {}, set())
        assert set(told.states) == set(told.committed), "no job came from elsewhere"
        assert set(told.starts) == set(told.committed)
        # Executions of the killed worker's jobs only: eight slots.
        assert told.repeated <= 8
        assert bool(told.refused) is not producers_last, "old workers leave new jobs to new workers"

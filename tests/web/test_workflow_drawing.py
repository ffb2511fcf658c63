"""The drawing of a run and its times, without a database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from jobq.queries import NodeInfo, WorkflowInfo
from jobq.web.rendering import formatting, workflow_times
from jobq.web.rendering.layers import lay_out
from jobq.web.rendering.workflow_graph import HEIGHT, MAX_BOXES, WIDTH, graph
from tests.support.checks import some

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else NOW + timedelta(seconds=seconds)


def node(number: int, parents: tuple[int, ...] = (), state: str = "succeeded", **given: Any) -> NodeInfo:
    """A node; `times` are the seconds of its release, start and end."""
    released, started, finished = given.pop("times", (None, None, None))
    values: dict[str, Any] = {
        "number": number, "id": number, "name": f"n{number}", "kind": "task", "task": "t", "queue": "default", "state": state,
        "parents": parents, "any_end": (), "job_id": number, "items": None, "items_ended": 0, "items_failed": 0,
        "released_at": at(released), "started_at": at(started), "finished_at": at(finished), "error": None, "why": None,
    }  # fmt: skip
    return NodeInfo(**values | given)


def run(seconds: float, **given: Any) -> WorkflowInfo:
    values: dict[str, Any] = {
        "id": 1, "name": "w", "key": None, "state": "succeeded", "reason": None, "on_failure": "hold", "created_at": NOW,
        "finished_at": at(seconds), "deadline_at": None, "cancel_requested_at": None, "nodes": 1, "ended": 1, "failed": 0,
        "counted_to": None, "read_at": at(seconds),
    }  # fmt: skip
    return WorkflowInfo(**values | given)


# --- Places ---


def test_a_box_is_to_the_right_of_all_its_parents() -> None:
    layout = lay_out([[], [0], [0, 1], [0]])
    assert [layer for layer, _ in layout.places] == [0, 1, 2, 1]
    assert layout.layers == 3
    # The line from 0 to 2 passes layer 1 in a place that no box has.
    [passing] = [line for line in layout.lines if (line.parents, line.children) == ([0], [2])]
    [(layer, center)] = passing.points[1:-1]
    assert layer == 1
    assert all(some(abs(center - 0.39 - row) > 0.45 for at_layer, row in layout.places if at_layer == 1))


def test_a_layer_is_ordered_by_the_mean_of_its_parents_places() -> None:
    # 3 needs the lower roots, 4 the upper one: without the order their lines would cross.
    layout = lay_out([[], [], [], [1, 2], [0]])
    assert layout.places[4][1] < layout.places[3][1]
    rows = sorted(row for layer, row in layout.places if layer == 0)
    assert all(some(lower - upper >= 0.99 for upper, lower in pairwise(rows)))


def test_a_parent_is_in_the_middle_of_its_children() -> None:
    layout = lay_out([[], [0], [0], [0], [1, 2, 3]])
    rows = [row for _, row in layout.places]
    assert rows[0] == pytest.approx(rows[2])
    assert rows[4] == pytest.approx(rows[2])


def test_boxes_with_the_same_parents_share_a_junction() -> None:
    layout = lay_out([[], [], [], *([[0, 1, 2]] * 4)])
    assert len(layout.lines) == 3 + 4
    assert sum(line.to_junction for line in layout.lines) == 3
    assert sum(line.from_junction for line in layout.lines) == 4


def test_a_cycle_of_parts_is_drawn() -> None:
    layout = lay_out([[1], [0], [1]])
    assert sorted(layer for layer, _ in layout.places) == [0, 1, 2]
    assert {(line.parents[0], line.children[0]) for line in layout.lines} == {(0, 1), (1, 2)}
    assert lay_out([]).lines == []


# --- The graph ---


def test_boxes_do_not_overlap_and_lie_within_the_drawing() -> None:
    nodes = [
        node(number, tuple({max(1, number - 1 - k * k) for k in range(number % 4)} - {number}))
        for number in range(1, 200)
    ]
    found = graph(nodes)
    places = {(box.x, box.y) for box in found.boxes}
    assert len(places) == len(nodes)
    for x, y in places:
        assert 0 <= x <= found.width - WIDTH
        assert 0 <= y <= found.height - HEIGHT
        assert not any(x == other_x and 0 < abs(y - other_y) < HEIGHT for other_x, other_y in places)
    xs = [int(number) for number in re.findall(r"[MH](\d+)", found.lines)]
    assert max(xs) <= found.width


def test_a_map_is_one_box_with_its_items() -> None:
    items: dict[str, Any] = {"kind": "map", "items": 50, "items_ended": 12, "items_failed": 1, "job_id": None}
    [box] = graph([node(1, state="running", **items)]).boxes
    assert (box.detail, box.done, box.kind) == ("running · 12/50, 1 failed", 0.24, "map")
    [box] = graph([node(1, kind="map", items=0)]).boxes
    assert box.done == 1.0
    [box] = graph([node(1, times=(0, 1, 3.4))]).boxes
    assert (box.detail, box.done) == ("succeeded · 2.4 s", None)


def test_the_critical_path_is_marked() -> None:
    found = graph([node(1), node(2, (1,)), node(3, (1,)), node(4, (2, 3))], [1, 3, 4])
    assert [box.critical for box in found.boxes] == [True, False, True, True]
    assert found.critical_lines.count("M") == 2
    assert found.lines.count("M") == 2


def test_parts_are_folded_as_finely_as_fits() -> None:
    def named(names: list[str]) -> list[NodeInfo]:
        return [node(number, name=name) for number, name in enumerate(names, 1)]

    few = graph(named([f"a{n}/b" for n in range(MAX_BOXES)]))
    assert not few.folded
    assert len(few.boxes) == MAX_BOXES
    nested = named([f"a{n // 100}/b{n // 10}/c{n}" for n in range(1000)])
    found = graph(nested)
    assert (found.folded, found.hidden, len(found.boxes)) == (True, 0, 100)
    assert (found.boxes[0].label, found.boxes[0].detail, found.boxes[0].kind) == (
        "a0/b0/",
        "succeeded · 0/10 nodes",
        "part",
    )
    found = graph(named([f"a{n // 1000}/b{n}/c" for n in range(3000)]))
    assert [box.label for box in found.boxes] == ["a0/", "a1/", "a2/"]
    found = graph(named([f"n{n}" for n in range(MAX_BOXES + 7)]))
    assert (found.folded, found.hidden, len(found.boxes)) == (False, 7, MAX_BOXES)


def test_a_folded_part_has_the_state_that_matters_most() -> None:
    states = {1: "succeeded", 2: "running", 3: "failed", 4: "waiting"}
    nodes = [
        node(number, (), states.get(number, "succeeded"), name=f"p/{number}", times=(0, 0, None if number == 2 else 1))
        for number in range(1, MAX_BOXES + 2)
    ]
    [box] = graph(nodes).boxes
    assert box.state == "failed"
    assert box.detail.endswith("501 nodes, 1 failed")


@pytest.mark.parametrize(
    ("name", "label"),
    [("short", "short"), ("x" * 22, "x" * 22), ("import/products/check-17", "import/produ…check-17"),
     ("文" * 20, "文文文文文文…文文文文"), ("a\u202eb\n", "a\\u202eb\\n")],
)  # fmt: skip
def test_labels_are_cut_in_the_middle(name: str, label: str) -> None:
    assert formatting.middle(name, 22) == label


# --- Times ---


def test_a_node_waits_is_queued_and_runs() -> None:
    axis = workflow_times.axis(run(100))
    parts = workflow_times.spans(node(2, times=(20, 30, 80)), axis)
    assert [(part.kind, part.x, part.width) for part in parts] == [
        ("wait", 0, 20),
        ("queue", 20, 10),
        ("succeeded", 30, 50),
    ]
    # Under way, and not started.
    live = workflow_times.axis(run(100, finished_at=None))
    parts = workflow_times.spans(node(2, state="running", times=(20, 30, None)), live)
    assert [(part.kind, part.seconds) for part in parts] == [
        ("wait", 20), ("queue", 10), ("run", 70)]  # fmt: skip
    assert [part.kind for part in workflow_times.spans(node(2, state="ready", times=(20, None, None)), live)] == [
        "wait",
        "queue",
    ]
    assert [part.kind for part in workflow_times.spans(node(2, state="waiting", job_id=None), live)] == ["wait"]
    never = node(2, state="upstream_failed", job_id=None, times=(40, None, 40.5))
    assert [(part.kind, part.seconds) for part in workflow_times.spans(never, axis)] == [("wait", 40.5)]
    # However short, it can be seen.
    assert workflow_times.spans(node(2, times=(0, 0, 0)), axis)[0].width > 0


@pytest.mark.parametrize("seconds", [0, 0.004, 1, 59, 61, 3600, 100_000, 400 * 86_400])
def test_the_labels_of_the_axis_are_apart(seconds: float) -> None:
    ticks = workflow_times.axis(run(seconds)).ticks
    assert 1 <= len(ticks) <= 6
    assert ticks[-1][0] == 100
    places = [x for x, _ in ticks]
    assert places == sorted(places)
    assert all(some(after - before >= 15 for before, after in pairwise(places)))


def test_the_critical_path() -> None:
    nodes = [
        node(1, times=(0, 0, 10)), node(2, (1,), times=(10, 11, 20)), node(3, (1,), times=(10, 12, 50)),
        node(4, (2, 3), times=(50, 51, 60)), node(5, (1,), times=(10, 11, 55)), node(6, (4,), "skipped", times=(60, None, 60)),
    ]  # fmt: skip
    path = workflow_times.critical_path(nodes, NOW)
    assert path == [1, 3, 4]
    totals = workflow_times.totals([nodes[number - 1] for number in path], workflow_times.axis(run(60)))
    assert totals == {"run": 10 + 38 + 9, "queue": 2 + 1}
    # While it is under way: what was ready first.
    live = [
        *nodes[:3],
        node(4, (2, 3), "running", times=(50, 51, None)),
        node(5, (1,), "ready", times=(10, None, None)),
    ]
    assert workflow_times.critical_path(live, NOW) == [1, 5]
    assert workflow_times.critical_path([node(1, state="waiting")], NOW) == []

"""Which queue's turn it is: what `--queues` may say, and the order of a claim's lanes, played out without a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jobq._worker.lanes.cursor import ClaimSnapshot, everything
from jobq._worker.lanes.lanes import Lanes
from jobq._worker.options import WorkerOptions
from jobq._worker.queue_spec import QueueOrder, QueueSpec, parse
from jobq.cli.worker import worker
from jobq.errors import ConfigurationError
from jobq.settings import Settings
from tests.support.checks import some

# --- What may be said


@pytest.mark.parametrize(
    ("text", "queue"),
    [
        ("mail", QueueSpec(name="mail")),
        (" mail ", QueueSpec(name="mail")),
        ("mail:3", QueueSpec(name="mail", weight=3)),
        ("mail:max=2", QueueSpec(name="mail", cap=2)),
        ("mail:3:max=2", QueueSpec(name="mail", weight=3, cap=2)),
        ("tenant:a", QueueSpec(name="tenant:a")),
        ("tenant:5:1", QueueSpec(name="tenant:5", weight=1)),
        ("tenant:5:1:max=9", QueueSpec(name="tenant:5", weight=1, cap=9)),
        ("odd:max=2:1", QueueSpec(name="odd:max=2", weight=1)),
        ("v1.5", QueueSpec(name="v1.5")),
        ("a:b=2", QueueSpec(name="a:b=2")),
        (":a", QueueSpec(name=":a")),
        ("::3", QueueSpec(name=":", weight=3)),
        ("a\nb:3", QueueSpec(name="a\nb", weight=3)),
        ("x" * 100 + ":1000000", QueueSpec(name="x" * 100, weight=1_000_000)),
    ],
)
def test_a_queue_is_read(text: str, queue: QueueSpec) -> None:
    assert QueueSpec.parse(text) == queue
    assert QueueSpec.parse(str(queue)) == queue


NAMES = st.text(min_size=1, max_size=100).map(str.strip).filter(bool)


@given(NAMES, st.integers(1, 1_000_000), st.none() | st.integers(1, 1_000_000))
def test_every_name_can_be_written_with_its_weight(name: str, weight: int, cap: int | None) -> None:
    text = f"{name}:{weight}" + (f":max={cap}" if cap is not None else "")
    queue = QueueSpec(name=name, weight=weight, cap=cap)
    assert QueueSpec.parse(text) == queue
    assert str(queue) == text
    unweighted = QueueSpec(name=name, cap=cap)
    assert QueueSpec.parse(str(unweighted)) in (unweighted, QueueSpec(name=name, weight=1, cap=cap))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:0", "queues: 'a:0': weight '0': give a whole number from 1 to 1,000,000"),
        ("a:-1", "queues: 'a:-1': weight '-1': give a whole number"),
        ("a:+1", "weight '+1'"),
        ("a:1.5", "weight '1.5'"),
        ("a:1000001", "weight '1000001'"),
        (f"a:{'9' * 5000}", "give a whole number"),
        ("a:max=0", "queues: 'a:max=0': cap '0': give a whole number"),
        ("a:max=", "cap ''"),
        ("a:max=two", "cap 'two'"),
        ("a:max=-2", "cap '-2'"),
        ("a:3:max=1.5", "cap '1.5'"),
        (":3", "queues: ':3': give a name of 1 to 100 characters"),
        (":max=3", "give a name"),
        ("a,,b", "queues: '': give a name"),
        ("a,", "queues: '': give a name"),
        ("a:1, a:2", "queues: 'a' is named twice"),
        ("x" * 101, "give a name of 1 to 100 characters"),
    ],
)
def test_nonsense_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match="queues: ") as refused:
        parse(text)
    assert said in str(refused.value)
    result = CliRunner().invoke(worker, ["app:q", "--queues", text])
    assert result.exit_code == 2
    assert "--queues" in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queues": ()}, "queues=''"),
        ({"queues": ("a", "a")}, "queues: 'a' is named twice"),
        ({"queues": ("a",), "queue_weights": {"b": 2}}, "queue_weights has 'b', which is not among queues"),
        ({"queue_caps": {"b": 2}}, "queue_caps has 'b', which is not among queues"),
        ({"queues": ("a",), "queue_weights": {"a": 0}}, "queue_weights['a']=0: give a whole number"),
        ({"queues": ("a",), "queue_weights": {"a": 1.5}}, "queue_weights['a']=1.5"),
        ({"queues": ("a",), "queue_caps": {"a": -1}}, "queue_caps['a']=-1"),
        ({"queue_order": QueueOrder.STRICT}, "name them"),
        ({"queues": ("a",), "queue_weights": {"a": 2}, "queue_order": QueueOrder.STRICT}, "no use for weights"),
        ({"aging": 0}, "aging=0"),
        ({"aging": -1.0}, "aging=-1.0"),
        ({"aging": float("nan")}, "aging=nan"),
        ({"aging": float("inf")}, "aging=inf"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        WorkerOptions(app="-", settings=Settings(), **options)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, QueueOrder.PRIORITY),
        ({"queues": ("a",)}, QueueOrder.PRIORITY),
        ({"queues": ("a",), "queue_caps": {"a": 1}}, QueueOrder.PRIORITY),
        ({"queues": ("a",), "queue_weights": {"a": 1}}, QueueOrder.SHARES),
        ({"queues": ("a",), "queue_weights": {"a": 1}, "queue_order": QueueOrder.PRIORITY}, QueueOrder.PRIORITY),
        ({"queue_order": QueueOrder.SHARES}, QueueOrder.SHARES),
        ({"queues": ("a",), "queue_order": QueueOrder.STRICT}, QueueOrder.STRICT),
    ],
)
def test_who_writes_a_weight_wants_shares(options: dict[str, Any], order: QueueOrder) -> None:
    assert WorkerOptions(app="-", settings=Settings(), **options).queues_by is order


def test_a_worker_says_what_it_has_understood() -> None:
    options = WorkerOptions(
        app="-", settings=Settings(), queues=("a", "b", "t:5"), queue_weights={"a": 3}, queue_caps={"a": 4, "b": 2}
    )
    assert options.queues_text == "a:3:max=4,b:max=2,t:5:1"
    assert WorkerOptions(app="-", settings=Settings()).queues_text == "all"


# --- The order of a claim


Backlog = dict[tuple[str, int], int]


def claim(lanes: Lanes, backlog: Backlog, want: int, *, limited: bool = False) -> Counter[str]:
    """Claim as ack_and_claim.sql does, and tell the lanes of it. `limited`: by no more than the first one's share.

    Of every job there was word, or a reading has found it.
    """
    for (queue, priority), count in backlog.items():
        if count:
            lanes.found(queue, priority, 0)
    scan = everything(lanes.arrays())
    if limited:
        want = lanes.first(want)
    assert want > 0
    counts, left, cut = [], want, None
    found: Counter[str] = Counter()
    for place, lane in enumerate(zip(scan.queues, scan.priorities, strict=True)):
        jobs = min(backlog.get(lane, 0), left)
        if jobs:
            backlog[lane] -= jobs
            left -= jobs
            found[lane[0]] += jobs
            counts.append((place, jobs))
        if not left:
            cut = place
            break
    lanes.claimed(scan, ClaimSnapshot(at=1, xmin=1, following=1, cut=cut, last=(1, 1), counts=tuple(counts)))
    return found


def test_by_default_higher_priorities_come_first_over_all_queues() -> None:
    queues, priorities = Lanes(("b", "a")).arrays()
    assert priorities == [priority for priority in range(9, -1, -1) for _ in "ab"]
    assert [set(queues[place : place + 2]) for place in range(0, 20, 2)] == [{"a", "b"}] * 10


@pytest.mark.parametrize("order", [QueueOrder.SHARES, QueueOrder.STRICT])
def test_else_priorities_are_a_matter_within_a_queue(order: QueueOrder) -> None:
    queues, priorities = Lanes(("b", "a"), order=order).arrays()
    assert priorities == [*range(9, -1, -1)] * 2
    assert sorted([queues[0], queues[10]]) == ["a", "b"]
    assert queues == [queues[0]] * 10 + [queues[10]] * 10


def test_strict_takes_queues_as_they_were_written() -> None:
    lanes = Lanes(("c", "a", "b"), order=QueueOrder.STRICT)
    backlog = {("a", 9): 2, ("b", 9): 100, ("c", 0): 3}
    assert [claim(lanes, backlog, 2) for _ in range(4)] == [{"c": 2}, {"c": 1, "a": 1}, {"a": 1, "b": 1}, {"b": 2}]
    backlog["c", 5] = 5
    assert claim(lanes, backlog, 4, limited=True) == {"c": 4}
    lanes.pause(["c"])
    assert claim(lanes, backlog, 4) == {"b": 4}
    lanes.pause([])
    assert claim(lanes, backlog, 4) == {"c": 1, "b": 3}


def test_a_paused_queue_has_no_lanes() -> None:
    lanes = Lanes(("a", "b"), order=QueueOrder.SHARES, weights={"a": 3})
    assert not lanes.pause(["a"])
    assert set(lanes.arrays()[0]) == {"b"}
    assert lanes.pause([]) == ["a"]
    assert set(lanes.arrays()[0]) == {"a", "b"}


WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20), min_size=2)
BY_SHARES = st.sampled_from([QueueOrder.SHARES, QueueOrder.PRIORITY])


def shares_of(weights: Mapping[str, int], total: int) -> dict[str, float]:
    return {queue: total * weight / sum(weights.values()) for queue, weight in weights.items()}


@given(WEIGHTS, BY_SHARES, st.integers(200, 2_000))
@settings(deadline=None)
def test_single_slots_are_shared_by_weight(weights: dict[str, int], order: QueueOrder, claims: int) -> None:
    """At every moment, not only in the end: no queue is ahead or behind by more than its next few jobs."""
    lanes, total = Lanes(tuple(weights), order=order, weights=weights), Counter[str]()
    backlog = {(queue, 5): 10_000 for queue in weights}
    for done in some(range(1, claims + 1)):
        total += claim(lanes, backlog, 1)
        if done % 50 == 0:
            for queue, share in some(shares_of(weights, done).items()):
                # Each is served while it is the least advanced one, so it is never more than one job ahead of any.
                assert share - weights[queue] - 1 <= total[queue] <= share + len(weights)


@given(WEIGHTS, BY_SHARES, st.lists(st.integers(1, 500), min_size=20, max_size=200))
@settings(deadline=None)
def test_claims_of_any_size_are_shared_by_weight(weights: dict[str, int], order: QueueOrder, wants: list[int]) -> None:
    """A claim that one queue fills is answered by as many of the others', so what is off is one claim at most."""
    lanes, total = Lanes(tuple(weights), order=order, weights=weights), Counter[str]()
    backlog = {(queue, 5): 1_000_000 for queue in weights}
    for want in wants:
        total += claim(lanes, backlog, want)
    largest = max(wants)
    for queue, share in some(shares_of(weights, sum(wants)).items()):
        assert total[queue] <= share + largest + 1
        assert total[queue] >= share - largest * weights[queue] - 1


@given(WEIGHTS, BY_SHARES, st.integers(1, 200))
@settings(deadline=None)
def test_many_free_slots_at_once_are_shared_by_weight(weights: dict[str, int], order: QueueOrder, slots: int) -> None:
    """With jobs that take long, no claim gives one queue more than its share of what is free."""
    lanes, total = Lanes(tuple(weights), order=order, weights=weights), Counter[str]()
    backlog = {(queue, 5): 1_000 for queue in weights}
    claims = 0
    while (free := slots - total.total()) > 0:
        total += claim(lanes, backlog, free, limited=True)
        claims += 1
    assert claims <= len(weights)
    for queue, share in some(shares_of(weights, slots).items()):
        assert share - len(weights) <= total[queue] <= share + 1


def test_one_queue_with_jobs_among_many_soon_gets_all_that_is_free() -> None:
    names = tuple(f"q{n:02}" for n in range(40))
    lanes = Lanes(names)
    backlog = {("q07", 5): 1_000}
    got = [claim(lanes, backlog, 32, limited=True).total() for _ in range(3)]
    # The first claim ends where the jobs are, the second has gone through all the others.
    assert got == [1, 1, 32]
    # An unknown one is told of, and then has a share.
    lanes.hear("q20")
    backlog["q20", 5] = 1_000
    assert claim(lanes, backlog, 32, limited=True) == {"q20": 32}
    assert claim(lanes, backlog, 32, limited=True)["q20"] <= 32


def test_nothing_is_saved_up_by_a_queue_that_has_no_jobs() -> None:
    lanes = Lanes(("a", "b"), order=QueueOrder.SHARES, weights={"a": 1, "b": 1})
    backlog = {("a", 5): 1_000_000}
    for _ in range(1_000):
        assert claim(lanes, backlog, 100) == {"a": 100}
    backlog["b", 5] = 1_000_000
    total = Counter[str]()
    for _ in range(10):
        total += claim(lanes, backlog, 100)
    assert total == {"a": 500, "b": 500}


def test_nothing_is_saved_up_by_a_queue_that_is_paused() -> None:
    lanes = Lanes(("a", "b"), order=QueueOrder.SHARES, weights={"a": 1, "b": 3})
    backlog = {("a", 5): 1_000_000, ("b", 5): 1_000_000}
    claim(lanes, backlog, 100)
    lanes.pause(["b"])
    for _ in range(100):
        assert claim(lanes, backlog, 100) == {"a": 100}
    lanes.pause([])
    total = Counter[str]()
    for _ in range(400):
        total += claim(lanes, backlog, 10)
    # But for the last claim of 100 that it got alone.
    assert 900 <= total["a"] <= 1_000


def test_what_a_queue_does_not_need_the_others_get_at_once() -> None:
    lanes = Lanes(("a", "b"), order=QueueOrder.SHARES, weights={"a": 100, "b": 1})
    backlog = {("a", 5): 3, ("b", 5): 1_000}
    assert claim(lanes, backlog, 50) + claim(lanes, backlog, 50) == {"a": 3, "b": 97}


def test_no_queue_starves_by_the_others_priorities_when_it_has_a_share() -> None:
    lanes = Lanes(("a", "b"), order=QueueOrder.SHARES, weights={"a": 1_000, "b": 1})
    backlog = {("a", 9): 1_000_000, ("b", 0): 1_000_000}
    total = Counter[str]()
    for _ in range(2_002):
        total += claim(lanes, backlog, 1)
    assert total["b"] == 2


def test_queues_come_and_go_without_a_trace() -> None:
    """A worker of every queue, each customer with a queue of its own, and never out of work."""
    lanes = Lanes(None)
    for n in range(1_000):
        names = ["all", f"customer {n}"]
        backlog = {(name, 5): 10 for name in names}
        claim(lanes, backlog, 1)
        claim(lanes, backlog, 1)
    assert len(lanes._shares._advanced) < 200

"""Steering: something usable comes out in time, whatever policy and critic do."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.robot import arm_spec
from vla_rl.steer import scorer as scoring
from vla_rl.steer import selectors
from vla_rl.steer.latest import Latest
from vla_rl.steer.steering import Steering, SteeringConfig
from vla_rl.types import ActionKind, Candidates

SPEC = arm_spec("so101")
DT = 1 / 30
SECOND = 1_000_000_000


def draw(k: int = 8, stamp: float = 100.0, horizon: int = 16, seed: int = 0) -> Candidates:
    chunks = np.random.default_rng(seed).uniform(-1, 1, (k, horizon, 6))
    return Candidates(chunks, SPEC.action_spec, DT, round(stamp * SECOND), np.zeros(4, np.float32), seed)


def steering(critic=None, **config) -> Steering:
    return Steering(SteeringConfig(**config), SPEC.names, critic)


class Scripted:
    """A critic that says what it is told, as slowly as it is told."""

    members, distribution = 2, False

    def __init__(self, values, seconds: float = 0.0, per_candidate: float = 0.0):
        self.say, self.seconds, self.each = values, seconds, per_candidate
        self.scored = self.prepared = 0

    def prepare(self, candidates):
        self.prepared += 1
        return candidates.context, float("nan")

    def values(self, context, chunks, tau=None):
        time.sleep(self.seconds + self.each * len(chunks))
        if callable(self.say):
            return self.say(context, chunks)
        part = np.asarray(self.say)[:, self.scored : self.scored + len(chunks)]
        self.scored += len(chunks)
        return part


@pytest.fixture
def highest(monkeypatch):
    def rule(chunks, values, previous, rng):
        return selectors.Choice(int(values.mean(0).argmax()) if values is not None else 0, "highest")

    monkeypatch.setitem(selectors.SELECTORS, "highest", rule)
    return "highest"


def test_the_chosen_chunk_is_the_candidate_with_its_stamp_and_time():
    found = draw(seed=3)
    decision = steering(selector="medoid").decide(found)
    np.testing.assert_array_equal(decision.chunk.actions, found.chunks[decision.index])
    assert (decision.chunk.stamp_ns, decision.chunk.dt) == (found.stamp_ns, DT)
    assert decision.values is None


REFUSED = {
    "other joints": (lambda c: {"spec": SPEC.lerobot_action_spec}, "other_joints"),
    "another kind of action": (lambda c: {"spec": _kind(ActionKind.JOINT_RELATIVE)}, "other_joints"),
    "no candidate": (lambda c: {"chunks": c.chunks[:0]}, "shape"),
    "no action": (lambda c: {"chunks": c.chunks[:, :0]}, "shape"),
    "a single chunk without an axis": (lambda c: {"chunks": c.chunks[0]}, "shape"),
    "fewer joints than names": (lambda c: {"chunks": c.chunks[..., :5]}, "shape"),
    "no time between actions": (lambda c: {"dt": 0.0}, "shape"),
    "no stamp": (lambda c: {"stamp_ns": 0}, "stamp_zero"),
    "another length than before": (lambda c: {"chunks": c.chunks[:, :8]}, "other_length"),
    "the same observation again": (lambda c: {"stamp_ns": 99 * SECOND}, "out_of_order"),
    "an older observation": (lambda c: {"stamp_ns": 98 * SECOND}, "out_of_order"),
    "a stale observation": (lambda c: {"stamp_ns": round(99.4 * SECOND)}, "stale"),
    "an observation to come": (lambda c: {"stamp_ns": 101 * SECOND}, "future"),
}


def _kind(kind):
    from dataclasses import replace

    return replace(SPEC.action_spec, kind=kind)


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_set_that_does_not_fit_is_refused_and_counted_and_the_next_one_is_taken(change, reason):
    from dataclasses import replace

    here = steering()
    assert here.decide(draw(stamp=99.0)) is not None
    good = draw(stamp=100.0)
    assert here.decide(replace(good, **change(good)), now_ns=100 * SECOND) is None
    assert here.counts[reason] == 1
    assert here.decide(good, now_ns=100 * SECOND) is not None
    assert len(here.problems()) == 1
    assert here.problems() == []


def test_after_a_clock_step_an_older_stamp_is_welcome():
    here = steering()
    here.decide(draw(stamp=100.0))
    here.restart()
    assert here.decide(draw(stamp=1.0, horizon=8)) is not None


@given(st.sets(st.integers(0, 7)), st.sampled_from(["first", "random", "medoid"]))
@settings(max_examples=50, deadline=None)
def test_bad_candidates_are_left_out_and_all_bad_means_nothing(bad, selector):
    found, here = draw(), steering(selector=selector)
    for i in bad:
        found.chunks[i, 9, 2] = np.nan
    decision = here.decide(found)
    assert here.counts["candidates_not_finite"] == len(bad)
    if len(bad) == 8:
        assert decision is None
        assert here.counts["nothing_finite"] == 1
    else:
        assert np.isfinite(decision.chunk.actions).all()


def test_only_the_steps_that_will_be_executed_are_compared():
    found = draw(k=5)
    found.chunks[3, :4] = found.chunks[:, :4].mean(0)
    found.chunks[3, 4:] = 99.0
    assert steering(selector="medoid", executed_steps=4).decide(found).index == 3
    assert steering(selector="medoid").decide(found).index != 3


def test_a_rule_sees_what_is_left_of_the_chunk_under_way(monkeypatch):
    seen = []

    def rule(chunks, values, previous, rng):
        seen.append(previous)
        return selectors.Choice(0, "")

    monkeypatch.setitem(selectors.SELECTORS, "medoid", rule)
    here, first = steering(selector="medoid"), draw(stamp=100.0)
    here.decide(first)
    here.decide(draw(stamp=100.0 + 5 * DT))
    here.decide(draw(stamp=200.0))
    assert seen[0] is None
    np.testing.assert_array_equal(seen[1], first.chunks[0, 5:])
    assert seen[2] is None


def test_the_critics_values_decide_and_are_told(highest):
    values = np.random.default_rng(0).normal(size=(2, 20))
    decision = steering(Scripted(values), selector=highest, slice=8, deadline_s=5.0).decide(draw(k=20))
    np.testing.assert_array_equal(decision.values, values)
    assert decision.index == values.mean(0).argmax()


def test_when_its_time_runs_out_the_scored_part_decides(highest):
    critic = Scripted(np.arange(40.0)[None], per_candidate=0.02)
    here = steering(critic, selector=highest, slice=4, deadline_s=0.25)
    start = time.monotonic()
    decision = here.decide(draw(k=40))
    assert time.monotonic() - start < 1.0
    scored = decision.values.shape[1]
    assert 0 < scored < 40
    assert scored % 4 == 0
    assert decision.index == scored - 1
    assert here.counts["late"] == 1


class Timed(Scripted):
    """A critic whose work takes time on a clock of its own [ns], from `now`."""

    now = 0

    def prepare(self, candidates):
        self.now += 40_000_000
        return super().prepare(candidates)

    def values(self, context, chunks, tau=None):
        self.now += 1_000_000 * len(chunks)
        return np.zeros((2, len(chunks)))


@pytest.fixture
def first_slice(monkeypatch):
    """How many candidates of a set a critic scores at once that has so much time from its arrival [ms]."""
    critic = Timed(None)
    scorer = scoring.Scorer(critic, 32)
    scorer.close()
    monkeypatch.setattr(scoring, "time", SimpleNamespace(monotonic_ns=lambda: critic.now))

    def score(milliseconds: int) -> int:
        scorer._job = job = scoring._Job(draw(k=32), critic.now + milliseconds * 1_000_000)
        scorer._score_slice(job)
        return job.scored

    return score


def test_a_slice_holds_what_the_context_leaves_time_for(first_slice):
    for _ in range(20):
        first_slice(1000)
    assert first_slice(50) == 10, "40 of 50 ms went into the context, and a candidate takes one"


def test_one_set_is_enough_to_know_how_fast_a_critic_is(first_slice):
    first_slice(1000)
    assert first_slice(60) == 20


def test_a_rule_that_needs_no_critic_gives_its_own_reason_when_one_is_late():
    found = draw()
    alone = steering(selector="medoid").decide(found)
    late = steering(Scripted(np.zeros((2, 8)), seconds=0.3), selector="medoid", deadline_s=0.01).decide(found)
    assert (late.index, late.reason) == (alone.index, alone.reason)


def test_a_critic_that_hangs_means_the_first_candidate_in_time_and_again_and_again(highest):
    stuck = threading.Event()
    critic = Scripted(lambda context, chunks: stuck.wait(20) and np.zeros((1, len(chunks))))
    here = steering(critic, selector=highest, deadline_s=0.05)
    for i in range(3):
        start = time.monotonic()
        decision = here.decide(draw(stamp=100.0 + i))
        assert time.monotonic() - start < 1.0
        assert decision.index == 0
        assert "late" in decision.reason
    assert here.counts["late"] == 3
    stuck.set()
    deadline = time.monotonic() + 5
    while here.counts["late"] == 3 and time.monotonic() < deadline:
        if here.decide(draw(stamp=time.monotonic() + 1000)).values is not None:
            break
    assert decision is not None
    assert here.decide(draw(stamp=time.monotonic() + 2000)).values is not None, "it is asked again once it is back"
    here.close()


def fail(context, chunks):
    raise RuntimeError("out of memory")


BAD_CRITICS = {
    "says nan": lambda c, x: np.full((2, len(x)), np.nan),
    "says inf": lambda c, x: np.full((2, len(x)), np.inf),
    "says too little": lambda c, x: np.zeros((2, len(x) - 1)),
    "says it without an ensemble axis": lambda c, x: np.zeros(len(x)),
    "says words": lambda c, x: "good",
    "fails": fail,
}


@pytest.mark.parametrize("say", BAD_CRITICS.values(), ids=BAD_CRITICS)
def test_a_critic_that_talks_nonsense_means_the_first_candidate(say, highest):
    here = steering(Scripted(say), selector=highest, deadline_s=5.0)
    for i in range(3):
        decision = here.decide(draw(stamp=100.0 + i))
        assert decision.index == 0
        assert "no finite value" in decision.reason
    assert here.counts["values_not_finite"] == 3
    here.close()


def test_one_value_that_is_not_finite_costs_one_candidate_only(highest):
    values = np.arange(8.0)[None].copy()
    values[0, 7] = np.nan
    assert steering(Scripted(values), selector=highest, deadline_s=5.0).decide(draw()).index == 6


def test_a_config_that_makes_no_sense_is_refused():
    for bad in ({"selector": "best"}, {"deadline_s": 0.0}, {"slice": 0}, {"max_age_s": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SteeringConfig(**bad)


def test_the_newest_item_replaces_the_one_that_waits_and_an_error_does_not_end_it():
    busy, go, handled, failed = threading.Event(), threading.Event(), [], []

    def handle(item):
        busy.set()
        go.wait(10)
        if item == 7:
            raise KeyError(item)
        handled.append(item)

    latest = Latest("test", handle, failed.append)
    latest.put(0)
    assert busy.wait(10)
    for item in range(1, 8):
        latest.put(item)
    go.set()
    deadline = time.monotonic() + 10
    while not failed and time.monotonic() < deadline:
        time.sleep(0.01)
    latest.put(8)
    while len(handled) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert handled == [0, 8]
    assert latest.replaced == 6
    assert latest.close()


class Halved:
    """Control that does half of what it is asked for."""

    def __init__(self):
        self.sent, self.forgotten = [], 0

    def executed(self, candidates):
        return candidates.chunks[:, :8] / 2

    def chosen(self, chunk):
        self.sent.append(chunk.stamp_ns)

    def restart(self):
        self.forgotten += 1


def test_the_critic_is_shown_what_will_be_executed_and_the_chunk_goes_out_as_it_was_drawn(highest):
    foresight, shown = Halved(), []
    critic = Scripted(lambda context, chunks: shown.append(chunks) or np.zeros((2, len(chunks))))
    steering = Steering(SteeringConfig(selector="highest", deadline_s=5.0), SPEC.names, critic, foresight)
    drawn = draw()
    decision = steering.decide(drawn)
    np.testing.assert_array_equal(np.concatenate(shown), drawn.chunks[:, :8] / 2)
    np.testing.assert_array_equal(decision.chunk.actions, drawn.chunks[decision.index])
    assert foresight.sent == [drawn.stamp_ns]
    steering.restart(decision.chunk)
    assert (foresight.forgotten, len(foresight.sent)) == (1, 2)
    steering.close()

"""The safety filter: no limit is ever broken, what keeps them passes as it is, and there is always a way to stop."""

import numpy as np
import pytest
from execute_arms import ARMS, states_within, violations
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.execute.limits import Limits
from vla_rl.execute.safety import SafetyFilter

LIMITS = {name: Limits.from_spec(spec) for name, spec in ARMS.items()}
BATCH = 8
arms = st.sampled_from(sorted(ARMS))
seeds = st.integers(0, 2**32 - 1)
thorough = settings(max_examples=40, deadline=None)


def wander(limits, rng, start, length):
    """Targets (T, ..., J) of every temper: noise of any size, jumps, waves and standing still, in turns."""
    span, targets = limits.high - limits.low, [start]
    while len(targets) <= length:
        scale, last = 10.0 ** rng.uniform(-4, 1), targets[-1]
        kind, turns = rng.integers(5), int(rng.integers(1, 20))
        goal = rng.uniform(limits.low - span, limits.high + span, start.shape)
        for k in range(turns):
            targets.append(
                [
                    last, goal, last + k * scale * 0.01 * span, last + scale * rng.normal(size=start.shape),
                    start + 0.5 * span * np.sin(k * scale * 10),
                ][kind]
            )  # fmt: skip
    return np.array(targets[1 : length + 1])


def play(limits, targets, start):
    safety = SafetyFilter(limits)
    safety.reset(start)
    return safety, np.array([start, *(safety.step(target).command for target in targets)])


@given(arms, seeds)
@thorough
def test_whatever_is_asked_no_limit_is_broken(arm, seed):
    limits, rng = LIMITS[arm], np.random.default_rng(seed)
    start = states_within(limits, BATCH, rng)
    _, commands = play(limits, wander(limits, rng, start, 50), start)
    assert violations(limits, commands) == []


@given(arms, seeds, st.integers(1, 40))
@thorough
def test_from_every_command_there_is_a_way_to_stop_within_all_limits(arm, seed, ticks):
    limits, rng = LIMITS[arm], np.random.default_rng(seed)
    start = states_within(limits, BATCH, rng)
    safety, commands = play(limits, wander(limits, rng, start, ticks), start)
    stop = []
    while not safety.at_rest:
        stop.append(safety.brake())
        assert len(stop) < 1000
    stop.append(safety.brake())
    assert violations(limits, np.concatenate([commands, stop])) == []
    np.testing.assert_allclose(stop[-1], safety.brake(), atol=1e-9)


def gentle(limits, rng, start, length):
    """Targets (T, ..., J) within a share of every limit: each joint swings about its start."""
    time = np.arange(length).reshape(-1, 1, 1) * limits.dt
    pace = rng.uniform(0.5, 4.0, start.shape)  # rad/s of phase
    room = np.minimum(start - limits.low, limits.high - start)
    parts = [limits.velocity / pace, limits.acceleration / pace**2, limits.jerk / pace**3, room]
    swing = 0.4 * np.minimum.reduce(np.broadcast_arrays(*parts))
    begin = np.minimum(time / 2.0, 1.0) ** 3  # from rest
    return start + swing * begin * np.sin(pace * time)


@given(arms, seeds)
@thorough
def test_targets_within_the_limits_pass_unchanged_bit_for_bit(arm, seed):
    limits, rng = LIMITS[arm], np.random.default_rng(seed)
    start = states_within(limits, BATCH, rng)
    targets = gentle(limits, rng, start, 90)
    slack = 0.25 * (limits.box[1] - limits.box[0]).min()
    near = (limits.chain.tip(targets) < limits.box[0] + slack) | (limits.chain.tip(targets) > limits.box[1] - slack)
    far = ~near.any((0, -1))
    if not far.any() or violations(limits, np.concatenate([start[None], targets])[:, far]):
        return
    _, commands = play(limits, targets[:, far], start[far])
    np.testing.assert_array_equal(commands[1:], targets[:, far])


@given(st.sampled_from(["so101", "slow", "stiff", "soft"]), seeds)
@settings(max_examples=8, deadline=None)
def test_a_target_that_stands_still_is_reached_and_never_passed(arm, seed):
    limits, rng = LIMITS[arm], np.random.default_rng(seed)
    spec = {**vars(limits), "box": np.array([[-9.0] * 3, [9.0] * 3])}  # without walls in between
    limits = Limits(**spec)
    start, goal = states_within(limits, BATCH, rng), states_within(limits, BATCH, rng)
    longest = (limits.high - limits.low) / limits.velocity + 2 * limits.velocity / limits.acceleration
    periods = int((longest + 4 * limits.acceleration / limits.jerk).max() / limits.dt * 1.3) + 5
    _, commands = play(limits, np.broadcast_to(goal, (periods, *goal.shape)), start)
    beyond = np.sign(goal - start) * (commands - goal)
    at_once = commands[1] == goal  # within what one period may do: passed on as it is
    assert (beyond <= 1e-9)[:, ~at_once].all()
    np.testing.assert_allclose(commands[-1], goal, atol=1e-3)


@given(arms, seeds)
@settings(max_examples=15, deadline=None)
def test_outside_the_limits_every_command_leads_back_in_and_no_faster_than_allowed(arm, seed):
    limits, rng = LIMITS[arm], np.random.default_rng(seed)
    span = limits.high - limits.low
    start = rng.uniform(limits.low - 0.2 * span, limits.high + 0.2 * span, (BATCH, len(span)))
    targets = wander(limits, rng, np.clip(start, limits.low, limits.high), 60)
    safety, commands = play(limits, targets, start)
    beyond = np.maximum(np.maximum(limits.low - commands, commands - limits.high), 0.0)
    assert (np.diff(beyond, axis=0) <= 0).all()
    assert (np.diff(limits.excess(commands), axis=0) <= 0).all()
    assert (np.abs(np.diff(commands, axis=0)) <= limits.velocity * limits.dt * (1 + 1e-6)).all()
    inside = (beyond[-1] == 0).all(-1) & (limits.excess(commands[-1]) == 0).all(-1)
    np.testing.assert_array_equal(safety.recovering, ~inside)


@given(arms, seeds)
@settings(max_examples=15, deadline=None)
def test_one_arm_alone_is_treated_as_in_a_batch(arm, seed):
    limits, rng = LIMITS[arm], np.random.default_rng(seed)
    start = states_within(limits, 3, rng)
    targets = wander(limits, rng, start, 25)
    _, together = play(limits, targets, start)
    for i in range(3):
        np.testing.assert_allclose(play(limits, targets[:, i], start[i])[1], together[:, i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_not_finite_is_refused_and_changes_nothing(bad):
    limits = LIMITS["so101"]
    start = states_within(limits, 1, np.random.default_rng(0))[0]
    safety, _ = play(limits, [start + 0.05, start + 0.1], start)
    other, _ = play(limits, [start + 0.05, start + 0.1], start)
    with pytest.raises(ValueError, match="finite"):
        safety.step(np.where(np.arange(6) == 2, bad, start))
    np.testing.assert_array_equal(safety.step(start).command, other.step(start).command)


def test_the_limit_that_cut_a_target_is_named_in_the_order_of_precedence():
    limits = LIMITS["so101"]
    safety = SafetyFilter(limits)
    safety.reset(np.array([0, -0.6, 0.5, 1.2, 1.57, 0.45]))
    filtered = safety.step(safety.command + 9.0 * np.eye(6)[0])
    assert filtered.clamped[:4] == ("position", "velocity", "acceleration", "jerk")[: len(filtered.clamped)]
    assert filtered.changed.tolist() == [True] + [False] * 5
    assert list(filtered.reasons) == ["position", "velocity", "acceleration", "jerk", "stop", "workspace"]

"""The player: which action is due, by the age of its observation, and how overlapping chunks are joined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl.execute.actions import RejectedError
from vla_rl.execute.player import JOINING, Player, PlayerConfig

DT = 1 / 30
PERIOD = round(1e9 * DT)
T0 = 10**15


def player(joining="latest", **config):
    return Player(PlayerConfig(joining, **config))


def ramp(first, length=16, slope=1.0):
    """A chunk (H, 2) of a joint that moves evenly and one that stands still."""
    return np.stack([first + slope * np.arange(length), np.full(length, 7.0)], axis=1)


@given(st.floats(0, 14.9))
def test_between_two_actions_the_due_one_is_interpolated_by_the_age_of_the_observation(age):
    chosen = player()
    chosen.accept(ramp(0.0), DT, T0, T0 + PERIOD)
    due = chosen.due(T0 + round(age * PERIOD))
    np.testing.assert_allclose(due.action, [age, 7.0], atol=2e-3)
    assert due.age_s == pytest.approx(age * DT, abs=1e-6)
    assert abs(due.index - age) < 1.0


def test_rounding_of_stamps_does_not_blur_an_action():
    chosen = player()
    actions = np.random.default_rng(0).normal(size=(16, 2))
    chosen.accept(actions, DT, T0, T0)
    for i in range(15):
        for error in (-9, 0, 9):
            np.testing.assert_array_equal(chosen.due(T0 + round(i * 1e9 / 30) + error).action, actions[i])


def test_a_chunk_at_another_rate_keeps_its_own_time():
    chosen = player()
    chosen.accept(ramp(0.0), 0.1, T0, T0)
    assert chosen.due(T0 + 250_000_000).action[0] == pytest.approx(2.5)


@pytest.mark.parametrize("joining", JOINING)
def test_chunks_that_agree_are_played_as_one_by_every_joining_mode(joining):
    chosen = player(joining)
    for start in (0, 4, 7, 9):
        chosen.accept(ramp(start), DT, T0 + start * PERIOD, T0 + (start + 1) * PERIOD)
    np.testing.assert_allclose(chosen.due(T0 + 12 * PERIOD).action, [12.0, 7.0], atol=1e-6)


@pytest.mark.parametrize("joining", JOINING)
def test_a_lone_chunk_is_played_as_it_is_by_every_joining_mode(joining):
    chosen = player(joining)
    actions = np.random.default_rng(1).normal(size=(8, 2))
    chosen.accept(actions, DT, T0, T0)
    np.testing.assert_array_equal(chosen.due(T0 + 5 * PERIOD).action, actions[5])


@given(st.sampled_from(sorted(JOINING)), st.integers(4, 14), st.integers(0, 2**32 - 1))
def test_what_is_joined_lies_between_what_the_chunks_say(joining, now, seed):
    rng, chosen = np.random.default_rng(seed), player(joining)
    chunks = {start: rng.normal(size=(16, 3)) for start in (0, 2, 4)}
    for start, actions in chunks.items():
        chosen.accept(actions, DT, T0 + start * PERIOD, T0 + start * PERIOD)
    said = np.array([actions[now - start] for start, actions in chunks.items()])
    action = chosen.due(T0 + now * PERIOD).action
    assert (action >= said.min(0) - 1e-9).all()
    assert (action <= said.max(0) + 1e-9).all()


def test_latest_takes_the_newest_and_blend_goes_over_to_it_without_a_jump():
    hop = {name: player(name) for name in ("latest", "blend")}
    path = {name: [] for name in hop}
    for name, chosen in hop.items():
        chosen.accept(ramp(0.0, slope=0.0), DT, T0, T0)
        for k in range(12):
            if k == 4:
                chosen.accept(ramp(1.0, slope=0.0), DT, T0 + 2 * PERIOD, T0 + 4 * PERIOD)
            path[name].append(chosen.due(T0 + k * PERIOD).action[0])
    assert path["latest"] == [0.0] * 4 + [1.0] * 8
    steps = np.diff(path["blend"])
    assert steps.max() < 0.15
    assert steps.min() >= 0.0
    assert hop["blend"].due(T0 + 15 * PERIOD).action[0] == pytest.approx(1.0)


def test_an_ensemble_uses_no_observation_older_than_the_open_loop_bound():
    chosen = player("temporal", max_open_loop_s=0.2)
    chosen.accept(ramp(0.0, slope=0.0), DT, T0, T0)
    chosen.accept(ramp(1.0, slope=0.0), DT, T0 + 5 * PERIOD, T0 + 5 * PERIOD)
    assert 0 < chosen.due(T0 + 6 * PERIOD).action[0] < 1
    assert chosen.due(T0 + 7 * PERIOD).action[0] == 1.0
    assert chosen.due(T0 + 11 * PERIOD).action[0] == 1.0
    assert chosen.due(T0 + 12 * PERIOD) is None


def test_after_a_flush_nothing_from_before_is_played():
    chosen = player()
    chosen.accept(ramp(0.0), DT, T0, T0)
    chosen.flush(T0 + PERIOD)
    assert chosen.due(T0 + PERIOD) is None
    with pytest.raises(RejectedError, match="before all chunks were discarded") as error:
        chosen.accept(ramp(0.0), DT, T0 + PERIOD, T0 + 2 * PERIOD)
    assert error.value.reason == "flushed"
    chosen.accept(ramp(0.0), DT, T0 + PERIOD + 1, T0 + 2 * PERIOD)


def test_an_unknown_joining_mode_lists_those_that_exist():
    with pytest.raises(ValueError, match="unknown joining 'mean'; there are: latest, temporal, adaptive, blend"):
        player("mean")

"""What is foreseen of a candidate is what the player then does with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.execute.foresight import Foresight, ForesightConfig
from vla_rl.execute.player import JOINING, Player, PlayerConfig
from vla_rl.robot import arm_spec
from vla_rl.types import ActionChunk, Candidates

SPEC = arm_spec("so101")
DT, PERIOD_NS = 1 / 30, round(1e9 / 30)
START_NS = 10 * 1_000_000_000


def chunks(rng, count):
    return rng.uniform(-1, 1, (count, 16, 6))


def candidates(drawn, stamp_ns):
    return Candidates(drawn, SPEC.action_spec, DT, stamp_ns)


@pytest.mark.parametrize("joining", JOINING)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), replan=st.integers(2, 6), delay=st.integers(0, 3))
def test_every_action_after_arrival_is_the_one_that_is_played(joining, seed, replan, delay):
    rng, player = np.random.default_rng(seed), PlayerConfig(joining)
    foresight, control = Foresight(ForesightConfig(player, delay * PERIOD_NS / 1e9)), Player(player)
    for number in range(4):
        stamp_ns = START_NS + number * replan * PERIOD_NS
        drawn = chunks(rng, 3)
        seen = foresight.executed(candidates(drawn, stamp_ns))
        chosen = int(rng.integers(3))
        foresight.chosen(ActionChunk(drawn[chosen], SPEC.action_spec, DT, stamp_ns))
        control.accept(drawn[chosen], DT, stamp_ns, stamp_ns + delay * PERIOD_NS)
        for i in range(delay, replan + delay):
            played = control.due(stamp_ns + round(i * DT * 1e9))
            np.testing.assert_allclose(seen[chosen, i], played.action, atol=1e-9)


def test_until_a_chunk_arrives_all_candidates_are_what_is_under_way():
    rng = np.random.default_rng(0)
    foresight = Foresight(ForesightConfig(PlayerConfig("latest"), 2 * PERIOD_NS / 1e9, steps=8))
    first, second = chunks(rng, 1), chunks(rng, 4)
    foresight.chosen(ActionChunk(first[0], SPEC.action_spec, DT, START_NS))
    seen = foresight.executed(candidates(second, START_NS + 4 * PERIOD_NS))
    assert seen.shape == (4, 8, 6)
    np.testing.assert_allclose(seen[:, :2], np.broadcast_to(first[0, 4:6], (4, 2, 6)), atol=1e-6)
    np.testing.assert_array_equal(seen[:, 2:], second[:, 2:8])


def test_with_nothing_under_way_a_candidate_is_what_it_is_and_one_that_is_not_finite_spoils_no_other():
    drawn = chunks(np.random.default_rng(0), 3)
    drawn[1, 5] = np.nan
    foresight = Foresight(ForesightConfig(PlayerConfig("temporal")))
    np.testing.assert_array_equal(foresight.executed(candidates(drawn, START_NS)), drawn)
    foresight.chosen(ActionChunk(drawn[0], SPEC.action_spec, DT, START_NS))
    seen = foresight.executed(candidates(drawn, START_NS + 4 * PERIOD_NS))
    assert np.isfinite(seen[[0, 2]]).all()
    foresight.restart()
    np.testing.assert_array_equal(foresight.executed(candidates(drawn, START_NS)), drawn)

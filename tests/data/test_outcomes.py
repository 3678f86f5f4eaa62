import dataclasses

import numpy as np
import pytest
from sample_episodes import memory_cache

from vla_rl.data.outcomes import endings, successes


def made(outcomes=(), **columns):
    cache = memory_cache([4, 3])
    episodes = [
        {**e, **({"outcome": o} if o else {})} for e, o in zip(cache.episodes, outcomes or ("", ""), strict=True)
    ]
    return dataclasses.replace(cache, episodes=tuple(episodes), columns={**cache.columns, **columns})


def flags(*rows):
    return np.isin(np.arange(7), rows)


def test_terminals_and_time_limits_are_read_apart_where_the_set_tells_them_apart():
    over = endings(made(**{"next.done": flags(3), "next.truncated": flags(6), "next.success": flags(3)}))
    assert np.flatnonzero(over.done).tolist() == [3]
    assert np.flatnonzero(over.truncated).tolist() == [6]
    assert over.success == (True, False)


def test_defect_3_a_done_that_lerobot_wrote_for_a_time_limit_is_no_terminal():
    """lerobot's record mode writes next.done = terminated or truncated, and has no next.truncated."""
    over = endings(made(**{"next.done": flags(3, 6), "next.success": flags(3)}))
    assert np.flatnonzero(over.done).tolist() == [3], "reading next.done as it stands would make row 6 a terminal"
    assert np.flatnonzero(over.truncated).tolist() == [6]


def test_without_any_word_of_success_a_done_with_a_reward_is_a_terminal():
    reward = np.zeros(7, np.float32)
    reward[6] = 1.0
    over = endings(made(**{"next.done": flags(3, 6), "next.reward": reward}))
    assert np.flatnonzero(over.done).tolist() == [6]
    assert over.success == (None, None)


def test_a_set_with_no_flags_ends_in_a_terminal_where_its_episodes_succeeded():
    over = endings(made(("success", "failure")))
    assert np.flatnonzero(over.done).tolist() == [3]
    assert np.flatnonzero(over.truncated).tolist() == [6]


@pytest.mark.parametrize(("told", "expected"), [(("success", ""), (True, True)), (("failure", ""), (False, True))])
def test_an_episodes_own_outcome_comes_first_and_a_flag_at_any_step_counts(told, expected):
    assert successes(made(told, **{"next.success": flags(1, 5)})) == expected


def test_an_episode_that_nobody_marked_is_no_failure_though_the_set_has_flags():
    assert successes(made(("unknown", "failure"), **{"next.success": flags()})) == (None, False)
    assert successes(made(("unknown", "unknown"), **{"next.success": flags(3)})) == (True, None)


def test_every_episode_ends_in_one_or_the_other():
    over = endings(made())
    assert (over.done ^ over.truncated)[[3, 6]].all()

"""Telling a slow machine from a bad policy."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from vla_rl.ros.measure.pace import Pace, lateness_ms
from vla_rl.ros.measure.stalls import Tick
from vla_rl.types import Source

RATE = 30.0
T = round(1e9 / RATE)
BEGUN = 5_000_000_000


@dataclass
class HeardToy:
    ticks: list
    statuses: list = field(default_factory=list)


def episode(sources="p" * 60, gaps=(), chunk=BEGUN + T):
    """Ticks by letter (p policy, h hold), with further time before those at `gaps`."""
    now, ticks = BEGUN, []
    for i, letter in enumerate(sources):
        now += T + (T if i in gaps else 0)
        ticks.append(Tick(now, np.zeros(6), Source.POLICY if letter == "p" else Source.HOLD, chunk, now, now))
    return HeardToy(ticks), BEGUN, now


def pace(*episodes):
    found = Pace(RATE)
    for heard, begun, ended in episodes:
        found.add(heard, begun, ended)
    return found


def test_an_episode_on_time_counts_nothing():
    found = pace(episode())
    assert (found.periods, found.control_overruns, found.held, found.old_chunks, found.slow) == (60, 0, 0, 0, False)


def test_waiting_for_the_first_chunk_is_no_waiting_in_the_episode():
    assert pace(episode("h" * 30 + "p" * 60)).held == 0


def test_waiting_for_a_chunk_and_late_commands_are_counted_and_called_slow():
    assert pace(episode("p" * 30 + "h" * 5 + "p" * 30)).held == 5
    assert pace(episode(gaps=(10, 20, 30))).control_overruns == 3
    assert pace(episode("p" * 30 + "h" * 5 + "p" * 30)).slow
    assert pace(episode(gaps=(10, 20, 30))).slow


def test_a_command_from_a_chunk_of_the_episode_before_is_found():
    assert pace(episode(chunk=BEGUN - 1)).old_chunks == 60


def test_what_comes_after_the_end_does_not_count():
    heard, begun, _ = episode()
    found = pace((heard, begun, heard.ticks[29].received_ns))
    assert found.periods == 30


def test_an_episode_in_which_the_policy_never_acted_adds_nothing():
    assert pace(episode("h" * 10)).to_dict()["periods"] == 0


@pytest.mark.parametrize("late_ms", [0.5, 5.0, 18.6, 28.0, 40.0, 90.0])
def test_one_late_command_makes_no_other_late(late_ms):
    times = BEGUN + np.arange(900) * T
    times[450] += round(late_ms * 1e6)
    times = np.maximum.accumulate(times + np.arange(900))  # those that it held up follow at once
    late = lateness_ms(times, T)
    assert late[450] == pytest.approx(late_ms, abs=0.01)
    held_up = int(late_ms * 1e6 // T)
    assert (np.delete(late, range(450, 451 + held_up)) < 0.01).all()


def test_lateness_is_against_the_earliest_of_a_window_and_missing_commands_are_none():
    rng = np.random.default_rng(0)
    jitter = rng.uniform(0.0, 2e6, 600).round().astype(int)
    kept = np.sort(rng.choice(600, 500, replace=False))
    late = lateness_ms((BEGUN + np.arange(600) * T + jitter)[kept], T)
    assert late == pytest.approx(jitter[kept] / 1e6, abs=0.1)
    assert late.min() == 0

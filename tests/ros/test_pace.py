"""Telling a slow machine from a bad policy."""

from dataclasses import dataclass, field

import numpy as np

from vla_rl.ros.measure.pace import Pace
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
        ticks.append(Tick(now, np.zeros(6), Source.POLICY if letter == "p" else Source.HOLD, chunk))
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

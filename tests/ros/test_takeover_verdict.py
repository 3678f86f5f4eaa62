"""Takeovers are judged from what control told: the judge itself, on runs that are known."""

import numpy as np
import pytest

from vla_rl.execute.arbiter import Edge
from vla_rl.execute.control import Tick
from vla_rl.execute.limits import Limits
from vla_rl.robot import arm_spec
from vla_rl.ros import messages
from vla_rl.ros.measure.takeover import judge, period
from vla_rl.types import Mode, Source

SPEC = arm_spec("so101")
LIMITS = Limits.from_spec(SPEC)
T = round(1e9 / SPEC.rate)
A, C = Mode.AUTONOMOUS, Mode.CORRECTING


def run(*told, chunk_after=1):
    """Periods: (mode, source), or (mode, source, edges before it)."""
    periods, number = [], 0
    for i, (mode, source, *edges) in enumerate(told):
        now = 10**18 + i * T
        news = tuple(Edge(number + k + 1, m, now - T // 2 + k) for k, m in enumerate(edges[0] if edges else ()))
        number += len(news)
        tick = Tick(np.zeros(6), None, source, mode, now - T // 2 + chunk_after, 0)
        periods.append(period(messages.step(tick, SPEC.names, now, news, number), SPEC.names, now + 10**6))
    return periods


def test_a_takeover_counts_from_its_edge_to_the_humans_command():
    verdict = judge(run((A, Source.POLICY), (C, Source.HUMAN, [C]), (C, Source.HUMAN)), LIMITS)
    assert verdict.takeovers == pytest.approx((T / 2e6 + 1.0,), abs=1e-3)
    assert (verdict.edges, verdict.unheard, verdict.slow, verdict.two_owners) == (1, 0, 0, 0)


def test_a_takeover_whose_next_command_is_a_hold_is_slow():
    assert judge(run((A, Source.POLICY), (C, Source.HOLD, [C]), (C, Source.HUMAN)), LIMITS).slow == 1


def test_edges_within_one_period_all_count_and_a_step_that_is_missed_is_noticed():
    told = run((A, Source.POLICY), (C, Source.HUMAN, [C, A, C]), (A, Source.HOLD, [A]), (A, Source.POLICY))
    assert judge(told, LIMITS).edges == 4
    assert judge([told[0], *told[2:]], LIMITS).unheard == 3


def test_a_policy_that_acts_while_a_human_has_the_arm_is_a_second_owner():
    assert judge(run((C, Source.POLICY), (A, Source.HUMAN), (C, Source.HUMAN)), LIMITS).two_owners == 2


@pytest.mark.parametrize(("after", "stale"), [(1, 0), (0, 1), (-5, 1)])
def test_an_action_for_an_observation_from_before_the_hand_back_is_stale(after, stale):
    verdict = judge(run((C, Source.HUMAN), (A, Source.RAMP, [A]), chunk_after=after), LIMITS)
    assert (verdict.hand_backs, verdict.stale) == (1, stale)


def test_a_leap_is_outside_the_limits():
    told = run((A, Source.POLICY), (A, Source.POLICY), (A, Source.POLICY))
    told[2].executed[0] = 1.0
    assert judge(told, LIMITS).too_fast >= 1
    told[2].executed[0] = 0.0
    assert judge(told, LIMITS).too_fast == 0

"""The robot's clock: late stamps don't move it back, steps are noticed, drift is followed, no wall clock is read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl.observe.clock import RobotClock

EPOCH, PERIOD = 1_700_000_000 * 10**9, 33_333_333


def fed(delays_ms, drift=0.0, clock=None):
    """A clock that was given stamps delayed so; returns it, how many steps it saw, and its errors [ms]."""
    clock, steps, errors = clock or RobotClock(), 0, []
    for k, delay in enumerate(delays_ms):
        true = EPOCH + round(k * PERIOD * (1 + drift))
        received = 5 * 10**9 + k * PERIOD + round(delay * 1e6)
        steps += clock.update(true, received)
        errors.append((clock.now_ns(received) - true - round(delay * 1e6)) * 1e-6)
    return clock, steps, np.array(errors)


@given(st.lists(st.floats(0, 40), min_size=5, max_size=80))
def test_delays_are_no_steps_and_the_estimate_is_never_ahead_of_the_robot(delays):
    _, steps, errors = fed(delays)
    assert steps == 0
    assert (errors <= 1e-3).all()
    assert (errors >= -max(delays) - 1e-3).all()


def test_one_late_message_does_not_move_the_clock_back():
    _, steps, errors = fed([1.0] * 10 + [400.0] + [1.0] * 10)
    assert steps == 0
    assert np.abs(errors + 1.0).max() < 1.0


@pytest.mark.parametrize("drift", [5e-4, -5e-4])
def test_a_drift_of_500_parts_per_million_is_followed_for_ten_minutes(drift):
    _, steps, errors = fed(np.random.default_rng(0).uniform(0, 5, 18_000), drift)
    assert steps == 0
    assert np.abs(errors).max() < 10.0


@pytest.mark.parametrize("step_s", [3600.0, 0.2, -0.05, -3600.0])
def test_a_step_is_noticed_at_the_first_stamp_and_followed(step_s):
    clock, _, _ = fed([1.0] * 30)
    stamp, received = EPOCH + 30 * PERIOD + round(step_s * 1e9), 5 * 10**9 + 30 * PERIOD
    assert clock.update(stamp, received)
    assert clock.now_ns(received) == stamp
    assert not clock.update(stamp + PERIOD, received + PERIOD)


def test_simulated_time_is_the_newest_stamp_however_fast_it_goes():
    clock = RobotClock(simulated=True)
    for k in range(1, 50):
        assert not clock.update(k * PERIOD, 10**9 + k * 1000)
        assert clock.now_ns(10**12) == k * PERIOD
    assert clock.update(PERIOD, 2 * 10**9)


def test_before_the_first_stamp_it_is_no_time_at_all():
    assert RobotClock().now_ns(123456789) == 0
    assert not RobotClock().started

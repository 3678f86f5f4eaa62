"""The periodic loop keeps an absolute schedule and owns up to what it missed."""

import itertools
import time

from vla_rl.execute.loop import PeriodicLoop


def test_periods_begin_on_an_absolute_schedule_and_are_never_early():
    loop, period = PeriodicLoop(0.01), 10_000_000
    starts = list(itertools.islice(loop.ticks(), 20))
    assert loop.periods == 20
    elapsed, late = starts[-1] - starts[0], loop.late_ms(100) * 1e6
    assert abs(elapsed - (19 + loop.overruns) * period) <= late + 1  # the first or the last was late, and no more
    assert loop.late_ms(99) >= loop.late_ms(50) >= 0.0


def test_a_period_that_takes_too_long_is_counted_and_those_it_covers_are_skipped():
    loop = PeriodicLoop(0.01)
    ticks = loop.ticks()
    first = next(ticks)
    time.sleep(0.055)
    second = next(ticks)
    assert loop.overruns >= 4
    assert second - first >= 50_000_000
    assert loop.done_ms(100) >= 55.0  # how long it took is known, though every beginning was on time

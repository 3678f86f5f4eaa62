"""What the judge of stalls must find: every kind of broken promise, in a trace made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl.robot import arm_spec
from vla_rl.ros.measure.stalls import Fault, Guard, Tick, judge
from vla_rl.types import Source

SPEC = arm_spec("so101")
T = 1e9 / SPEC.rate
MS = 1_000_000
SPAN = 500 * MS
BEGUN, ENDED = 10_000 * MS, 12_000 * MS
UPSTREAM = Fault("policy", "stop", BEGUN, ENDED)
CONTROL = Fault("control", "kill", BEGUN, ENDED)
CHUNK, NEWER = BEGUN - 40 * MS, ENDED + 10 * MS
LIMIT, OPEN_LOOP = 77.0, 500.0


def ticks(hold_at, resume_at=ENDED + 200 * MS, drift=0.0, grip=0.3, resumed=NEWER, leap=0.0):
    """A period each from before the fault on: the arm moves, holds from `hold_at`, goes on at `resume_at`."""
    found, arm = [], 0.1
    for i in range(-20, 80):
        now = BEGUN + 7 * MS + round(i * T)
        held = hold_at <= now < resume_at
        moves = 0.01 if not held else drift
        arm += moves + (leap if now >= resume_at and found[-1].source is Source.HOLD else 0.0)
        closed = grip if held else 0.3
        row = np.array([arm] * 5 + [closed])
        stamp = -1 if held else (CHUNK if now < resume_at else resumed)
        found.append(Tick(now, row, Source.HOLD if held else Source.POLICY, stamp))
    return found


def verdict(trace, fault=UPSTREAM, guards=()):
    return judge(fault, trace, guards, {CHUNK: SPAN, NEWER: SPAN}, SPEC)


def kept(found):
    return found.ok(LIMIT, OPEN_LOOP)


def test_a_hold_in_time_that_keeps_the_grip_and_forgets_old_chunks_is_kept():
    found = verdict(ticks(CHUNK + SPAN + 40 * MS))
    assert kept(found)
    assert 0 < found.due_ms <= 40 + T / 1e6


@given(st.integers(0, 400))
def test_the_hold_counts_from_the_last_action_that_fell_due(late_ms):
    found = verdict(ticks(CHUNK + SPAN + late_ms * MS))
    assert late_ms <= found.due_ms <= late_ms + T / 1e6
    assert kept(found) == (found.due_ms <= LIMIT)


def test_an_arm_that_never_holds_is_found():
    assert not verdict(ticks(hold_at=10**18)).held


def test_an_arm_that_creeps_while_it_holds_is_found():
    assert not verdict(ticks(CHUNK + SPAN, drift=1e-4)).still


def test_a_gripper_that_opens_while_the_arm_holds_is_found():
    assert not verdict(ticks(CHUNK + SPAN, grip=0.31)).grip_kept


def test_a_moving_gripper_may_brake_and_no_more():
    trace = ticks(CHUNK + SPAN)
    first = next(i for i, t in enumerate(trace) if t.source is Source.HOLD)
    before = replace(trace[first - 2], executed=trace[first - 2].executed - np.array([0, 0, 0, 0, 0, 0.03]))
    trace[first - 2] = before
    assert verdict(trace).grip_kept
    speed = 0.03 * SPEC.rate
    brake = 0.03 + speed**2 / (2 * SPEC.joints[-1].acceleration)
    for room, right in ((brake, True), (1.01 * brake, False)):
        moved = [replace(t, executed=t.executed + room * np.eye(6)[5]) if t.source is Source.HOLD else t for t in trace]
        assert verdict(moved).grip_kept is right


def test_a_command_from_a_chunk_older_than_the_fault_is_found():
    assert verdict(ticks(CHUNK + SPAN, resumed=BEGUN - 1)).old_chunks > 0


def test_a_leap_after_the_hold_is_found():
    assert verdict(ticks(CHUNK + SPAN)).jump < 1
    assert verdict(ticks(CHUNK + SPAN, leap=0.5)).jump > 1


@pytest.mark.parametrize(("trip_ms", "right"), [(60, True), (76, True), (110, False)])
def test_silence_of_control_is_judged_by_the_robots_own_watchdog(trip_ms, right):
    before = [t for t in ticks(hold_at=10**18) if t.received_ns <= BEGUN]
    after = [t for t in ticks(hold_at=0, resume_at=10**18) if t.received_ns > ENDED]
    last = before[-1].received_ns
    guards = [Guard(last, 0), Guard(last + 100 * MS, last + trip_ms * MS)]
    assert kept(verdict(before + after, CONTROL, guards)) is right
    assert not verdict(before + after, CONTROL, guards[:1]).held


@pytest.mark.parametrize(("grip", "right"), [(0.3, True), (0.31, True), (0.5, False)])
def test_after_a_silence_of_control_the_grip_goes_on_from_its_last_command(grip, right):
    before = [t for t in ticks(hold_at=10**18) if t.received_ns <= BEGUN]
    after = [replace(t, executed=np.array([0.5] * 5 + [grip])) for t in ticks(0, ENDED) if t.received_ns > ENDED]
    guards = [Guard(BEGUN + 100 * MS, before[-1].received_ns + 60 * MS)]
    assert verdict(before + after, CONTROL, guards).grip_kept is right


def test_without_a_word_of_control_before_the_fault_nothing_is_judged():
    with pytest.raises(ValueError, match="nothing was heard of control"):
        verdict([t for t in ticks(CHUNK + SPAN) if t.received_ns > BEGUN])


def test_periods_in_which_control_sends_nothing_are_the_robots_own_hold():
    trace = ticks(CHUNK + SPAN + 40 * MS)
    silent = [replace(t, executed=np.full(6, np.nan)) if t.source is Source.HOLD else t for t in trace]
    assert kept(verdict(silent))

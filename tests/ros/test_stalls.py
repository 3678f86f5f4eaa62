"""What the judge of stalls must find: every kind of broken promise, in a trace made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl.robot import arm_spec
from vla_rl.ros.measure.stalls import Fault, Moved, Tick, judge
from vla_rl.types import Source

SPEC = arm_spec("so101")
T = 1e9 / SPEC.rate
MS = 1_000_000
SPAN = 500 * MS
BEGUN, ENDED = 10_000 * MS, 12_000 * MS
UPSTREAM = Fault("policy", "stop", BEGUN, ENDED)
CONTROL, CUT = Fault("control", "kill", BEGUN, ENDED), Fault("control", "cut", BEGUN, ENDED)
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
        found.append(Tick(now, row, Source.HOLD if held else Source.POLICY, stamp, now, now))
    return found


def moved(trace):
    """What a robot makes of control's steps that obeys at once."""
    return [Moved(t.sent_ns + MS, t.executed, t.stamp_ns, False) for t in trace]


def verdict(trace, fault=UPSTREAM, moves=None):
    return judge(fault, trace, moved(trace) if moves is None else moves, {CHUNK: SPAN, NEWER: SPAN}, SPEC)


def silence(trip_ms=60, drift=0.0, grip=0.3, resumed=NEWER, again=0.3, leap=0.0):
    """Control's steps and what the robot executed, where control is silent and the robot holds by itself."""
    before = [t for t in ticks(hold_at=10**18) if t.sent_ns <= BEGUN]
    now, arm, holds = before[-1].sent_ns + trip_ms * MS, before[-1].executed[0], []
    while now < ENDED + 200 * MS:
        holds.append(Moved(now, np.array([arm] * 5 + [grip]), now, True))
        now, arm = now + round(T), arm + drift
    rows = [np.array([arm + leap + 0.01 * i] * 5 + [again]) for i in range(20)]
    after = [Tick(t, row, Source.POLICY, resumed, t, t) for i, row in enumerate(rows) for t in [now + round(i * T)]]
    return [*before, *after], [*moved(before), *holds, *moved(after)]


def control_verdict(fault=CONTROL, **story):
    trace, moves = silence(**story)
    return verdict(trace, fault, moves)


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


@pytest.mark.parametrize(("trip_ms", "right"), [(60, True), (76, True), (78, False), (110, False)])
def test_silence_of_control_is_judged_by_the_robots_own_hold(trip_ms, right):
    assert kept(control_verdict(trip_ms=trip_ms)) is right
    trace, moves = silence()
    assert not verdict(trace, CONTROL, [m for m in moves if not m.held]).held


@pytest.mark.parametrize(
    ("story", "broken"),
    [
        ({"drift": 1e-4}, {"still": False}),
        ({"grip": 0.31}, {"grip_kept": False}),
        ({"again": 0.5}, {"grip_kept": False}),
        ({"leap": 0.5}, {"jump": pytest.approx(0.51 * SPEC.rate / SPEC.joints[0].velocity, abs=0.2)}),
        ({"resumed": BEGUN - 1}, {"old_chunks": 20}),
    ],
)
def test_every_promise_that_the_robots_hold_breaks_is_found(story, broken):
    good, bad = control_verdict(), control_verdict(**story)
    assert kept(good)
    assert not kept(bad)
    assert {key: getattr(bad, key) for key in broken} == broken


def test_after_a_silence_the_grip_goes_on_from_what_the_robot_has_whatever_control_asked_for_meanwhile():
    trace, moves = silence(grip=0.3, again=0.3)
    unheard = [replace(t, executed=np.array([0.5] * 6), sent_ns=BEGUN + i * 33 * MS, stamp_ns=BEGUN + i * 33 * MS)
               for i, t in enumerate(trace[-6:], 1)]  # fmt: skip
    assert kept(verdict([*trace, *unheard], CUT, moves))
    asked = [replace(t, executed=np.array([t.executed[0]] * 5 + [0.5])) if t.sent_ns > ENDED else t for t in trace]
    assert not verdict(asked, CUT, moves).grip_kept


def test_steps_that_are_heard_late_are_judged_by_when_they_were_said():
    trace, moves = silence()
    late = [replace(trace[10], received_ns=ENDED + 50 * MS, sent_ns=BEGUN + 5 * MS, stamp_ns=BEGUN + 5 * MS)] * 6
    found = verdict([*trace, *late], CUT, moves)
    assert found.old_chunks == 0
    assert kept(found)


def test_an_old_command_that_reaches_the_arm_after_the_fault_is_found_whoever_heard_of_its_step():
    trace, moves = silence()
    last = moves[-1]
    for stamp in (BEGUN - MS, trace[10].stamp_ns):
        assert verdict(trace, CUT, [*moves, replace(last, stamp_ns=stamp)]).old_chunks == 1


def test_without_a_word_of_control_before_the_fault_nothing_is_judged():
    with pytest.raises(ValueError, match="nothing was heard of control"):
        verdict([t for t in ticks(CHUNK + SPAN) if t.sent_ns > BEGUN])


def test_periods_in_which_control_sends_nothing_are_the_robots_own_hold():
    trace = ticks(CHUNK + SPAN + 40 * MS)
    silent = [replace(t, executed=np.full(6, np.nan)) if t.source is Source.HOLD else t for t in trace]
    assert kept(verdict(silent))

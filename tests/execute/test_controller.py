"""The controller: chunks become motion, everything else becomes a hold, and no command breaks a limit."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from controlled_arm import HOME, OWN, PERIOD, Arm, line, moving
from execute_arms import SO101, serial_arm, violations
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl.execute.config import ControlConfig
from vla_rl.execute.control import Controller
from vla_rl.types import ActionKind, ActionSpec, Mode, Source


def assert_still(ticks):
    np.testing.assert_array_equal([t.command for t in ticks], np.broadcast_to(ticks[0].command, (len(ticks), 6)))


def test_a_chunk_is_executed_action_by_action_and_unchanged():
    arm = Arm()
    arm.see()
    actions = line()
    arm.give(actions, candidate=3)
    ticks = arm.run(15)
    np.testing.assert_array_equal([t.command for t in ticks], actions[:15])
    assert [t.index for t in ticks] == list(range(15))
    assert {(t.source, t.mode, t.candidate, t.hold, t.clamped) for t in ticks} == {
        (Source.POLICY, Mode.AUTONOMOUS, 3, "", ())
    }
    np.testing.assert_allclose([t.age_s for t in ticks], np.arange(15) / 30, atol=1e-6)


def test_nothing_is_sent_before_anybody_has_acted():
    arm = Arm()
    assert {(t.command is None, t.source, t.hold) for t in arm.run(5)} == {(True, Source.HOLD, "no_chunk")}
    assert Controller(SO101).tick(0).hold == "inactive"


@pytest.mark.parametrize("length", [1, 2, 5, 11])
def test_silence_from_upstream_holds_within_two_periods_of_the_last_action_due(length):
    arm = Arm()
    arm.see()
    arm.give(line(length=length))
    ticks = arm.run(length + 3)
    last = length - 1
    assert ticks[last].source is Source.POLICY
    assert all(tick.hold == "no_chunk" for tick in ticks[last + 2 :])


def test_motion_goes_on_for_no_longer_than_max_open_loop_after_the_newest_observation():
    arm = Arm(max_open_loop_s=0.2)
    arm.see()
    arm.give(line(length=60))
    held = [tick.hold for tick in arm.run(12)]
    assert held == [""] * 7 + ["no_chunk"] * 5  # ages 0 to 6 periods are within 0.2 s


def test_a_hold_brakes_latches_once_and_keeps_the_grippers_last_command():
    arm = moving()
    arm.give(line(arm.joints, joint=5, step=-0.03, length=2))
    arm.run(6)
    grip = arm.joints[5]
    arm.joints = arm.joints + np.array([0.01, -0.02, 0.015, 0, 0, 0.3])  # it sags; the fingers stay on a thing
    measured = arm.joints.copy()
    for _ in range(40):
        arm.see()
        arm.commands.append(arm.controller.tick(arm.time).command)
        arm.time += PERIOD
    np.testing.assert_allclose(arm.commands[-1][:5], measured[:5], atol=1e-6)
    assert abs(arm.commands[-1][5] - grip) < 0.05
    arm.joints = arm.joints + 0.02  # once latched, it does not follow the arm
    arm.see()
    np.testing.assert_allclose(arm.controller.tick(arm.time).command, arm.commands[-1], atol=1e-9)


def test_a_robot_that_is_not_heard_is_sent_nothing_and_holds_by_itself_with_the_grip_it_has():
    arm = moving()
    arm.silent = True
    arm.give(line(arm.joints, joint=5, step=-0.02, length=16))
    ticks = arm.run(40)
    assert violations(arm.controller.limits, np.array([t.command for t in ticks if t.command is not None])) == []
    assert {(t.command is None, t.hold) for t in ticks[-20:]} == {(True, "joints_stale")}
    kept = HOME + 0.1
    arm.controller.robot_keeps(kept)  # the robot heard less than what was sent, and kept its grip
    arm.silent = False
    assert (arm.tick().hold, arm.ticks[-1].command) == ("no_chunk", None)
    assert arm.give(np.where(np.arange(6) == 5, kept, line(arm.joints))) == ""
    assert arm.tick().command[5] == kept[5]


def test_chunks_that_a_cut_network_kept_back_are_dropped_and_held_against_nobody():
    arm = moving()
    arm.silent = True
    arm.run(40)
    backlog = [line()] * 5
    assert all("not heard" in arm.give(chunk, age=20 - i) for i, chunk in enumerate(backlog))
    arm.silent = False
    arm.see()
    assert all("before all chunks" in arm.give(chunk, age=20 - i) for i, chunk in enumerate(backlog))
    assert arm.controller.mode is Mode.AUTONOMOUS
    assert arm.give(line(arm.joints)) == ""


def test_what_the_robot_keeps_changes_nothing_while_somebody_acts_and_is_believed_within_the_limits_only():
    arm = moving()
    before = arm.joints
    arm.controller.robot_keeps(HOME + 0.3)
    assert np.abs(arm.tick().command - before)[5] < 1e-9
    fresh = Arm()
    fresh.controller.robot_keeps(np.full(6, 1e9))
    fresh.controller.robot_keeps(np.full(6, np.nan))
    fresh.see()
    fresh.give(line())
    limits = fresh.controller.limits
    assert limits.low[5] <= fresh.tick().command[5] <= limits.high[5]


def test_a_tick_that_a_stall_kept_from_being_sent_is_overdue_and_the_one_instead_of_it_is_a_hold():
    arm = moving()
    controller = arm.controller
    arm.tick()
    assert not controller.overdue(arm.time)
    later = arm.time + 5 * PERIOD
    assert controller.overdue(later)
    instead = controller.tick(later)
    assert (instead.command, instead.source, controller.overdue(later)) == (None, Source.HOLD, False)
    assert controller.counters["stalls"] == 1


def test_after_a_stall_of_control_itself_old_chunks_are_void_and_the_arm_starts_where_it_is():
    arm = moving()
    arm.time += 20 * PERIOD
    arm.joints = HOME + 0.3
    assert arm.tick().command is None
    assert "before all chunks" in arm.give(line(), age=3)
    arm.time += PERIOD
    arm.see()
    assert arm.give(line(arm.joints)) == ""
    first = arm.tick()
    assert first.source is Source.POLICY
    np.testing.assert_allclose(first.command[:5], (HOME + 0.3)[:5], atol=1e-9)


def test_after_a_silence_of_the_policy_its_first_new_command_passes_the_limits():
    arm = moving()
    arm.run(30)
    assert "s old" in arm.give(line(), age=30)
    arm.give(HOME + 0.5 + line(np.zeros(6)))
    arm.run(15)
    assert violations(arm.controller.limits, np.array(arm.commands)) == []


BAD = {
    "non_finite": lambda arm: arm.give(np.where(np.eye(16, 6) > 0, np.nan, line())),
    "wrong_size": lambda arm: arm.give(line()[:, :5]),
    "unknown_joint": lambda arm: arm.give(line(), spec=replace(OWN, names=("elbow", *OWN.names[1:]))),
    "out_of_range": lambda arm: arm.give(np.degrees(line())),
    "non_monotone": lambda arm: arm.give(line(), dt=-0.03),
    "stale": lambda arm: arm.give(line(), age=30),
    "future": lambda arm: arm.give(line(), age=-3),
    "older": lambda arm: arm.give(line(), age=7),
}  # fmt: skip


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_chunk_is_rejected_whole_and_counted_and_three_in_a_row_latch_a_stop(reason):
    arm = moving()
    assert BAD[reason](arm)
    assert BAD[reason](arm)
    assert arm.give(line(arm.joints)) == ""  # a good one in between
    BAD[reason](arm)
    BAD[reason](arm)
    assert arm.controller.mode is Mode.AUTONOMOUS
    BAD[reason](arm)
    assert arm.controller.mode is Mode.STOPPED
    assert "3 chunks rejected in a row" in arm.controller.stop_reason
    assert arm.controller.counters[f"rejected/{reason}"] == 5
    assert arm.tick().hold.startswith("stopped: 3 chunks")


def test_chunks_before_the_first_joint_states_are_dropped_and_held_against_nobody():
    arm = Arm()
    for _ in range(5):
        assert arm.give(line()) == "no joints have been measured yet"
    arm.see()
    assert arm.give(line()) == ""
    assert arm.tick().source is Source.POLICY


@pytest.mark.parametrize("name", ["joint_absolute", "joint_relative"])
def test_chunks_in_lerobots_names_units_and_order_mean_the_same(name):
    """Degrees and percent, last joint first."""
    lerobot, kind = SO101.lerobot_action_spec, ActionKind(name)
    targets = line()
    values = SO101.to_lerobot(targets) - (SO101.to_lerobot(HOME) if kind is ActionKind.JOINT_RELATIVE else 0.0)
    parts = [tuple(reversed(getattr(lerobot, part))) for part in ("names", "units", "low", "high")]
    arm = Arm()
    arm.see()
    assert arm.give(values[:, ::-1], spec=ActionSpec(kind, *parts)) == ""
    np.testing.assert_allclose([t.command for t in arm.run(10)], targets[:10], atol=1e-12)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_step_neither_moves_the_arm_nor_disables_the_watchdog(hours):
    arm = moving()
    arm.offset += hours * 3600 * 10**9
    ticks = arm.run(20)
    assert {tick.hold for tick in ticks} == {"no_chunk"}
    assert_still(ticks[-10:])
    assert arm.give(line(arm.joints)) == ""
    assert arm.run(3)[-1].source is Source.POLICY
    assert arm.run(20)[-1].hold == "no_chunk"
    assert arm.controller.counters["clock_steps"] == 1


def test_joints_that_jump_as_at_a_simulators_reset_void_everything_and_move_nothing():
    arm = moving()
    arm.joints = HOME - 0.8
    assert arm.tick().command is None
    assert arm.controller.counters["joints_jumped"] == 1
    arm.see()
    arm.time += PERIOD
    arm.see()
    arm.give(line(arm.joints))
    np.testing.assert_allclose(arm.tick().command[:5], (HOME - 0.8)[:5], atol=1e-9)


def test_too_large_a_following_error_is_a_reason_to_hold():
    arm = moving()
    blocked = arm.joints.copy()
    for k in range(40):
        if k % 5 == 0 and k < 20:
            arm.see()
            arm.give(line(HOME + k * 0.05, step=0.05))
        arm.joints = blocked + 0.0
        tick = arm.tick()
        arm.joints = blocked
    assert arm.controller.counters["holds/following_error"] >= 1
    np.testing.assert_allclose(tick.command[:5], blocked[:5], atol=0.02)
    assert violations(arm.controller.limits, np.array(arm.commands)) == []


def test_bounds_may_be_tightened_while_active_but_not_loosened():
    arm = moving()
    arm.controller.configure(ControlConfig(max_open_loop_s=0.3))
    with pytest.raises(ValueError, match="max_open_loop_s, max_following_error can not be loosened"):
        arm.controller.configure(ControlConfig(max_open_loop_s=0.4, max_following_error=1.0))
    arm.controller.deactivate()
    arm.controller.configure(ControlConfig(max_open_loop_s=0.4, max_following_error=1.0))


@pytest.mark.parametrize(("name", "value"), [("ramp_s", 0.0), ("max_future_s", np.nan), ("max_rejections", 0)])
def test_a_bound_that_is_none_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        ControlConfig(**{name: value})


def test_a_robot_without_limits_does_not_move():
    joints = (replace(SO101.joints[0], velocity=np.inf), replace(SO101.joints[1], high=-9.0), *SO101.joints[2:])
    with pytest.raises(ValueError, match=r"shoulder_pan.velocity is inf; shoulder_lift runs from"):
        Controller(replace(SO101, joints=joints))
    with pytest.raises(ValueError, match="no kinematic chain: it lacks tip"):
        Controller(replace(SO101, tip=None))


HAPPENINGS = ["chunk", "chunk", "chunk", "old", "nan", "stop", "reset", "pause", "resume", "take", "back", "human"]
HAPPENINGS += ["blind", "stall", "jump", "step", "tick", "tick"]


def test_control_loads_no_heavy_library():
    code = "import sys, vla_rl.execute.control, vla_rl.execute.loop, vla_rl.robot; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "mujoco", "mink", "rclpy", "lerobot", "scipy"} & set(loaded)


events = st.lists(st.sampled_from(HAPPENINGS), min_size=10, max_size=60)


@given(events, st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_whatever_happens_commands_keep_every_limit_between_restarts(story, seed, slow):
    spec = serial_arm("slow", joints=5) if slow else SO101
    start = np.append(np.full(5, 0.3), 0.5) if slow else HOME
    rng, arm = np.random.default_rng(seed), Arm(spec, start)
    act = {
        "chunk": lambda: arm.give(arm.joints + np.cumsum(rng.normal(0, 0.1, (16, 6)), 0), spec=spec.action_spec),
        "old": lambda: arm.give(np.tile(arm.joints, (16, 1)), age=rng.integers(5, 40), spec=spec.action_spec),
        "nan": lambda: arm.give(np.full((16, 6), np.nan), spec=spec.action_spec),
        "stop": arm.controller.stop, "reset": arm.controller.reset_stop, "pause": arm.controller.pause,
        "resume": arm.controller.resume, "take": lambda: arm.controller.take_over(True),
        "back": lambda: arm.controller.take_over(False), "tick": lambda: None,
        "human": lambda: arm.controller.human(arm.joints + rng.normal(0, 0.3, 6), arm.time),
        "blind": lambda: setattr(arm, "silent", not arm.silent),
        "stall": lambda: setattr(arm, "time", arm.time + 10 * PERIOD),
        "jump": lambda: setattr(arm, "joints", start + rng.normal(0, 0.05, 6)),
        "step": lambda: setattr(arm, "offset", arm.offset + int(rng.integers(-(10**10), 10**10))),
    }  # fmt: skip
    runs, sent = [[]], None
    for event in story:
        act[event]()
        for _ in range(int(rng.integers(1, 6))):
            tick = arm.tick()
            began = arm.seen if sent is None else np.where(arm.controller.limits.gripper, sent, arm.seen)
            if tick.command is None:
                runs.append([])
            else:
                runs[-1] += [began, tick.command] if not runs[-1] else [tick.command]
                sent = tick.command
    for run in runs:
        if run:
            assert violations(arm.controller.limits, np.array(run)) == []

"""Who may move the arm: a stop, a human and a hand-back, and that none of them breaks a limit."""

import numpy as np
from controlled_arm import HOME, human_drives, line, moving
from execute_arms import violations

from vla_rl.types import Mode, Source


def test_stop_latches_and_only_reset_stop_with_fresh_joints_clears_it_without_motion():
    arm = moving()
    arm.controller.stop("the red button")
    arm.run(30)
    for change in (lambda: arm.controller.take_over(True), arm.controller.pause, arm.controller.resume):
        ok, why = change()
        assert not ok
        assert why
    arm.silent = True
    arm.run(20)
    assert arm.controller.reset_stop() == (False, "no fresh observation: the stop stays")
    arm.silent = False
    arm.run(2)
    assert arm.controller.reset_stop() == (True, "")
    assert arm.give(line(arm.joints), age=1) != ""  # of an observation before
    assert {tick.hold for tick in arm.run(5)} == {"paused"}
    assert arm.controller.resume() == (True, "")
    arm.run(1)
    arm.see()
    arm.give(line(arm.joints))
    assert arm.run(2)[-1].source is Source.POLICY


def test_a_stop_outlives_deactivation():
    arm = moving()
    arm.controller.stop()
    arm.controller.deactivate()
    arm.controller.activate()
    assert arm.tick().hold.startswith("stopped")


def test_a_human_takes_over_and_a_lost_device_holds_and_never_falls_back_to_the_policy():
    arm = moving()
    assert arm.controller.take_over(True) == (True, "")
    arm.run(1)
    ticks = human_drives(arm, 30)
    assert ticks[-1].source is Source.HUMAN
    for _ in range(30):
        arm.see()
        arm.give(line(arm.joints))
        tick = arm.tick()
    assert (tick.hold, tick.mode) == ("human_silent", Mode.CORRECTING)
    assert [t.source for t in arm.ticks[-28:]] == [Source.HOLD] * 28


def test_proposals_go_on_while_a_human_drives():
    arm = moving()
    arm.controller.take_over(True)
    arm.run(1)
    arm.see()
    arm.give(line(arm.joints))
    assert all(tick.proposed is not None for tick in human_drives(arm, 5))


def test_a_hand_back_waits_for_an_observation_after_it_and_ramps_from_where_the_arm_is():
    arm = moving()
    arm.controller.take_over(True)
    arm.run(1)
    human_drives(arm, 20)
    assert arm.give(line(arm.joints)) == ""
    arm.controller.take_over(False)
    assert {tick.hold for tick in arm.run(8)} == {"no_chunk"}
    here = arm.joints.copy()
    arm.see()
    arm.give(np.broadcast_to(here + 0.2, (16, 6)))
    ramp = arm.run(14)
    assert {tick.source for tick in ramp} == {Source.RAMP}
    np.testing.assert_allclose(ramp[0].command, here, atol=1e-6)
    assert (np.diff([t.command[0] for t in ramp]) >= -1e-9).all()
    assert violations(arm.controller.limits, np.array(arm.commands)) == []


def test_a_humans_command_that_is_no_such_thing_is_refused_by_name():
    arm = moving()
    assert "6 finite joint targets" in arm.controller.human(np.full(6, np.nan), arm.time)
    assert "6 finite joint targets" in arm.controller.human(np.zeros(5), arm.time)
    assert "shoulder_lift, elbow_flex" in arm.controller.human(np.degrees(HOME), arm.time)
    assert arm.controller.counters["human_rejected"] == 3

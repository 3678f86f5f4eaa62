"""Changes of hands at any time, also several within one period, against a reference that knows only modes."""

import numpy as np
import pytest
from controlled_arm import HOME, PERIOD, Arm, human_drives, line, moving
from execute_arms import violations
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vla_rl.types import ActionChunk, Mode, Source

A, C, P, S = Mode.AUTONOMOUS, Mode.CORRECTING, Mode.PAUSED, Mode.STOPPED
ALLOWED = {A: {Source.POLICY, Source.RAMP, Source.HOLD}, C: {Source.HUMAN, Source.RAMP, Source.HOLD}}
MAX_AGE = 50_000_000


class Hands(RuleBasedStateMachine):
    """A controller whose requests, devices and policy come in any order, at any phase of a period."""

    @initialize()
    def begin(self):
        self.arm = Arm()
        self.mode, self.told, self.expected, self.since = A, [], [], 0
        self.said = {}  # publisher: when it was taken last
        self.driver = None
        self.ticks()

    def ticks(self, count=1):
        for _ in range(count):
            tick = self.arm.tick()
            self.told += self.arm.controller.new_edges()
            self.check(tick)

    def check(self, tick):
        assert tick.mode is self.mode
        assert tick.source in ALLOWED.get(self.mode, {Source.HOLD})
        if tick.source is Source.POLICY or (self.mode is A and tick.source is Source.RAMP):
            assert tick.chunk_stamp_ns > self.since
        if self.mode is C:
            driving = self.driver is not None and self.arm.time - PERIOD - self.said[self.driver] <= MAX_AGE
            assert (tick.source is not Source.HOLD) == driving

    def ask(self, answer, to):
        """A request, which the reference expects to be granted and to lead to a mode, or not (None)."""
        assert answer[0] == (to is not None)
        assert answer[0] or answer[1]
        if to is not None and to is not self.mode:
            self.expected.append(to)
        if to is not None:
            self.mode, self.since = to, self.arm.stamp

    @rule(on=st.booleans())
    def take_over(self, on):
        fresh = [p for p, at in self.said.items() if self.arm.time - at <= MAX_AGE]
        driven = self.mode is C and self.driver in fresh
        to = None if self.mode is S or (on and driven) else C if on else A if self.mode is C else None
        self.ask(self.arm.controller.take_over(on, self.arm.time), to)
        if to is C:
            self.driver = self.last if self.last in fresh else None
            self.said = {self.driver: self.said[self.driver]} if self.driver else {}
        elif to:
            self.said, self.driver = {}, None

    last = None

    @rule(request=st.sampled_from(["pause", "resume", "stop"]))
    def change(self, request):
        to = {
            "pause": None if self.mode is S else P,
            "resume": {P: A, A: A}.get(self.mode),
            "stop": S,
        }[request]
        controller = self.arm.controller
        asked = (
            controller.stop(at_ns=self.arm.time) if request == "stop" else getattr(controller, request)(self.arm.time)
        )
        if request == "resume" and self.mode is A:
            assert asked[0]  # nothing to resume; nothing is thrown away that was not
        self.ask(asked, to)
        if to is not None:
            self.said, self.driver = {}, None

    @precondition(lambda self: self.mode is S)
    @rule()
    def reset_stop(self):
        self.ticks(2)
        self.ask(self.arm.controller.reset_stop(self.arm.time), P)
        self.said, self.driver = {}, None

    @rule(who=st.sampled_from([b"leader", b"page"]), away=st.floats(-0.1, 0.1))
    def command(self, who, away):
        refused = self.mode is C and self.driver not in (None, who)
        reason = self.arm.controller.human(self.arm.joints + away, self.arm.time, who)
        assert bool(reason) == refused
        if not refused:
            self.said[who], self.last = self.arm.time, who
            self.driver = who if self.mode is C else None

    answered = 0

    @rule()
    def chunk(self):
        self.arm.see()
        if self.arm.stamp > max(self.answered, self.since):
            self.answered = self.arm.stamp
            assert self.arm.give(line(self.arm.joints, step=0.02)) == ""

    @rule(share=st.floats(0.01, 0.4))
    def wait_within_a_period(self, share):
        self.arm.time += round(share * PERIOD)

    @rule(count=st.integers(1, 8))
    def live(self, count):
        self.ticks(count)

    @invariant()
    def every_edge_is_told_once_in_order(self):
        known = self.told + list(self.arm.controller.new_edges())
        self.told = known
        assert [edge.mode for edge in known] == self.expected
        assert [edge.number for edge in known] == list(range(1, len(known) + 1))
        assert (np.diff([edge.stamp_ns for edge in known]) >= 0).all()

    def teardown(self):
        if self.arm.commands:
            assert violations(self.arm.controller.limits, np.array(self.arm.commands)) == []


Hands.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestHands = Hands.TestCase


def test_the_command_after_a_takeover_is_the_humans_whose_device_was_heard_just_before():
    arm = moving()
    arm.controller.human(arm.joints, arm.time - PERIOD // 2)
    assert arm.controller.take_over(True, arm.time - 1) == (True, "")
    assert arm.tick().source is Source.HUMAN


def test_a_second_human_is_refused_while_the_first_drives_and_may_once_that_one_is_silent():
    arm = moving()
    arm.controller.human(arm.joints, arm.time, b"leader")
    arm.controller.take_over(True, arm.time)
    granted, why = arm.controller.take_over(True, arm.time)
    assert not granted
    assert "another human" in why
    assert "another device" in arm.controller.human(arm.joints, arm.time, b"page")
    arm.run(4)
    assert arm.tick().hold == "human_silent"
    assert arm.controller.take_over(True, arm.time) == (True, "")
    assert arm.controller.human(arm.joints, arm.time, b"page") == ""
    assert arm.tick().source is Source.HUMAN


@pytest.mark.parametrize("fault", ["a stall", "an arm that is stuck", "a step of the robot's clock"])
def test_no_other_device_gets_the_arm_by_a_fault_that_makes_control_begin_anew(fault):
    arm = moving()
    arm.controller.human(arm.joints, arm.time, b"leader")
    arm.controller.take_over(True, arm.time)
    assert arm.tick().source is Source.HUMAN
    if fault == "a stall":
        arm.time += 10 * PERIOD
    elif fault == "an arm that is stuck":
        for _ in range(40):
            stuck = arm.joints
            arm.controller.human(HOME + 1.0, arm.time, b"leader")
            arm.tick()
            arm.joints = stuck
        assert arm.controller.counters["holds/following_error"]
    else:
        arm.offset -= 10**9
    arm.tick()
    assert "another device" in arm.controller.human(HOME - 0.5, arm.time, b"page")
    assert arm.controller.human(arm.joints, arm.time, b"leader") == ""


@pytest.mark.parametrize("away", [1.0, -1.0, 0.5])
def test_a_leader_far_away_is_met_slowly_and_followed_freely_from_then_on(away):
    arm = moving()
    arm.run(40)  # at rest
    target = arm.joints + away * (np.arange(6) == 0)
    arm.controller.take_over(True, arm.time)
    path = [arm.joints[0]]
    while True:
        arm.controller.human(target, arm.time)
        tick = arm.tick()
        path.append(arm.joints[0])
        if tick.source is Source.HUMAN:
            break
        assert tick.source is Source.RAMP
    pace = np.abs(np.diff(path[:-1])) / arm.controller.limits.dt
    assert pace.max() <= arm.controller.config.max_align_speed * 1.001
    assert abs(target[0] - path[-2]) <= arm.controller.config.max_human_gap + 1e-9
    assert {t.source for t in human_drives(arm, 10)} == {Source.HUMAN}


def test_after_a_hand_back_a_chunk_of_an_observation_before_it_never_moves_the_arm():
    """lerobot #3747: the chunk that was being computed during the correction snaps the arm back."""
    arm = moving()
    arm.controller.take_over(True, arm.time)
    human_drives(arm, 20)
    arm.see()
    seen = arm.stamp
    arm.time += PERIOD // 2
    arm.controller.take_over(False, arm.time)
    late = arm.controller.chunk(_chunk(arm, HOME, seen), 0, arm.time)
    assert "before all chunks were discarded" in late
    assert {tick.source for tick in arm.run(5)} == {Source.HOLD}


def _chunk(arm, start, stamp):
    return ActionChunk(line(start), arm.controller.spec.action_spec, 1 / 30, stamp)

"""A recorded episode gives the same candidates, choices and commands again, bit by bit, or it is said where not."""

from dataclasses import replace

import numpy as np
import pytest

from vla_rl.execute.config import ControlConfig
from vla_rl.execute.control import Controller
from vla_rl.execute.foresight import Foresight, ForesightConfig
from vla_rl.execute.player import PlayerConfig
from vla_rl.record import cdr
from vla_rl.record.mcap_file import Entry
from vla_rl.record.tape import READERS, Drawn, Joints, Tape, Values
from vla_rl.robot import arm_spec
from vla_rl.rollout.retrace import AsRecorded, retrace_steering
from vla_rl.rollout.retrace_gate import retrace_gate
from vla_rl.ros import messages
from vla_rl.steer.steering import Steering, SteeringConfig
from vla_rl.types import ActionChunk, Candidates, Mode, Source

SPEC = arm_spec("so101")
HOME, PERIOD = np.clip(np.zeros(6), SPEC.low, SPEC.high), round(1e9 / SPEC.rate)
START, BOOT = 1_700_000_000 * 10**9, 77 * 10**9  # the robot's clock and the controller's, at the beginning


class Life:
    """A controller with an arm, a policy and a human, and the tape that its recorder would have."""

    def __init__(self, seed, config, vigour):
        self.rng, self.tape, self.vigour = np.random.default_rng(seed), Tape(), vigour
        self.controller = Controller(SPEC, config)
        self.controller.activate()
        self.arm, self.now = HOME.copy(), 0

    def live(self, periods, asks=lambda t: None, human=lambda t: False):
        for t in range(periods):
            self.now = t * PERIOD + int(self.rng.integers(0, 300_000))
            if ask := asks(t):
                ask(self.controller, BOOT + self.now - 5_000_000)
            self.sense()
            if human(t):
                self.drive(t)
            if t % 6 == 2:
                self.plan(t)
            self.tick()

    def sense(self):
        stamp = START + self.now - 4_000_000
        self.tape.joints.append(Joints(stamp, stamp, self.arm.copy()))
        late = int(self.rng.integers(0, 2_000_000))
        self.controller.observe(self.arm.copy(), stamp, BOOT + self.now - 4_000_000 + late)

    def drive(self, t):
        stamp = START + self.now - 2_000_000
        targets = self.arm + 0.03 * np.sin(0.3 * t)
        self.tape.human.append(Joints(stamp, stamp, targets))
        self.controller.human(targets, BOOT + self.now - 1_000_000, b"", stamp)

    def plan(self, t):
        joints, dt = self.tape.joints[-1], 1 / SPEC.rate
        vigour = self.vigour if t > 30 else 0.3
        actions = joints.values + vigour * np.cumsum(self.rng.normal(size=(16, 6)), 0) * dt
        self.tape.chosen.append(Drawn(joints.stamp_ns, joints.stamp_ns, actions[None], dt, "2"))
        chunk = ActionChunk(actions, SPEC.action_spec, dt, joints.stamp_ns)
        self.controller.chunk(chunk, 2, BOOT + self.now - 500_000)

    def tick(self):
        tick = self.controller.tick(BOOT + self.now)
        edges, stamp = self.controller.new_edges(), self.controller.now_ns(BOOT + self.now)
        message = messages.step(tick, SPEC.names, stamp, edges, edges[-1].number if edges else 0)
        READERS["control/step"](self.tape, Entry("control/step", cdr.JOINT_STATE, b"", stamp), message, SPEC.names)
        if tick.command is not None:
            self.arm = self.arm + 0.7 * (tick.command - self.arm)


ASKS = {
    "alone": {},
    "corrected": {
        40: lambda c, at: c.take_over(True, at),
        90: lambda c, at: c.take_over(False, at),
        120: lambda c, at: c.take_over(True, at),
        121: lambda c, at: c.take_over(False, at),
    },
    "interrupted": {
        50: lambda c, at: c.pause(at),
        80: lambda c, at: c.resume(at),
        110: lambda c, at: c.stop("asked for", at),
        130: lambda c, at: c.reset_stop(at),
        140: lambda c, at: c.resume(at),
    },
}


@pytest.mark.parametrize("story", ASKS)
@pytest.mark.parametrize("joining", ["latest", "temporal"])
@pytest.mark.parametrize("vigour", [0.3, 4.0])
def test_every_command_comes_out_again(story, joining, vigour):
    config, found = ControlConfig(joining=joining), 0
    for seed in range(2):
        life = Life(seed, config, vigour)
        life.live(180, lambda t: ASKS[story].get(t), lambda t: 30 <= t < 150)
        part = retrace_gate(life.tape, SPEC, config)
        assert part.differences == []
        assert part.equal == part.compared
        found += part.compared
    assert found > 100


def test_a_command_that_was_another_is_told_by_its_time():
    life = Life(0, ControlConfig(), 0.3)
    life.live(120)
    changed = life.tape.periods[100]
    life.tape.periods[100] = replace(changed, executed=np.nextafter(changed.executed, 10))
    part = retrace_gate(life.tape, SPEC, ControlConfig())
    assert part.compared - part.equal == 1
    assert str(changed.stamp_ns) in part.differences[0]


def test_other_limits_of_control_are_told():
    life = Life(1, ControlConfig(), 0.3)
    life.live(120)
    part = retrace_gate(life.tape, SPEC, ControlConfig(joining="latest"))
    assert part.equal < part.compared


def test_the_stories_hold_what_they_are_there_for():
    life = Life(0, ControlConfig(), 4.0)
    life.live(180, lambda t: ASKS["corrected"].get(t), lambda t: 30 <= t < 150)
    assert {p.source for p in life.tape.periods} >= {Source.POLICY, Source.HUMAN, Source.RAMP}
    assert {p.mode for p in life.tape.periods} == {Mode.AUTONOMOUS, Mode.CORRECTING}
    assert any(p.clamped for p in life.tape.periods)


class Sum:
    """A critic that likes large actions."""

    members, distribution = 2, False

    def prepare(self, candidates):
        return None, 0.0

    def values(self, context, chunks, tau=None):
        return np.stack([chunks.sum((1, 2)), 2 * chunks.sum((1, 2))])


def steered(selector, critic=None, sets=20, foresight=None, every=8):
    config = SteeringConfig(selector=selector, temperature=1.0, deadline_s=60.0, seed=3)
    steering, tape, rng = Steering(config, SPEC.names, critic, foresight), Tape(), np.random.default_rng(0)
    for i in range(sets):
        stamp = START + i * PERIOD * every
        drawn = rng.normal(size=(4, 16, 6))
        tape.candidates.append(Drawn(stamp, stamp, drawn, 1 / 30, ""))
        decision = steering.decide(Candidates(drawn, SPEC.action_spec, 1 / 30, stamp))
        tape.chosen.append(Drawn(stamp, stamp, decision.chunk.actions[None], 1 / 30, str(decision.index)))
        if decision.values is not None:
            mean, spread = decision.values.mean(0), decision.values.std(0)
            tape.values[stamp] = Values(stamp, mean, spread, decision.index, decision.reason)
    steering.close()
    return config, tape


@pytest.mark.parametrize(
    ("selector", "critic"), [("random", None), ("medoid", None), ("argmax", Sum()), ("softmax", Sum())]
)
def test_every_choice_comes_out_again_from_wherever_one_begins(selector, critic):
    config, tape = steered(selector, critic)
    for first in (0, 7):
        part_of = Tape(candidates=tape.candidates[first:], chosen=tape.chosen[max(first - 1, 0) :], values=tape.values)
        steering = Steering(config, SPEC.names, critic)
        part = retrace_steering(part_of, SPEC, steering, {}, critic is not None)
        steering.close()
        assert (part.compared, part.equal, part.differences) == (20 - first, 20 - first, [])


@pytest.mark.parametrize("joining", ["latest", "temporal", "blend"])
@pytest.mark.parametrize("first", [0, 7])
def test_a_critic_that_foresees_is_shown_what_control_made_of_the_recorded_chunks(joining, first):
    foreseen = ForesightConfig(PlayerConfig(joining))
    config, tape = steered("argmax", Sum(), foresight=Foresight(foreseen), every=3)
    tape.chosen[12] = replace(tape.chosen[12], said="99")  # one difference changes nothing for those that follow
    part_of = Tape(candidates=tape.candidates[first:], chosen=tape.chosen[max(first - 1, 0) :], values=tape.values)
    recorded = AsRecorded(foreseen, part_of, SPEC)
    steering = Steering(config, SPEC.names, Sum(), recorded)
    part = retrace_steering(part_of, SPEC, steering, {}, True, recorded)
    steering.close()
    unknown = 5 if first else 0  # half a second: as long as a chunk from before can be in play
    assert (part.compared, part.compared - part.equal) == (20 - first - unknown, 1)
    assert sum(part.skipped.values()) == unknown


def test_values_are_the_same_to_rounding_and_a_critic_with_eyes_is_shown_what_was_seen():
    """How many chunks were scored in one pass depended on the time there was."""
    config, tape = steered("argmax", Sum())
    for stamp, said in tape.values.items():
        tape.values[stamp] = replace(said, mean=said.mean + 1e-7, spread=said.spread - 1e-7)
    unseen, wrong = tape.candidates[3].stamp_ns, tape.candidates[8].stamp_ns
    tape.values[wrong] = replace(tape.values[wrong], mean=tape.values[wrong].mean + 1e-3)
    steering = Steering(config, SPEC.names, Sum())
    part = retrace_steering(tape, SPEC, steering, {unseen: "front: the picture was not recorded"}, True)
    steering.close()
    assert (part.compared, part.equal) == (19, 18)
    assert dict(part.skipped) == {"front: the picture was not recorded": 1}
    assert part.differences[0].startswith(f"values of {wrong}")


def test_a_choice_that_was_another_is_told_and_a_late_critic_is_no_difference():
    config, tape = steered("argmax", Sum())
    tape.chosen[5] = replace(tape.chosen[5], said="99")
    late = tape.chosen[9].stamp_ns
    tape.values[late] = replace(tape.values[late], mean=tape.values[late].mean[:2])
    steering = Steering(config, SPEC.names, Sum())
    part = retrace_steering(tape, SPEC, steering, {}, True)
    steering.close()
    assert (part.compared, part.equal, dict(part.skipped)) == (19, 18, {"the critic was late": 1})
    assert "recorded 99" in part.differences[0]

"""An arm under the real Controller, with a clock of its own: what the controller's tests move."""

import numpy as np
from execute_arms import SO101

from vla_rl.execute.config import ControlConfig
from vla_rl.execute.control import Controller
from vla_rl.types import ActionChunk, Source

HOME = np.array([0.0, -0.6, 0.5, 1.2, 1.57, 0.45])
PERIOD = round(1e9 / 30)
EPOCH = 1_700_000_000 * 10**9  # where the robot's clock stands; ours begins elsewhere
OWN = SO101.action_spec


class Arm:
    """A robot that does what it is told one period later, and everybody's clocks."""

    def __init__(self, spec=SO101, joints=HOME, **config):
        self.controller = Controller(spec, ControlConfig(**config))
        self.controller.activate()
        self.joints, self.time, self.offset, self.silent = joints.copy(), 10**9, EPOCH, False
        self.seen = self.joints
        self.ticks, self.commands = [], []

    @property
    def stamp(self):
        return self.time + self.offset

    def give(self, actions, age=0, candidate=0, spec=OWN, dt=1 / 30):
        """A chunk (H, J) whose observation is `age` periods old."""
        chunk = ActionChunk(np.asarray(actions, float), spec, dt, self.stamp - age * PERIOD)
        return self.controller.chunk(chunk, candidate, self.time)

    def see(self):
        if not self.silent:
            self.seen = self.joints
            self.controller.observe(self.joints, self.stamp, self.time)

    def tick(self):
        """One control period: measure, decide, move."""
        self.see()
        tick = self.controller.tick(self.time)
        self.ticks.append(tick)
        if tick.command is not None:
            self.commands.append(tick.command)
            self.joints = tick.command.copy()
        self.time += PERIOD
        return tick

    def run(self, periods):
        return [self.tick() for _ in range(periods)]


def line(start=HOME, joint=0, step=0.01, length=16):
    """A chunk (H, J) that moves one joint at a constant pace."""
    return start + step * np.arange(length)[:, None] * np.eye(len(start))[joint]


def moving(**config):
    """An arm in motion, five periods into its first chunk."""
    arm = Arm(**config)
    arm.see()
    assert arm.give(line(step=0.04)) == ""
    assert all(tick.source is Source.POLICY for tick in arm.run(5))
    return arm


def human_drives(arm, periods, joint=1):
    """A human moves one joint for some periods."""
    ticks = []
    for _ in range(periods):
        assert arm.controller.human(arm.joints + 0.01 * np.eye(6)[joint], arm.time) == ""
        ticks.append(arm.tick())
    return ticks

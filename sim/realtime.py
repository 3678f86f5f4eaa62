"""RealTimeRobot: a simulated robot whose world goes on by itself, as a real one does, whether or not commands come."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from vla_rl.robot import Sensed
from vla_rl.sim.mujoco_robot import MujocoRobot
from vla_rl.types import Array, Image, Observation

CATCH_UP_S = 0.25


class RealTimeRobot:
    """A MujocoRobot on the monotonic clock.

    Commands are written down with the instant at which they came, from any thread. `sense` brings the world up to now,
    each command applied at the engine step that follows its instant: nothing depends on when it was computed. After a
    stall longer than `CATCH_UP_S` the world has stood still for the rest.

    Args:
        robot: the simulation; nobody else may step it.
        speed: simulated seconds a second. At 1 the robot's clock is the host's system clock, else simulated time.
        monotonic_ns, system_ns: the clocks [ns].
    """

    def __init__(
        self,
        robot: MujocoRobot,
        speed: float = 1.0,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        system_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.sim, self.spec, self._speed = robot, robot.spec, speed
        self._monotonic_ns, self._system_ns = monotonic_ns, system_ns
        self._step_ns = robot.env.world.dt * 1e9 / robot.env.world.substeps / speed
        self._inbox: deque[tuple[int, Array | None]] = deque()
        self.paused, self._phase, self._stamp_ns = False, 0, 0
        self._rebase()

    def _rebase(self) -> None:
        """The world as it is belongs to now, and whatever came before is void."""
        self._start_ns, self._done = self._monotonic_ns(), 0
        self._inbox.clear()
        self._targets = self.sim.env.world.targets
        self._stamp(self.now_ns())

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """A new scene, now."""
        self.sim.reset(seed, options)
        self._phase = 0
        self._rebase()

    def pause(self, on: bool) -> None:
        """Stop the world's time, or let it go on."""
        if on:
            self.sense()
        else:
            self._rebase()
        self.paused = on

    def step(self) -> None:
        """One control period while paused."""
        self._advance(self.sim.env.world.substeps)
        self._stamp(self.now_ns())

    def status(self) -> dict[str, float]:
        """What the task says of the episode so far."""
        return self.sim.status()

    def expert(self, clumsy: bool = False, seed: int = 0, pace: float = 1.0) -> Callable[[], Array]:
        """The task's scripted expert; of the thread that senses."""
        return self.sim.expert(clumsy, seed, pace)

    @property
    def instruction(self) -> str:
        """What to do in this episode."""
        return self.sim.instruction

    def now_ns(self) -> int:
        """The robot's clock [ns]."""
        return self._system_ns() if self._speed == 1.0 else self.sim.now_ns()

    def sense(self) -> Sensed:
        """The joints at the engine step that was due last; the stamp is that step's."""
        if not self.paused:
            self._catch_up()
        world = self.sim.env.world
        stamp = self._stamp_ns if self._speed == 1.0 else self.sim.now_ns()
        return Sensed(world.joints, world.velocities, stamp)

    def pictures(self) -> dict[str, Image]:
        """What the cameras saw at the last `sense`."""
        return self.sim.pictures()

    def observe(self) -> Observation:
        """Joints, pictures and the instruction of now."""
        sensed, images = self.sense(), self.pictures()
        ages = dict.fromkeys(("joints", *images), 0.0)
        return Observation(sensed.joints, images, self.sim.env.task_description, sensed.stamp_ns, ages)

    def command(self, targets: Array) -> Array:
        """Move towards joint targets (J,) [rad] from this instant on.

        Raises:
            ValueError: wrong size or a value that is not finite.
        """
        sent = self.sim.checked(targets)
        self._inbox.append((self._monotonic_ns(), sent))
        return sent

    def hold(self) -> Array:
        """Stay where the arm is at this instant, the gripper at its last command; returns the targets as of now."""
        self._inbox.append((self._monotonic_ns(), None))
        return self.sim.stay()

    def close(self) -> None:
        """Close the renderer."""
        self.sim.close()

    def _catch_up(self) -> None:
        monotonic, system = self._monotonic_ns(), self._system_ns()
        due = int((monotonic - self._start_ns) / self._step_ns)
        skipped = max(0, due - self._done - int(CATCH_UP_S * 1e9 / self._step_ns))
        self._start_ns += round(skipped * self._step_ns)
        self._advance(due - skipped - self._done)
        self._stamp(system - (monotonic - self._start_ns - round(self._done * self._step_ns)))

    def _stamp(self, stamp_ns: int) -> None:
        """The two clocks are not read at the very same instant: that alone must not turn two stamps round."""
        close = 0 <= self._stamp_ns - stamp_ns < self._step_ns
        self._stamp_ns = self._stamp_ns + 1 if close else stamp_ns

    def _advance(self, steps: int) -> None:
        """Some engine steps, with the commands that fall into them; each whole period is judged."""
        world, end = self.sim.env.world, self._done + steps
        while self._done < end:
            self._apply_due()
            count = min(end - self._done, world.substeps - self._phase, self._until_next())
            world.advance(self._targets, count)
            self._done, self._phase = self._done + count, (self._phase + count) % world.substeps
            if self._phase == 0:
                self.sim.judge()
        self._apply_due()

    def _step_of(self, instant_ns: int) -> int:
        """The engine step from which on something at an instant counts."""
        return self._done if self.paused else math.ceil((instant_ns - self._start_ns) / self._step_ns)

    def _until_next(self) -> int:
        """Engine steps until the next command counts."""
        return max(1, self._step_of(self._inbox[0][0]) - self._done) if self._inbox else 1 << 30

    def _apply_due(self) -> None:
        """Take every command that counts by now; a hold is the arm as it is now."""
        while self._inbox and self._step_of(self._inbox[0][0]) <= self._done:
            targets = self._inbox.popleft()[1]
            self._targets = self.sim.stay() if targets is None else targets
            self.sim.env.world.data.ctrl[:] = self._targets

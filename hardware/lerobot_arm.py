"""LeRobotArm: any arm that LeRobot drives, behind the one door to the world.

A thread of its own talks to the arm, so that nobody waits for a bus longer than a period:

::

    sense ---wants---> [positions] -> judged -> latest sample        [fault registers] -> [goals read back]
    command -----------------------------------> [goals]              between any two of these

What is found wrong latches: the fault has a name, no goal is sent any more, and the servos stay where their last goal
is, at most one step of a command away. `recover` looks again; nothing resumes by itself.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Condition, Event, Lock, Thread
from typing import Any

import numpy as np

from vla_rl.hardware.cameras import open_cameras
from vla_rl.hardware.exits import EXITS, leave
from vla_rl.hardware.lerobot_driver import Gone, MissedError, Values, make_driver, one_line
from vla_rl.hardware.watch import Watch
from vla_rl.robot import Fault, Frame, Sensed
from vla_rl.types import Array, CameraSpec, Image, Observation, RobotSpec

LAST_TRIES, SAME = 3, 0.006  # the last goal of all; within so much it is the same [rad]
HANGS, ENDS_S = 5, 1.0  # askers in a row during one measurement; patience with one [s]
_ANSWER = 0.8  # share of a period that `sense` waits


@dataclass(frozen=True)
class LeRobotConfig:
    """Which arm, and how to treat it.

    Attributes:
        driver: LeRobot's name of the robot.
        settings: fields of its configuration class: port, id, calibration_dir, ....
        cameras: LeRobot's camera settings by name.
        at_exit: what becomes of the arm when it is closed: hold, lower or release.
        rest: where `lower` goes, joint to angle [rad]; joints left out go where the arm was found.
        silence_s: without an answer for so long the arm is held [s]; 0 takes three periods.
    """

    driver: str = "so101_follower"
    settings: Mapping[str, Any] = field(default_factory=dict)
    cameras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    at_exit: str = "hold"
    rest: Mapping[str, float] = field(default_factory=dict)
    silence_s: float = 0.0


class LeRobotArm:
    """See the module. Joints in radians; LeRobot's names and units stay at the driver.

    Args:
        spec: of the arm, from hardware/arms.
        config: which one.
        say: takes a line for whoever watches.

    Raises:
        ValueError: it cannot be used as it is: no port, no calibration or another arm's, other units, a pose outside
            the limits, ...: one line that says what to do.

    Attributes:
        spec: of this very arm: offsets and limits from its calibration, its own cameras.
    """

    def __init__(self, spec: RobotSpec, config: LeRobotConfig, say: Callable[[str], None] = print) -> None:
        if config.at_exit not in EXITS:
            raise ValueError(f"unknown at_exit '{config.at_exit}'; there are: {', '.join(EXITS)}")
        self._config, self._say, self._described = config, say, spec
        self._driver = make_driver(config.driver, config.settings)
        self._cameras = open_cameras(config.cameras)  # first: an arm that is refused gets no torque
        try:
            self.spec = _with_cameras(self._driver.open(spec), self._cameras)
            self._begin()
        except BaseException:
            self._driver.withdraw()
            self._close_cameras()
            raise
        self._thread = Thread(target=self._run, name="arm", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        self._say(self._announcement)

    def _begin(self) -> None:
        """Where the arm is found."""
        self._names = [joint.lerobot_name for joint in self.spec.joints]
        self._grippers = np.array([joint.gripper for joint in self.spec.joints])
        self._measuring, self._judging, self._fresh = Lock(), Lock(), Condition()
        self._stopping, self._closed = Event(), False
        self._period_s, self._late, self._in_vain = 1.0 / self.spec.rate, 0, 0
        self._watch = Watch(self.spec, self._config.silence_s)
        self._latched, self._fault, self._wanted = False, "", Event()
        try:
            self._find()
        except (MissedError, Fault) as error:
            raise ValueError(f"{self._driver.name} does not say where it is: {error}") from error
        self.found, self._rejoined = self._sensed.joints, self._driver.rejoined

    def _find(self) -> None:
        """Look where the arm is now, and what it was told, by whomever: a gripper that holds something is not there."""
        here, goals = self._radians(self._driver.read()), self._driver.goals()
        told = here if goals is None else self._radians(goals)
        self._targets = np.clip(told, self.spec.low, self.spec.high)
        self._sensed = Sensed(here, np.zeros_like(here), time.time_ns())
        self._in_vain = 0
        self._watch.reset(time.monotonic_ns())

    @property
    def _announcement(self) -> str:
        what = EXITS[self._config.at_exit]
        found = "was found holding and was left so" if self._driver.rejoined else "is holding where it was found"
        return f"{self._driver.name} {found}; at exit {what}"

    # -- the one door ---------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The host's clock [ns]."""
        return time.time_ns()

    def sense(self) -> Sensed:
        """The newest good sample; asks for one more, and waits for it less than a period."""
        with self._fresh:
            before = self._sensed
            self._wanted.set()
            came = self._fresh.wait_for(lambda: self._sensed is not before, self._period_s * _ANSWER)
        self._in_vain = 0 if came else self._in_vain + 1
        silent = self._watch.silent(time.monotonic_ns()) if self._in_vain >= HANGS else ""
        if silent:
            self._latch(f"{silent} from {self._driver.name}: its driver hangs", reachable=False)
        return self._sensed

    def frames(self) -> dict[str, Frame]:
        """The newest picture of each camera with its capture time; one that fell silent is missing."""
        return {name: frame for name, c in self._cameras.items() if (frame := c.frame) is not None}

    def pictures(self) -> dict[str, Image]:
        """The newest picture of each camera, (H, W, 3) uint8 RGB."""
        return {name: frame.image for name, frame in self.frames().items()}

    def observe(self) -> Observation | None:
        """Joints and pictures of now; None while a camera or the arm is silent."""
        sensed, frames = self._sensed, self.frames()
        if self.fault or len(frames) < len(self._cameras):
            return None
        stamps = {"joints": sensed.stamp_ns} | {name: frame.stamp_ns for name, frame in frames.items()}
        newest = max(stamps.values())
        ages = {name: (newest - stamp) * 1e-9 for name, stamp in stamps.items()}
        return Observation(sensed.joints, {n: f.image for n, f in frames.items()}, "", newest, ages)

    def command(self, targets: Array) -> Array:
        """Send joint targets (J,) [rad]; returns what LeRobot says it has sent, (J,) [rad].

        Raises:
            ValueError: wrong size or a value that is not finite; nothing was sent.
            Fault: a fault has latched, or the line is busy; nothing was sent.
        """
        targets = np.asarray(targets, dtype=np.float64)
        if targets.shape != (len(self._names),) or not np.isfinite(targets).all():
            raise ValueError(f"a command is {len(self._names)} finite joint targets, got {targets}")
        return self._write(np.clip(targets, self.spec.low, self.spec.high))

    def hold(self) -> Array:
        """Stay: arm joints where they were measured last, grippers at their last command. Returns (J,) [rad]."""
        targets = self._write(self._here())
        self._send_surely(targets)
        return targets

    def _here(self) -> Array:
        """Where the arm was seen last and what its grippers were told, (J,) [rad]."""
        return np.where(self._grippers, self._targets, np.clip(self._sensed.joints, self.spec.low, self.spec.high))

    def close(self) -> None:
        """Leave the arm as it was told to be left, and let go of it."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        try:
            leave(self, self._driver, self._config.at_exit, self._say)
        finally:
            self._stopping.set()
            self._wanted.set()
            self._thread.join(ENDS_S)
            self._close_cameras()
            self._driver.close()

    def _close_cameras(self) -> None:
        for camera in self._cameras.values():
            camera.close()

    # -- faults ---------------------------------------------------------------------------------------------------

    @property
    def fault(self) -> str:
        """What is wrong with the arm, in one line; "" while nothing is."""
        return self._fault

    @property
    def told(self) -> Array:
        """What it was told last, also by whoever drove it before, (J,) [rad]."""
        return self._targets

    @property
    def rest(self) -> Array:
        """Where it may be lowered to, (J,) [rad]."""
        wanted = [self._config.rest.get(name, there) for name, there in zip(self.spec.names, self.found, strict=True)]
        return np.clip(wanted, self.spec.low, self.spec.high)

    @property
    def resting(self) -> bool:
        """Whether `rest` is known to be a place where the arm lies."""
        return not self._rejoined or all(name in self._config.rest for name in self.spec.names)

    def recover(self) -> None:
        """Open the arm again, check it again, and take commands from where it is.

        Raises:
            Fault: it is still not well.
        """
        if not self._latched:
            return
        if not self._measuring.acquire(timeout=ENDS_S):
            raise Fault(f"still held: the driver of {self._driver.name} hangs; start anew")
        try:
            self._driver.reopen(self._described)
            self._find()  # before any command passes: what was measured last is from before the fault
            self._latched, self._fault = False, ""
        except (MissedError, ValueError) as error:
            raise Fault(f"still held: {error}") from error
        finally:
            self._measuring.release()
        self._say(f"{self._driver.name} takes commands again")

    def figures(self) -> dict[str, float]:
        """Counters and measures by name."""
        own = {"glitches": float(self._watch.glitches), "late": float(self._late)}
        pictures = {f"rate/{name}": camera.rate for name, camera in self._cameras.items()}
        return {**self._driver.figures(), **own, **pictures}

    def _latch(self, why: str, reachable: bool = True) -> None:
        """From now on no command passes; the last goal is where the arm was seen last, which stops a servo astray."""
        with self._judging:
            if self._latched:
                return
            self._latched = True
        if reachable:
            with suppress(Exception):  # whatever else goes wrong now, the fault gets its name
                self._send_surely(self._here())
        self._fault = why
        self._say(f"FAULT: {why}; {self._driver.name} is held where it is, and gets no more goals")

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Measure whenever somebody wants to know, and once a period at least."""
        while not self._stopping.is_set():
            self._wanted.wait(self._period_s)
            self._wanted.clear()
            with self._measuring:
                if not self._latched and not self._stopping.is_set():
                    self._measure_or_latch()

    def _measure_or_latch(self) -> None:
        """The thread must outlive whatever a driver does: without it nobody would notice anything."""
        try:
            self._measure()
        except Exception as error:
            self._latch(f"{self._driver.name} cannot be measured: {type(error).__name__}: {one_line(error)}")
        self._in_vain = 0  # it came back, whatever it said

    def _measure(self) -> None:
        """One sample, a look at the arm's parts and at what became of its goals."""
        try:
            values, stamp = self._driver.read(), time.time_ns()
            self._take(self._radians(values), stamp)
            wrong = self._driver.examine()
            heard = self._driver.confirm()
            if heard:
                self._watch.goals(self._radians(heard), time.monotonic_ns())
                wrong = wrong or self._watch.verdict(time.monotonic_ns())
        except Fault as fault:
            wrong = str(fault)
        except MissedError as missed:
            silent = self._watch.verdict(time.monotonic_ns())
            wrong = f"{silent} from {self._driver.name}: {missed}" if silent else ""
        if wrong:
            self._latch(wrong)

    def _take(self, joints: Array, stamp_ns: int) -> None:
        now = time.monotonic_ns()
        odd = self._watch.take(joints, now)
        if not odd:
            with self._fresh:
                dt = max((stamp_ns - self._sensed.stamp_ns) * 1e-9, 1e-6)
                self._sensed = Sensed(joints, (joints - self._sensed.joints) / dt, stamp_ns)
                self._fresh.notify_all()
        wrong = odd if self._watch.lost else self._watch.verdict(now)
        if wrong:
            self._latch(wrong)

    def _write(self, targets: Array) -> Array:
        """Send goals between two questions; returns what was sent, (J,) [rad]."""
        if self._latched:
            raise Fault(f"{self._driver.name} is held: {self._fault}")
        try:
            self._targets = self._send(targets)
        except MissedError as missed:
            self._late += 1
            raise Fault(f"a goal was not sent: {missed}") from missed
        except Gone as gone:
            self._latch(str(gone))
            raise
        return self._targets

    def _send_surely(self, targets: Array) -> None:
        """Send goals until they arrived, a few times at most: nobody repeats the last one."""
        for _ in range(LAST_TRIES):
            with suppress(MissedError):
                sent = self._send(targets)
                heard = self._driver.confirm()
                if heard and np.allclose(self._radians(heard), sent, atol=SAME):
                    return

    def _send(self, targets: Array) -> Array:
        goals = dict(zip(self._names, self.spec.to_lerobot(targets).tolist(), strict=True))
        return self._radians(self._driver.write(goals, self._period_s))

    def _radians(self, values: Values) -> Array:
        if missing := [name for name in self._names if name not in values]:
            raise MissedError(f"an answer without {', '.join(missing)}")
        return self.spec.from_lerobot(np.array([values[name] for name in self._names]))


def _with_cameras(spec: RobotSpec, cameras: Mapping[str, Any]) -> RobotSpec:
    """The description with the cameras that there are, as large as they are."""
    known = {camera.name: camera for camera in spec.cameras}
    found = []
    for name, stream in cameras.items():
        described = known.get(name, CameraSpec(name, 0, 0))
        width, height = stream.size
        found.append(replace(described, width=width, height=height))
    return replace(spec, cameras=tuple(found))

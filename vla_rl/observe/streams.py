"""Streams: what sensors send, turned into observations; an observation is never invented.

::

    joint_states  --o---o---o---o---o---o
    front         ------o-------o-------          the newest instant that every stream has covered is the observation's;
    wrist         -----o-------o-------o          every other stream gives its sample nearest to it
                                ^
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_rl.observe.checks import JointCheck, Quality, fingerprint, misfit
from vla_rl.observe.clock import RobotClock
from vla_rl.observe.encoded import Encoded
from vla_rl.observe.instruction import clean
from vla_rl.observe.stream import Sample, Stream
from vla_rl.types import CameraSpec, Image, Observation, RobotSpec

JOINTS = "joint_states"
INSTRUCTION = "instruction"


@dataclass(frozen=True)
class StreamsConfig:
    """When a stream counts as alive.

    Attributes:
        max_obs_age: a stream whose newest sample is older than this is stale [s].
        max_future: a stamp further ahead of the robot's clock than this is refused [s].
        frames: observations that a policy wants to see at once, the newest last.
        period: time between two of them [s].
        simulated_time: the robot's clock does not run with this host's (lock-step, or faster than real time): only
            stamps judge age, and a stamp that goes back is a reset at once.
    """

    max_obs_age: float = 0.1
    max_future: float = 0.05
    frames: int = 1
    period: float = 1.0 / 30.0
    simulated_time: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for ages and counts that make no sense."""
        if not (self.max_obs_age > 0 and self.max_future >= 0 and self.period > 0 and self.frames >= 1):
            raise ValueError(f"ages and periods must be positive, frames at least 1: {self}")


class Streams:
    """Joints, cameras and the instruction of one robot; any thread may put, any may ask.

    Args:
        spec: names, order and limits of the joints.
        cameras: the cameras an observation needs, and the largest image each has promised.
        config: when a stream counts as alive.
    """

    def __init__(self, spec: RobotSpec, cameras: Sequence[CameraSpec], config: StreamsConfig | None = None) -> None:
        self.config = config or StreamsConfig()
        self._joints, self._cameras = JointCheck(spec), {camera.name: camera for camera in cameras}
        keep_ns = round(1e9 * ((self.config.frames - 1) * self.config.period + self.config.max_obs_age))
        self._streams = {name: Stream(name, keep_ns) for name in (JOINTS, *self._cameras)}
        self._clock = RobotClock(self.config.max_future, self.config.simulated_time)
        self._quality = {name: Quality() for name in self._cameras}
        self._instruction, self._instructions = "", 0
        self._lock = threading.Lock()

    # -- what comes in --------------------------------------------------------------------------------------------

    def put_joints(self, names: Sequence[str], positions: Any, stamp_ns: int, received_ns: int) -> str:
        """A measurement of all joints, in any order of names.

        Args:
            names: one a position; more than the robot's are fine, fewer are not.
            positions: [rad].
            stamp_ns: capture time, robot clock [ns].
            received_ns: arrival, monotonic clock [ns].

        Returns:
            Why it was refused, or "".
        """
        try:
            values, reason = self._joints.ordered(names, positions), ""
        except ValueError as error:
            values, reason = np.zeros(0), str(error)
        with self._lock:
            return self._admit(self._streams[JOINTS], Sample(values, int(stamp_ns), received_ns), reason)

    def put_image(self, camera: str, image: Image | Encoded, stamp_ns: int, received_ns: int) -> str:
        """A camera's image, as pixels (H, W, 3) uint8 RGB or as a file; returns why it was refused, or ""."""
        if camera not in self._cameras:
            return "unknown_camera"
        reason = misfit(self._cameras[camera], image)
        number = 0 if reason else fingerprint(image)
        with self._lock:
            stream = self._streams[camera]
            reason = self._admit(stream, Sample(image, int(stamp_ns), received_ns), reason)
            if not reason:
                joints = self._streams[JOINTS].samples
                frozen = self._quality[camera].arrived(number, joints[-1].value if joints else None)
                stream.counts["frozen"] += frozen
        return reason

    def instruct(self, text: str) -> None:
        """What to do from now on; empty takes the instruction away, and with it every observation."""
        with self._lock:
            instruction = clean(text)
            self._instructions += instruction != self._instruction
            self._instruction = instruction

    def _admit(self, stream: Stream, sample: Sample, reason: str) -> str:
        """Take the sample, or count why not; a joint state may tell that the robot's clock has stepped."""
        joints = stream.name == JOINTS
        if not reason:
            known = self._clock.started and not (
                joints and self.config.simulated_time
            )  # which runs as fast as it likes
            now_ns = self._clock.now_ns(sample.received_ns) if known else None
            reason = stream.judge(sample, now_ns, self.config.max_future * 1e9)
            if reason in ("future", "out_of_order"):
                stream.suspect, last = sample, stream.suspect
                reason = "" if joints and self._agree(last, sample) else reason
        if reason:
            stream.counts[reason] += 1
            return reason
        if joints:
            self._tell_time(sample)
        stream.append(sample)
        return ""

    def _agree(self, last: Sample | None, sample: Sample) -> bool:
        """Whether two joint states in a row tell another time than before; in simulated time one is enough."""
        if self.config.simulated_time:
            return True
        if last is None or sample.stamp_ns <= last.stamp_ns:
            return False
        disagreement = (sample.stamp_ns - last.stamp_ns) - (sample.received_ns - last.received_ns)
        return abs(disagreement) <= self.config.max_future * 1e9

    def _tell_time(self, sample: Sample) -> None:
        """Set the clock by a joint state; where that begins a new time, what the streams hold must fit it, or goes."""
        first, joints = not self._clock.started, self._streams[JOINTS]
        stepped = self._clock.update(sample.stamp_ns, sample.received_ns)
        joints.counts["clock_step"] += stepped
        if first or stepped:
            for stream in self._streams.values():
                stream.restart(sample.stamp_ns, self.config.max_obs_age * 1e9, self.config.max_future * 1e9)
            joints.samples.clear()

    # -- what goes out --------------------------------------------------------------------------------------------

    def observation(self, now_ns: int) -> Observation | None:
        """The newest observation, or None while a stream is missing or stale; `now_ns` is the monotonic clock."""
        history = self.history(now_ns)
        return history[-1] if history else None

    def history(self, now_ns: int) -> list[Observation]:
        """The newest `frames` observations, oldest first, the first repeated at a start; empty where there is none."""
        with self._lock:
            if self._missing() or self._stale(now_ns):
                return []
            newest = min(stream.samples[-1].stamp_ns for stream in self._streams.values())
            steps = [round(i * self.config.period * 1e9) for i in reversed(range(self.config.frames))]
            sets = [{n: s.nearest(newest - step) for n, s in self._streams.items()} for step in steps]
            instruction = self._instruction
        try:
            return [self._assemble(samples, instruction) for samples in sets]
        except _DecodeError as error:
            with self._lock:
                self._streams[error.camera].counts["undecodable"] += 1
                self._streams[error.camera].samples.clear()
            return []

    def _assemble(self, samples: Mapping[str, Sample], instruction: str) -> Observation:
        stamp_ns = max(sample.stamp_ns for sample in samples.values())
        images = {name: self._pixels(name, samples[name]) for name in self._cameras}
        ages = {name: (stamp_ns - sample.stamp_ns) / 1e9 for name, sample in samples.items()}
        return Observation(samples[JOINTS].value.copy(), images, instruction, stamp_ns, ages)

    def _pixels(self, camera: str, sample: Sample) -> Image:
        try:
            image = sample.value.decode() if isinstance(sample.value, Encoded) else sample.value
        except ValueError as error:
            raise _DecodeError(camera) from error
        with self._lock:
            self._streams[camera].counts["black"] += self._quality[camera].seen(image)
        return image

    # -- how it is ------------------------------------------------------------------------------------------------

    @property
    def instruction(self) -> str:
        """What to do, cleaned; "" where nobody has said."""
        return self._instruction

    @property
    def instruction_number(self) -> int:
        """How many times the instruction has changed."""
        return self._instructions

    def missing(self) -> list[str]:
        """Streams that have delivered nothing yet."""
        with self._lock:
            return self._missing()

    def stale(self, now_ns: int) -> dict[str, float]:
        """Streams whose newest sample is too old, and its age [s]."""
        with self._lock:
            return self._stale(now_ns)

    def degraded(self) -> dict[str, str]:
        """Cameras that deliver, but "frozen" or "black" images."""
        with self._lock:
            return {name: quality.word for name, quality in self._quality.items() if quality.word}

    def problems(self, now_ns: int) -> list[str]:
        """What keeps observations from being made, or makes them doubtful, one line a stream."""
        lines = [f"no inference, {name}: {self._nothing(name)}" for name in self.missing()]
        lines += [f"no inference, {name}: {age:.2g} s old" for name, age in self.stale(now_ns).items()]
        return [*lines, *(f"{name}: {state} images" for name, state in self.degraded().items())]

    def _nothing(self, name: str) -> str:
        """Why there is nothing of a stream: nobody sends, or all that is sent is refused."""
        with self._lock:
            counts = Counter(self._streams[name].counts) if name in self._streams else Counter[str]()
        if not counts or counts["taken"]:
            return "nothing has arrived yet"
        return f"refused: {', '.join(f'{reason} ({count} times)' for reason, count in counts.items())}"

    def report(self, now_ns: int) -> dict[str, dict[str, float]]:
        """Of every stream: age [s], rate [Hz], and the counts of what was taken and refused."""
        with self._lock:
            return {
                name: {"age": self._age(stream, now_ns), "rate": stream.rate, **stream.counts}
                for name, stream in self._streams.items()
            }

    def _missing(self) -> list[str]:
        names = [name for name, stream in self._streams.items() if not stream.samples]
        return names if self._instruction else [*names, INSTRUCTION]

    def _stale(self, now_ns: int) -> dict[str, float]:
        ages = {name: self._age(stream, now_ns) for name, stream in self._streams.items() if stream.samples}
        return {name: age for name, age in ages.items() if age > self.config.max_obs_age}

    def _age(self, stream: Stream, now_ns: int) -> float:
        """Age of the newest sample [s]: since its receipt, or by its stamp, whichever is more; inf without one."""
        if not stream.samples:
            return float("inf")
        newest = max(s.samples[-1].stamp_ns for s in self._streams.values() if s.samples)
        clock_ns = max(newest, self._clock.now_ns(now_ns)) if self._clock.started else newest
        sample = stream.samples[-1]
        received_ns = 0 if self.config.simulated_time else now_ns - sample.received_ns
        return max(clock_ns - sample.stamp_ns, received_ns, 0) / 1e9


class _DecodeError(ValueError):
    """A camera's image turned out to be damaged."""

    def __init__(self, camera: str) -> None:
        super().__init__(camera)
        self.camera = camera

"""Controller: observations, chunks and a human's commands in; one safe command a period out.

It knows no topics and no robot: `control_node` hosts it live, `rollout` and the benches in process. Whatever it is told
or not told, a command keeps the limits of its robot, and there is a way to stop from it (`SafetyFilter`).

::

    chunk --> to radians, checked --> Player --due--+
                                                    +--> who acts (Arbiter) --> ramp --> SafetyFilter --> command
    human --> checked, approached ------------------+          |                            ^
    observe -> RobotClock, Measured                            +-- nobody, or a fault --> Hold

Whoever acts first, or first again after a stall of its own or of the network, starts from rest where the arm is
measured, its grippers where the robot itself says that it keeps them (`robot_keeps`).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from vla_rl.execute.actions import ChunkReader, RejectedError
from vla_rl.execute.arbiter import Answer, Arbiter, Edge
from vla_rl.execute.config import ControlConfig
from vla_rl.execute.hold import Hold
from vla_rl.execute.human import Human, HumanCommand
from vla_rl.execute.limits import Limits
from vla_rl.execute.measured import Measured
from vla_rl.execute.player import Due, Player
from vla_rl.execute.ramp import Ramp
from vla_rl.execute.safety import SafetyFilter
from vla_rl.observe.clock import RobotClock
from vla_rl.types import ActionChunk, Array, Mode, RobotSpec, Source

STALL = 2.5  # periods without a tick: the robot has held by itself meanwhile
FOLLOWING_S = 0.25  # an arm lags behind its commands, but not by more than this


@dataclass(frozen=True, eq=False)
class Tick:
    """One control period.

    Attributes:
        command: what to send, (J,) [rad]; None where nothing must be sent, because nobody has acted yet: the robot's
            own hold knows the gripper's last command, and this controller does not.
        proposed: what the policy would do, (J,) [rad], or None where it says nothing; also while a human drives.
        source: who acts.
        mode: of the arbiter.
        chunk_stamp_ns: stamp of the newest chunk that is due, -1 where none.
        index: of its action that is due, -1 where none.
        age_s: of its observation [s].
        candidate: which candidate of the policy it was, -1 where unknown.
        clamped: the limits that changed the target.
        hold: why the arm holds, "" where it does not: a word for the counters, then details behind a colon.
        joints_stamp_ns: of the newest measurement, robot clock, 0 before the first.
        human_stamp_ns: of the newest command of a human that counts, -1 where none does.
    """

    command: Array | None
    proposed: Array | None
    source: Source
    mode: Mode
    chunk_stamp_ns: int = -1
    index: int = -1
    age_s: float = 0.0
    candidate: int = -1
    clamped: tuple[str, ...] = ()
    hold: str = ""
    joints_stamp_ns: int = 0
    human_stamp_ns: int = -1


class Controller:
    """Who moves the arm, and how far; see the module. To be used by one thread at a time.

    Args:
        spec: the robot.
        config: how it is controlled.

    Raises:
        ValueError: the robot has no limits, or there is no such joining mode.

    Attributes:
        spec, limits, config: as given; `configure` changes the last.
        active: whether ticks command anything.
        counters: everything that was rejected, held or clamped, by name.
    """

    def __init__(self, spec: RobotSpec, config: ControlConfig | None = None) -> None:
        self.spec, self.limits, self.active = spec, Limits.from_spec(spec), False
        self.counters: Counter[str] = Counter()
        self._reader = ChunkReader(spec)
        self._filter, self._arbiter, self._measured = SafetyFilter(self.limits), Arbiter(), Measured(self.limits)
        self._commands: deque[Array] = deque(maxlen=max(2, math.ceil(FOLLOWING_S / self.limits.dt)))
        self._sent_last: Array | None = None  # kept over every restart, for the grippers
        self._rejections = self._stopped_ns = 0
        self._set(config or ControlConfig())

    def _set(self, config: ControlConfig) -> None:
        self.config = config
        self._clock, self._player = RobotClock(config.max_future_s, config.simulated_time), Player(config.player)
        self._ramp = Ramp(config.ramp_s)
        pace = config.max_align_speed * self.limits.dt
        self._human = Human(self._reader, config.max_human_age_s, config.max_human_gap, pace)
        self._measured.forget()
        self._begin()

    def _begin(self) -> None:
        """As before the first command: whoever acts next starts from the measured position."""
        self._moving, self._last_tick_ns = False, 0
        self._hold: Hold | None = None
        self._commands.clear()
        self._void(ramp=False)

    def _void(self, ramp: bool, now_ns: int = 0) -> None:
        """What was planned up to now counts no more; with `ramp`, the policy takes over gradually."""
        self._player.flush(max(now_ns, self._clock.newest_ns))
        self._human.forget()
        self._ramp.cancel()
        if ramp:
            self._ramp.prepare()

    @property
    def mode(self) -> Mode:
        """Who may act."""
        return self._arbiter.mode

    @property
    def stop_reason(self) -> str:
        """Why it is stopped, "" where it is not."""
        return self._arbiter.reason

    def now_ns(self, monotonic_ns: int) -> int:
        """The robot's time at a monotonic time [ns]; 0 before the first joint states."""
        return self._clock.now_ns(monotonic_ns)

    def configure(self, config: ControlConfig) -> None:
        """Take another configuration; chunks and measurements start anew.

        Raises:
            ValueError: it loosens a bound while active.
        """
        looser = self.config.loosened(config) if self.active else []
        if looser:
            raise ValueError(f"{', '.join(looser)} can not be loosened while control is active: deactivate it first")
        self._set(config)

    def activate(self) -> None:
        """Let ticks command; nothing is sent before someone acts."""
        self._begin()
        self.active = True

    def deactivate(self) -> None:
        """Command nothing any more; a stop stays latched, and the gripper's last command is remembered."""
        self.active = False

    def observe(self, joints: Array, stamp_ns: int, received_ns: int) -> None:
        """Take measured joints (J,) [rad], captured at `stamp_ns` (robot clock), received at a monotonic time."""
        if stamp_ns <= 0 or not self._measured.valid(joints):
            self.counters["joints_rejected"] += 1
            return
        if self._clock.started and not self._fresh(received_ns):  # what a cut network kept back is nobody's fault
            self._player.flush(stamp_ns - 1)
        if self._clock.update(stamp_ns, received_ns):
            self.counters["clock_steps"] += 1
            self._void(ramp=False)
        resting = self._hold is not None and self._hold.latched and self._filter.at_rest
        if self._measured.take(joints, stamp_ns, received_ns, resting):
            self.counters["joints_jumped"] += 1
            self._begin()

    def robot_keeps(self, targets: Array) -> None:
        """Take what the robot was last sent, (J,) [rad]: before anybody acts that is where its grippers are kept."""
        if not self._moving and self._measured.valid(targets):
            self._sent_last = np.clip(targets, self.limits.low, self.limits.high)

    def chunk(self, chunk: ActionChunk, candidate: int, received_ns: int) -> str:
        """Take a chunk into play; returns "" or, where the whole chunk is rejected, the reason in one line."""
        try:
            if not self._clock.started:
                raise RejectedError("flushed", "no joints have been measured yet")
            if not self._fresh(received_ns):
                raise RejectedError("flushed", "the robot is not heard")
            targets = self._reader.targets(chunk, self._measured.at(chunk.stamp_ns))
            self._player.accept(targets, chunk.dt, chunk.stamp_ns, self._clock.now_ns(received_ns), candidate)
        except RejectedError as rejected:
            return self.reject(rejected.reason, str(rejected))
        self._rejections = 0
        return ""

    def reject(self, reason: str, message: str = "") -> str:
        """Count a chunk that was rejected, here or where its message was read; too many in a row latch a stop."""
        self.counters[f"rejected/{reason}"] += 1
        self._rejections += reason != "flushed"
        if self._rejections >= self.config.max_rejections:
            self.stop(f"{self._rejections} chunks rejected in a row, the last: {message or reason}")
        return message or reason

    def human(self, targets: Array, received_ns: int, publisher: bytes = b"", stamp_ns: int = 0) -> str:
        """Take a human's joint targets; returns "" or, where they are rejected, why.

        Args:
            targets: (J,) [rad].
            received_ns: receipt, monotonic clock.
            publisher: whose they are; one at a time is followed.
            stamp_ns: as their sender stamped them, robot clock.
        """
        command = HumanCommand(np.array(targets, dtype=np.float64), stamp_ns, received_ns, publisher)
        reason = self._human.take(command, driving=self.mode is Mode.CORRECTING)
        self.counters["human_rejected"] += bool(reason)
        return reason

    def take_over(self, on: bool, at_ns: int | None = None) -> Answer:
        """A human takes the arm, or hands it back to the policy's first chunk for an observation after that.

        Args:
            on: takes it; what a device said just before counts, so that the next command is the human's.
            at_ns: when it was asked for, monotonic [ns]; None: at the newest measurement. As below.
        """
        asked, human = self._last_tick_ns if at_ns is None else at_ns, self._human
        driving, said = self.mode is Mode.CORRECTING, human.newest if on and human.fresh(asked) else None
        answer = self._arbiter.take_over(on, self._time(at_ns), driven=driving and said is not None)
        if answer[0]:
            self._void(ramp=not on, now_ns=self._time(at_ns))
            human.begin(said)
        return answer

    def pause(self, at_ns: int | None = None) -> Answer:
        """Hold until `resume`."""
        return self._changed(self._arbiter.pause(self._time(at_ns)), at_ns)

    def resume(self, at_ns: int | None = None) -> Answer:
        """Go on, with the policy's first chunk for an observation after that."""
        return self._changed(self._arbiter.resume(self._time(at_ns)), at_ns)

    def stop(self, reason: str = "asked for", at_ns: int | None = None) -> Answer:
        """Hold until `reset_stop`; the first reason stays."""
        if self.mode is not Mode.STOPPED:
            self.counters["stops"] += 1
            self._stopped_ns = self._clock.newest_ns
        return self._changed(self._arbiter.stop(reason, self._time(at_ns)), at_ns)

    def reset_stop(self, at_ns: int | None = None) -> Answer:
        """Clear a stop, where joints have been measured since and just now; the arm stays paused until `resume`."""
        fresh = self._clock.newest_ns != self._stopped_ns and self._fresh(self._last_tick_ns)
        answer = self._arbiter.reset_stop(fresh, self._time(at_ns))
        self._rejections = 0 if answer[0] else self._rejections
        return self._changed(answer, at_ns)

    def _changed(self, answer: Answer, at_ns: int | None) -> Answer:
        if answer[0]:
            self._void(ramp=False, now_ns=self._time(at_ns))
        return answer

    def _time(self, at_ns: int | None) -> int:
        """The robot's time at a monotonic time, its newest stamp at least [ns]."""
        newest = self._clock.newest_ns
        return newest if at_ns is None else max(newest, self._clock.now_ns(at_ns))

    def new_edges(self) -> tuple[Edge, ...]:
        """The changes of the mode since this was last asked."""
        return self._arbiter.new_edges()

    def covers(self, monotonic_ns: int, max_age_s: float = math.inf) -> bool:
        """Whether a tick needs no chunk that it does not have, or whose observation is older than `max_age_s`."""
        due = self._player.due(self._clock.now_ns(monotonic_ns))
        return self.mode is not Mode.AUTONOMOUS or (due is not None and due.age_s <= max_age_s)

    def overdue(self, monotonic_ns: int) -> bool:
        """Whether a stall lies between the last tick and a monotonic time [ns]: if it was not sent, tick anew."""
        return not self.config.simulated_time and (monotonic_ns - self._last_tick_ns) * 1e-9 > STALL * self.limits.dt

    def tick(self, monotonic_ns: int) -> Tick:
        """One control period, at a monotonic time [ns]."""
        now_ns = self._clock.now_ns(monotonic_ns)
        self._notice_silence(monotonic_ns, now_ns)
        due = self._player.due(now_ns)
        if not self.active:
            return self._tick(None, due, Source.HOLD, hold="inactive")
        target, source, reason = self._wanted(due, monotonic_ns)
        if target is None:
            return self._tick(self._stay(reason), due, Source.HOLD, hold=reason)
        if not self._moving:
            self._start()
        here, human = self._filter.command, source is Source.HUMAN
        between = self._human.approach(here, target) if human else self._ramp.between(here, target, now_ns)
        source, target = (source, target) if between is None else (Source.RAMP, between)
        self._hold, filtered = None, self._filter.step(target)
        self.counters.update(f"clamped/{limit}" for limit in filtered.clamped)
        return self._tick(self._sent(filtered.command), due, source, filtered.clamped)

    def _tick(
        self, command: Array | None, due: Due | None, source: Source, clamped: tuple[str, ...] = (), hold: str = ""
    ) -> Tick:
        said = (due.chunk_stamp_ns, due.index, due.age_s, due.candidate) if due else (-1, -1, 0.0, -1)
        heard = (self._measured.stamp_ns, self._human.newest.stamp_ns if self._human.newest else -1)
        return Tick(command, due.action if due else None, source, self.mode, *said, clamped, hold, *heard)

    def _notice_silence(self, monotonic_ns: int, now_ns: int) -> None:
        """After a stall of our own, and where the robot is not heard, old chunks are void and it holds by itself.

        A robot that is not heard may not hear us either: what we would send it meanwhile, and its gripper's way above
        all, is none that it went.
        """
        stalled, self._last_tick_ns = self.overdue(monotonic_ns), monotonic_ns
        if self._moving and (stalled or not self._fresh(monotonic_ns)):
            self.counters["stalls" if stalled else "holds/joints_stale"] += 1
            self._begin()
            self._player.flush(now_ns)
            self._last_tick_ns = monotonic_ns

    def _fresh(self, monotonic_ns: int) -> bool:
        """Whether joints were measured just now."""
        limit = math.inf if self.config.simulated_time else self.config.max_joint_age_s
        return self._measured.joints is not None and self._measured.age(monotonic_ns) <= limit

    def _wanted(self, due: Due | None, monotonic_ns: int) -> tuple[Array | None, Source, str]:
        """A target and who wants it, or None and why there is none."""
        if self.mode in (Mode.STOPPED, Mode.PAUSED):
            return None, Source.HOLD, f"stopped: {self.stop_reason}" if self.mode is Mode.STOPPED else "paused"
        if not self._fresh(monotonic_ns):
            return None, Source.HOLD, "joints_stale"
        error = self._measured.following_error(self._commands)
        if error.max() > self.config.max_following_error:
            self._void(ramp=False)
            return None, Source.HOLD, f"following_error: {self.limits.names[int(error.argmax())]}"
        if self.mode is Mode.CORRECTING:
            target = self._human.wanted(monotonic_ns)
            return (None, Source.HOLD, "human_silent") if target is None else (target, Source.HUMAN, "")
        return (None, Source.HOLD, "no_chunk") if due is None else (due.action, Source.POLICY, "")

    def _stay(self, reason: str) -> Array | None:
        """The next command of a hold; None before anybody has acted."""
        if not self._moving:
            return None
        if self._hold is None:
            self._hold = Hold(self._filter)
            self.counters[f"holds/{reason.partition(':')[0]}"] += 1
        return self._sent(self._hold.command(self._measured, fresh=True))

    def _start(self) -> None:
        """Begin at the measured position; grippers at their last command, where there is one."""
        measured = self._measured.joints
        assert measured is not None
        last = measured if self._sent_last is None else self._sent_last
        self._filter.reset(np.where(self.limits.gripper, last, measured))
        self.counters["recoveries"] += bool(self._filter.recovering)
        self._moving = True

    def _sent(self, command: Array) -> Array:
        self._commands.append(command)
        self._sent_last = command
        return command

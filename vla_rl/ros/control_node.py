"""control_node hosts the Controller in a process of its own, without torch: on a monotonic clock, or in lock-step.

The loop has a thread for itself; the executor only feeds the controller.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from threading import Event, Lock, Thread
from typing import Any

from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_rl.execute.arbiter import Answer, Edge
from vla_rl.execute.config import ControlConfig
from vla_rl.execute.control import Controller, Tick
from vla_rl.execute.loop import PeriodicLoop, realtime_priority
from vla_rl.execute.player import JOINING
from vla_rl.robot import arm_spec
from vla_rl.ros import dds, messages, qos
from vla_rl.ros.lock import HostLock
from vla_rl.ros.node import ERROR, OK, WARNING, Health, LifecycleNode, Receipt
from vla_rl.ros.node import main as run
from vla_rl.ros.parameters import parameter
from vla_rl.ros.realtime import CONTROL, promote_process
from vla_rl.types import Mode

_CHUNK_BYTES = 1 << 20
_SWITCH_S = 5e-4
_DEFAULT = ControlConfig()


def _bound(name: str, description: str, high: float) -> Any:
    """A bound of ControlConfig as a parameter with its default [s]."""
    return parameter(getattr(_DEFAULT, name), description, 1e-3, high)


@dataclass(frozen=True)
class ControlNodeConfig:
    """Parameters of control_node; while it is active, bounds can only be tightened."""

    arm: str = parameter("so101", "which robot's limits: a name in hardware/arms, or a .yaml file")
    joining: str = parameter(_DEFAULT.joining, "how overlapping chunks are joined", choices=tuple(JOINING))
    max_open_loop_s: float = _bound("max_open_loop_s", "motion since the newest observation at most [s]", 10.0)
    max_future_s: float = _bound("max_future_s", "a stamp further ahead is rejected [s]", 1.0)
    max_chunk_age_s: float = _bound("max_chunk_age_s", "a chunk of an older observation is rejected [s]", 10.0)
    max_joint_age_s: float = _bound("max_joint_age_s", "hold without joint_states for so long [s]", 10.0)
    max_human_age_s: float = _bound("max_human_age_s", "hold without human/command for so long [s]", 10.0)
    max_following_error: float = _bound("max_following_error", "hold where a joint lags its commands so far [rad]", 7.0)
    max_rejections: int = parameter(_DEFAULT.max_rejections, "chunks rejected in a row that latch a stop", 1, 1000)
    max_human_gap: float = _bound("max_human_gap", "a human farther from the arm is followed slowly first [rad]", 7.0)
    max_align_speed: float = _bound("max_align_speed", "how fast, until the arm has caught up [rad/s]", 10.0)
    ramp_s: float = _bound("ramp_s", "how long the policy takes to get the arm back from a human [s]", 10.0)
    lockstep: bool = parameter(False, "one tick per joint_states instead of a clock of our own")
    lockstep_replan: int = parameter(8, "wait for a chunk younger than so many periods, 0 for never", 0, 1000)
    realtime_priority: bool = parameter(True, "ask for SCHED_FIFO where the system allows it")

    def __post_init__(self) -> None:
        """Raise ValueError for an arm that nobody has described: no limits, no motion."""
        arm_spec(self.arm)

    def control(self) -> ControlConfig:
        """What the controller needs of it."""
        own = {f.name: getattr(self, f.name) for f in fields(ControlConfig) if hasattr(self, f.name)}
        return ControlConfig(**own, simulated_time=self.lockstep)


class ControlNode(LifecycleNode):
    """See the module."""

    kind = ControlNodeConfig

    def __init__(self) -> None:
        super().__init__("control")
        sys.setswitchinterval(_SWITCH_S)  # the loop gets the interpreter soon after it wakes
        self._controller: Controller | None = None
        self._lock, self._stopping = Lock(), Event()
        self._thread: Thread | None = None
        self._entities: list[Callable[[], Any]] = []
        self._mode: Mode | None = None
        self._answered: tuple[int, Tick] | None = None
        self._loop, self._realtime, self._owed, self._edges = PeriodicLoop(1.0), False, 0, 0

    def accept(self, config: ControlNodeConfig) -> None:
        """Take new bounds; while active none may be loosened, and nothing else may change."""
        if self._controller is None:
            return
        bounds = {f.name for f in fields(config) if f.name.startswith("max_")}
        changed = {f.name for f in fields(config) if getattr(config, f.name) != getattr(self.config, f.name)}
        if self.active and changed - bounds:
            raise ValueError(f"{', '.join(sorted(changed - bounds))} can not change while active: deactivate first")
        if "arm" in changed:
            raise ValueError("arm can not change once configured: clean up first")
        with self._lock:
            self._controller.configure(config.control())

    def configure(self) -> None:
        """Load the robot's limits; no limits, no motion."""
        spec = arm_spec(self.config.arm)
        self._controller = Controller(spec, self.config.control())
        self._loop = PeriodicLoop(1.0 / spec.rate)
        if free := self._controller.limits.unbounded:
            self.get_logger().warning(f"the workspace does not bound {', '.join(free)}: they do not move the tip")

    def cleanup(self) -> None:
        """Forget the robot."""
        self._controller = None

    def activate(self) -> None:
        """Take the arm, unless another control has it."""
        self._claim()
        self._wait_for_the_arm()
        self._open()
        time.sleep(0.2)  # two that activate at once see each other by now
        self._refuse_others(self.count_publishers(self._commands.topic_name) > 1)
        self._controller.activate()
        self._stopping.clear()
        self._answered, self._owed, self._mode = None, 0, None
        gc.freeze()
        self._realtime = self.config.realtime_priority and not self.config.lockstep and promote_process()
        if not self.config.lockstep:
            self._thread = Thread(target=self.guarded(self._run), name="control loop")
            self._thread.start()

    def _claim(self) -> None:
        """On this host a lock decides at once; what runs on other hosts only discovery tells."""
        topic = self.resolve_topic_name("joint_commands")
        try:
            lock = HostLock(f"{topic} of ROS domain {self.context.get_domain_id()}")
        except ValueError as error:
            raise ValueError(f"another control has the arm: {error}") from None
        self._entities.append(lock.close)

    def _wait_for_the_arm(self) -> None:
        """A control that was killed is still listed until its lease has run out; one that lives stays."""
        topic, patience = self.resolve_topic_name("joint_commands"), time.monotonic() + dds.lease_s() + 1.0
        while (taken := self.count_publishers(topic) > 0) and time.monotonic() < patience:
            time.sleep(0.05)
        self._refuse_others(taken)

    def _refuse_others(self, taken: bool) -> None:
        if taken:
            topic = self.resolve_topic_name("joint_commands")
            others = [f"{p.node_namespace.rstrip('/')}/{p.node_name}" for p in self.get_publishers_info_by_topic(topic)]
            raise ValueError(f"another node has the arm: {topic} is published by {', '.join(others)}")

    def _open(self) -> None:
        """Topics and services, which exist only while active."""
        self._commands = self._publisher(JointState, "joint_commands", qos.OFFER)
        self._steps = self._publisher(JointState, "control/step", qos.EVERY)
        self._modes = self._publisher(String, "control/mode", qos.LATCHED)
        for kind, topic, callback, profile, size in (
            (JointState, "joint_states", self._on_joints, qos.LATEST, 16384),
            (JointState, "joint_targets", self._on_targets, qos.LATEST, 16384),
            (JointState, "human/command", self._on_human, qos.LATEST, 16384),
            (JointTrajectory, "steering/chunk", self._on_chunk, qos.EVERY, _CHUNK_BYTES),
        ):
            subscription = self.subscribe(kind, topic, callback, profile, size)
            self._entities.append(lambda s=subscription: self.destroy_subscription(s))
        controller = self._controller
        self._service(SetBool, "take_over", lambda request, now: controller.take_over(request.data, now))
        self._service(Trigger, "pause", lambda _, now: controller.pause(now))
        self._service(Trigger, "resume", lambda _, now: controller.resume(now))
        self._service(Trigger, "stop", lambda _, now: controller.stop(at_ns=now))
        self._service(Trigger, "reset_stop", lambda _, now: controller.reset_stop(now))

    def _publisher(self, kind: Any, topic: str, profile: Any) -> Any:
        publisher = self.create_publisher(kind, topic, profile)
        self._entities.append(lambda: self.destroy_publisher(publisher))
        return publisher

    def _service(self, kind: Any, name: str, ask: Callable[[Any, int], Answer]) -> None:
        def answer(request: Any, response: Any) -> Any:
            with self._lock:
                response.success, response.message = ask(request, time.monotonic_ns())
                self._tell_mode()
            self._tick_if_due()
            return response

        service = self.create_service(kind, f"control/{name}", answer)
        self._entities.append(lambda: self.destroy_service(service))

    def deactivate(self) -> None:
        """Command nothing more: the robot brakes and holds as soon as it hears nothing."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._controller is not None:
            self._controller.deactivate()
        while self._entities:
            self._entities.pop()()
        gc.unfreeze()

    def _on_joints(self, message: JointState, receipt: Receipt) -> None:
        joints = messages.joints_of(message, self._controller.spec.names)
        stamp = messages.stamp_ns(message.header.stamp)
        with self._lock:
            self._controller.observe(joints, stamp, receipt.received_ns)
        self._owed = stamp
        self._tick_if_due()

    def _on_targets(self, message: JointState, _: Receipt) -> None:
        targets = messages.joints_of(message, self._controller.spec.names)
        with self._lock:
            self._controller.robot_keeps(targets)

    def _on_human(self, message: JointState, receipt: Receipt) -> None:
        targets = messages.joints_of(message, self._controller.spec.names)
        with self._lock:
            stamp = messages.stamp_ns(message.header.stamp)
            reason = self._controller.human(targets, receipt.received_ns, receipt.publisher, stamp)
        if reason:
            raise ValueError(reason)

    def _on_chunk(self, message: JointTrajectory, receipt: Receipt) -> None:
        try:
            chunk = messages.chunk_of(message, self._controller.spec.action_spec)
        except ValueError:
            with self._lock:
                self._controller.reject("malformed")
            raise
        candidate = message.header.frame_id
        with self._lock:
            number = int(candidate) if candidate.isascii() and candidate.isdigit() and len(candidate) < 6 else -1
            reason = self._controller.chunk(chunk, number, receipt.received_ns)
        if reason:
            raise ValueError(reason)
        self._tick_if_due()

    def _run(self) -> None:
        """The control loop."""
        if self._realtime:
            realtime_priority(CONTROL)
        for now in self._loop.ticks():
            if self._stopping.is_set():
                return
            self._publish(*self._tick(now))

    def _tick(self, now: int) -> tuple[Tick, int, tuple[Edge, ...]]:
        """A tick of now, its stamp, and the changes of mode before it; one from before a stall is none of now."""
        with self._lock:
            tick = self._controller.tick(now)
            while self._controller.overdue(later := time.monotonic_ns()):
                tick, now = self._controller.tick(later), later
            return tick, self._controller.now_ns(now), self._controller.new_edges()

    def _tick_if_due(self) -> None:
        """Lock-step: answer the newest joint_states once there is something to say, and again if asked again."""
        if not self.config.lockstep or not self.active or not self._owed:
            return
        stamp, now = self._owed, time.monotonic_ns()
        if self._answered is not None and self._answered[0] == stamp:
            self._owed = 0
            self._publish(self._answered[1], stamp)
            return
        replan = self.config.lockstep_replan
        with self._lock:
            if replan and not self._controller.covers(now, (replan - 0.5) / self._controller.spec.rate):
                return
            tick, edges = self._controller.tick(now), self._controller.new_edges()
        self._owed, self._answered = 0, (stamp, tick)
        self._loop.note(0)
        self._publish(tick, stamp, edges)

    def _publish(self, tick: Tick, stamp: int, edges: tuple[Edge, ...] = ()) -> None:
        names = self._controller.spec.names
        if tick.command is not None:
            self._commands.publish(messages.joint_state(names, tick.command, stamp))
        self._edges = edges[-1].number if edges else self._edges
        self._steps.publish(messages.step(tick, names, stamp, edges, self._edges))
        with self._lock:
            self._tell_mode()

    def _tell_mode(self) -> None:
        """Publish the mode where it has changed; with the lock held, so that the last one told is the newest."""
        if self._controller.mode is not self._mode:
            self._mode = self._controller.mode
            self._modes.publish(String(data=str(self._mode)))

    def health(self) -> Health:
        """Mode, rejections, holds, clamps, lateness."""
        if not self.active:
            return Health(OK, "not active", {})
        controller, loop = self._controller, self._loop
        values: dict[str, object] = {
            "mode": controller.mode, "periods": loop.periods, "overruns": loop.overruns,
            "late_p50_ms": loop.late_ms(50), "late_p99_ms": loop.late_ms(99), "done_p99_ms": loop.done_ms(99),
            "done_max_ms": loop.done_ms(100), "realtime": self._realtime,
            **controller.counters,
        }  # fmt: skip
        if controller.mode is Mode.STOPPED:
            return Health(ERROR, f"stopped: {controller.stop_reason}", values)
        unheard = self.unheard("joint_states", "steering/chunk")
        if unheard:
            return Health(WARNING, f"nobody publishes {', '.join(unheard)}", values)
        others = self.count_publishers(self._commands.topic_name) - 1
        if others:
            self.warn(f"{self._commands.topic_name} has {others} more publishers than this one")
            return Health(WARNING, f"{others} more publishers of {self._commands.topic_name}", values)
        return Health(OK, "in control", values)


def main() -> int:
    """Run the node in a process of its own."""
    return run(ControlNode)

"""robot_node hosts a Robot. Joints and pictures out, commands in; it holds by itself where commands fall silent."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import numpy as np
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from vla_rl import build, build_arm
from vla_rl.execute.loop import PeriodicLoop, realtime_priority
from vla_rl.hil.scripted import SKILLS
from vla_rl.robot import Fault, Frame, Physical, Rejoined, Sensed, Simulated, SupportsExpert
from vla_rl.ros import messages, qos
from vla_rl.ros.arm_parameters import ArmParameters
from vla_rl.ros.camera_topics import CameraTopics
from vla_rl.ros.guard import Guard
from vla_rl.ros.node import ERROR, OK, WARNING, Health, Node, Receipt
from vla_rl.ros.node import main as run
from vla_rl.ros.parameters import parameter
from vla_rl.ros.realtime import ROBOT, WATCHDOG, promote_process
from vla_rl.ros.requests import Requests
from vla_rl.ros.scripted_leader import ScriptedLeader
from vla_rl.ros.urdf import urdf
from vla_rl.types import Array, RobotSpec

TIMES = ("real", "faster", "lockstep")
_PATIENCE_S = 60.0  # another task's world takes a while on a loaded machine
_BLIND_S, _ARM_BLIND_S = 1.0, 0.15  # a simulation draws in our own thread, a camera does not, and begins at once
_REPEAT_S = 0.5


@dataclass(frozen=True)
class RobotConfig(ArmParameters):
    """Parameters of robot_node; those of `ArmParameters` are for real arms."""

    task: str = parameter("lift", "what is on the table; applied at sim/reset")
    seed: int = parameter(0, "of the scene; applied at sim/reset", 0, 2**62)
    variant: int = parameter(-1, "which thing of the scene is named, -1 for the seed's; applied at sim/reset", -1, 999)
    randomisation: str = parameter("train", "how scenes differ; applied at sim/reset", choices=build.LEVELS)
    phrasings: str = parameter("train", "in which words; applied at sim/reset", choices=build.PHRASINGS)
    cameras: tuple[str, ...] = parameter(build.CAMERAS, "which cameras", fixed=True)
    image_width: int = parameter(96, "of every picture [pixels]", 16, 4096, fixed=True)
    image_height: int = parameter(96, "of every picture [pixels]", 16, 4096, fixed=True)
    compressed: bool = parameter(False, "publish camera/<name>/compressed (JPEG) instead of image_raw", fixed=True)
    time: str = parameter("real", "pace of a simulation", choices=TIMES, fixed=True)
    speed: float = parameter(4.0, "simulated seconds a second where time is faster", 0.1, 100.0, fixed=True)
    command_timeout_periods: float = parameter(2.0, "without joint_commands for so long, hold", 1.0, 100.0, fixed=True)
    realtime_priority: bool = parameter(True, "ask for SCHED_FIFO where the system allows it", fixed=True)
    leader: str = parameter("", "in simulation, who holds a leader arm", choices=("", *SKILLS), fixed=True)
    leader_pace: float = parameter(1.0, "multiple of their usual speed", 0.1, 10.0, fixed=True)
    publish_instruction: bool = parameter(True, "publish the task's instruction at each reset", fixed=True)


class RobotNode(Node):
    """See the module. Sensing, drawing and publishing happen in one thread, the watchdog has another."""

    kind = RobotConfig

    def __init__(self) -> None:
        super().__init__("robot")
        self._speed = {"real": 1.0, "faster": self.config.speed, "lockstep": 0.0}[self.config.time]
        self._robot = self._make(self.config)
        try:
            self._prepare_to_run()
        except Exception:
            self._robot.close()
            raise

    def _prepare_to_run(self) -> None:
        self.spec: RobotSpec = self._robot.spec
        self._period_s = 1.0 / self.spec.rate / (self._speed or 1.0)
        silence = self.config.command_timeout_periods * self._period_s
        self._guard = Guard(self.spec, silence if self._speed else math.inf, self._speed)
        self._loop = PeriodicLoop(self._period_s)
        self._requests = Requests(_PATIENCE_S)
        self._answers: SimpleQueue[tuple[JointState, Receipt]] = SimpleQueue()
        self._stopping, self._paused, self._episode, self._hold_ns = Event(), False, 0, 0
        self._looked, self._told_ns, self._told_fault = -1.0, 0, ""
        self._there: set[str] = set()
        self._grippers = np.array([joint.gripper for joint in self.spec.joints])
        works = (self._run, self._watch) if self._speed else (self._run,)
        self._leader = self._make_leader()
        self._threads = [Thread(target=self.guarded(work), name=work.__name__) for work in works]
        self._advertise()
        self._reset()
        gc.freeze()
        self._realtime = self.config.realtime_priority and self._speed > 0 and promote_process()
        for thread in self._threads:
            thread.start()

    def _make(self, config: RobotConfig) -> Any:
        if config.robot in build_arm.ARMS:
            if config.time != "real":
                raise ValueError(f"time is '{config.time}': a real arm knows real time only")
            return build_arm.make_arm(config.arm_config(), self, self.get_logger().warning)
        env = build.EnvConfig(randomisation=config.randomisation, phrasings=config.phrasings, cameras=config.cameras)
        size = (config.image_height, config.image_width)
        return build.make_robot(config.robot, config.task, env, size, self._speed)

    def _make_leader(self) -> ScriptedLeader | None:
        who = self.config.leader
        if not who:
            return None
        if not isinstance(self._robot, SupportsExpert):
            raise ValueError(f"leader '{who}': only a simulation has a script; a real arm has teleop_node")
        return ScriptedLeader(self, self.spec.names, who == "clumsy", self.config.leader_pace)

    def accept(self, config: RobotConfig) -> None:
        """Refuse what the next reset could not do."""
        if build.tasks(config.task) != (config.task,):
            raise ValueError(f"task '{config.task}': there is one task at a time; {', '.join(build.task_names())}")

    def _advertise(self) -> None:
        self._joints = self.create_publisher(JointState, "joint_states", qos.OFFER)
        self._targets = self.create_publisher(JointState, "joint_targets", qos.EVERY)
        self._time = self.create_publisher(Clock, "clock", qos.LATEST)
        self._description = self.create_publisher(String, "robot_description", qos.LATCHED)
        self._description.publish(String(data=urdf(self.spec)))
        self._cameras = CameraTopics(self, self.spec.cameras, self.config.compressed)
        self.subscribe(JointState, "joint_commands", self._on_command, qos.COMMANDS, 16384)
        if isinstance(self._robot, Simulated):
            self._status = self.create_publisher(JointState, "sim/status", qos.EVERY)
            self._instruction = self.create_publisher(String, "instruction", qos.LATCHED)
            for name, action in (("reset", self._reset_scene), ("pause", self._toggle), ("step", self._single_step)):
                self.create_service(Trigger, f"sim/{name}", self._serve(action))
        if isinstance(self._robot, Physical):
            self.create_service(Trigger, "robot/recover", self._serve(self._recover))

    def _on_command(self, message: JointState, receipt: Receipt) -> None:
        if not self._speed:
            self._answers.put((message, receipt))
            return
        if not self._stopping.is_set():
            self._do(message, receipt)
            self._hold_ns = 0

    def _do(self, message: JointState, receipt: Receipt) -> None:
        """Do a command; ValueError where it is refused."""
        stamp = messages.stamp_ns(message.header.stamp)
        self._send(self._taken(message, stamp, receipt), stamp)

    def _send(self, targets: Array, stamp: int, why: str = "") -> None:
        """All that ever reaches the arm while the node lives: do it, and tell what the robot says it has sent."""
        sent = self._robot.command(targets)
        self._targets.publish(messages.joint_state(self.spec.names, sent, stamp, frame_id=why))

    def _taken(self, message: JointState, stamp: int, receipt: Receipt) -> Array:
        """What to send to the robot for a command; ValueError where it is refused."""
        targets = messages.joints_of(message, self.spec.names)
        if receipt.publisher != self._guard.publisher and self._guard.holding:
            self._release_the_gone()
        return self._guard.take(targets, receipt.publisher, stamp, receipt.received_ns)

    def _release_the_gone(self) -> None:
        """Follow another publisher once the one that was followed is no longer there; asked for ten times a second."""
        now = time.monotonic()
        if now - self._looked > 0.1:
            self._looked = now
            listed = {bytes(p.endpoint_gid) for p in self._publishers_of_commands()}
            if self._guard.publisher not in listed:
                self._guard.release()

    def _publishers_of_commands(self) -> list[Any]:
        return self.get_publishers_info_by_topic(self.resolve_topic_name("joint_commands"))

    def _serve(self, action: Callable[[], str]) -> Callable[[Any, Any], Any]:
        """A service whose action runs in the loop's thread, between two periods."""

        def answer(_: Any, response: Any) -> Any:
            try:
                response.message, response.success = self._requests.ask(action), True
            except Exception as error:
                response.success, response.message = False, str(error) or type(error).__name__
            return response

        return answer

    def _reset_scene(self) -> str:
        if self._made_for(self.config) != self._made:
            self._robot.close()
            self._robot = self._make(self.config)
        self._reset()
        return self._robot.instruction

    def _made_for(self, config: RobotConfig) -> tuple[str, ...]:
        return (config.task, config.randomisation, config.phrasings)

    def _reset(self) -> None:
        """A new scene: first what to do in it, then what it looks like."""
        self._made = self._made_for(self.config)
        if not isinstance(self._robot, Simulated):
            return
        variant = None if self.config.variant < 0 else self.config.variant
        self._robot.reset(self.config.seed, {"variant": variant})
        self._guard.reset(time.monotonic_ns() if self._speed else 0)
        if self._leader is not None:
            self._leader.begin()
        self._episode, self._hold_ns, self._seed = self._episode + 1, 0, self.config.seed
        if self.config.publish_instruction:
            self._instruction.publish(String(data=self._robot.instruction))

    def _recover(self) -> str:
        """After a fault: commands are taken again, from where the arm is.

        Until it has been sensed there, the guard knows no place: it lets nothing pass, and holds the arm nowhere.
        """
        self._guard.reset(time.monotonic_ns())
        self._robot.recover()
        self._guard.reset(time.monotonic_ns())
        return "the robot takes commands"

    def _toggle(self) -> str:
        self._paused = not self._paused
        if self._speed:
            self._robot.pause(self._paused)
        self._publish()
        return "paused" if self._paused else "running"

    def _single_step(self) -> str:
        if not self._paused:
            raise ValueError("sim/step needs sim/pause first")
        if self._speed:
            self._robot.step()
        else:
            self._robot.command(self._robot.env.world.targets)
        return f"at {self._publish()} ns"

    def _run(self) -> None:
        """The robot loop, until the node closes."""
        if self._realtime:
            realtime_priority(ROBOT)
        self._cameras.begin()
        try:
            (self._run_lockstep if not self._speed else self._run_paced)()
        finally:
            self._stopping.set()
            with suppress(Fault):
                self._robot.hold()
            self._robot.close()

    def _run_paced(self) -> None:
        for _ in self._loop.ticks():
            self._requests.serve()
            if self._stopping.is_set():
                return
            if not self._paused:
                self._publish()

    def _run_lockstep(self) -> None:
        """Publish a step, wait for its command, do it; a step that nobody answers is told again."""
        while not self._stopping.is_set():
            stamp = self._publish()
            asked = time.monotonic()
            while not self._stopping.is_set() and time.monotonic() - asked < _REPEAT_S:
                if self._requests.serve() or self._obey(stamp):
                    break

    def _obey(self, stamp: int) -> bool:
        """Wait a moment for the command that answers a stamp, and do it."""
        try:
            message, receipt = self._answers.get(timeout=0.05)
            if messages.stamp_ns(message.header.stamp) != stamp or self._paused:
                return False
            self._do(message, receipt)
        except Empty:
            return False
        except ValueError as error:
            self.reject("joint_commands", str(error))
            return False
        return True

    def _publish(self) -> int:
        """Everything that is new in this period, the joints first; returns their stamp [ns]."""
        sensed: Sensed = self._robot.sense()
        stamp = sensed.stamp_ns
        simulated = isinstance(self._robot, Simulated)
        if simulated or stamp != self._told_ns:  # a silent arm has nothing new; a simulation may have to repeat itself
            self._told_ns = stamp
            self._joints.publish(messages.joint_state(self.spec.names, sensed.joints, stamp, sensed.velocities))
            self._guard.sense(self._with_grip(sensed), time.monotonic_ns())
            self._time.publish(Clock(clock=messages.time(stamp)))
        if self._leader is not None:
            self._leader.lead(self._robot, sensed)
        if simulated:
            self._status.publish(self._status_message(stamp))
            self._cameras.show({name: Frame(image, stamp) for name, image in self._robot.pictures().items()})
        else:
            frames = self._robot.frames()
            self._there = set(frames)
            self._cameras.show(self._cameras.fresh(frames))
            self._tell_troubles()
        return stamp

    def _with_grip(self, sensed: Sensed) -> Sensed:
        """What commands go on from: a gripper's goal, for something may stop its joint. Told until one is followed."""
        if not isinstance(self._robot, Rejoined):
            return sensed
        told = self._robot.told
        if not self._guard.publisher:
            self._targets.publish(messages.joint_state(self.spec.names, told, sensed.stamp_ns, frame_id="kept"))
        return replace(sensed, joints=np.where(self._grippers, told, sensed.joints))

    def _tell_troubles(self) -> None:
        """A fault of the arm or a camera that fell silent is told at once, not with the next diagnostics."""
        blind = self._blind()
        trouble = "; ".join(part for part in (self._robot.fault, self._missing(blind)) if part)
        if trouble != self._told_fault:
            self._told_fault = trouble
            self._diagnose()

    def _blind(self) -> list[str]:
        """Cameras without pictures; of a real arm it knows itself which are late: those are not there."""
        if self._paused:
            return []
        silent = self._cameras.silent(_ARM_BLIND_S if isinstance(self._robot, Physical) else _BLIND_S)
        return [name for name in silent if name not in self._there]

    @staticmethod
    def _missing(cameras: list[str]) -> str:
        return f"no pictures from camera {', '.join(cameras)}" if cameras else ""

    def _status_message(self, stamp: int) -> JointState:
        seconds, nanoseconds = divmod(self._hold_ns, messages.SECOND)
        own = {
            "seed": float(self._seed), "episode": float(self._episode), "holding": float(self._guard.holding),
            "hold_sec": float(seconds), "hold_nsec": float(nanoseconds),
        }  # fmt: skip
        return messages.vector({**self._robot.status(), **own}, stamp, self._robot.instruction)

    def _watch(self) -> None:
        """Hold the arm as soon as commands fall silent, and go on braking once a period."""
        if self._realtime:
            realtime_priority(WATCHDOG)
        while not self._stopping.is_set():
            now = time.monotonic_ns()
            faulty = isinstance(self._robot, Physical) and self._robot.fault
            command = None if self._paused or faulty else self._guard.hold(now)
            if command is None:
                self._stopping.wait(max(self._guard.due_in(now), 0.001))
                continue
            self._hold_ns = self._hold_ns or time.time_ns()
            with suppress(Fault):  # the arm says so itself
                self._send(command, self._guard.time_ns(now), "hold")
            self._stopping.wait(self._period_s)

    def health(self) -> Health:
        """Rates, silence, strangers."""
        guard, topic = self._guard, self.resolve_topic_name("joint_commands")
        publishers = self._publishers_of_commands()
        values: dict[str, object] = {
            "periods": self._loop.periods, "overruns": self._loop.overruns, "late_p99_ms": self._loop.late_ms(99),
            "realtime": self._realtime,
            "holding": guard.holding, "holds": guard.holds, "clamped": guard.clamps, "strangers": guard.strangers,
            "outdated": guard.outdated, "command_publishers": len(publishers), "episode": self._episode,
            "paused": self._paused,
        }  # fmt: skip
        if isinstance(self._robot, Physical):
            values |= {f"robot/{name}": value for name, value in self._robot.figures().items()}
            if self._robot.fault:
                return Health(ERROR, f"held: {self._robot.fault}; mend it, then call robot/recover", values)
        if len(publishers) > 1:
            who = ", ".join(sorted(f"{p.node_namespace.rstrip('/')}/{p.node_name}" for p in publishers))
            self.warn(f"{topic} has {len(publishers)} publishers, only one is followed: {who}", "publishers")
            return Health(WARNING, f"more than one publisher of {topic}: {who}", values)
        blind = self._blind()
        if blind and self._speed:
            self.warn(f"{self._missing(blind)}: is it connected?", "cameras")
            return Health(WARNING, self._missing(blind), values)
        if not publishers:
            return Health(WARNING, f"nobody publishes {topic}", values)
        if guard.holding:
            return Health(WARNING, "commands are silent: holding", values)
        return Health(OK, "running", values)

    def close(self) -> None:
        """Let the loop end and the arm be held."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()


def main() -> int:
    """Run the node in a process of its own."""
    return run(RobotNode)

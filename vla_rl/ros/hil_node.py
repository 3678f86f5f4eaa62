"""hil_node: the operator's end. Devices in, `human/command` out; asks control for the arm; hosts the console.

A thread of its own asks the operator's hand once a period where the arm is wanted; the executor feeds the desk with
what it hears. Who has the arm decides control, which gates every command.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from threading import Event, Thread
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from vla_rl.execute.loop import PeriodicLoop
from vla_rl.hil.desk import Desk
from vla_rl.hil.devices import DEVICES
from vla_rl.hil.devices.tape import Taped
from vla_rl.hil.episodes import EpisodeMark
from vla_rl.hil.hand import Hand
from vla_rl.hil.help import Calibration, Signals
from vla_rl.hil.mapping import Mapping, MappingConfig
from vla_rl.kinematics import Kinematics, chain_model
from vla_rl.robot import arm_spec
from vla_rl.ros import devices, messages, qos
from vla_rl.ros.hil_feed import Decision, Feed
from vla_rl.ros.node import OK, WARNING, Health, LifecycleNode, Receipt
from vla_rl.ros.node import main as run
from vla_rl.ros.parameters import parameter
from vla_rl.ros.realtime import favour_process
from vla_rl.types import Array, Mode, Outcome, Source

_SMALL = 16384  # bytes
_REQUESTS = ("pause", "resume", "stop", "reset_stop")
_MARKS = ("start", "success", "failure", "end", "discard", "rerecord")
_OUTCOMES = {Outcome.UNKNOWN: 0.0, Outcome.SUCCESS: 1.0, Outcome.FAILURE: 2.0}


@dataclass(frozen=True)
class HilParameters:
    """Parameters of hil_node."""

    arm: str = parameter("so101", "the robot's description: a name in hardware/arms, or a .yaml file")
    device: str = parameter("page", "what the operator drives with", choices=DEVICES)
    device_path: str = parameter("", "its file: /dev/hidraw3 of a SpaceMouse, or the tape of a device")
    tape: str = parameter("", "file in which all that the device says is written down; empty: none")
    rate: float = parameter(60.0, "commands a second [Hz]", 1.0, 1000.0)
    refuse_gap: float = parameter(0.0, "a takeover from farther is refused [rad]; 0: followed slowly", 0.0, 7.0)
    lead: float = parameter(MappingConfig.lead, "how far a device that moves by speed may run ahead [rad]", 0.01, 1.0)
    ask_for_help: str = parameter("", "file of vla-rl calibrate: when to pause and call the operator; empty: never")
    nice: int = parameter(-12, "niceness of the process, where the system allows it", -20, 19)
    cameras: tuple[str, ...] = parameter((), "cameras to show; empty takes those of the arm's description")
    image_transport: str = parameter("raw", "which topic of a camera is read", choices=("raw", "compressed"))
    picture_rate: float = parameter(30.0, "pictures of a camera a second at most [Hz]", 0.1, 120.0)
    console: bool = parameter(True, "serve the console's page")
    host: str = parameter("127.0.0.1", "address of the console; any but loopback needs a token")
    port: int = parameter(8080, "port of the console, 0: any that is free", 0, 65535)
    token: str = parameter("", "what a browser must know, where the address is not loopback")
    page_lag: float = parameter(0.5, "a page that is further behind does not drive [s]", 0.1, 10.0)


class HilNode(LifecycleNode):
    """See the module."""

    kind = HilParameters
    config: HilParameters

    def __init__(self, **options: Any) -> None:
        self._stopping = Event()
        self._thread: Thread | None = None
        self._console: Any = None
        self._device: Any = None
        self._lasting: set[int] = set()
        super().__init__("hil", **options)

    def accept(self, config: HilParameters) -> None:
        """Only while nobody works at it."""
        if self.active:
            raise ValueError("hil's parameters change while it is inactive")

    # -- lifecycle ------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Know the robot."""
        config = self.config
        self._spec = arm_spec(config.arm)
        kinematics = Kinematics(self._spec, chain_model(self._spec))
        self._mapping = Mapping(self._spec, kinematics, MappingConfig(lead=config.lead))
        self._calibration = Calibration.load(config.ask_for_help) if config.ask_for_help else None
        self._cameras = config.cameras or tuple(camera.name for camera in self._spec.cameras)

    def activate(self) -> None:
        """Open the topics, the device and the console; a button must not wait for the policy's thinking."""
        favour_process(self.config.nice)
        config = self.config
        self._lasting = {id(entity) for _, entity in self._entities()}
        self.desk, self._stamp = Desk(self), 0
        self._signals = Signals(np.array([joint.gripper for joint in self._spec.joints]))
        self._executed: Array | None = None
        self._measured: Array | None = None
        self._open()
        self._device = devices.open_device(self, config.device, config.device_path, self._spec)
        if config.tape and self._device is None:
            raise ValueError(f"tape: what the {config.device} says is not taped; the other devices' is")
        if config.tape:
            self._device = Taped(self._device, config.tape)
        self._hand = Hand(self.desk, self._mapping, self._device, config.refuse_gap)
        compressed = config.image_transport == "compressed"
        Feed(self, self.desk, self._spec, self._cameras, compressed, config.picture_rate, self._watch)
        self._stopping.clear()
        self._thread = Thread(target=self.guarded(self._drive), name="hand")
        self._thread.start()
        if config.console:
            from vla_rl.hil.console import serve

            self._console = serve(self.desk, config.host, config.port, config.token, self._spec, config.page_lag)
            self.get_logger().info(f"console: {self._console.url}")

    def _open(self) -> None:
        self._commands = self.create_publisher(JointState, "human/command", qos.OFFER)
        self._episodes = self.create_publisher(JointState, "episode/status", qos.LATCHED)
        self._instruction = self.create_publisher(String, "instruction", qos.LATCHED)
        self._asked = {name: self.create_client(Trigger, f"control/{name}") for name in _REQUESTS}
        self._asked["take_over"] = self.create_client(SetBool, "control/take_over")
        self._served = [self.create_service(Trigger, f"episode/{name}", partial(self._serve, name)) for name in _MARKS]
        self.subscribe(JointState, "joint_states", self._on_joints, qos.LATEST, _SMALL)
        self.subscribe(JointState, "control/step", self._on_step, qos.EVERY, _SMALL)
        self.subscribe(String, "control/mode", self._on_mode, qos.LATCHED, _SMALL)

    def deactivate(self) -> None:
        """Command nothing more: where a human drove, control holds."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for opened in (self._console, self._device):
            if opened is not None:
                opened.close()
        self._console = self._device = None
        for kind, entity in self._entities():
            if id(entity) not in self._lasting:
                getattr(self, f"destroy_{kind}")(entity)

    def _entities(self) -> list[tuple[str, Any]]:
        """Everything that this node has on the wire, with its kind."""
        kinds = ("publisher", "subscription", "client", "service", "timer")
        return [(kind, entity) for kind in kinds for entity in getattr(self, f"{kind}s")]

    # -- what the desk asks for -------------------------------------------------------------------------------------

    def control(self, name: str, on: bool) -> None:
        """Ask control; its answer comes to the desk."""
        client = self._asked[name]
        if not client.service_is_ready():
            self.desk.answered(name, False, "control is not there")
            return
        request = SetBool.Request(data=on) if name == "take_over" else Trigger.Request()
        client.call_async(request).add_done_callback(
            lambda future: self.desk.answered(name, future.result().success, future.result().message)
        )

    def instruct(self, text: str) -> None:
        """Say what to do."""
        self._instruction.publish(String(data=text))

    def episode(self, mark: EpisodeMark) -> None:
        """Tell what has become of an episode."""
        if mark.recording:
            self._signals.episode(mark.ordinal, self._seconds)
        if not self._episodes.get_subscription_count():
            self.desk.say(f"nobody records: no recorder hears of episode {mark.ordinal}", 2)
        values = {
            "ordinal": float(mark.ordinal), "recording": float(mark.recording), "outcome": _OUTCOMES[mark.outcome],
            "discarded": float(mark.discarded), "human_s": mark.human_s, "takeovers": float(mark.takeovers),
        }  # fmt: skip
        self._episodes.publish(messages.vector(values, self._stamp, mark.note))

    def _serve(self, name: str, _: Any, response: Any) -> Any:
        """episode/<name>: whoever calls it speaks for whoever has the arm."""
        response.success, response.message = getattr(self.desk, name)(self.desk.view().operator)
        return response

    # -- what comes in ------------------------------------------------------------------------------------------------

    @property
    def _seconds(self) -> float:
        """The robot's time [s]; NaN before joints were heard: the mode of a graph that runs already comes earlier."""
        return self._stamp * 1e-9 if self._stamp else math.nan

    def _on_joints(self, message: JointState, _: Receipt) -> None:
        self._measured = messages.joints_of(message, self._spec.names)
        self._stamp = messages.stamp_ns(message.header.stamp)

    def _on_step(self, message: JointState, _: Receipt) -> None:
        values = messages.vector_of(message)
        executed = np.array([values.get(f"executed/{name}", math.nan) for name in self._spec.names])
        self._executed = executed if np.isfinite(executed).all() else None
        source = values.get("source", math.nan)
        if not math.isfinite(source):
            raise ValueError("a step without its source")
        self.desk.stepped(Source(round(source)), message.header.frame_id, 1.0 / self._spec.rate)

    def _on_mode(self, message: String, _: Receipt) -> None:
        self.desk.moded(Mode(message.data))
        self._signals.begin(self._seconds)

    def _watch(self, decision: Decision) -> None:
        """Pause and call the operator where the policy is in trouble; what it does after a change of hands is new."""
        if self._calibration is None or self._measured is None or self.desk.view().mode is not Mode.AUTONOMOUS:
            return
        if self.desk.wanted:  # a human takes over just now: a pause would only take the arm away again
            return
        said = (decision.chunks, decision.value, decision.spread, decision.abstained)
        why = self._calibration.call(self._signals.look(decision.stamp_ns * 1e-9, self._measured, *said))
        if why:
            self.control("pause", True)
            self.desk.call(why)

    # -- what goes out ------------------------------------------------------------------------------------------------

    def _drive(self) -> None:
        """In the hand's thread."""
        period = 1.0 / self.config.rate
        for now in PeriodicLoop(period).ticks():
            if self._stopping.is_set():
                return
            here = self._measured if self._executed is None else self._executed
            if here is None:
                continue
            try:
                targets = self._hand.targets(here, now, period)
            except ValueError as error:
                self.reject(self._hand.name, str(error))
                continue
            if targets is not None:
                self._commands.publish(messages.joint_state(self._spec.names, targets, self._stamp))

    def health(self) -> Health:
        """Who has the arm, and whether the device is heard."""
        if not self.active:
            return Health(OK, "not active", {})
        view = self.desk.view()
        values: dict[str, object] = {"operator": view.operator, "device": view.device, "alive": view.device_alive}
        if view.operator and not view.device_alive:
            return Health(WARNING, f"{view.device} is lost", values)
        unheard = self.unheard("control/step", "joint_states")
        if unheard:
            return Health(WARNING, f"nobody publishes {', '.join(unheard)}", values)
        return Health(OK, f"{view.operator} has the arm" if view.operator else "watching", values)


def main() -> int:
    """Run the node in a process of its own."""
    return run(HilNode)

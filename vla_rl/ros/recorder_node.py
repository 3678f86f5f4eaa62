"""recorder: everything that happens in an episode, into a session's folder; an episode is what the operator says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from vla_rl.record.durable import DiskFullError
from vla_rl.record.folder import EpisodeEntry
from vla_rl.record.frames import KEEP, FramesConfig
from vla_rl.record.marks import STATUS, Marks, marks
from vla_rl.record.recorder import Message, Recorder
from vla_rl.record.recording import RecordingConfig
from vla_rl.record.session import Session, SessionConfig
from vla_rl.robot import arm_spec
from vla_rl.ros import messages, node, qos
from vla_rl.ros.graph_parameters import Graph
from vla_rl.ros.node import ERROR, OK, WARNING, Health, Heard, LifecycleNode
from vla_rl.ros.parameters import parameter
from vla_rl.ros.realtime import favour_process

_LARGEST = 64 << 20
_IDLE_S = 10.0  # without an episode: then there is time to make the data set
_HISTORY = dict(durability=DurabilityPolicy.VOLATILE, history=HistoryPolicy.KEEP_LAST)
FRAMES = QoSProfile(reliability=ReliabilityPolicy.BEST_EFFORT, depth=90, **_HISTORY)
STREAM = QoSProfile(reliability=ReliabilityPolicy.BEST_EFFORT, depth=200, **_HISTORY)
DECISIONS = QoSProfile(reliability=ReliabilityPolicy.RELIABLE, depth=200, **_HISTORY)
MARKS = QoSProfile(  # the newest on arrival, and then every one, however fast they follow one another
    reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL, depth=50
)
TOPICS = (
    (JointState, "joint_states", STREAM),
    (JointState, "joint_commands", STREAM),
    (JointState, "joint_targets", STREAM),
    (JointState, "human/command", STREAM),
    (JointState, "control/step", DECISIONS),
    (String, "control/mode", qos.LATCHED),
    (JointTrajectory, "policy/candidates", DECISIONS),
    (JointState, "policy/context", DECISIONS),
    (JointTrajectory, "steering/chunk", DECISIONS),
    (JointState, "steering/values", DECISIONS),
    (JointState, "sim/status", DECISIONS),
    (String, "instruction", DECISIONS),
    (String, "instruction", qos.LATCHED),
    (String, "robot_description", qos.LATCHED),
    (DiagnosticArray, "/diagnostics", DECISIONS),
)


@dataclass(frozen=True)
class RecorderParameters:
    """Parameters of the recorder."""

    session: str = parameter("", "folder of the session, made where it does not exist")
    arm: str = parameter("so101", "the robot's description: a name in hardware/arms, or a .yaml file")
    cameras: tuple[str, ...] = parameter((), "cameras there are; empty takes those of the arm's description")
    image_transport: str = parameter("raw", "which topic of a camera is recorded", choices=("raw", "compressed"))
    keep: str = parameter("auto", "raw pictures as PNG up to 256x256 and JPEG above (auto), or as", choices=KEEP)
    quality: int = parameter(90, "of JPEG", 1, 100)
    min_free_gb: float = parameter(2.0, "refuse to start with less room on the disk [GiB]", 0.0, 1e6)
    low_water_mb: float = parameter(32.0, "end the episode under way when so little is left [MiB]", 0.0, 1e6)
    always: bool = parameter(False, "one episode from activation to deactivation, without an operator")
    dataset: bool = parameter(True, "make SESSION/dataset of complete episodes, in a process of low priority")
    nice: int = parameter(-8, "niceness of the process, where the system allows it", -20, 19)

    def session_config(self) -> SessionConfig:
        """What the session needs of it."""
        recording = RecordingConfig(FramesConfig(self.keep, quality=self.quality))
        return SessionConfig(round(self.min_free_gb * 2**30), round(self.low_water_mb * 2**20), recording)


class RecorderNode(LifecycleNode):
    """See the module."""

    kind = RecorderParameters
    config: RecorderParameters

    def __init__(self, **options: Any) -> None:
        self._recorder: Recorder | None = None
        self._entities: list[Any] = []
        self._graph: Graph | None = None
        self._converter: subprocess.Popen[bytes] | None = None
        self._owed, self._ended_s = False, 0.0
        super().__init__("recorder", **options)

    def accept(self, config: RecorderParameters) -> None:
        """Only while no session is open."""
        changed = [f.name for f in fields(config) if getattr(config, f.name) != getattr(self.config, f.name)]
        if self._recorder is not None and changed:
            raise ValueError(f"{', '.join(changed)} can not change while a session is open: deactivate first")

    def configure(self) -> None:
        """Check what can be checked without opening anything."""
        if not self.config.session:
            raise ValueError("which session? Give the parameter 'session' a folder")
        self._spec = arm_spec(self.config.arm)
        self._cameras = list(self.config.cameras or (camera.name for camera in self._spec.cameras))

    def activate(self) -> None:
        """Open and repair the session, and listen."""
        favour_process(self.config.nice)
        session = Session(self.config.session, self._spec, self._cameras, self.config.session_config())
        for line in session.repaired:
            self.get_logger().warning(line)
        for line in session.problems():
            self.get_logger().error(f"damaged: {line}")
        self._recorder = Recorder(session, self._about, self._failed, self._ended)
        self._status = self.create_publisher(JointState, "recorder/status", qos.LATCHED)
        self._graph = Graph(self)
        self._entities.append(self._graph.close)
        self._open()
        self._owed = True
        if self.config.always:
            self._mark(Marks(recording=True, ordinal=0))
        self._say("ready")

    def _open(self) -> None:
        for kind, topic, profile in TOPICS:
            self._listen(kind, topic, profile)
        compressed = self.config.image_transport == "compressed"
        for camera in self._cameras:
            kind, name = (CompressedImage, "compressed") if compressed else (Image, "image_raw")
            self._listen(kind, f"camera/{camera}/{name}", FRAMES)
            self._listen(CameraInfo, f"camera/{camera}/camera_info", STREAM)
        self._listen(JointState, STATUS, MARKS, self._on_status)
        self._listen(String, "episode/note", DECISIONS, self._on_note)
        timer = self.create_timer(0.5, self._look)
        self._entities.append(lambda: self.destroy_timer(timer))

    def deactivate(self) -> None:
        """Complete what is under way, and let go of the session."""
        while self._entities:
            self._entities.pop()()
        try:
            if self._recorder is not None:
                self._recorder.close()
        finally:
            self._recorder = None
        if self._owed:
            self._convert()

    # -- what comes in --------------------------------------------------------------------------------------------

    def _listen(self, kind: Any, topic: str, profile: QoSProfile, then: Any = None) -> None:
        """Record a topic as it comes over the wire; `then` is called with each message, read."""
        heard = self._heard[topic] = self._heard.get(topic, Heard())
        stamped, name = hasattr(kind, "header"), f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"

        def receive(data: bytes, info: Mapping[str, Any]) -> None:
            now = time.monotonic_ns()
            heard.count, heard.last_ns = heard.count + 1, now
            publisher = bytes((info.get("publisher_gid") or {}).get("data", b""))
            number = int(info.get("publication_sequence_number") or 0)
            recorder = self._recorder
            if recorder is None:
                return
            if len(data) > _LARGEST:
                recorder.refuse(topic.strip("/"), publisher, number)
                self.reject(topic, f"{len(data)} bytes: too large to be recorded")
                return
            recorder.take(Message(topic.strip("/"), name, data, now, publisher, number, stamped))
            if then is not None:
                self._follow(topic, lambda message: then(message, publisher), data, kind)

        subscription = self.create_subscription(kind, topic, receive, profile, raw=True)
        self._entities.append(lambda: self.destroy_subscription(subscription))

    def _follow(self, topic: str, then: Any, data: bytes, kind: Any) -> None:
        """Do what a message says; one that makes no sense is recorded all the same."""
        try:
            then(node._read(data, kind))
        except ValueError as error:
            self.reject(topic, str(error))

    def _on_status(self, message: JointState, publisher: bytes) -> None:
        said = marks(message.name, message.position, message.header.frame_id)
        if not self.config.always:
            self._mark(said, publisher)

    def _on_note(self, message: String, _: bytes) -> None:
        assert self._recorder is not None
        try:
            self._recorder.note(message.data)
        except OSError as error:
            self._failed(error)

    def _mark(self, said: Marks, publisher: bytes = b"") -> None:
        assert self._recorder is not None
        try:
            before = self._recorder.recording
            self._recorder.mark(said, publisher)
            if self._recorder.recording is not None and self._recorder.recording is not before:
                self._say(f"recording episode {self._recorder.session.number:06d}")
        except OSError as error:
            self._failed(error)

    # -- what goes out --------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Now and then: is there room, has the writing failed, is more known, is there something to convert?"""
        recorder = self._recorder
        if recorder is None:
            return
        try:
            if recorder.recording is not None and recorder.recording.error is not None:
                recorder.end()
            elif recorder.recording is not None and recorder.session.low_on_room():
                recorder.end(damage=("it was ended early: the disk was almost full",))
                raise DiskFullError(
                    f"almost no room left on the disk of {recorder.session.root}: the episode was ended"
                )
            recorder.tell()
        except OSError as error:
            self._failed(error)
        if self._owed and recorder.recording is None and time.monotonic() - self._ended_s > _IDLE_S:
            self._convert()

    def _failed(self, error: Exception) -> None:
        """From any thread: what keeps us from recording ends the process, in one line."""
        if self._recorder is not None and self._recorder.recording is not None:
            return  # `_look` ends the episode first, and learns what is left of it
        self._say(str(error), failed=True)
        self.failure = error

    def _ended(self, entry: EpisodeEntry) -> None:
        lacks = f", damaged: {'; '.join(entry.meta['damage'])}" if entry.meta["damage"] else ""
        trash = " discarded" if entry.path.parent != self._recorder.session.root else ""
        text = f"episode {entry.number:06d}{trash}: {entry.meta['outcome']}, {entry.meta['seconds']:.1f} s{lacks}"
        if lacks:  # a logger remembers the severity of each line of code
            self.get_logger().warning(text)
        else:
            self.get_logger().info(text)
        self._say(text)
        self._owed, self._ended_s = True, time.monotonic()  # of a discarded one, too: the data set may have it already

    def _convert(self) -> None:
        """Have a process of low priority make the data set of what is complete; it ends by itself."""
        running = self._converter is not None and self._converter.poll() is None
        if not self.config.dataset or running:
            return
        self._owed = False
        command = [sys.executable, "-m", "vla_rl.data.sessions", self.config.session]
        self._converter = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def _say(self, text: str, failed: bool = False) -> None:
        """recorder/status: what the operator should know."""
        recorder = self._recorder
        if recorder is None:
            return
        going = recorder.recording is not None
        values = {
            "state": 2.0 if failed else float(going), "number": float(recorder.session.number),
            "episodes": float(len(recorder.session)), "lost": float(recorder.lost),
            "free_gb": recorder.session.free / 2**30,
        }  # fmt: skip
        self._status.publish(messages.vector(values, time.time_ns(), text))

    def health(self) -> Health:
        """What is being recorded, and what is missing."""
        recorder = self._recorder
        if recorder is None:
            return Health(OK, "not active", {})
        values: dict[str, object] = {
            "episodes": len(recorder.session),
            "free_gb": recorder.session.free / 2**30,
        }
        recording = recorder.recording
        if recording is None:
            return Health(OK, "waiting for episode/status", values)
        values |= {f"lost/{topic}": n for topic, n in recording.lost.items() if n}
        values |= {"seconds": recording.seconds, "bytes": recording.size, "sync_p99_ms": recording.sync_p99_ms}
        said = f"recording episode {recorder.session.number:06d}"
        silent = [t for t in ("joint_states", "control/step") if not recording.taken[t]]
        if recording.error is not None:
            return Health(ERROR, f"recording failed: {recording.error}", values)
        problems = [f"{recorder.lost} messages lost"] if recorder.lost else []
        problems += [f"nobody publishes {topic}" for topic in silent]
        return Health(WARNING if problems else OK, "; ".join([said, *problems]), values)

    def _about(self) -> str:
        """How the graph is set up, as far as it is known; a session that begins with its graph knows nothing yet."""
        assert self._recorder is not None
        assert self._graph is not None
        return json.dumps({"session": self._recorder.session.about["id"], **self._graph.about()})


def main() -> int:
    """Run the node in a process of its own."""
    return node.main(RecorderNode)


if __name__ == "__main__":
    sys.exit(main())

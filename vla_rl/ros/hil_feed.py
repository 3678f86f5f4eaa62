"""What an operator sees: pictures, plans, values and the health of streams, from topics to the desk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic_ns
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from vla_rl.execute.chain import Chain
from vla_rl.hil.desk import Desk, Plan, Stream
from vla_rl.hil.pinhole import Pinhole
from vla_rl.ros import messages, qos
from vla_rl.ros.node import Receipt
from vla_rl.steer.choose import SAYS
from vla_rl.types import Array, CameraSpec, RobotSpec

_LARGEST, _LONGEST = 16 * 2**20, 65500  # of a message [bytes], of a picture [pixels]
_STALE_S, _FAILED = 1.0, 2.0
_LOOK_S = 0.5
_EARLY = 0.7  # of a period: a picture that comes a little early is shown
_SOMETIMES = {"control/mode", "instruction", "recorder/status", "joy", "human/twist"}  # silence is well


@dataclass(eq=False)
class Decision:
    """What was heard of one decision, from several topics in any order.

    Attributes:
        stamp_ns: of the observation, robot clock.
        chosen: the chunk that is executed, (H, J) [rad].
        index: which candidate it was.
        chunks: all candidates, (K, H, J) [rad].
        values: what the critics said of each, (K,).
        value, spread: what they said of the chosen one, NaN where nothing.
        abstained: whether they were not trusted.
    """

    stamp_ns: int
    chosen: Array | None = None
    index: int = 0
    chunks: Array | None = None
    values: Array = field(default_factory=lambda: np.zeros(0))
    value: float = math.nan
    spread: float = math.nan
    abstained: bool = False


class Feed:
    """Subscriptions of a node that fill a desk.

    Args:
        node: whose subscriptions they are.
        desk: what the operator sees.
        spec: the robot.
        cameras: names of those to show.
        compressed: whether their pictures come as JPEG.
        rate: pictures of a camera a second at most [Hz].
        decided: is told of each decision, once the next one begins.
    """

    def __init__(
        self,
        node: Any,
        desk: Desk,
        spec: RobotSpec,
        cameras: Sequence[str],
        compressed: bool,
        rate: float,
        decided: Callable[[Decision], None] = lambda _: None,
    ) -> None:
        self._node, self._desk, self._spec, self._chain = node, desk, spec, Chain(spec)
        self._lenses = dict(_lenses(spec.cameras))
        self._period_ns, self._shown = round(1e9 / rate), dict.fromkeys(cameras, 0)
        self._decided, self._decision = decided, Decision(0)
        self._counts: dict[str, tuple[int, int]] = {}
        node.create_timer(_LOOK_S, self._look)
        self._subscribe(String, "instruction", self._on_instruction, qos.EVERY)
        self._subscribe(String, "instruction", self._on_instruction, qos.LATCHED)
        self._subscribe(JointState, "recorder/status", self._on_recorder, qos.LATCHED)
        self._subscribe(JointState, "steering/values", self._on_values, qos.EVERY)
        self._subscribe(JointTrajectory, "steering/chunk", self._on_chunk, qos.EVERY)
        self._subscribe(JointTrajectory, "policy/candidates", self._on_candidates, qos.EVERY)
        for camera in cameras:
            kind, name = (CompressedImage, "compressed") if compressed else (Image, "image_raw")
            self._subscribe(kind, f"camera/{camera}/{name}", partial(self._on_picture, camera), qos.LATEST)

    def _subscribe(self, kind: Any, topic: str, callback: Callable[..., None], profile: Any) -> None:
        self._node.subscribe(kind, topic, callback, profile, _LARGEST)

    def _on_instruction(self, message: String, _: Receipt) -> None:
        self._desk.instructed(message.data)

    def _on_recorder(self, message: JointState, _: Receipt) -> None:
        if messages.vector_of(message).get("state") == _FAILED:
            self._desk.say(f"recorder: {message.header.frame_id}", 2)

    def _on_values(self, message: JointState, _: Receipt) -> None:
        values = messages.vector_of(message)
        chosen, _, reason = message.header.frame_id.partition(" ")
        decision = self._about(messages.stamp_ns(message.header.stamp))
        decision.values, decision.abstained = np.array(list(values.values())), reason in SAYS.values()
        index = int(chosen) if chosen.isdecimal() else len(values)
        if index < min(len(values), len(message.velocity)):
            decision.value, decision.spread = decision.values[index], float(message.velocity[index])
            self._desk.valued(float(decision.value), decision.spread)
        self._draw(decision)

    def _on_candidates(self, message: JointTrajectory, _: Receipt) -> None:
        found = messages.candidates_of(message, self._spec.action_spec)
        decision = self._about(found.stamp_ns)
        decision.chunks = found.chunks
        self._draw(decision)

    def _on_chunk(self, message: JointTrajectory, _: Receipt) -> None:
        chunk, which = messages.chunk_of(message, self._spec.action_spec), message.header.frame_id
        decision = self._about(chunk.stamp_ns)
        decision.index = int(which) if which.isascii() and which.isdigit() and len(which) < 6 else 0
        decision.chosen = chunk.actions
        self._draw(decision)

    def _about(self, stamp_ns: int) -> Decision:
        """What is known of the decision on an observation; the one before is complete once a later one begins."""
        if stamp_ns != self._decision.stamp_ns:
            if self._decision.chosen is not None:
                self._decided(self._decision)
            self._decision = Decision(stamp_ns)
        return self._decision

    def _draw(self, decision: Decision) -> None:
        """The chosen chunk among its rivals, as far as they have been heard."""
        if decision.chosen is None:
            return
        chunks, index = decision.chunks, decision.index
        if chunks is None or index >= len(chunks):
            chunks, index = decision.chosen[None], 0
        paths = self._chain.tip(chunks)
        pixels = {name: lens(paths) for name, lens in self._lenses.items()}
        values = decision.values if len(decision.values) == len(paths) else np.zeros(0)
        self._desk.planned(Plan(paths, index, pixels, values))

    def _on_picture(self, camera: str, message: Any, receipt: Receipt) -> None:
        if receipt.received_ns - self._shown[camera] < _EARLY * self._period_ns:
            return
        self._shown[camera] = receipt.received_ns
        self._desk.saw(camera, _raw(message) if isinstance(message, Image) else partial(bytes, message.data))

    def _look(self) -> None:
        """How every stream of the node is doing."""
        now = monotonic_ns()
        heard = {name: found for name, found in self._node.heard.items() if name not in _SOMETIMES}
        self._desk.streamed({name: self._health(name, found, now) for name, found in heard.items()})

    def _health(self, name: str, heard: Any, now_ns: int) -> Stream:
        before, at = self._counts.get(name, (0, now_ns))
        self._counts[name] = (heard.count, now_ns)
        rate = (heard.count - before) * 1e9 / max(now_ns - at, 1)
        age = (now_ns - heard.last_ns) * 1e-9 if heard.last_ns else float("inf")
        return Stream(age, rate, age < _STALE_S)


def _raw(message: Image) -> Callable[[], bytes]:
    """What makes a JPEG of a raw picture.

    Raises:
        ValueError: it is no picture, or none that JPEG can hold.
    """
    picture = messages.image_of(message)
    if max(picture.shape) > _LONGEST:
        raise ValueError(f"a picture of {picture.shape[0]} x {picture.shape[1]}: JPEG holds {_LONGEST} a side")
    return lambda: bytes(messages.compressed(picture, 0, "").data)


def _lenses(cameras: Sequence[CameraSpec]) -> Iterator[tuple[str, Pinhole]]:
    """The cameras whose place is known."""
    for camera in cameras:
        if camera.frame is not None and camera.fovy > 0:
            yield camera.name, Pinhole(camera)

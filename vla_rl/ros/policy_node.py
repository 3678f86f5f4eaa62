"""policy: sensors in, `policy/candidates` out. Inference has its own thread and sees the newest observation only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from time import monotonic_ns
from typing import Any, NoReturn

import torch
from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from vla_rl import build
from vla_rl.learn.live import Live
from vla_rl.observe.checks import largest
from vla_rl.observe.encoded import Encoded
from vla_rl.observe.streams import Streams, StreamsConfig
from vla_rl.policy.engine import Engine, EngineConfig, load_engine
from vla_rl.policy.perturb import PerturbConfig
from vla_rl.policy.worker import Answer, Worker
from vla_rl.robot import arm_spec
from vla_rl.ros import messages, node
from vla_rl.ros.context import context
from vla_rl.ros.leaving import abortable, leave
from vla_rl.ros.node import ERROR, OK, WARNING, Health, LifecycleNode, Receipt
from vla_rl.ros.parameters import parameter
from vla_rl.ros.qos import EVERY, LATCHED, LATEST, OFFER
from vla_rl.ros.realtime import favour_process
from vla_rl.steer.guided import METHODS
from vla_rl.types import CameraSpec, Candidates, Observation

HEADER_BYTES = 4096
QUIET = SubscriptionEventCallbacks(use_default_callbacks=False)


@dataclass(frozen=True)
class PolicyParameters:
    """Parameters of the policy node."""

    checkpoint: str = parameter("tabletop", "name of a shipped policy, or a policy's folder")
    device: str = parameter("auto", "where the policy computes: auto, cpu or cuda")
    dtype: str = parameter("float32", "of matrix products", choices=("float32", "bfloat16", "float16"))
    denoising_steps: int = parameter(0, "from noise to a chunk: fewer are faster; 0: the checkpoint's own", 0, 1000)
    threads: int = parameter(1, "threads of a computation on the CPU", 1, 64)
    nice: int = parameter(-10, "niceness of the process, where the system allows it", -20, 19)
    candidates: int = parameter(1, "chunks drawn for an observation at most", 1, 256)
    draws: int = parameter(0, "chunks the policy draws itself, the others perturb them; 0: all are drawn", 0, 256)
    spread: float = parameter(0.1, "standard deviation of a perturbation, in the action's own", 0.0, 10.0)
    guide: str = parameter("", "a critic that acts while chunks are drawn: fk or gradient", choices=("", *METHODS))
    guide_temperature: float = parameter(0.1, "of its influence, in units of the value", 1e-6, 1e6)
    critic: str = parameter("", "who guides: a shipped critic or a critic's folder")
    trust_critic: bool = parameter(False, "follow it even though its report failed")
    layer: str = parameter("pooled", "which features of an observation go with the candidates, for a critic")
    budget_s: float = parameter(0.1, "time for an inference [s]; K shrinks where it is short; 0: no limit", 0.0, 60.0)
    rate: float = parameter(10.0, "inferences a second at most [Hz]", 0.1, 1000.0)
    seed: int = parameter(0, "with an observation's stamp, of the noise", 0, 2**31)
    arm: str = parameter("so101", "the robot's description: a name in hardware/arms, or a .yaml file")
    cameras: tuple[str, ...] = parameter((), "cameras there are; empty takes those of the arm's description")
    image_transport: str = parameter("raw", "which topic of a camera is read", choices=("raw", "compressed"))
    image_width: int = parameter(640, "largest picture of a camera, if not its arm's [pixels]", 1, 16384)
    image_height: int = parameter(480, "largest picture of a camera, if not its arm's [pixels]", 1, 16384)
    max_obs_age: float = parameter(0.1, "a stream older than this stops inference [s]", 0.001, 10.0)
    max_future_s: float = parameter(0.05, "a stamp further ahead of the robot's clock is refused [s]", 0.0, 10.0)
    instruction: str = parameter("", "what to do until `instruction` says otherwise")
    simulated_time: bool = parameter(False, "the robot's clock does not run with this host's: only stamps judge age")
    versions: str = parameter("", "folder into which a learner pushes weights (vla-rl improve --online); empty: none")
    publish_context: bool = parameter(True, "publish what an answer was drawn from on policy/context")

    def engine(self) -> EngineConfig:
        """What the engine needs of it."""
        own = {f.name: getattr(self, f.name) for f in fields(EngineConfig) if hasattr(self, f.name)}
        return EngineConfig(**own, perturb=PerturbConfig(self.draws, self.spread))


class Newest:
    """Answers with the newest version; one answer, and so one chunk, is of one version."""

    def __init__(self, live: Live[Engine]) -> None:
        self._live = live

    def candidates(self, history: Sequence[Observation]) -> Candidates:
        """See `Engine.candidates`."""
        return self._live.take().candidates(history)


class PolicyNode(LifecycleNode):
    """The policy's lifecycle node.

    Args:
        hand_over: takes candidates in memory, in the inference thread, before they are published.
        options: of rclpy's Node.
    """

    kind = PolicyParameters
    config: PolicyParameters

    def __init__(self, hand_over: Callable[[Candidates], None] | None = None, **options: Any) -> None:
        self._engine: Engine | None = None
        self._live: Live[Engine] | None = None
        self._worker: Worker | None = None
        self._stuck: Worker | None = None
        self._streams: Streams | None = None
        self._hand_over, self._sensors = hand_over, []
        super().__init__("policy", **options)

    def accept(self, config: PolicyParameters) -> None:
        """A new instruction at any time; everything else while nothing is loaded."""
        if self._engine is not None and config != self.config:
            raise ValueError("a policy's parameters change while it is unconfigured; say what to do on `instruction`")
        config.engine()

    # -- lifecycle ------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the checkpoint, check that it fits the robot, and warm it up."""
        config = self.config
        torch.set_num_threads(config.threads)
        favour_process(config.nice)
        self._spec = arm_spec(config.arm)
        cameras = config.cameras or tuple(camera.name for camera in self._spec.cameras)
        folder = build.check_policy(config.checkpoint)
        if folder in build.SCRIPTED:
            raise ValueError(f"checkpoint '{folder}' is a script; there are: {', '.join(build.shipped())}, or a folder")
        with abortable():
            self._engine = self._load(folder, cameras)
        self._candidates_out = self.create_publisher(JointTrajectory, "policy/candidates", OFFER)
        self._context_out = self.create_publisher(JointState, "policy/context", OFFER)
        for note in self._engine.notes:
            self.get_logger().warning(note)

    def _load(self, folder: str | Path, cameras: Sequence[str]) -> Engine:
        """The engine of a checkpoint, under a critic's influence where that is asked for."""
        config = self.config
        if not config.guide:
            return load_engine(folder, self._spec, cameras, config.engine())
        from vla_rl.steer.guided import GuidedConfig, guided_engine

        if not config.critic:
            raise ValueError(f"guide '{config.guide}' needs a critic: a shipped one's name or a critic's folder")
        how, critic = GuidedConfig(config.guide, config.guide_temperature), build.check_critic(config.critic)
        how.check(config.candidates)
        return guided_engine(folder, self._spec, cameras, config.engine(), critic, how, config.trust_critic)

    def activate(self) -> None:
        """Listen to the sensors, and answer."""
        assert self._engine is not None
        if self._stuck is not None and self._stuck.alive:
            raise ValueError("the last inference has not ended yet; restart the process")
        config, engine = self.config, self._engine
        timing = StreamsConfig(config.max_obs_age, config.max_future_s, engine.frames, engine.dt, config.simulated_time)
        cameras = [self._largest(name) for name in engine.cameras]
        self._streams = Streams(self._spec, cameras, timing)
        self._streams.instruct(config.instruction)
        if config.versions:
            self._live = Live(engine, config.versions, self._load_version, self.get_logger().info)
            self._live.start()
        answers = engine if self._live is None else Newest(self._live)
        self._worker = Worker(self._streams, answers, self._deliver, config.rate, self.get_logger().error)
        self._sensors = [
            self.subscribe(JointState, "joint_states", self._joints, LATEST),
            *(self._camera(name) for name in engine.cameras),
            self.subscribe(String, "instruction", self._instruct, EVERY),
            # Hears what was said before it came; that it can not hear volatile publishers is the other one's business.
            self.subscribe(String, "instruction", self._instruct, LATCHED, event_callbacks=QUIET),
        ]
        self._worker.start()

    def deactivate(self) -> None:
        """Hear and answer no more."""
        for subscription in self._sensors:
            self.destroy_subscription(subscription)
        self._sensors, worker, self._worker = [], self._worker, None
        if worker is not None and not worker.stop():
            self._stuck = worker
            self.get_logger().error("the inference under way does not end; it will not be published")
        if self._live is not None:
            self._live.stop()
            self._engine, self._live = self._live.take(), None

    def cleanup(self) -> None:
        """Forget the checkpoint."""
        self.destroy_publisher(self._candidates_out)
        self.destroy_publisher(self._context_out)
        self._engine = None

    def _load_version(self, folder: Path) -> Engine:
        """What a learner has pushed, in the thread that looks for it.

        Raises:
            ValueError: it does not fit the robot, or wants to see something else than what runs.
        """
        before = self._engine
        assert before is not None
        engine = self._load(folder, before.cameras)
        for what in ("cameras", "frames"):
            if (has := getattr(engine, what)) != (wants := getattr(before, what)):
                raise ValueError(f"{folder} wants other {what} than what runs: {has} against {wants}")
        return engine

    # -- what comes in --------------------------------------------------------------------------------------------

    def _largest(self, camera: str) -> CameraSpec:
        return largest(self._spec, camera, self.config.image_width, self.config.image_height)

    def _camera(self, name: str) -> Any:
        promised = self._largest(name)
        most = promised.width * promised.height * 3 + HEADER_BYTES
        if self.config.image_transport == "compressed":
            return self.subscribe(CompressedImage, self._topic(name), partial(self._compressed, name), LATEST, most)
        return self.subscribe(Image, self._topic(name), partial(self._raw, name), LATEST, most)

    def _joints(self, message: JointState, receipt: Receipt) -> None:
        self._took(self._streams.put_joints(message.name, message.position, *_times(message, receipt)))

    def _raw(self, camera: str, message: Image, receipt: Receipt) -> None:
        self._took(self._streams.put_image(camera, messages.image_of(message), *_times(message, receipt)))

    def _compressed(self, camera: str, message: CompressedImage, receipt: Receipt) -> None:
        self._took(self._streams.put_image(camera, Encoded(message.data), *_times(message, receipt)))

    def _instruct(self, message: String, receipt: Receipt) -> None:
        before = self._streams.instruction
        self._streams.instruct(message.data)
        if self._streams.instruction != before:
            self.get_logger().info(f"instruction: {self._streams.instruction or 'none, so the arm holds'}")
        self._took("")

    def _took(self, reason: str) -> None:
        """Wake the inference; what a stream refuses it counts itself."""
        if not reason and self._worker is not None:
            self._worker.notify()

    # -- what goes out --------------------------------------------------------------------------------------------

    def _deliver(self, answer: Answer) -> None:
        """In the inference thread."""
        if self._hand_over is not None:
            self._hand_over(answer.candidates)
        if self.config.publish_context:
            self._context_out.publish(context(answer.candidates, answer.history))
        self._candidates_out.publish(messages.candidates(answer.candidates))

    def health(self) -> Health:
        """Streams, inference and what is wrong with either."""
        worker, streams, engine = self._worker, self._streams, self._engine
        if worker is None or streams is None or engine is None:
            return Health(OK, "inactive" if engine else "unconfigured", {})
        now_ns = monotonic_ns()
        problems = [*streams.problems(now_ns), *worker.problems()]
        if streams.missing():
            silent = self.unheard("joint_states", *map(self._topic, engine.cameras))
            problems += [f"nobody publishes {topic}" for topic in silent]
        for problem in problems:
            self.warn(problem, key=problem.split(":")[0])
        reports = {**streams.report(now_ns), "inference": worker.report() | engine.counts}
        values: dict[str, object] = {f"{name}/{k}": v for name, report in reports.items() for k, v in report.items()}
        level = ERROR if worker.failing else WARNING if problems else OK
        values |= {"candidates": engine.k, "instruction": streams.instruction}
        values |= {"version": self._live.number} if self._live is not None else {}
        return Health(level, "; ".join(problems) or "answering", values)

    def _topic(self, camera: str) -> str:
        return f"camera/{camera}/{'compressed' if self.config.image_transport == 'compressed' else 'image_raw'}"


def _times(message: Any, receipt: Receipt) -> tuple[int, int]:
    """When it was captured, robot clock, and when it arrived, monotonic clock [ns]."""
    return messages.stamp_ns(message.header.stamp), receipt.received_ns


def main() -> NoReturn:
    """Run the node in a process of its own."""
    leave(node.main(PolicyNode))


if __name__ == "__main__":
    main()

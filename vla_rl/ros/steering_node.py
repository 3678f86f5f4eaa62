"""steering: candidates in, `steering/chunk` out, chosen in a thread of its own."""

from __future__ import annotations

import sys
import time
from collections import defaultdict, deque
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from vla_rl import build
from vla_rl.execute.foresight import Foresight, ForesightConfig
from vla_rl.execute.player import JOINING, PlayerConfig
from vla_rl.learn.live import Live
from vla_rl.observe.checks import largest
from vla_rl.observe.clock import RobotClock
from vla_rl.observe.encoded import Encoded
from vla_rl.observe.recall import Recall
from vla_rl.robot import arm_spec
from vla_rl.ros import messages, node
from vla_rl.ros.context import Heard, context_of
from vla_rl.ros.leaving import abortable
from vla_rl.ros.node import OK, WARNING, Health, LifecycleNode, Receipt
from vla_rl.ros.parameters import parameter
from vla_rl.ros.qos import EVERY, LATEST, OFFER
from vla_rl.steer.choose import Chooser
from vla_rl.steer.latest import Latest
from vla_rl.steer.scorer import Critic
from vla_rl.steer.selectors import AGGREGATES, SELECTORS
from vla_rl.steer.steering import Decision, Steering, SteeringConfig
from vla_rl.types import Candidates, Observation

LARGEST_SET, HEADER_BYTES = 16 * 2**20, 4096


@dataclass(frozen=True)
class SteeringParameters:
    """Parameters of the steering node."""

    selector: str = parameter("first", "which candidate is executed", choices=tuple(SELECTORS))
    critic: str = parameter("", "a shipped critic or a critic's folder, empty for selectors that need none")
    trust_critic: bool = parameter(False, "follow the critic even though its report failed")
    device: str = parameter("cpu", "where the critic computes: auto, cpu or cuda")
    policy: str = parameter("", "the policy that the critic must have been trained with; empty: not compared")
    temperature: float = parameter(0.1, "of softmax and weighted, in units of the value", 1e-6, 1e6)
    k: float = parameter(1.0, "standard deviations of the ensemble that lcb subtracts", 0.0, 100.0)
    tau: float = parameter(0.1, "which lower quantile of the return `quantile` compares", 0.001, 0.999)
    aggregate: str = parameter("mean", "how the other rules join the ensemble", choices=AGGREGATES)
    margin: float = parameter(
        0.0, "the first candidate is kept where the gain is below so many deviations of it; 0: never", 0.0, 100.0
    )
    novelty: float = parameter(
        0.0, "the first candidate is kept so many times outside the critic's training data; 0: never", 0.0, 1000.0
    )
    versions: str = parameter("", "folder into which a learner pushes critics (vla-rl improve --online); empty: none")
    deadline_s: float = parameter(
        0.05, "the critic's time for a set, after which the first candidate is taken [s]", 0.001, 10.0
    )
    foresee: bool = parameter(False, "the critic values what control will execute, not the chunk as it was proposed")
    joining: str = parameter("temporal", "how control joins chunks, as far as is foreseen", choices=tuple(JOINING))
    delay_s: float = parameter(0.07, "from an observation to control's taking its chunk, foreseen [s]", 0.0, 1.0)
    executed_steps: int = parameter(0, "actions of a chunk that are compared; 0: all", 0, 1024)
    max_age_s: float = parameter(0.5, "a set whose observation is older than this is stale [s]", 0.01, 60.0)
    max_future_s: float = parameter(0.05, "a set stamped further ahead of the robot's clock is refused [s]", 0.0, 10.0)
    seed: int = parameter(0, "of selectors that draw", 0, 2**31)
    image_transport: str = parameter("raw", "which topic of a camera is read", choices=("raw", "compressed"))
    image_width: int = parameter(640, "largest picture of a camera, if not its arm's [pixels]", 1, 16384)
    image_height: int = parameter(480, "largest picture of a camera, if not its arm's [pixels]", 1, 16384)
    arm: str = parameter("so101", "the robot's description: a name in hardware/arms, or a .yaml file", fixed=True)
    simulated_time: bool = parameter(
        False, "the robot's clock does not run with this host's: only stamps judge age", fixed=True
    )

    def steering(self) -> SteeringConfig:
        """What the plain class needs of it."""
        names = (field.name for field in fields(SteeringConfig) if field.name != "slice")
        return SteeringConfig(**{name: getattr(self, name) for name in names})


class SteeringNode(LifecycleNode):
    """The steering's lifecycle node.

    Args:
        inside: candidates come through `take`, from a policy in this process, and not by topic.
        critic: says what candidates are worth, in place of the folder in the parameters.
        options: of rclpy's Node.
    """

    kind = SteeringParameters
    config: SteeringParameters

    def __init__(self, inside: bool = False, critic: Critic | None = None, **options: Any) -> None:
        self._inside, self._given, self._critic = inside, critic, critic
        self._steering: Steering | None = None
        self._latest: Latest[Candidates] | None = None
        self._live: Live[Critic | None] | None = None
        self._sensors: list[Any] = []
        self._known, self._recall = Heard(), Recall(())
        self._milliseconds: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=256))
        super().__init__("steering", **options)

    def accept(self, config: SteeringParameters) -> None:
        """Only while nothing is being chosen."""
        if self._latest is not None:
            raise ValueError("steering's parameters change while it is inactive")
        config.steering()

    def configure(self) -> None:
        """Check the arm, load the critic, and see whether the selector can follow it."""
        self._spec = arm_spec(self.config.arm)
        if self.config.critic and self._given is None:
            with abortable():
                self._critic = self._load()
        Chooser(self.config.steering(), self._critic)
        self._chunks = self.create_publisher(JointTrajectory, "steering/chunk", OFFER)
        self._values = self.create_publisher(JointState, "steering/values", OFFER)

    def _load(self) -> Critic:
        """The critic in the parameters, checked against robot and policy."""
        return self._load_from(build.check_critic(self.config.critic), self.config.policy)

    def _load_version(self, folder: Path) -> Critic:
        """A critic that was pushed, with the policy that it belongs to: whether they fit the learner has seen to.

        Raises:
            ValueError: it can not be loaded, or the selector can not follow it.
        """
        critic = self._load_from(folder, "")
        Chooser(self.config.steering(), critic)
        return critic

    def _load_from(self, folder: str | Path, policy: str) -> Critic:
        from vla_rl.policy.folder import choose_device, fingerprint
        from vla_rl.steer.critic import LoadedCritic, RobotCritic

        config = self.config
        loaded = LoadedCritic.load(folder, choose_device(config.device), trusted=config.trust_critic)
        if policy:
            loaded.require_fit(policy_fingerprint=fingerprint(build.check_policy(policy)) or None)
        for note in loaded.notes:
            self.get_logger().warning(note)
        return RobotCritic(loaded, self._spec)

    def activate(self) -> None:
        """Listen, and choose."""
        config = self.config
        self._robot_clock, self._stepped = RobotClock(config.max_future_s, config.simulated_time), False
        self._steering = self._chooser(self._critic)
        if config.versions:
            self._live = Live(self._critic, config.versions, self._load_version, self.get_logger().info)
            self._live.start()
        self._latest = Latest("steering", self._decide, self._failed)
        self._sensors = [self.subscribe(JointState, "joint_states", self._joints, LATEST)]
        if not self._inside:
            cameras = getattr(self._critic, "cameras", ())
            self._recall = Recall(cameras)
            self._sensors += [
                *map(self._camera, cameras),
                self.subscribe(JointState, "policy/context", self._take_context, EVERY),
                self.subscribe(JointTrajectory, "policy/candidates", self._candidates, EVERY, LARGEST_SET),
            ]

    def _chooser(self, critic: Critic | None) -> Steering:
        config, foresight = self.config, None
        if config.foresee:
            player = PlayerConfig(config.joining, max_age_s=config.max_age_s)
            foresight = Foresight(ForesightConfig(player, config.delay_s, getattr(critic, "window", 0)))
        return Steering(config.steering(), self._spec.names, critic, foresight)

    def deactivate(self) -> None:
        """Choose no more."""
        for subscription in self._sensors:
            self.destroy_subscription(subscription)
        self._sensors, latest, self._latest = [], self._latest, None
        if latest is not None:
            latest.close()
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._steering is not None:
            self._steering.close()

    def cleanup(self) -> None:
        """Forget what was configured."""
        self.destroy_publisher(self._chunks)
        self.destroy_publisher(self._values)
        self._steering, self._critic = None, self._given

    # -- what comes in --------------------------------------------------------------------------------------------

    def take(self, candidates: Candidates) -> None:
        """Candidates from a policy in this process; returns at once, from any thread."""
        latest = self._latest
        if latest is not None:
            latest.put(candidates)

    def _joints(self, message: JointState, receipt: Receipt) -> None:
        stamp_ns = messages.stamp_ns(message.header.stamp)
        if stamp_ns > 0 and self._robot_clock.update(stamp_ns, receipt.received_ns):
            self._stepped = True

    def _camera(self, name: str) -> Any:
        """A camera that the critic's own encoder looks through."""
        promised = largest(self._spec, name, self.config.image_width, self.config.image_height)
        most = promised.width * promised.height * 3 + HEADER_BYTES
        if self.config.image_transport == "compressed":
            return self.subscribe(CompressedImage, f"camera/{name}/compressed", partial(self._file, name), LATEST, most)
        return self.subscribe(Image, f"camera/{name}/image_raw", partial(self._raw, name), LATEST, most)

    def _raw(self, camera: str, message: Image, receipt: Receipt) -> None:
        self._recall.put(camera, messages.image_of(message).copy(), messages.stamp_ns(message.header.stamp))

    def _file(self, camera: str, message: CompressedImage, receipt: Receipt) -> None:
        self._recall.put(camera, Encoded(message.data), messages.stamp_ns(message.header.stamp))

    def _take_context(self, message: JointState, receipt: Receipt) -> None:
        self._known = context_of(message, self._spec.names)

    def _candidates(self, message: JointTrajectory, receipt: Receipt) -> None:
        candidates, known = messages.candidates_of(message, self._spec.action_spec), self._known
        if known.stamp_ns == candidates.stamp_ns:
            candidates = replace(candidates, context=known.features, observation=self._seen(known))
        self.take(candidates)

    def _seen(self, known: Heard) -> Observation | None:
        """The observation that a context speaks of, with the pictures that the critic looks at."""
        if known.joints is None:
            return None
        images = self._recall.at(known.stamp_ns, known.ages)
        return Observation(known.joints, images, known.instruction, known.stamp_ns, known.ages)

    # -- what goes out --------------------------------------------------------------------------------------------

    def _decide(self, candidates: Candidates) -> None:
        """In the steering thread."""
        self._take_version()
        start, steering = time.monotonic_ns(), self._steering
        if self._stepped:
            self._stepped = False
            steering.restart()
        decision = steering.decide(candidates, self._robot_clock.now_ns(start) if self._robot_clock.started else None)
        if decision is None or self._latest is None:
            return
        self._chunks.publish(messages.chunk(decision.chunk, str(decision.index)))
        scored = 0 if decision.values is None else decision.values.shape[1]
        self._milliseconds[scored].append((time.monotonic_ns() - start) / 1e6)
        if decision.values is not None:
            self._values.publish(_values(decision))

    def _take_version(self) -> None:
        """Between two decisions: a critic that was pushed takes the place of the one before."""
        if self._live is None:
            return
        before = self._live.number
        critic = self._live.take()
        if self._live.number != before:
            self._steering.close()
            self._critic, self._steering = critic, self._chooser(critic)

    def _failed(self, error: Exception) -> None:
        self.reject("policy/candidates", f"{type(error).__name__}: {error}")

    def health(self) -> Health:
        """Sets, decisions and what was refused."""
        steering, latest = self._steering, self._latest
        if steering is None or latest is None:
            return Health(OK, "inactive" if steering else "unconfigured", {})
        values: dict[str, object] = dict(steering.counts) | {"replaced": latest.replaced}
        for scored, taken in sorted(self._milliseconds.items()):
            p50, p99 = np.percentile(list(taken), [50, 99])
            values |= {f"p50_ms/{scored}": float(p50), f"p99_ms/{scored}": float(p99)}
        problems = steering.problems()
        if not self._inside:
            problems += [f"nobody publishes {topic}" for topic in self.unheard("policy/candidates")]
        return Health(WARNING if problems else OK, "; ".join(problems) or "choosing", values)


def _values(decision: Decision) -> JointState:
    """What the critic said: mean and spread of each candidate it scored."""
    mean, spread = decision.values.mean(0), decision.values.std(0)
    names = [f"candidate_{i}" for i in range(len(mean))]
    return messages.joint_state(names, mean, decision.chunk.stamp_ns, spread, f"{decision.index} {decision.reason}")


def main() -> int:
    """Run the node in a process of its own."""
    return node.main(SteeringNode)


if __name__ == "__main__":
    sys.exit(main())

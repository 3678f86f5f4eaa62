"""Engine: a policy folder, checked against a robot, that answers observations with candidates in radians."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vla_rl.observe.streams import JOINTS
from vla_rl.policy.configuration_vla_rl import IMAGES, STATE
from vla_rl.policy.fit import cameras_of, check_fit
from vla_rl.policy.folder import choose_device
from vla_rl.policy.inputs import Columns
from vla_rl.policy.perturb import PerturbConfig, perturbed
from vla_rl.policy.served import Served, load_served
from vla_rl.types import Candidates, Observation, RobotSpec

ONE_IMAGE = "image"  # the camera of a policy that reads `observation.image`
WARM_UP_K = 4
EMA = 0.1  # weight of the newest measurement in the load estimate


@dataclass(frozen=True)
class EngineConfig:
    """How observations are answered.

    Attributes:
        candidates: chunks drawn for an observation at most, K.
        budget_s: time for an answer [s]; K goes down to 1 where there is not enough. 0 sets no limit.
        device: "auto", "cpu" or "cuda".
        dtype: number format of matrix products: float32, bfloat16 or float16.
        seed: together with an observation's stamp it decides what is drawn for it.
        perturb: how candidates are made of fewer draws; by default every one is drawn.
        layer: which features of an encoding candidates carry, for a critic that reads them.
        denoising_steps: how many make a chunk of noise: time against detail. 0 for what the checkpoint says.
    """

    candidates: int = 1
    budget_s: float = 0.0
    device: str = "auto"
    dtype: str = "float32"
    seed: int = 0
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    layer: str = "pooled"
    denoising_steps: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no sense."""
        if self.candidates < 1 or not self.budget_s >= 0 or self.denoising_steps < 0:
            raise ValueError(f"candidates must be at least 1, budget_s and denoising_steps at least 0: {self}")


class NothingFiniteError(RuntimeError):
    """Not one of the chunks that a policy drew is finite."""


class Engine:
    """Answers observations of one robot.

    Args:
        served: the policy.
        spec: the robot; the policy must fit it.
        cameras: names of the cameras there are.
        config: how.

    Attributes:
        cameras: names of those the policy looks through.
        frames: observations it wants to see at once.
        dt: time between two actions [s].
        stochastic: whether it draws; a policy that always answers the same gives one candidate.
        notes: what the checkpoint does not say and is therefore assumed.
        counts: candidates that were not finite.

    Raises:
        FeatureMismatchError: the policy does not fit the robot, in one line, both sides.
        ValueError: it has no such layer.
    """

    def __init__(self, served: Served, spec: RobotSpec, cameras: Sequence[str], config: EngineConfig) -> None:
        self.notes = [*check_fit(served.config, spec, cameras), *served.notes]
        self.config, self._served, self._spec = config, served, spec
        self.cameras, self.frames = cameras_of(served.config), int(served.config.n_obs_steps)
        self.dt = 1.0 / spec.rate
        self.counts = Counter[str]()
        self.stochastic = config.candidates > 1
        self._cost = _Cost(config.budget_s, config.candidates)
        self._warm_up()

    @property
    def k(self) -> int:
        """Candidates that the next answer will have."""
        return self._cost.affordable if self.stochastic else 1

    def candidates(self, history: Sequence[Observation], k: int | None = None) -> Candidates:
        """Answer the newest of these observations.

        Args:
            history: up to `frames` observations, one period apart, oldest first.
            k: chunks to draw; None draws as many as there is time for.

        Raises:
            NothingFiniteError: no candidate is finite.
        """
        newest, k = history[-1], self.k if k is None else k
        seed = int(np.random.SeedSequence([self.config.seed, newest.stamp_ns]).generate_state(1)[0])
        start = time.perf_counter()
        context = self._served.encode([self._columns(each) for each in history], newest.instruction)
        drawn = self._served.sample(context, k, seed)
        self._cost.measured(k, time.perf_counter() - start)
        chunks = self._spec.from_lerobot(drawn.astype(np.float64))
        finite = np.asarray(np.isfinite(chunks).all((1, 2)))
        self.counts["candidates_not_finite"] += int((~finite).sum())
        if not finite.any():
            raise NothingFiniteError(f"none of {k} chunks is finite")
        features = self._served.features(context, self.config.layer)
        return Candidates(chunks[finite], self._spec.action_spec, self.dt, newest.stamp_ns, features, seed, newest)

    def _columns(self, observation: Observation) -> Columns:
        images = {f"{IMAGES}{name}": image for name, image in observation.images.items()}
        if ONE_IMAGE in observation.images:
            images[f"observation.{ONE_IMAGE}"] = observation.images[ONE_IMAGE]
        return {STATE: self._spec.to_lerobot(observation.joints).astype(np.float32), **images}

    def _warm_up(self) -> None:
        """Load what torch loads late, learn what an answer costs, and see whether the policy draws at all."""
        rng, middle = np.random.default_rng(0), (self._spec.low + self._spec.high) / 2
        images = {name: rng.integers(0, 256, (96, 128, 3), np.uint8) for name in self.cameras}
        columns = [self._columns(Observation(middle, images, "warm up", 0, {JOINTS: 0.0}))] * self.frames
        for k in (1, min(self.config.candidates, WARM_UP_K)) * 2:
            start = time.perf_counter()
            context = self._served.encode(columns, "warm up")
            drawn = self._served.sample(context, k, seed=0)
            self._cost.expect(k, time.perf_counter() - start)
        self._served.features(context, self.config.layer)  # one that there is not is refused here, not at every answer
        self.stochastic = len(drawn) > 1 and not np.allclose(drawn[0], drawn[1], atol=1e-6)
        if self.config.candidates > 1 and not self.stochastic:
            self.notes.append(f"this policy always answers the same: 1 candidate instead of {self.config.candidates}")


class _Cost:
    """What K candidates cost: a straight line, measured at the start, times the load of the machine as it is now."""

    def __init__(self, budget_s: float, most: int) -> None:
        self._budget_s, self._most, self._load = budget_s, most, 1.0
        self._known: dict[int, float] = {}

    def expect(self, k: int, seconds: float) -> None:
        """A measurement at the start; the fastest of several counts."""
        self._known[k] = min(seconds, self._known.get(k, seconds))

    def measured(self, k: int, seconds: float) -> None:
        """A measurement in service."""
        self._load += EMA * (seconds / self._line(k) - self._load)

    @property
    def affordable(self) -> int:
        """The most candidates that fit the budget, from 1 to `most`."""
        if not self._budget_s:
            return self._most
        fitting = [k for k in range(1, self._most + 1) if self._load * self._line(k) <= self._budget_s]
        return max(fitting, default=1)

    def _line(self, k: int) -> float:
        few, many = min(self._known), max(self._known)
        each = (self._known[many] - self._known[few]) / (many - few) if many > few else 0.0
        return max(self._known[few] + max(each, 0.0) * (k - few), 1e-6)


def load_engine(
    folder: str | Path,
    spec: RobotSpec,
    cameras: Sequence[str],
    config: EngineConfig,
    around: Callable[[Served], Served] = lambda served: served,
) -> Engine:
    """The engine of a policy folder, with something `around` the policy: what guides its draws, for one.

    Raises:
        ValueError: in one line, why it cannot be loaded or does not fit the robot.
    """
    served = load_served(folder, choose_device(config.device), config.dtype, config.denoising_steps)
    grippers = [joint.gripper for joint in spec.joints]
    return Engine(around(perturbed(served, config.perturb, grippers)), spec, cameras, config)

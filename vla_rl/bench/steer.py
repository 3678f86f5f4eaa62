"""What steering costs: values and choice beside sampling, and an observation to a steered chunk, tiny on one CPU core.

The policy is the default one (two 96x96 cameras, DDIM with 10 steps), the critic an ensemble of two over its pooled
features (HL-Gauss, MLP), both with random weights: neither changes what is computed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_rl.bench.policy import CAMERAS, SIZE, default_policy
from vla_rl.policy.served import OwnPolicy
from vla_rl.robot import arm_spec
from vla_rl.steer.choose import Chooser, ChooserConfig
from vla_rl.steer.critic import LoadedCritic, RobotCritic
from vla_rl.steer.steering import Steering, SteeringConfig
from vla_rl.types import Candidates, Observation
from vla_rl.value.checkpoint import save_critic
from vla_rl.value.config import CriticConfig
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.inputs import critic_stats

COUNTS = (1, 8, 16, 32)
WINDOW = 8
TASK = "lift the red cube"


def run(quick: bool = False) -> dict[str, Any]:
    """Measure one thread.

    Returns:
        `metrics`, for N = 1, 8, 16, 32: `overhead_n<N>_fraction` (p50 of values and choice over p50 of sampling N from
        one encoding), `score_n<N>_p50_ms`, `sample_n<N>_p50_ms`, and `obs_to_chunk_n<N>_p50_ms` and `_p99_ms` (an
        observation with raw pictures to the chosen chunk in radians, through the classes that the steering node runs).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bench = _Bench()
        repeats = 12 if quick else 100
        return {"metrics": {key: value for n in COUNTS for key, value in bench.measure(n, repeats).items()}}
    finally:
        torch.set_num_threads(threads)


class _Bench:
    """A policy, a critic and one robot's observation."""

    def __init__(self) -> None:
        policy, _ = default_policy()
        self._spec = arm_spec("so101")
        self._served, self._critic = OwnPolicy(policy), default_critic(policy.config)
        rng = np.random.default_rng(0)
        images = {name: rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for name in CAMERAS}
        self._seen = Observation((self._spec.low + self._spec.high) / 2, images, TASK, 1)
        state = self._spec.to_lerobot(self._seen.joints).astype(np.float32)
        self._columns = {f"observation.images.{k}": v for k, v in images.items()} | {"observation.state": state}
        self._stamp = 0

    def measure(self, n: int, repeats: int) -> dict[str, float]:
        """Everything for N candidates; what is compared is measured in turn, so that both meet the same machine."""
        context = self._served.encode([self._columns], TASK)
        chunks = self._served.sample(context, n, seed=0)
        chooser, rng = Chooser(ChooserConfig(selector="lcb"), self._critic), np.random.default_rng(0)
        state = self._columns["observation.state"][None]

        def score() -> None:
            features = self._served.features(context)
            assert features is not None
            values = self._critic.score(features[None], state, chunks[None])[:, 0]
            chooser.choose(chunks[:, :WINDOW], values, None, rng)

        sample_ms, score_ms = interleaved([lambda: self._served.sample(context, n, seed=0), score], repeats)
        whole_ms = self._whole(n, repeats)
        return {
            f"overhead_n{n}_fraction": float(np.median(score_ms) / np.median(sample_ms)),
            f"sample_n{n}_p50_ms": float(np.median(sample_ms)),
            f"score_n{n}_p50_ms": float(np.median(score_ms)),
            f"obs_to_chunk_n{n}_p50_ms": float(np.median(whole_ms)),
            f"obs_to_chunk_n{n}_p99_ms": float(np.percentile(whole_ms, 99)),
        }

    def _whole(self, n: int, repeats: int) -> np.ndarray[Any, Any]:
        """An observation to a steered chunk [ms], with the steering node's own class and its critic's thread."""
        config = SteeringConfig(selector="lcb", deadline_s=5.0)
        steering = Steering(config, self._spec.names, RobotCritic(self._critic, self._spec))
        try:
            (found,) = interleaved([lambda: self._decide(steering, n)], repeats)
        finally:
            steering.close()
        return found

    def _decide(self, steering: Steering, n: int) -> None:
        self._stamp += 1
        context = self._served.encode([self._columns], TASK)
        chunks = self._spec.from_lerobot(self._served.sample(context, n, seed=self._stamp).astype(np.float64))
        features = self._served.features(context)
        spec = self._spec.action_spec
        found = Candidates(chunks, spec, 1 / self._spec.rate, self._stamp, features, 0, self._seen)
        decision = steering.decide(found)
        assert decision is not None
        assert decision.values is not None


def interleaved(calls: list[Callable[[], Any]], repeats: int) -> list[np.ndarray[Any, Any]]:
    """Durations of calls [ms], one array each, taken in turn after three rounds to warm up."""
    rounds = []
    for _ in range(repeats + 3):
        row = []
        for call in calls:
            start = time.perf_counter()
            call()
            row.append((time.perf_counter() - start) * 1e3)
        rounds.append(row)
    return [np.array(column) for column in zip(*rounds[3:], strict=True)]


def default_critic(policy: Any) -> LoadedCritic:
    """The default critic for a policy's pooled features, random weights, saved and loaded as after training."""
    config = CriticConfig(
        feature_dim=policy.width, state_dim=policy.state_dim, action_dim=policy.action_dim, window=WINDOW, low=0.0,
        high=1.0, relative=tuple(policy.relative_mask),
    )  # fmt: skip
    critic, rng = ChunkCritic(config), np.random.default_rng(0)
    shapes = [(512, policy.width), (512, policy.state_dim), (512, WINDOW, policy.action_dim)]
    features, state, chunks = (rng.normal(size=shape) for shape in shapes)
    critic.set_stats(critic_stats(features, state, chunks, None, config.relative))
    card = {"policy_type": "vla_rl", "policy_fingerprint": "", "names": policy.action_names, "data": []}
    with tempfile.TemporaryDirectory() as folder:
        save_critic(Path(folder), critic, None, card | {"algorithm": "none", "steps": 0})
        return LoadedCritic.load(folder)

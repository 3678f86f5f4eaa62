"""Critics from recorded episodes: the learner of all offline algorithms. `train_value` is `vla-rl train value`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.data.dataset import Dataset, fingerprint_of, open_dataset
from vla_rl.data.rollouts import RETURN, RolloutConfig, load_trajectories
from vla_rl.data.sampler import ChunkSampler
from vla_rl.data.sidecars import about_column
from vla_rl.data.transitions import ChunkBatch, ChunkTransitions, TransitionConfig
from vla_rl.learn.algorithms import ALGORITHMS
from vla_rl.learn.bc import newest
from vla_rl.learn.checkpoint import resolve
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.critic_shape import allowed_support, critic_config
from vla_rl.learn.critics import CriticAlgorithm, Needs
from vla_rl.learn.feed import step_seed
from vla_rl.learn.ranks import rank_correlation
from vla_rl.learn.report import counter
from vla_rl.learn.run import check_out
from vla_rl.learn.shares import HOLDOUT, held_out, sampling_weights
from vla_rl.learn.train import Learner, Training, make_accelerator
from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.policy.folder import OWN_TYPE, fingerprint, read_config
from vla_rl.policy.layers import LAYERS
from vla_rl.value.aggregate import check_ensemble
from vla_rl.value.checkpoint import save_critic
from vla_rl.value.config import CriticConfig
from vla_rl.value.critic import ChunkCritic
from vla_rl.value.heads import Histogram
from vla_rl.value.inputs import critic_stats
from vla_rl.value.state_value import StateValue

STATS_ROWS, SCORE_ROWS = 20_000, 4096


def train_value(config: CriticRunConfig, progress: bool = True) -> dict[str, Any]:
    """Train a critic, or go on training one.

    Args:
        config: the whole run.
        progress: whether to show a bar, or lines where there is no terminal.

    Returns:
        JSON-ready: `stopped` ("done" or "interrupted"), `steps`, `checkpoint` (a critic folder), `score`, ...

    Raises:
        ValueError: data, policy, config, --out or the checkpoint cannot be used; or the loss diverged.
        OSError: no room for the caches or the last checkpoint.
    """
    if not config.out or not config.data or not config.policy:
        raise ValueError("a run needs data (LeRobotDataset v3 folders), policy (a checkpoint) and out (its folder)")
    out = Path(config.out)
    check_out(out, config)
    _require_choices(config)
    accelerator = make_accelerator(config)
    with accelerator.main_process_first():
        source = load_source(config, progress and accelerator.is_main_process)
    learner = CriticLearner(config, source, accelerator.device, accelerator.process_index, accelerator.num_processes)
    checkpoint = newest(out) if config.resume else None
    return Training(config, learner, out, accelerator, checkpoint, progress).run()


def _require_choices(config: CriticRunConfig) -> None:
    """Raise ValueError for a critic that cannot be, before data sets are decoded for it."""
    names = ("bins", "head", "ensemble", "gamma", "chunk_encoder", "width", "depth", "encoder")
    CriticConfig(1, 0, 1, 1, low=0.0, high=1.0, **{name: getattr(config, name) for name in names})
    check_ensemble(config.aggregate or "mean", config.ensemble)
    if ALGORITHMS[config.algo].needs_returns and not config.reward:
        raise ValueError(
            f"{config.algo} needs Monte-Carlo returns: make them with `vla-rl dataset reward`, and give their "
            "--reward TAG"
        )
    if config.layer not in LAYERS:
        raise ValueError(f"unknown layer '{config.layer}'; there are: {', '.join(LAYERS)}")


def load_source(config: CriticRunConfig, progress: bool = False) -> Source:
    """Read data sets as transitions under a policy: features, rewards and candidates, computed where they were not yet.

    Raises:
        ValueError: one of them cannot be read, or they do not fit together.
    """
    policy, folder = _policy(config), resolve(config.policy)
    window, needs = config.window or policy.n_action_steps, candidates_needed(config)
    if window > policy.horizon:
        raise ValueError(f"--window {window} is longer than the policy's chunks of {policy.horizon} actions")
    reading = RolloutConfig(
        layer=config.layer,
        stride=config.stride or window,
        reward=config.reward,
        candidates=config.candidates if needs else 0,
        draw=config.draw,
        drawn_by=str(resolve(config.drawn_by)) if config.drawn_by else "",
        seed=config.seed,
        proposed=config.proposed,
    )
    sets = []
    for root in config.data:
        _require_actions(open_dataset(root), policy.action_names, config.policy)
        _require_rewards(open_dataset(root), config)
        _require_discount(root, config)
        with counter(f"reading {Path(root).name}", progress) as show:
            sets.append(load_trajectories(root, folder, reading, device=config.device, progress=show))
    cut = TransitionConfig(window, config.gamma, config.n_step, config.ends, needs)
    card = {
        "policy_type": policy.type,
        "policy_fingerprint": fingerprint(folder),
        "names": policy.action_names,
        "data": [fingerprint_of(open_dataset(root)) for root in config.data],
    }
    relative = tuple(policy.relative_mask) if any(policy.relative_mask) else ()
    return Source(ChunkTransitions(sets, cut), card, relative, folder)


def _policy(config: CriticRunConfig) -> VLAConfig:
    """The config of the policy whose features the critic reads.

    Raises:
        ValueError: it is none of ours.
    """
    folder = resolve(config.policy)
    if (kind := read_config(folder)["type"]) != OWN_TYPE:
        raise ValueError(
            f"--policy {config.policy} is of type '{kind}', and critics read the features of a policy of type "
            f"'{OWN_TYPE}': give one of those with --encoder own, and the critic can steer the other"
        )
    policy = VLAConfig.from_pretrained(folder)
    assert isinstance(policy, VLAConfig)
    return policy


def _require_actions(dataset: Dataset, names: Sequence[str], policy: str) -> None:
    """Raise ValueError where a data set and a policy are of different arms."""
    there = dataset.names("action")
    if there and names and there != list(names):
        raise ValueError(f"{dataset.root} has the actions {', '.join(there)}; --policy {policy} has {', '.join(names)}")


def _require_rewards(dataset: Dataset, config: CriticRunConfig) -> None:
    """Raise ValueError where nobody says what a data set earned: it would count as nothing, successes too."""
    paid = ALGORITHMS[config.algo].limits is None
    if paid and not config.reward and "next.reward" not in dataset.features:
        raise ValueError(
            f"{dataset.root} has no next.reward: make rewards with `vla-rl dataset reward`, for all of --data, and "
            "give their --reward TAG"
        )


def _require_discount(root: str, config: CriticRunConfig) -> None:
    """Raise ValueError where an algorithm would learn from returns of another discount than its own."""
    if not (config.reward and ALGORITHMS[config.algo].needs_returns):
        return
    made = about_column(Path(root), RETURN, config.reward).get("gamma", config.gamma)
    if made != config.gamma:
        raise ValueError(
            f"the returns '{config.reward}' of {root} have gamma {made:g}, this run {config.gamma:g}: make them again "
            f"with `vla-rl dataset reward --gamma {config.gamma:g}`, or give --gamma {made:g}"
        )


def candidates_needed(config: CriticRunConfig) -> Needs:
    """Where the policy's chunks must be known for a run."""
    own = ALGORITHMS[config.algo].needs_candidates
    return {"": "some", "next": "both"}.get(own, own) if config.rank else own  # type: ignore[return-value]


@dataclass(frozen=True)
class Source:
    """What a critic learns from, and what its card says of that.

    Attributes:
        transitions: all of them.
        card: facts for `save_critic`, but for algorithm and steps.
        relative: (A,), which actions the critic reads relative to the state; empty for none.
        encoder: policy folder whose features were read, None where there is no such folder (plain arrays).
    """

    transitions: ChunkTransitions
    card: dict[str, Any]
    relative: tuple[bool, ...] = ()
    encoder: Path | None = None


class CriticLearner(Learner):
    """Any critic algorithm on chunk transitions.

    Args:
        config: of the run.
        source: what to learn from.
        device: of the model and its batches.
        rank: which process of
        world: this many; each takes its slice of every batch.

    Raises:
        ValueError: the algorithm needs returns or candidates that the data lacks, or nothing is left to train on.
    """

    def __init__(
        self,
        config: CriticRunConfig,
        source: Source,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.config, self.source, self.device, self.rank, self.world = config, source, device, rank, world
        self.data = source.transitions
        self.held = held_out(self.data, config.holdout, config.seed)
        kept, weights = np.flatnonzero(~self.held), np.zeros(len(self.data))
        weights[kept] = sampling_weights(self.data, config, kept)
        self.sampler = ChunkSampler(weights, config.batch * world, config.seed)
        self.algorithm = make_algorithm(config, self.data, kept, source.relative).to(device)
        self.model = self.algorithm
        self.warned = ""

    def batch(self, step: int) -> ChunkBatch:
        """The transitions of a step, a pure function of it."""
        return self.data.batch(self._indices(step)).to(self.device)

    def _indices(self, step: int) -> NDArray[np.int64]:
        return self.sampler.indices(step)[self.rank :: self.world]

    def describe(self, step: int) -> str:
        """The rows of a step's batch."""
        return f"transitions {', '.join(map(str, self._indices(step)[:5]))} and {self.config.batch - 5} more"

    def after(self, step: int) -> None:
        """Targets follow."""
        self.algorithm.after(step)

    def state(self) -> dict[str, torch.Tensor]:
        """Targets and statistics."""
        return self.algorithm.state()

    @torch.no_grad()
    def score(self) -> float | None:
        """How badly values of held-out actions rank the returns that followed: 1 - rho; None without either."""
        self._look_at_support()
        rows = np.flatnonzero(self.held)
        if not len(rows) or self.config.holdout == 0:
            return None
        rng = np.random.default_rng((self.config.seed, HOLDOUT))
        batch = self.data.batch(rng.permutation(rows)[:SCORE_ROWS]).to(self.device)
        if batch.mc_return is None:
            return None
        return 1.0 - rank_correlation(self.algorithm.target_values(batch).cpu(), batch.mc_return.cpu())

    def _look_at_support(self) -> None:
        """Say, once, where more than 1% of the targets lie outside the support of a head that clips them."""
        support, target = self.algorithm.critic.config.support, self.algorithm.last_target
        clips = isinstance(self.algorithm.critic.head, Histogram)
        line = support.warning(target) if clips and len(target) else None
        if line and not self.warned:
            self.warned = f"{line}: set --low and --high{self._allowed()}"
            print(f"vla-rl train: WARNING: {self.warned}", file=sys.stderr)

    def _allowed(self) -> str:
        """What values can need: bootstrapped targets come of clipped values, and ask for less than that."""
        if self.algorithm.limits is not None:
            return ""
        try:
            allowed = allowed_support(self.config, self.data)
        except ValueError:  # rewards that allow one return only
            return ""
        return f"; rewards and discount allow [{allowed.low:.4g}, {allowed.high:.4g}]"

    def save(self, folder: Path) -> None:
        """Write a critic folder, with the target network: an average of the weights."""
        config = self.config
        card = {**self.source.card, "algorithm": config.algo, "steps": int(self.algorithm.steps)}
        card["training"] = config.to_dict()
        encoder = self.source.encoder if config.encoder == "own" else None
        save_critic(folder, self.algorithm.target, self.algorithm.value, card, encoder)
        self.algorithm.save(folder)

    def facts(self) -> dict[str, Any]:
        """Which data, how much of it, what was held out, and the value support."""
        support = self.algorithm.critic.config.support
        return {
            "folders": list(self.config.data),
            "transitions": len(self.data),
            "held_out": int(self.held.sum()),
            "support": [support.low, support.high, support.bins],
            "critic": self.algorithm.critic.config.to_dict(),
        }


def make_algorithm(
    config: CriticRunConfig, data: ChunkTransitions, rows: NDArray[np.int64], relative: tuple[bool, ...] = ()
) -> CriticAlgorithm:
    """An algorithm with a fresh critic for these transitions, statistics and support from `rows` of them.

    Raises:
        ValueError: it needs what the data lacks; the message says where that comes from.
    """
    kind = ALGORITHMS[config.algo]
    some = np.random.default_rng((config.seed, HOLDOUT)).permutation(rows)[:STATS_ROWS]
    sample = data.batch(some)
    require_columns(kind, config.algo, sample)
    if config.rank and not sample.demonstrated.any():
        raise ValueError("--rank needs demonstrations or corrections among the data: all of it was driven by a policy")
    shape = critic_config(config, sample, data, relative)
    features, state, chunks, valid = (t.numpy() for t in (sample.features, sample.state, sample.chunk, sample.valid))
    stats = critic_stats(features, state, chunks, valid, relative=relative)
    torch.manual_seed(step_seed(config.seed, 0))
    critic = ChunkCritic(shape)
    critic.set_stats(stats)
    value = StateValue(shape.value()) if kind.has_value else None
    if value is not None:
        value.set_stats(stats)
    return kind(config, critic, value)


def require_columns(kind: type[CriticAlgorithm], name: str, batch: ChunkBatch) -> None:
    """Raise ValueError where an algorithm needs what the transitions do not carry."""
    if kind.needs_returns and batch.mc_return is None:
        raise ValueError(
            f"{name} needs Monte-Carlo returns and the data has none; make them with `vla-rl dataset reward`"
        )
    lacks = batch.next_candidates is None or (kind.needs_candidates == "both" and batch.candidates is None)
    if kind.needs_candidates and lacks:
        raise ValueError(
            f"{name} needs chunks of the policy at {kind.needs_candidates} observations and the data has none; "
            "record them with `vla-rl collect --candidates 8`"
        )

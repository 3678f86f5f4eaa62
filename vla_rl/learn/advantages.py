"""Advantages: what a trained critic says of the chunks of data sets, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.data.rollouts import RolloutConfig, load_trajectories
from vla_rl.data.trajectories import Trajectories
from vla_rl.data.transitions import ChunkBatch, ChunkTransitions, TransitionConfig
from vla_rl.learn.checkpoint import resolve
from vla_rl.learn.extraction_config import ExtractionConfig
from vla_rl.policy.folder import fingerprint
from vla_rl.value.aggregate import make_aggregate
from vla_rl.value.checkpoint import CriticFolder, load_critic, require_fit

BATCH = 1024
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Judged:
    """Data sets as a critic sees them.

    Attributes:
        folder: the critic.
        sets: trajectories of each data set.
        stride: frames from one judged frame to the next.
    """

    folder: CriticFolder
    sets: Sequence[Trajectories]
    stride: int
    aggregate: str

    @property
    def offsets(self) -> NDArray[np.int64]:
        """First row of each set, and the number of all rows."""
        return np.cumsum([0, *(len(each) for each in self.sets)])

    def of_data(self) -> tuple[NDArray[np.int64], Floats]:
        """Rows (M,) and the advantage of the chunk that was executed there, (M,).

        It is Q(s, a) - V(s); where chunks were ranked, Q(s, a) less the mean of the policy's chunks there.
        """

        def each(batch: ChunkBatch) -> Tensor:
            q = self._q(batch, batch.chunk.unsqueeze(1))[:, 0]
            return q - (self._of_policy(batch).mean(1) if ranked(self.folder) else self._v(batch))

        return self._each("here" if ranked(self.folder) else "", each)

    def of_steps(self) -> tuple[NDArray[np.int64], Floats]:
        """Rows (M,) and A = sum r + gamma^n V(s') - V(s) of what really followed, (M,) (RECAP, arXiv:2511.14759)."""

        def step(batch: ChunkBatch) -> Tensor:
            after = self._value(batch.next_features, batch.next_state)
            return batch.reward + batch.discount * after - self._v(batch)

        return self._each("", step)

    def of_candidates(self) -> tuple[NDArray[np.int64], Floats]:
        """Rows (M,) with candidates, and the advantage of each of the K chunks, (M, K).

        Where there is no state value, or one that knows nothing of a ranking, V is the mean of the candidates: what the
        policy earns.
        """

        def each(batch: ChunkBatch) -> Tensor:
            q = self._of_policy(batch)
            return q - (q.mean(1) if ranked(self.folder) or self.folder.value is None else self._v(batch)).unsqueeze(1)

        return self._each("here", each)

    @torch.no_grad()
    def _each(self, needed: str, judge: Callable[[ChunkBatch], Tensor]) -> tuple[NDArray[np.int64], Floats]:
        """`judge` over all transitions, in batches."""
        config = self.folder.critic.config
        cut = TransitionConfig(config.window, config.gamma, 0, "pad", "here" if needed else "")
        data = ChunkTransitions(list(self.sets), cut)
        device = next(self.folder.critic.parameters()).device
        said = []
        for first in range(0, len(data), BATCH):
            batch = data.batch(np.arange(first, min(first + BATCH, len(data)))).to(device)
            said.append(judge(batch).float().cpu().numpy())
        return data.starts, np.concatenate(said)

    def _q(self, batch: ChunkBatch, chunks: Tensor) -> Tensor:
        critic = self.folder.critic
        values = critic.value(critic.embed(batch.features, batch.state), chunks)
        result: Tensor = make_aggregate(self.aggregate, len(values))(values)
        return result

    def _of_policy(self, batch: ChunkBatch) -> Tensor:
        """Values of the policy's chunks, (B, K)."""
        assert batch.candidates is not None
        return self._q(batch, batch.candidates)

    def _v(self, batch: ChunkBatch) -> Tensor:
        return self._value(batch.features, batch.state)

    def _value(self, features: Tensor, state: Tensor) -> Tensor:
        if self.folder.value is None:
            algorithm = self.folder.card["algorithm"]
            raise ValueError(f"{algorithm} leaves no state value; take a critic of monte_carlo, iql or idql")
        result: Tensor = self.folder.value(features, state).mean(0)
        return result


def judge(config: ExtractionConfig, device: str, candidates: int = 0, baseline: int = 0) -> Judged:
    """A critic, and data sets under it.

    Args:
        config: of the run.
        device: where critic and encoder run.
        candidates: chunks an observation, those recorded, else drawn by `config.init`; 0 for none.
        baseline: the same for every set, also those in which no policy acted (demonstrations), where the critic ranked
            chunks and so has no other baseline.

    Raises:
        ValueError: critic, policy and data do not fit.
    """
    folder = load_critic(resolve(config.critic), device)
    shape, encoder = folder.critic.config, folder.encoder or resolve(config.init)
    if folder.encoder is None:
        require_fit(folder.card, policy_fingerprint=fingerprint(encoder), where=f"--init {config.init}")
    stride = config.stride or shape.window
    by = "" if folder.encoder is None else str(resolve(config.init))
    reading = RolloutConfig(shape.layer, stride, config.reward, candidates, drawn_by=by)
    everywhere = bool(baseline) and ranked(folder)
    reading, bare = replace(reading, candidates=baseline if everywhere else candidates), replace(reading, candidates=0)
    sets = []
    for root in config.data:
        each = load_trajectories(root, encoder, bare, device=device)
        if reading.candidates and (everywhere or not each.demonstrated.all()):
            each = load_trajectories(root, encoder, reading, device=device)
        sets.append(each)
    return Judged(folder, sets, stride, config.aggregate)


def ranked(folder: CriticFolder) -> bool:
    """Whether a critic was also taught an order of the policy's chunks, of which a state value knows nothing."""
    return bool(folder.card.get("training", {}).get("rank"))


def carried(rows: NDArray[np.int64], values: Floats, starts: NDArray[np.int64], default: float) -> Floats:
    """Values of some rows for all rows, (N,): a row without one has that of the last one before it in its episode.

    Args:
        rows: ascending, (M,).
        values: (M,).
        starts: first row of each episode, and N, (E + 1,).
        default: of rows with none before them.
    """
    everything = np.arange(starts[-1])
    last = np.searchsorted(rows, everything, side="right") - 1
    episode = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    known = (last >= 0) & (rows[np.maximum(last, 0)] >= starts[episode])
    return np.where(known, values[np.maximum(last, 0)], np.float32(default)).astype(np.float32)

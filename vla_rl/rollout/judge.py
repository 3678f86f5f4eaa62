"""Judge: a critic beside a policy in one process: what it says of the chunks drawn, in the data set's units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl.policy.configuration_vla_rl import STATE
from vla_rl.policy.folder import choose_device
from vla_rl.rollout.draw import Drawer, Drawn, Question, check_fit
from vla_rl.rollout.world import World
from vla_rl.steer.critic import LoadedCritic
from vla_rl.types import ActionKind


@dataclass(frozen=True, eq=False)
class Judged:
    """What is said of one question's chunks.

    Attributes:
        values: (E, K), None where nobody says anything.
        distance: of the observation, see `LoadedCritic.distance`.
    """

    values: NDArray[np.float64] | None = None
    distance: float = float("nan")


UNJUDGED = Judged()


class Judge:
    """Scores the answers of a drawer: one context an observation, one pass for all its candidates.

    Args:
        critic: who scores.
        batch: observations scored at once. A fixed size, filled up: what is said of one does not depend on the others.
    """

    def __init__(self, critic: LoadedCritic, batch: int) -> None:
        self.critic, self._batch = critic, batch

    def check(self, world: World, drawer: Drawer, executed: int) -> None:
        """Raise ValueError where the critic does not fit the world, the policy, or the actions executed of a chunk."""
        state = world.features.get(STATE, {}).get("shape", [None])[0]
        names = None if world.action.kind is ActionKind.RAW else world.action.names  # raw worlds only number them
        self.critic.require_fit(state_dim=state, action_dim=world.action.dim, names=names, where=f"'{world.name}'")
        self.critic.require_fit(horizon=drawer.horizon, window=executed, where=drawer.name)
        self.critic.require_frames(drawer.frames, f"an observation of {drawer.name}")
        if self.critic.eyes is not None:
            eyes = self.critic.eyes
            check_fit(eyes.input_features, eyes.output_features, world, "the critic's encoder")

    def __call__(self, questions: Sequence[Question], drawn: Sequence[Drawn], tau: float | None = None) -> list[Judged]:
        """What the critic says of every answer; with `tau` that lower quantile of the return."""
        starts = range(0, len(drawn), self._batch)
        parts = [(questions[i : i + self._batch], drawn[i : i + self._batch]) for i in starts]
        return [judged for part in parts for judged in self._score(*part, tau)]

    def _score(self, questions: Sequence[Question], drawn: Sequence[Drawn], tau: float | None) -> list[Judged]:
        spare = self._batch - len(drawn)
        asked, answers = [*questions, *[questions[-1]] * spare], [*drawn, *[drawn[-1]] * spare]
        features = self._features(asked, answers)
        states = [question.frames[-1].columns.get(STATE) for question in asked]
        state = None if states[0] is None else np.stack([s for s in states if s is not None])
        values = self.critic.score(features, state, np.stack([answer.chunks for answer in answers]), tau)  # (E, B, K)
        distances = self.critic.distance(features).tolist()
        return [Judged(values[:, i], distances[i]) for i in range(len(drawn))]

    def _features(self, questions: Sequence[Question], drawn: Sequence[Drawn]) -> NDArray[np.float32]:
        """(B, D), from the policy's encoding or the critic's own."""
        if self.critic.eyes is not None:
            histories = [[frame.columns for frame in question.frames] for question in questions]
            return self.critic.features_of(histories, [question.frames[-1].instruction for question in questions])
        shown = [answer.features for answer in drawn if answer.features is not None]
        if len(shown) < len(drawn):
            raise ValueError("the policy shows no features, which this critic reads; train one with --encoder own")
        return np.stack(shown)


def load_judge(folder: str, drawer: Drawer, device: str, trusted: bool = False) -> Judge:
    """A critic's folder as the judge of a drawer, which then answers with the features that the critic reads.

    Raises:
        ValueError: it can not be loaded, its report failed, or it belongs to another policy.
    """
    critic = LoadedCritic.load(folder, choose_device(device), trusted=trusted)
    if critic.encoder == "policy":
        critic.require_fit(policy_fingerprint=drawer.fingerprint, where=drawer.name)
        drawer.layer = critic.layer
    return Judge(critic, drawer.batch)

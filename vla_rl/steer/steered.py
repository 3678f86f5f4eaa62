"""Steered: a policy and a critic as one, in the data set's units: an observation in, the one chosen chunk out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.policy.configuration_vla_rl import ACTION, STATE
from vla_rl.policy.inputs import Columns
from vla_rl.policy.served import Served, action_names, chunk_length
from vla_rl.steer.choose import Chooser, ChooserConfig
from vla_rl.steer.critic import LoadedCritic
from vla_rl.steer.selectors import Choice
from vla_rl.types import Array


@dataclass(frozen=True, eq=False)
class Answer:
    """What a steered policy answers.

    Attributes:
        chunk: the chosen one, (H, A), in the data set's units; nan where no candidate was finite.
        choice: which candidate it is, and why.
        candidates: all of them, (K, H, A).
        values: what the critic said, (E, K), None without a critic.
    """

    chunk: NDArray[np.float32]
    choice: Choice | None
    candidates: NDArray[np.float32]
    values: Array | None


class Steered:
    """Draws K candidates from one encoding, has them valued in one pass, and chooses.

    Args:
        served: the policy.
        critic: who says what candidates are worth, None for selectors that need nobody.
        config: how is chosen.
        k: candidates.
        fingerprint: of the policy's weights, "" where unknown.
        executed: actions of a chunk that will be executed, 0 where nobody knows.

    Raises:
        ValueError: critic, policy and selector do not fit, in one line.
    """

    def __init__(
        self,
        served: Served,
        critic: LoadedCritic | None,
        config: ChooserConfig,
        k: int,
        fingerprint: str = "",
        executed: int = 0,
    ) -> None:
        if k < 1:
            raise ValueError(f"candidates must be at least 1, got {k}")
        self._served, self._critic, self._k = served, critic, k
        self._chooser = Chooser(config, critic)
        if critic is not None:
            _require_fit(critic, served.config, fingerprint, executed)

    def answer(
        self, history: Sequence[Columns], task: str, seed: int, previous: NDArray[np.float32] | None = None
    ) -> Answer:
        """Answer one observation.

        Args:
            history: frames, oldest first.
            task: the instruction.
            seed: of noise and choice.
            previous: what is left of the chunk under way, (H', A).
        """
        context = self._served.encode(history, task)
        chunks = self._served.sample(context, self._k, seed)
        values, distance = self._valued(context, history, task, chunks)
        window = chunks if self._critic is None else chunks[:, : self._critic.window]
        choice = self._chooser.choose(window, values, previous, np.random.default_rng([seed, 2]), distance)
        chosen = choice.of(chunks) if choice else np.full_like(chunks[0], np.nan)
        return Answer(chosen, choice, chunks, values)

    def _valued(
        self, context: object, history: Sequence[Columns], task: str, chunks: NDArray[np.float32]
    ) -> tuple[Array | None, float]:
        """Values (E, K), and how far the observation is from the critic's training data."""
        if self._critic is None:
            return None, float("nan")
        if self._critic.encoder == "own":
            features: NDArray[np.float32] | None = self._critic.features_of([history], [task])[0]
        else:
            features = self._served.features(context, self._critic.layer)
        if features is None:
            raise ValueError(f"the policy shows no features '{self._critic.layer}', which the critic reads")
        state = history[-1].get(STATE)
        values = self._critic.score(
            features[None], None if state is None else state[None], chunks[None], self._chooser.tau
        )
        return values[:, 0], float(self._critic.distance(features[None])[0])


def _require_fit(critic: LoadedCritic, policy: Any, fingerprint: str, executed: int) -> None:
    """Raise ValueError where a critic values other actions than the policy's, or looks at what that is not given."""
    seen = policy.input_features
    critic.require_fit(
        policy_fingerprint=fingerprint or None,
        state_dim=int(seen[STATE].shape[0]) if STATE in seen else 0,
        action_dim=int(policy.output_features[ACTION].shape[0]),
        names=action_names(policy) or None,
        horizon=chunk_length(policy),
        window=executed or None,
    )
    critic.require_frames(int(policy.n_obs_steps), "the policy's observation")
    if critic.eyes is not None and (missing := sorted(set(critic.eyes.input_features) - set(seen))):
        raise ValueError(
            f"the critic's encoder looks at {', '.join(missing)}, which the policy is not given; it is given: "
            f"{', '.join(sorted(seen))}"
        )

"""CriticRunConfig: all that `vla-rl train value` can be told. Imports nothing heavy, so the command line stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vla_rl.learn.config import RunConfig

CRITIC_ALGORITHMS = ("monte_carlo", "iql", "idql", "cql", "calql", "qc", "td3bc", "rebrac", "hil_serl", "pvp", "expo")
IMPLICIT_LOSSES = ("expectile", "quantile", "exponential")


@dataclass(frozen=True)
class CriticRunConfig(RunConfig):
    """A chunk critic from recorded episodes, by offline RL. Each field is a flag of `vla-rl train value`."""

    algo: str = "iql"
    """monte_carlo, iql, idql, cql, calql, qc, td3bc, rebrac, hil_serl, pvp or expo."""
    data: tuple[str, ...] = ()
    """Folders of LeRobotDataset v3 sets to learn from, failures among them, one or more."""
    policy: str = ""
    """Checkpoint whose frozen features the critic reads and whose chunks it will rank."""
    reward: str = ""
    """Tag of the rewards and returns beside each data set (`vla-rl dataset reward`); empty takes next.reward, and then
    there are no returns."""
    encoder: str = "policy"
    """Whose features: policy (those the served policy computes anyway), or own (a copy of --policy goes with the
    critic, which can then steer any other policy)."""
    layer: str = "pooled"
    """Which features of that encoder: pooled, tokens, mean_tokens or looks."""
    mix: tuple[float, ...] = ()
    """Share of each data set in every batch, one number a set; empty draws all transitions alike."""
    sessions: int = 0
    """How many of the data sets, counted from the last, are sessions with corrections. With some, half of every batch
    comes from demonstrations and corrections, half from all of the sessions (RLPD): corrections are in both halves."""
    window: int = 0
    """Actions of a chunk that are executed, and therefore valued; 0 for the policy's n_action_steps."""
    ends: Literal["pad", "exact"] = "pad"
    """Chunks whose episode ends inside them: pad keeps them, exact leaves them out."""
    gamma: float = 0.99
    """Discount a step (an action, not a chunk)."""
    n_step: int = 0
    """Rewards summed before bootstrapping, 0 for the window."""
    stride: int = 0
    """Encode every so many frames of an episode, 1 for all; 0 for the window: the frames at which chunks begin."""
    proposed: bool = False
    """Learn the values of what the policy proposed, instead of what the safety limits made of it."""
    candidates: int = 8
    """cql, calql, qc: policy chunks an observation, those recorded, or else drawn once and kept."""
    draw: bool = False
    """Draw them anew although some were recorded: those are another policy's, for one."""
    drawn_by: str = ""
    """Checkpoint of the policy whose chunks are drawn; empty for --policy. With an encoder of its own, a critic reads
    the features of one policy and learns about the chunks of another."""
    rank: float = 0.0
    """Weight of the ranking of the policy's chunks at demonstrated observations by their distance to what was shown,
    beside the algorithm's own loss (RoboMonkey, arXiv:2506.17811); 0 for none."""
    rank_unit: float = 0.05
    """What a chunk is worth more whose squared error is smaller by a factor e, in units of value."""
    samples: int = 8
    """cql, calql, qc: how many of them a step looks at."""
    holdout: float = 0.1
    """Share of the episodes kept out of training: they say how well values rank what really came of them."""
    head: str = "hl-gauss"
    """Value head: mse, two-hot, hl-gauss, c51 or quantile."""
    bins: int = 101
    """Bins of the value support, or quantiles."""
    low: float | None = None
    """Lower end of the value support; by default what rewards and discount allow."""
    high: float | None = None
    """Upper end of the value support; by default what rewards and discount allow."""
    ensemble: int = 2
    """Members of the critic."""
    width: int = 256
    """Width of every layer."""
    depth: int = 3
    """Hidden layers."""
    chunk_encoder: str = "mlp"
    """How chunks are read: mlp or transformer."""
    tau: float = 0.005
    """How far the target network follows in a step; it is what is saved."""
    aggregate: str = ""
    """Pessimism of targets over the ensemble: min, mean, lcb or random-subset-min; empty for the algorithm's own."""
    expectile: float = 0.7
    """iql, idql: which expectile (or quantile) of Q the state value becomes; 0.5 is the mean."""
    implicit: str = "expectile"
    """idql: loss of the state value: expectile, quantile or exponential."""
    sharpness: float = 1.0
    """idql: alpha of the exponential loss."""
    backup: str = "max"
    """cql, calql, qc: value of the next observation: max over the policy's chunks, or their mean."""
    alpha: float = 1.0
    """cql, calql: weight of the conservative term."""
    temperature: float = 1.0
    """cql, calql: temperature of its soft maximum, in units of value."""
    uniform: int = 4
    """cql, calql: uniformly drawn chunks in it, beside the policy's."""
    actor_bc: float = 0.4
    """td3bc, rebrac: weight of imitation in the actor's loss, against Q over its mean size (1 / 2.5 in TD3+BC)."""
    critic_bc: float = 0.1
    """rebrac: weight of the distance to the data's next chunk in the target, in units of value."""
    actor_delay: int = 2
    """td3bc, rebrac: critic steps an actor step."""
    actor_noise: float = 0.2
    """td3bc, rebrac: smoothing noise on the target's chunk, in spreads of the action, cut off at 2.5 times that."""
    edit: float = 0.2
    """expo: largest edit of a chunk, in spreads of the action."""
    edit_entropy: float = 0.001
    """expo: temperature of the edits' entropy, in units of value."""
    batch: int = 256
    """Transitions a step and process."""
    lr: float = 3e-4
    """Peak learning rate of AdamW."""
    warmup: int = 0
    """Steps of linear warm-up before the cosine."""
    weight_decay: float = 0.01
    """Decay of matrices; biases, norms and embeddings of one dimension have none."""
    grad_clip: float = 10.0
    """Largest gradient norm, 0 for no clipping."""
    ema: float = 0.0
    """Decay of a further average of the weights; the target network is one already."""
    checkpoint_interval: int = 5000
    """Steps between checkpoints."""
    log_interval: int = 200
    """Steps between lines of the log."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        self._require_choice("algo", *CRITIC_ALGORITHMS)
        self._require_choice("ends", "pad", "exact")
        self._require_choice("backup", "max", "mean")
        self._require_choice("implicit", *IMPLICIT_LOSSES)
        self._require_choice("encoder", "policy", "own")
        self._require_positive("samples", "candidates", "actor_delay", "ensemble", least=1)
        self._require_positive("temperature", "sharpness", "tau", "rank_unit")
        self._require_share("holdout")
        counts, weights = ("window", "n_step", "stride", "sessions", "uniform"), ("rank", "alpha", "actor_bc")
        for name in (*counts, *weights, "critic_bc", "actor_noise", "edit", "edit_entropy"):
            if not getattr(self, name) >= 0:  # nor nan
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.tau > 1.0:
            raise ValueError(f"tau must be at most 1, got {self.tau}: beyond it a target runs away")
        if not 0.0 < self.expectile < 1.0:
            raise ValueError(f"expectile must lie between 0 and 1, got {self.expectile}")

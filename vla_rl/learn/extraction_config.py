"""What the policy extractors can be told beside behaviour cloning. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl.learn.config import BCConfig

RULES = ("filtered", "top", "awr", "idql")


@dataclass(frozen=True)
class ExtractionConfig(BCConfig):
    """What all policy extractors can be told: behaviour cloning that listens to a critic."""

    init: str = ""
    """Policy checkpoint to go on from, whose features the critic reads, unless it has its own; empty trains a new
    policy (only rules that need no critic can)."""
    critic: str = ""
    """Critic folder, or the run that made it."""
    reward: str = ""
    """Tag of the rewards beside each data set; empty takes next.reward."""
    stride: int = 0
    """Value every so many frames of an episode, 0 for the critic's window; frames between go with the one before."""
    aggregate: str = "mean"
    """The ensemble's word: min, mean or lcb."""
    lr: float = 3e-4
    """Peak learning rate of AdamW."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        self._require_choice("aggregate", "min", "mean", "lcb")


@dataclass(frozen=True)
class AWRConfig(ExtractionConfig):
    """Weighted behaviour cloning: successes only, the best share, or by advantage. Flags of `vla-rl train awr`."""

    rule: str = "awr"
    """filtered: successful episodes; top: the best share of episodes by return; awr: exp(advantage / temperature);
    idql: the expectile's weights."""
    share: float = 0.1
    """top: share of the episodes that is imitated (10%BC)."""
    temperature: float = 0.1
    """awr: advantage that multiplies a weight by e, in units of value."""
    most: float = 20.0
    """awr: largest weight."""
    expectile: float = 0.7
    """idql: expectile of the weights."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        self._require_choice("rule", *RULES)
        self._require_positive("share", "temperature", "most")
        if self.rule in ("awr", "idql") and not (self.critic and self.init):
            raise ValueError(f"rule {self.rule} needs a critic and init, the policy whose features the critic reads")


@dataclass(frozen=True)
class BestOfNConfig(ExtractionConfig):
    """Best-of-N distillation: imitate the best candidate where it is better enough. Flags of `train best_of_n`."""

    candidates: int = 8
    """Policy chunks an observation to choose from: those recorded with a rollout, else drawn by init."""
    threshold: float = 0.02
    """Least advantage of a chunk that is imitated, in units of value (Digi-Q: 0.05 to 0.10 of [0, 1])."""
    own_share: float = 0.5
    """Share of each batch that imitates the data of sets without candidates (demonstrations) as it is, where given."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        self._require_positive("candidates", least=1)
        self._require_share("own_share")
        if (self.data or self.out) and not (self.critic and self.init):
            raise ValueError("best_of_n needs a critic and init, the policy whose candidates were recorded")


@dataclass(frozen=True)
class RecapConfig(ExtractionConfig):
    """RECAP: a policy that is told which chunks were better than expected. Flags of `vla-rl train recap`."""

    positive: float = 0.3
    """Share of the frames of each data set that counts as better than expected."""
    dropout: float = 0.3
    """Share of the training frames that are not told."""
    guidance: float = 1.5
    """Guidance towards better chunks at inference; 1 only conditions on them."""
    trust_demonstrations: bool = True
    """Whether all frames of sets in which nothing failed, and nobody had to help, count as better."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        self._require_share("positive", "dropout")
        if (self.data or self.out) and not (self.critic and self.init):
            raise ValueError("recap needs a critic and init, the policy whose features the critic reads")

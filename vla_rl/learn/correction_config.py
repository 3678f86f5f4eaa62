"""What learning from corrections can be told. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl.learn.extraction_config import ExtractionConfig


@dataclass(frozen=True)
class HGDaggerConfig(ExtractionConfig):
    """HG-DAgger: imitate demonstrations and what a human did instead of the policy. Flags of `train hg_dagger`."""

    sessions: int = 1
    """How many of the data sets, counted from the last, are sessions with corrections; those before are demonstrations,
    imitated whole."""
    share: float = 0.5
    """Share of each batch that comes from sessions; all of it where there are no demonstrations."""
    own: float = 0.0
    """Weight of the policy's own frames in episodes that succeeded without any correction; HG-DAgger has 0."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        self._require_share("share")
        if self.own < 0.0:
            raise ValueError(f"own must be at least 0, got {self.own}")
        if self.data and not 1 <= self.sessions <= len(self.data):
            raise ValueError(f"sessions must lie between 1 and the number of data sets ({len(self.data)})")


@dataclass(frozen=True)
class PreferenceConfig(HGDaggerConfig):
    """HG-DAgger and preference pairs: the human's chunk against the policy's. Flags of `vla-rl train preference`."""

    beta: float = 10.0
    """How sure the preferences are, against how far the policy may move, per unit of denoising error."""
    preference: float = 0.1
    """Weight of the preferences' loss beside cloning's."""
    pairs: float = 0.25
    """Share of each batch drawn from observations with a pair."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        self._require_positive("beta", "preference")
        self._require_share("pairs")


@dataclass(frozen=True)
class BestChunkConfig(HGDaggerConfig):
    """HG-DAgger, and the critic's choice wherever the policy drove. Flags of `vla-rl train best_chunk`."""

    candidates: int = 8
    """Chunks that the policy draws at each of its decisions, for the critic to choose from."""
    threshold: float = 0.02
    """By how much a chunk must be worth more than the policy's mean to be imitated, in units of value."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        self._require_positive("candidates", least=1)
        if (self.data or self.out) and not (self.critic and self.init):
            raise ValueError("best_chunk needs a critic and init, the policy whose chunks it chooses from")

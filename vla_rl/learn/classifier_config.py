"""ClassifierConfig: all that `vla-rl train classifier` can be told. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl.learn.config import RunConfig


@dataclass(frozen=True)
class ClassifierConfig(RunConfig):
    """Success from images, learned from episodes whose outcome is known. Each field is a flag of the command."""

    data: tuple[str, ...] = ()
    """Folders of LeRobotDataset v3 sets with successes and failures, one or more."""
    cache: str = ""
    """Where decoded images are kept, empty for $VLA_RL_CACHE or ~/.cache/vla_rl."""
    cameras: tuple[str, ...] = ()
    """Image columns to look at, empty for all."""
    image_size: int = 64
    """Side of the square that images are brought to."""
    width: int = 64
    """Channels of the last layer."""
    words: bool = True
    """Read the instruction too: one picture may show a success of one task and not of another."""
    last: int = 1
    """Frames at the end of a success that show it."""
    margin: int = 10
    """Frames before them that are neither success nor not."""
    holdout: float = 0.2
    """Share of the episodes kept out of training: they say how often the classifier is right."""
    shift: int = 3
    """Images are moved by up to so many pixels."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        if self.last < 1 or self.margin < 0 or not 0.0 <= self.holdout < 1.0 or self.image_size < 16:
            raise ValueError("a classifier needs last >= 1, margin >= 0, holdout in [0, 1) and image_size >= 16")

"""Training of the success classifier: frames that show success against frames that do not, half a batch each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vla_rl.data.cache import FrameCache, build
from vla_rl.data.chunks import ChunkDataset
from vla_rl.data.outcomes import successes
from vla_rl.learn.augment import Augmentation
from vla_rl.learn.bc import newest
from vla_rl.learn.classifier_config import ClassifierConfig
from vla_rl.learn.feed import step_seed
from vla_rl.learn.report import counter
from vla_rl.learn.run import check_out
from vla_rl.learn.train import Learner, Training, make_accelerator
from vla_rl.reward.classifier import ClassifierShape, SuccessClassifier, labelled_frames

AUGMENT, HOLDOUT = 1, 2  # streams of `step_seed`
SCORE_FRAMES = 256  # of each kind


def train_classifier(config: ClassifierConfig, progress: bool = True) -> dict[str, Any]:
    """Train a success classifier, or go on training one.

    Args:
        config: the whole run.
        progress: whether to show a bar, or lines where there is no terminal.

    Returns:
        JSON-ready: `stopped`, `steps`, `checkpoint` (a classifier's folder), `score` (1 - balanced accuracy), ...

    Raises:
        ValueError: data or config cannot be used (no successes, or nothing else), or the loss diverged.
    """
    if not config.out or not config.data:
        raise ValueError("a run needs data (folders of LeRobotDataset v3 sets) and out (its own folder)")
    out = Path(config.out)
    check_out(out, config)
    accelerator = make_accelerator(config)
    with accelerator.main_process_first(), counter("decoding", progress and accelerator.is_main_process) as show:
        caches = [build(root, config.cache or None, progress=show) for root in config.data]
    checkpoint = newest(out) if config.resume else None
    weights = checkpoint.path if checkpoint is not None else None
    learner = ClassifierLearner(config, caches, weights, accelerator.device, accelerator.process_index)
    return Training(config, learner, out, accelerator, checkpoint, progress).run()


class _Loss(nn.Module):
    """Binary cross-entropy of a classifier."""

    def __init__(self, classifier: SuccessClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.classifier(batch, batch["task"])
        loss = F.binary_cross_entropy_with_logits(logits, batch["shows"])
        right = ((logits > 0) == (batch["shows"] > 0.5)).float().mean()
        return loss, {"loss": loss.detach(), "right": right.detach()}


class ClassifierLearner(Learner):
    """Tell frames that show success from frames that do not.

    Args:
        config: of the run.
        caches: decoded data sets.
        weights: folder of a classifier to go on with.
        device: of the model and its batches.
        rank: which process; each draws frames of its own.

    Raises:
        ValueError: the episodes that are not held out have no successes, or nothing else.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        caches: Sequence[FrameCache],
        weights: Path | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        rank: int = 0,
    ) -> None:
        self.config, self.device, self.rank = config, device, rank
        self.data = ChunkDataset(list(caches), 1, cameras=config.cameras or None)
        held = _held_out(caches, config)
        kept = [np.setdiff1d(np.arange(len(c.episodes)), out) for c, out in zip(caches, held, strict=True)]
        self.train = labelled_frames(caches, kept, config.last, config.margin)
        self.held = labelled_frames(caches, held, config.last, config.margin) if any(map(len, held)) else None
        torch.manual_seed(step_seed(config.seed, 0))
        shape = ClassifierShape(tuple(self.data.cameras), config.image_size, config.width, config.words)
        self.classifier = (SuccessClassifier.load(weights) if weights else SuccessClassifier(shape)).to(device)
        self.model = _Loss(self.classifier)
        self._augment = Augmentation(shift=config.shift)

    def batch(self, step: int) -> dict[str, Any]:
        """Half a batch of each kind, augmented."""
        rng = np.random.default_rng((self.config.seed, step, self.rank))
        half = max(self.config.batch // 2, 1)
        batch = self._frames(*(rng.choice(rows, half) for rows in (self.train.positive, self.train.negative)))
        chance = torch.Generator(self.device).manual_seed(step_seed(self.config.seed, step, self.rank, AUGMENT))
        return self._augment(batch, chance)

    def describe(self, step: int) -> str:
        """Which episodes a step's first frames are from."""
        return f"frames of seed ({self.config.seed}, {step})"

    @torch.no_grad()
    def score(self) -> float | None:
        """1 - balanced accuracy on held-out episodes; None where they do not have both kinds of frames."""
        if self.held is None:
            return None
        rng = np.random.default_rng((self.config.seed, HOLDOUT))
        wrong = []
        for rows, shows in ((self.held.positive, True), (self.held.negative, False)):
            batch = self._frames(rng.permutation(rows)[:SCORE_FRAMES], rows[:0])
            wrong.append(float(((self.classifier(batch, batch["task"]) > 0) != shows).float().mean()))
        return sum(wrong) / 2

    def save(self, folder: Path) -> None:
        """Write a classifier's folder."""
        self.classifier.save(folder)

    def facts(self) -> dict[str, Any]:
        """How many frames of each kind there are."""
        kinds = {"shows_success": len(self.train.positive), "does_not": len(self.train.negative)}
        return {"folders": list(self.config.data), **kinds, "cameras": list(self.data.cameras)}

    def _frames(self, positive: NDArray[np.int64], negative: NDArray[np.int64]) -> dict[str, Any]:
        batch = self.data.batch(np.concatenate([positive, negative]))
        shows = torch.tensor([1.0] * len(positive) + [0.0] * len(negative))
        images = {name: batch[name].to(self.device) for name in self.data.cameras}
        return {**images, "task": batch["task"], "shows": shows.to(self.device)}


def _held_out(caches: Sequence[FrameCache], config: ClassifierConfig) -> list[NDArray[np.int64]]:
    """Episodes of each set that are kept out of training: `holdout` of the successes and of the failures, or none."""
    owner = np.repeat(np.arange(len(caches)), [len(cache.episodes) for cache in caches])
    number = np.concatenate([np.arange(len(cache.episodes)) for cache in caches])
    outcome = np.concatenate([np.array(successes(cache), object) for cache in caches])
    rng = np.random.default_rng((config.seed, HOLDOUT))
    kinds = [rng.permutation(np.flatnonzero(outcome == kind)) for kind in (True, False)]
    counts = [math.floor(config.holdout * len(kind)) for kind in kinds]
    if not all(counts):
        return [np.zeros(0, np.int64) for _ in caches]
    out = np.concatenate([kind[:count] for kind, count in zip(kinds, counts, strict=True)])
    return [np.sort(number[out[owner[out] == i]]) for i in range(len(caches))]

"""Classifier: does a frame show success? A small network on the cameras' images, trained from recorded episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vla_rl.data.cache import FrameCache
from vla_rl.data.outcomes import successes
from vla_rl.policy.words import MAX_WORDS, tokenize
from vla_rl.record.durable import whole_file
from vla_rl.reward.rule import EpisodeColumns, Tail

CONFIG, WEIGHTS = "classifier.json", "model.safetensors"
_BATCH = 256


@dataclass(frozen=True)
class ClassifierShape:
    """What a classifier looks at.

    Attributes:
        cameras: image columns.
        size: side of the square that images are brought to [pixels].
        width: channels of the last layer.
        words: whether it reads the instruction: one picture may be a success of one task and not of another.
    """

    cameras: tuple[str, ...]
    size: int = 64
    width: int = 64
    words: bool = True


class SuccessClassifier(nn.Module):
    """Images of all cameras (and the instruction) to the logit of success, (B,).

    Args:
        shape: what it looks at.
    """

    def __init__(self, shape: ClassifierShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.eyes = nn.ModuleList(_eye(width) for _ in shape.cameras)
        self.words = nn.EmbeddingBag(4096, width, mode="sum", padding_idx=0) if shape.words else None
        entry = width * (len(shape.cameras) + (1 if shape.words else 0))
        self.head = nn.Sequential(nn.Linear(entry, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, images: Mapping[str, Tensor], tasks: list[str]) -> Tensor:
        """Logits (B,).

        Args:
            images: camera column to (B, 3, H, W), uint8 or float in [0, 1].
            tasks: B instructions.
        """
        seen = [eye(self._sized(images[name])) for name, eye in zip(self.shape.cameras, self.eyes, strict=True)]
        if self.words is not None:
            tokens = tokenize(tasks)[:, :MAX_WORDS].to(seen[0].device)
            seen.append(self.words(torch.where(tokens == 0, 0, 1 + tokens % 4095)))
        return self.head(torch.cat(seen, dim=-1)).squeeze(-1)

    def _sized(self, images: Tensor) -> Tensor:
        pixels = images.float() / 255.0 if images.dtype == torch.uint8 else images
        side = (self.shape.size, self.shape.size)
        small = pixels if pixels.shape[-2:] == side else F.interpolate(pixels, side, mode="area")
        return small - 0.5

    def save(self, folder: Path) -> None:
        """Write `classifier.json` and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS)
        with whole_file(folder / CONFIG) as file:
            file.write(json.dumps(asdict(self.shape), indent=1).encode())

    @classmethod
    def load(cls, folder: str | Path) -> SuccessClassifier:
        """Read a classifier's folder, in evaluation mode.

        Raises:
            ValueError: it is none, or damaged.
        """
        try:
            about = json.loads((Path(folder) / CONFIG).read_text())
            model = cls(ClassifierShape(**{**about, "cameras": tuple(about["cameras"])}))
            model.load_state_dict(load_file(Path(folder) / WEIGHTS))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{folder} is not a success classifier: {str(error).splitlines()[0]}") from None
        return model.eval()


def _eye(width: int) -> nn.Sequential:
    """One camera: four strided convolutions, and where in the picture each of their channels is most excited."""
    layers: list[nn.Module] = []
    for before, after in zip((3, 16, 32, width), (16, 32, width, width), strict=True):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())


@dataclass(frozen=True, eq=False)
class LabelledFrames:
    """Which frames show success and which do not: rows of the concatenation of some data sets.

    Attributes:
        positive: the last frames of episodes that succeeded.
        negative: all frames of those that failed, and of those that succeeded all that come well before it.
    """

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]


def labelled_frames(
    caches: Sequence[FrameCache], episodes: Sequence[NDArray[np.int64]], last: int = 1, margin: int = 10
) -> LabelledFrames:
    """Take examples from episodes whose outcome is known.

    Args:
        caches: the data sets.
        episodes: which of each set to take.
        last: frames at the end of a success that show it.
        margin: frames before them, and before success was first noted, that are neither: nobody can say when exactly
            it began.

    Raises:
        ValueError: no episode succeeded, or none failed: the message says how many of each there are.
    """
    positive, negative, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], {True: 0, False: 0}
    offset = 0
    for cache, chosen in zip(caches, episodes, strict=True):
        outcome, noted = successes(cache), np.asarray(cache.columns.get("next.success", np.zeros(len(cache))))
        came = offset + np.flatnonzero(noted.reshape(-1))
        for number in (n for n in chosen.tolist() if outcome[n] is not None):
            success, (start, end) = bool(outcome[number]), cache.starts[number : number + 2] + offset
            count[success] += 1
            shown = max(end - last, start) if success else end
            positive.append(np.arange(shown, end))
            before = min([shown, *came[(came >= start) & (came < end)][:1]])
            negative.append(np.arange(start, max(before - margin, start) if success else end))
        offset += len(cache)
    if not all(count.values()):
        raise ValueError(
            f"{count[True]} episodes that succeeded and {count[False]} that failed in "
            f"{', '.join(cache.source for cache in caches)}: a success classifier needs both"
        )
    return LabelledFrames(np.concatenate(positive), np.concatenate(negative))


class ClassifierReward:
    """1 at a step behind which the classifier sees success, 0 at all others.

    A step is judged by the frame that follows it, an episode's last one by its own.

    Args:
        folder: of the classifier.
        threshold: probability from which a frame counts.
    """

    low, high, looks = 0.0, 1.0, True
    tail: Tail = "zero"

    def __init__(self, folder: str, threshold: float = 0.8) -> None:
        self._model, self._threshold = SuccessClassifier.load(folder), threshold
        if not 0.0 < threshold < 1.0:
            raise ValueError(f"a threshold of {threshold:g} is no probability between 0 and 1")

    def __call__(self, episode: EpisodeColumns) -> NDArray[np.float32]:
        """The reward of every step, (T,)."""
        shown = probabilities(self._model, episode.images, [episode.instruction] * len(episode), episode.source)
        return (np.append(shown[1:], shown[-1]) >= self._threshold).astype(np.float32)


@torch.inference_mode()
def probabilities(
    model: SuccessClassifier, images: Mapping[str, NDArray[np.uint8]], tasks: list[str], source: str
) -> NDArray[np.float32]:
    """Probability that each frame shows success, (T,).

    Args:
        model: the classifier.
        images: camera column to (T, H, W, 3) uint8.
        tasks: T instructions.
        source: where the images are from, for the message.

    Raises:
        ValueError: a camera that it looks through is missing.
    """
    missing = [name for name in model.shape.cameras if name not in images]
    if missing:
        raise ValueError(f"{source} lacks the camera '{missing[0]}'; it has: {', '.join(images) or 'none'}")
    found = []
    for start in range(0, len(tasks), _BATCH):
        some = {n: torch.from_numpy(images[n][start : start + _BATCH]).movedim(-1, 1) for n in model.shape.cameras}
        found.append(model(some, tasks[start : start + _BATCH]).sigmoid())
    return np.asarray(torch.cat(found).numpy(), np.float32)

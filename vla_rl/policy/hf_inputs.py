"""Images and words for an `hf:` backbone, without doing a processor's work twice.

A processor writes the same prompt, with room for the same images, whenever an instruction comes again: its tokens are
kept. Pixels go through the processor's image half alone. Both are compared with the whole processor the first time; one
whose halves do not add up is run as a whole, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROOM = 64  # tokens of an instruction that all prompts have room for

Shape = tuple[int, ...]
Prepared = dict[str, Tensor]


class Preparation:
    """Observations to the inputs of a vision-language model.

    Args:
        processor: the model's own, of transformers.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._separable: dict[Shape, bool] = {}
        self._words = lru_cache(maxsize=4096)(self._tokenized)

    def __call__(self, frames: Tensor, tasks: Sequence[str], multiple: int = ROOM) -> Prepared:
        """Prepare a batch.

        Args:
            frames: B times N images (B, N, 3, H, W), uint8.
            tasks: B instructions.
            multiple: instructions are padded to a multiple of so many tokens. With `ROOM`, in practice one length: what
                the model makes of a row then does not depend on the others, to the last bit.
        """
        shape = tuple(frames.shape[1:])
        if shape not in self._separable:
            self._separable[shape] = self._halves_add_up(frames[:1])
        if not self._separable[shape]:
            return self._whole(frames, tasks)
        rows = [self._words(task, shape) for task in tasks]
        shortest = len(self._words("", shape)["input_ids"])
        longest = max(len(row["input_ids"]) for row in rows)
        length = shortest + max(1, -(-(longest - shortest) // multiple)) * multiple
        return self._stacked(rows, length) | self._pixels(frames)

    def _whole(self, frames: Tensor, tasks: Sequence[str]) -> Prepared:
        """What the whole processor makes of a batch."""
        prompts = [self._prompt(task, frames.shape[1]) for task in tasks]
        made = self.processor(text=prompts, images=[list(each) for each in frames], return_tensors="pt", padding=True)
        return {key: value for key, value in made.items() if key != "labels"}

    def _pixels(self, frames: Tensor) -> Prepared:
        made = self.processor.image_processor([list(each) for each in frames], return_tensors="pt")
        return dict(made.items())

    def _tokenized(self, task: str, shape: Shape) -> Prepared:
        """The words' half of what the processor makes of one observation, each (L,)."""
        blank = torch.zeros(1, *shape, dtype=torch.uint8)
        pixels = self._pixels(blank)
        return {key: value[0] for key, value in self._whole(blank, [task]).items() if key not in pixels}

    def _halves_add_up(self, frames: Tensor) -> bool:
        """Whether the two halves give what the whole gives, on one observation (1, N, 3, H, W)."""
        whole = self._whole(frames, ["lift"])
        try:
            words, pixels = self._tokenized("lift", tuple(frames.shape[1:])), self._pixels(frames)
        except (AttributeError, TypeError, ValueError, KeyError):
            return False
        halves = {key: value[None] for key, value in words.items()} | pixels
        rows = all(value.ndim == 1 for value in words.values())
        return rows and halves.keys() == whole.keys() and all(torch.equal(halves[key], whole[key]) for key in whole)

    def _stacked(self, rows: Sequence[Prepared], length: int) -> Prepared:
        """Rows of tokens as a batch, padded on the tokenizer's side."""
        tokenizer = self.processor.tokenizer
        fill = {"input_ids": tokenizer.pad_token_id or 0}
        left = tokenizer.padding_side == "left"

        def padded(key: str, value: Tensor) -> Tensor:
            missing = length - len(value)
            return F.pad(value, (missing, 0) if left else (0, missing), value=fill.get(key, 0))

        return {key: torch.stack([padded(key, row[key]) for row in rows]) for key in rows[0]}

    def _prompt(self, task: str, images: int) -> str:
        """The instruction after its images, in the model's chat format where it has one."""
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}] * images + [{"type": "text", "text": task}]
            return str(self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False))
        return str(getattr(self.processor, "image_token", "<image>")) * images + task

"""RunConfig, what any run can be told, and BCConfig, what behaviour cloning can be told besides.

Imports nothing heavy, so the command line stays fast.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

DEFAULT_STEPS = 10_000
MAY_CHANGE = {
    *(
        "data",
        "out",
        "resume",
        "steps",
        "minutes",
        "checkpoint_interval",
        "keep",
        "log_interval",
        "tensorboard",
        "wandb",
    ),
    *("device", "on_device", "threads", "prefetch", "compile", "cache"),
}
"""Fields that a resumed run may have otherwise than the run it resumes."""


@dataclass(frozen=True)
class RunConfig:
    """What the training loop reads, whatever the algorithm."""

    out: str = ""
    """Folder of this run: checkpoints, logs, result.json."""
    resume: bool = False
    """Go on with the run that --out holds."""
    steps: int | None = None
    """Optimiser steps in all; 10000 where neither steps nor minutes are given."""
    minutes: float | None = None
    """Training time in all; the schedule follows the clock, so resuming is exact in weights but not bit for bit."""
    batch: int = 64
    """Samples a step and process."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup: int = 200
    """Steps of linear warm-up before the cosine."""
    weight_decay: float = 0.01
    """Decay of matrices; biases, norms and embeddings of one dimension have none."""
    grad_clip: float = 1.0
    """Largest gradient norm, 0 for no clipping."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that are saved as the policy."""
    seed: int = 0
    """Seed of initial weights, sampling, augmentation and diffusion noise."""
    bf16: str = "auto"
    """Mixed precision: auto, on or off."""
    device: str = "auto"
    """auto, cpu or cuda; `accelerate launch` runs several processes."""
    threads: int = 0
    """Torch threads, 0 for torch's own choice."""
    prefetch: int = 2
    """Batches prepared ahead in a thread, 0 for none."""
    compile: bool = False
    """Compile the loss: a third faster on a CPU, after a minute or two of compiling; needs a C++ compiler."""
    checkpoint_interval: int = 1000
    """Steps between checkpoints."""
    keep: int = 3
    """How many of the newest checkpoints to keep, beside the best."""
    log_interval: int = 50
    """Steps between lines of the log."""
    bad_steps: int = 10
    """Steps in a row with a loss or gradient that is not finite after which the run stops."""
    tensorboard: bool = True
    """Write TensorBoard scalars to OUT/tensorboard."""
    wandb: str = ""
    """Weights & Biases project to log to, empty for none."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        self._require_positive("batch", "checkpoint_interval", "keep", "log_interval", "bad_steps", least=1)
        self._require_positive("lr", "minutes", "steps")
        self._require_choice("bf16", "auto", "on", "off")

    def _require_positive(self, *names: str, least: int | None = None) -> None:
        for name in names:
            value = getattr(self, name)
            if least is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
            if value is not None and not value > 0:  # nor nan
                raise ValueError(f"{name} must be positive, got {value}")

    def _require_choice(self, name: str, *allowed: str) -> None:
        if getattr(self, name) not in allowed:
            raise ValueError(f"{name} must be {', '.join(allowed[:-1])} or {allowed[-1]}, got '{getattr(self, name)}'")

    def _require_share(self, *names: str) -> None:
        for name in names:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    @property
    def limit(self) -> int | None:
        """Optimiser steps in all, None where only the clock ends the run."""
        return self.steps if self.steps is not None or self.minutes is not None else DEFAULT_STEPS

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """Fields that shape the result and differ from an earlier run's, as 'name: there, here' in words."""
        here = self.to_dict()
        default = type(self)().to_dict()  # what a run that is older than a field had
        names = [f.name for f in fields(self) if f.name not in MAY_CHANGE]
        there = {name: earlier.get(name, default[name]) for name in names}
        return [f"{n} was {there[n]}, now {here[n]}" for n in names if there[n] != here[n]]


@dataclass(frozen=True)
class BCConfig(RunConfig):
    """Behaviour cloning with a diffusion action head. Each field is a flag of `vla-rl train bc`."""

    data: tuple[str, ...] = ()
    """Folders of LeRobotDataset v3 sets to learn from, one or more."""
    horizon: int = 16
    """Actions a chunk."""
    image_size: int = 96
    """Side of the training images [pixels], 0 for the data set's own size."""
    backbone: str = "tiny"
    """Vision-language backbone: tiny, or hf:<model id or folder>."""
    head: str = "tiny"
    """Size of the diffusion head: tiny, S, B or L."""
    policy: tuple[str, ...] = ()
    """More fields of the policy's config as key=value, for instance n_obs_steps=2."""
    action: str = "auto"
    """Column to imitate: action (what was executed), policy_action (the expert's clean target), or auto: the clean
    target where every frame has one."""
    pace: float = 1.0
    """How much faster than its data the policy is to move: step i of a chunk is what was done pace * i periods on."""
    decision_share: float = 0.5
    """Share of each batch drawn from an episode's first frames, where the words decide."""
    decision_s: float = 0.5
    """How long the choice takes from an episode's start [s]."""
    balance: str = "task"
    """Key of the episodes' meta whose values get equal shares of each batch, empty for none."""
    episodes: int = 0
    """Use only the first so many episodes of each data set, 0 for all."""
    exclude: tuple[str, ...] = ()
    """Combinations of task and named object to leave out, TASK:OBJECT, one or more: push:yellow leaves out the pushes
    of things called yellow, drawer: every drawer, yellow every episode that names something yellow."""
    holdout: float = 0.0
    """Share of the episodes kept out of training; their loss is reported and decides which checkpoint is best."""
    brightness: float = 0.15
    """Image augmentation: relative change of brightness."""
    contrast: float = 0.15
    """Image augmentation: relative change of contrast."""
    saturation: float = 0.15
    """Image augmentation: relative change of saturation."""
    tint: float = 0.0
    """Image augmentation: relative change of each colour channel by itself."""
    hue: float = 0.0
    """Image augmentation: turn of the hue, 1 for a whole turn."""
    gamma: float = 0.0
    """Image augmentation: largest logarithm of the exponent that brightness values get."""
    noise: float = 0.0
    """Image augmentation: largest standard deviation of noise, 1 for the whole range."""
    shift: int = 0
    """Image augmentation: shift in pixels; leave 0 for fixed cameras."""
    on_device: str = "auto"
    """Whether the whole data set lies in the GPU's memory: auto, on or off."""
    cache: str = ""
    """Folder of the decoded cache, empty for the default beside the data set."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        super().__post_init__()
        self._require_positive("horizon", least=1)
        self._require_positive("pace")
        self._require_choice("on_device", "auto", "on", "off")
        self._require_share("decision_share", "holdout")

"""What `vla-rl improve` can be told. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

METHODS = {
    "hg_dagger": "imitate demonstrations and corrections (HG-DAgger)",
    "preference": "the same, and away from what the policy proposed while a human drove (Diffusion-DPO)",
    "recap": "a policy that is told what was better than expected, split at the first takeover (RECAP)",
    "hil_serl": "a critic of demonstrations and replay, half and half (RLPD), and its best chunks (HIL-SERL)",
    "pvp": "a critic that values a human's chunks at 1 and the overruled ones at -1, and its best chunks (PVP)",
    "expo": "a critic and small edits of the policy's chunks, and the best of both (EXPO)",
}

TAKERS = {
    "value": ("recap", "hil_serl", "pvp", "expo"),
    "reward": ("recap", "hil_serl", "expo"),
    "gamma": ("hil_serl", "pvp", "expo"),
}
"""Methods that judge by a critic, those whose critics learn from rewards, and those that can discount them."""


@dataclass(frozen=True)
class ImproveConfig:
    """A better policy from sessions with corrections. Each field is a flag of `vla-rl improve`."""

    session: tuple[str, ...] = ()
    """Sessions, in the order in which they were driven: SESSION of vla-rl record, a collection, or a data set's folder,
    one or more."""
    policy: str = ""
    """Checkpoint to improve."""
    out: str = ""
    """Folder for what comes of it: policy/, critic/, improve.json, report.html."""
    method: str = "hg_dagger"
    """hg_dagger, preference, recap, hil_serl, pvp or expo."""
    data: tuple[str, ...] = ()
    """Data sets of demonstrations to go on learning from, none, one or more."""
    value: str = ""
    """Critic to judge by, for methods that need one (pvp and expo: one of their own); empty trains one of the sessions
    and the demonstrations."""
    steps: int = 1000
    """Optimiser steps of the policy."""
    critic_steps: int = 4000
    """Optimiser steps of a critic that is trained."""
    batch: int = 64
    """Frames a step of the policy."""
    lr: float = 5e-4
    """Peak learning rate of the policy."""
    share: float = 0.5
    """Share of the policy's batches that comes from sessions."""
    pace: float = 1.0
    """How much faster than its demonstrations the policy is to move. Corrections are imitated at the pace at which they
    were driven; recap, which learns from whole rollouts, has only 1."""
    reward: str = ""
    """Tag of rewards that lie beside all data already (`vla-rl dataset reward`, a success classifier's for one); empty
    labels them from the operator's marks."""
    gamma: float = 0.97
    """Discount a step of hil_serl, pvp and expo."""
    set: tuple[str, ...] = ()
    """More of the method's own settings as name=value: those of `vla-rl train METHOD --help`
    (hil_serl, pvp, expo: of `vla-rl train best_chunk`)."""
    online: bool = False
    """Learn beside a running graph: whenever --every more episodes are complete a round of --steps goes on from the
    newest policy, and what comes of it is pushed to OUT/versions/policy and OUT/versions/critic."""
    every: int = 10
    """online: episodes between two rounds."""
    rounds: int = 0
    """online: end after so many, 0 goes on until Ctrl-C."""
    threads: int = 0
    """Torch's threads, 0 leaves them."""
    device: str = "auto"
    """Where to train: auto, cpu or cuda."""
    seed: int = 0
    """Of everything that is drawn."""
    resume: bool = False
    """Go on where an interrupted run stopped."""

    def __post_init__(self) -> None:
        """Raise ValueError, in one line, where a field cannot be."""
        if self.method not in METHODS:
            raise ValueError(f"unknown method '{self.method}'; there are: {', '.join(METHODS)}")
        for name in ("session", "policy", "out"):
            if not getattr(self, name):
                raise ValueError(f"improve needs --{name}")
        if self.online and self.reward:
            raise ValueError("--reward names rewards that new episodes have not: --online takes the operator's marks")
        for name, methods in TAKERS.items():
            asked = getattr(self, name) != getattr(type(self), name)
            if asked and self.method not in methods:
                raise ValueError(f"--{name}: {self.method} takes none; methods that do: {', '.join(methods)}")
        if min(self.steps, self.critic_steps, self.batch, self.every) < 1 or self.rounds < 0:
            raise ValueError("--steps, --critic-steps, --batch and --every must be at least 1, --rounds at least 0")
        if not 0.0 < self.gamma <= 1.0:
            raise ValueError(f"--gamma must lie in (0, 1], got {self.gamma}")
        if not 0.0 < self.pace < float("inf") or (self.method == "recap" and self.pace != 1.0):
            allowed = "1 with recap" if self.method == "recap" else "positive"
            raise ValueError(f"--pace must be {allowed}, got {self.pace}")

    def settings(self) -> dict[str, Any]:
        """`set` as a dictionary of texts.

        Raises:
            ValueError: one is not name=value.
        """
        pairs = [text.partition("=") for text in self.set]
        if wrong := [text for text, (name, equals, _) in zip(self.set, pairs, strict=True) if not (name and equals)]:
            raise ValueError(f"--set {wrong[0]} must read name=value")
        return {name: value for name, _, value in pairs}

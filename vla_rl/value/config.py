"""CriticConfig and ValueConfig: everything that decides the shape of a critic, kept in its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from vla_rl.value.heads import HEADS
from vla_rl.value.support import Support

ENCODERS = ("policy", "own")
CHUNK_ENCODERS = ("mlp", "transformer")


@dataclass(frozen=True)
class ValueConfig:
    """A state value V.

    Attributes:
        feature_dim: size D of an observation's features, 0 where there are none.
        state_dim: size S of the state, 0 where there is none.
        goal_dim: size G of a goal, 0 where there is none.
        low, high, bins: the value support; see `Support`.
        head: mse, two-hot, hl-gauss, c51 or quantile.
        ensemble: members E.
        width, depth: of the hidden layers.
        gamma: discount a step that the values were learned with.
    """

    feature_dim: int
    state_dim: int
    low: float
    high: float
    bins: int = 101
    head: str = "hl-gauss"
    ensemble: int = 1
    width: int = 256
    depth: int = 3
    gamma: float = 0.99
    goal_dim: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a choice that does not exist, with those that do."""
        _check(self)

    @property
    def support(self) -> Support:
        """The value support."""
        return Support(self.low, self.high, self.bins)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ValueConfig:
        """Inverse of `to_dict`."""
        return cls(**data)


@dataclass(frozen=True)
class CriticConfig:
    """A chunk critic Q.

    Attributes:
        feature_dim: size D of an observation's features, 0 where there are none.
        state_dim: size S of the state, 0 where there is none.
        action_dim: numbers A an action.
        window: actions h of a chunk that are really executed and therefore valued.
        low, high, bins: the value support; see `Support`.
        head: mse, two-hot, hl-gauss, c51 or quantile.
        ensemble: members E.
        gamma: discount a step that the values were learned with.
        chunk_encoder: mlp or transformer.
        width, depth: of the hidden layers, in all of which context and chunk have met.
        relative: (A,), which actions are read relative to the state; empty for none.
        encoder: whose features: the served policy's ("policy"), or those of an encoder in the critic's folder ("own").
        layer: which features of that encoder.
    """

    feature_dim: int
    state_dim: int
    action_dim: int
    window: int
    low: float
    high: float
    bins: int = 101
    head: str = "hl-gauss"
    ensemble: int = 2
    gamma: float = 0.99
    chunk_encoder: str = "mlp"
    width: int = 256
    depth: int = 3
    relative: tuple[bool, ...] = ()
    encoder: str = "policy"
    layer: str = "pooled"

    def __post_init__(self) -> None:
        """Raise ValueError for a choice that does not exist, with those that do."""
        _check(self)
        for name, allowed in (("encoder", ENCODERS), ("chunk_encoder", CHUNK_ENCODERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown {name} '{getattr(self, name)}'; there are: {', '.join(allowed)}")
        if min(self.action_dim, self.window) < 1:
            raise ValueError(f"a chunk critic needs actions: {self.window} of {self.action_dim} numbers is no chunk")
        if self.relative and len(self.relative) != self.action_dim:
            raise ValueError(f"`relative` has {len(self.relative)} entries for {self.action_dim} actions")
        if any(self.relative[self.state_dim :]):
            raise ValueError(f"actions relative to a state of {self.state_dim} numbers: `relative` names more")

    @property
    def support(self) -> Support:
        """The value support."""
        return Support(self.low, self.high, self.bins)

    def value(self, ensemble: int = 1, goal_dim: int = 0) -> ValueConfig:
        """The config of a state value beside this critic: same inputs, head, support and size."""
        shared = {f.name: getattr(self, f.name) for f in fields(ValueConfig) if f.name != "goal_dim"}
        return ValueConfig(**{**shared, "ensemble": ensemble, "goal_dim": goal_dim})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "relative": list(self.relative)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CriticConfig:
        """Inverse of `to_dict`."""
        return cls(**{**data, "relative": tuple(bool(flag) for flag in data["relative"])})


def _check(config: ValueConfig | CriticConfig) -> None:
    """What both kinds promise."""
    Support(config.low, config.high, config.bins)
    if config.head not in HEADS:
        raise ValueError(f"unknown value head '{config.head}'; there are: {', '.join(HEADS)}")
    if config.feature_dim + config.state_dim < 1 or min(config.feature_dim, config.state_dim) < 0:
        raise ValueError(f"neither features nor a state to see: {config.feature_dim} and {config.state_dim} numbers")
    if min(config.ensemble, config.width, config.depth) < 1:
        raise ValueError(f"ensemble, width and depth are 1 or more: {config.ensemble}, {config.width}, {config.depth}")
    if not 0 < config.gamma <= 1:
        raise ValueError(f"gamma lies in (0, 1], not {config.gamma:g}")

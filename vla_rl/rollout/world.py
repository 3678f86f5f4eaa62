"""World: any Gymnasium environment that follows LeRobot's observation convention, as frames of named columns.

`pixels` (one array or a dict of cameras), `agent_pos` and further arrays become the columns of the data schema
(`observation.image` or `observation.images.<cam>`, `observation.state`, `observation.<key>`); an environment without a
dict gives one image or one state. Nothing here knows which robot or simulator stands behind the environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vla_rl.rollout.gate import Gate
from vla_rl.types import ActionKind, ActionSpec

SUCCESS_KEYS = ("is_success", "success", "succeed")
STEP_CAP = 1000  # for environments that declare no time limit of their own
_RENAMED = {"agent_pos": "observation.state"}

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Frame:
    """What is known before acting.

    Attributes:
        columns: `observation.*` columns, images (H, W, C) uint8, everything else float32.
        instruction: what to do, in words.
        info: the environment's info, with `labels` (privileged state) where it gives any.
    """

    columns: Columns
    instruction: str
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Transition:
    """What one action came to; `executed` is the action after bounds and limits, (A,) float32."""

    frame: Frame
    executed: NDArray[np.float32]
    reward: float
    terminated: bool
    truncated: bool
    success: bool


@dataclass(frozen=True, eq=False)
class Saved:
    """A moment of an episode: the environment's own state, what the safety filter remembers, and the steps so far."""

    state: Any
    memory: dict[str, Any] | None
    steps: int


class World:
    """One environment, its columns and its action.

    Attributes:
        name: the task's name.
        env: the Gymnasium environment.
        fps: control rate [Hz].
        robot: name of the robot, "gymnasium" where the environment tells none.
        variants: how many objects of one scene can be named; 1 where the environment has no variants.
        features: column to {"dtype", "shape", "names"} of every observation column.
        action: what the action's numbers mean; of kind `raw` where the environment describes no robot.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str, instruction: str = "", max_steps: int = 0) -> None:
        """Read what the environment declares.

        Args:
            env: the environment.
            name: the task's name.
            instruction: what to do, for environments that don't say; empty asks the environment.
            max_steps: cut episodes here; 0 leaves it to the environment, or `STEP_CAP` where it has no limit.

        Raises:
            ValueError: an action or observation space that has no place in the data schema.
        """
        self.name, self.env, self._given = name, env, instruction
        robot = getattr(env.unwrapped, "spec_robot", None)
        self.robot = str(robot.name) if robot is not None else "gymnasium"
        self.fps = float(getattr(env.unwrapped, "fps", 0) or env.metadata.get("render_fps") or 30)
        self.variants = int(getattr(env.unwrapped, "variants", 1))
        self.features = _features(env.observation_space, name)
        self.action = robot.lerobot_action_spec if robot is not None else _raw_action(env.action_space, name)
        declared = getattr(env.spec, "max_episode_steps", None)
        self._limit = max_steps or (0 if declared or robot is not None else STEP_CAP)
        self._low, self._high = _bounds(env.action_space)
        self._gate = Gate(robot) if robot is not None else None
        self._steps, self._begun = 0, False

    @property
    def names(self) -> dict[str, list[str]]:
        """Column to one name a dimension, for every vector."""
        return {key: names for key, (names, _) in self._described().items()}

    @property
    def units(self) -> dict[str, list[str]]:
        """Column to one unit a dimension, for every vector."""
        return {key: units for key, (_, units) in self._described().items()}

    def _described(self) -> dict[str, tuple[list[str], list[str]]]:
        action = (list(self.action.names), list(self.action.units))
        described = {"action": action, "policy_action": action}
        for key, feature in self.features.items():
            if len(feature["shape"]) == 1:
                stem, count = key.rpartition(".")[2], feature["shape"][0]
                plain = ([f"{stem}_{i}" for i in range(count)], ["1"] * count)
                described[key] = plain if self.action.kind is ActionKind.RAW or stem != "state" else action
        return described

    def variant(self, seed: int, choice: int) -> int | None:
        """Which variant the `choice`-th episode of a scene names: a seeded order that visits all before any twice."""
        if self.variants <= 1:
            return None
        return int(np.random.default_rng([seed, self.variants]).permutation(self.variants)[choice % self.variants])

    def reset(self, seed: int, choice: int = 0) -> Frame:
        """Begin the episode of this scene seed, naming the `choice`-th object."""
        variant = self.variant(seed, choice)
        observation, info = self.env.reset(seed=seed, options=None if variant is None else {"variant": variant})
        if self._gate is not None:
            self._gate.begin(_flatten(observation)["observation.state"])
        self._steps, self._begun = 0, True
        return self._frame(observation, info)

    def step(self, action: NDArray[np.float32], look: bool = True) -> Transition:
        """Execute one action (A,), cut to the action space's bounds and, for a robot, through its safety filter.

        Args:
            action: what to do.
            look: whether the frame after it needs images; without, our own tasks do not render.

        Raises:
            ValueError: the environment's info has no success key.
        """
        executed = np.clip(action, self._low, self._high).astype(np.float32)
        if self._gate is not None:
            executed = self._gate.pass_on(executed)
        with nullcontext() if look else self._eyes_closed():
            observation, reward, terminated, truncated, info = self.env.step(executed)
        self._steps += 1
        truncated = bool(truncated) or bool(self._limit and self._steps >= self._limit)
        return Transition(
            self._frame(observation, info),
            executed,
            float(reward),
            bool(terminated),
            truncated and not terminated,
            self._success(info),
        )

    def save(self) -> Saved:
        """This moment, to come back to.

        Raises:
            ValueError: the environment can not save its state.
        """
        save = getattr(self.env.unwrapped, "save_state", None)
        if save is None or not hasattr(self.env.unwrapped, "restore_state"):
            raise ValueError(
                f"'{self.name}' cannot save and restore its state (save_state, restore_state); our tasks can"
            )
        return Saved(save(), None if self._gate is None else self._gate.save(), self._steps)

    def restore(self, saved: Saved) -> None:
        """Go back to a moment of this world, or of another one of the same task; nothing is rendered."""
        if not self._begun:
            self.reset(0)
        with self._eyes_closed():
            self.env.unwrapped.restore_state(saved.state)  # type: ignore[attr-defined]
        if self._gate is not None and saved.memory is not None:
            self._gate.load(saved.memory)
        self._steps = saved.steps

    def expert(self, clumsy: bool, seed: int, pace: float = 1.0) -> Any:
        """The environment's own scripted expert, who goes on from the state of now.

        Args:
            clumsy: of mixed quality.
            seed: of its choices.
            pace: multiple of its usual speed; an environment that has none takes 1.

        Raises:
            ValueError: it has none.
        """
        make = getattr(self.env.unwrapped, "expert", None)
        if make is None:
            raise ValueError(f"'{self.name}' has no scripted expert; use --policy random or a checkpoint folder")
        return make(clumsy=clumsy, seed=seed, **({} if pace == 1.0 else {"pace": pace}))

    def close(self) -> None:
        """Close the environment and its renderers."""
        self.env.close()

    @contextmanager
    def _eyes_closed(self) -> Iterator[None]:
        """Our own environments render nothing while they have no cameras."""
        inner: Any = self.env.unwrapped
        cameras = getattr(inner, "cameras", None)
        if cameras is None:
            yield
            return
        inner.cameras = ()
        try:
            yield
        finally:
            inner.cameras = cameras

    def _frame(self, observation: Any, info: Mapping[str, Any]) -> Frame:
        columns = {
            key: np.array(value, dtype=np.uint8 if self.features[key]["dtype"] == "image" else np.float32)
            for key, value in _flatten(observation).items()
        }
        return Frame(columns, self._instruction(info), info)

    def _instruction(self, info: Mapping[str, Any]) -> str:
        inner = self.env.unwrapped
        spoken = info.get("instruction") or getattr(inner, "task_description", None) or getattr(inner, "task", None)
        return self._given or str(spoken or self.name)

    def _success(self, info: Mapping[str, Any]) -> bool:
        for key in SUCCESS_KEYS:
            if key in info:
                return bool(info[key])
        given = ", ".join(sorted(info)) or "nothing"
        raise ValueError(
            f"'{self.name}' reports no success: info needs one of {', '.join(SUCCESS_KEYS)}; it has {given}"
        )


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """An observation (or its space) as flat columns, named as LeRobot names them."""
    mapping = tree.spaces if isinstance(tree, gymnasium.spaces.Dict) else tree
    if not isinstance(mapping, Mapping):
        kind = "observation.image" if len(tree.shape) == 3 else "observation.state"
        return {prefix or kind: tree}
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{prefix}.{key}" if prefix else _RENAMED.get(key, f"observation.{key}")
        if key == "pixels" and not prefix:
            many = isinstance(value, (Mapping, gymnasium.spaces.Dict))
            name = "observation.images" if many else "observation.image"
        flat |= _flatten(value, name)
    return flat


def _features(space: gymnasium.Space[Any], name: str) -> dict[str, dict[str, Any]]:
    features: dict[str, dict[str, Any]] = {}
    for key, leaf in _flatten(space).items():
        if not isinstance(leaf, gymnasium.spaces.Box):
            raise ValueError(
                f"'{name}': observation '{key}' is a {type(leaf).__name__}; only arrays (Box) can be stored"
            )
        image = key.startswith("observation.image")
        if image and (leaf.dtype != np.uint8 or len(leaf.shape) != 3):
            raise ValueError(
                f"'{name}': camera '{key}' is {leaf.dtype} {leaf.shape}; it must be uint8 (height, width, 3)"
            )
        names = ["height", "width", "channels"] if image else None
        features[key] = {"dtype": "image" if image else "float32", "shape": list(leaf.shape), "names": names}
    return features


def _bounds(space: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.asarray(space.low, dtype=np.float32), np.asarray(space.high, dtype=np.float32)


def _raw_action(space: gymnasium.Space[Any], name: str) -> ActionSpec:
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"'{name}' has the action space {space}; only a Box of one dimension can be learned")
    low, high = _bounds(space)
    count = len(low)
    names = tuple(f"action_{i}" for i in range(count))
    return ActionSpec(ActionKind.RAW, names, ("1",) * count, tuple(low.tolist()), tuple(high.tolist()))

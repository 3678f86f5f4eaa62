"""The tabletop as a Gymnasium environment in LeRobot's convention: `pixels`, `agent_pos`, `info["is_success"]`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vla_rl.kinematics import Kinematics, Pose
from vla_rl.sim import randomize
from vla_rl.sim.arm import arm_model
from vla_rl.sim.language import phrase
from vla_rl.sim.render import Cameras, Projection
from vla_rl.sim.scene import CAMERAS, PAN_AXIS, Quality, new_scene
from vla_rl.sim.tasks import make_task
from vla_rl.sim.touch import Touch, add_touch_sensors
from vla_rl.sim.world import World
from vla_rl.types import Array

if TYPE_CHECKING:
    from vla_rl.sim.expert import Expert

Float32 = NDArray[np.float32]
HEADER = 8


class TabletopEnv(gymnasium.Env[dict[str, Any], Float32]):
    """One task on the SO-101 tabletop at 30 Hz; actions and states in LeRobot's units.

    Args:
        task: name of the task.
        randomisation: `none`, `train`, `positions` or `looks`.
        image_size: of every camera, one number or (height, width) [pixels].
        cameras: which cameras to render; () for states only.
        reward: `sparse` (1 at success) or `dense` (progress, 0 to 1).
        phrasings: `train`, or `unseen` for sentences held out of training.
        render_mode: `rgb_array` or None.
        quality: shadows and multisampling.

    Raises:
        ValueError: an unknown task, level, camera, reward or phrasing; the message lists what exists.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(
        self,
        task: str = "lift",
        randomisation: str = "train",
        image_size: int | tuple[int, int] = 96,
        cameras: Sequence[str] = CAMERAS,
        reward: str = "sparse",
        phrasings: str = "train",
        render_mode: str | None = "rgb_array",
        quality: Quality | None = None,
    ) -> None:
        randomize.check_level(randomisation)
        _check_choice("camera", cameras, CAMERAS)
        _check_choice("reward", (reward,), ("sparse", "dense"))
        _check_choice("phrasings", (phrasings,), ("train", "unseen"))
        _check_choice("render_mode", (render_mode,), ("rgb_array", None))
        self.render_mode, self.randomisation = render_mode, randomisation
        self._dense, self._unseen = reward == "dense", phrasings == "unseen"
        self._quality, self.cameras = quality or Quality(), tuple(cameras)
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])
        self._task = make_task(task)
        spec, self.spec_robot = new_scene(self._quality)
        self._task.build(spec)
        add_touch_sensors(spec, 1.0 / self.spec_robot.rate)
        self.world = World(spec.compile(), self.spec_robot)
        self._touch = Touch(self.world.model, self.world.data)
        self._task.bind(self.world)
        self._kinematics = Kinematics(self.spec_robot, arm_model())
        self._home = home(self._kinematics)
        self._projection = self.projection(self.world.data)
        self._camera_ids = {c: self.world.model.camera(c).id for c in CAMERAS}
        self._renderer: Cameras | None = None
        self._limit, self._hold = (round(s * self.fps) for s in (self._task.time_limit, self._task.hold_time))
        self._set_spaces()
        self._clear(0)

    def _set_spaces(self) -> None:
        bounds = self.spec_robot.lerobot_action_spec
        low, high = np.array(bounds.low, np.float32), np.array(bounds.high, np.float32)
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        state = spaces.Box(-np.inf, np.inf, low.shape, np.float32)
        parts: dict[str, spaces.Space[Any]] = {"agent_pos": state}
        if self.cameras:
            parts["pixels"] = spaces.Dict(
                {c: spaces.Box(0, 255, (*self.image_size, 3), np.uint8) for c in self.cameras}
            )
        self.observation_space = spaces.Dict(parts)

    @property
    def task(self) -> str:
        """The task's name."""
        return self._task.name

    @property
    def task_description(self) -> str:
        """The instruction of this episode."""
        return self._instruction

    @property
    def variants(self) -> int:
        """How many different things of one scene can be named."""
        return self._task.variants

    @property
    def fps(self) -> int:
        """Control rate [Hz]."""
        return round(self.spec_robot.rate)

    def _clear(self, scene: int) -> None:
        """Forget the episode before."""
        self._scene, self._steps, self._held = scene, 0, 0
        self._touched = self._target = self._instruction = ""

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode. The scene depends on the seed alone, `options["variant"]` chooses what is named.

        Raises:
            ValueError: no such variant.
        """
        self.reset_scene(seed, options)
        return self.observe(), self.info()

    def reset_scene(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """`reset` without looking: nothing is rendered."""
        super().reset(seed=seed)
        scene, drawn = int(self.np_random.integers(2**32)), int(self.np_random.integers(self.variants))
        variant = drawn if (options or {}).get("variant") is None else int((options or {})["variant"])
        if not 0 <= variant < self.variants:
            raise ValueError(f"no variant {variant}: task '{self.task}' has variants 0 to {self.variants - 1}")
        self._set_scene(scene, variant)

    def _set_scene(self, scene: int, variant: int) -> None:
        """Everything that a scene's number and a variant decide."""
        self._clear(scene)
        layout, looks, words = (np.random.default_rng([scene, i]) for i in range(3))
        if self.randomisation == "none":
            layout, looks = np.random.default_rng(0), np.random.default_rng(0)
        start = self._home + layout.uniform(-0.04, 0.04, len(self._home)) * (self.randomisation != "none")
        self.world.clear()
        self._task.scatter(layout, self.randomisation)
        placed = self.world.save()
        self.world.repaint(randomize.draw(self.world.nominal, looks, self.randomisation, self._task.colours))
        self.world.load(placed)
        self.world.place_arm(start)
        self.world.settle()
        self._task.ask(variant)
        self._target, self._names = self._task.target, {body: name for name, body in self._task.things.items()}
        self._instruction = phrase(self.task, self._task.slots, words, self._unseen)

    def step(self, action: Float32) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control period towards joint targets (6,) in LeRobot's units.

        Raises:
            ValueError: a value that is not finite, or a wrong size; the world did not move.
        """
        self.world.advance(self.targets(action))
        return self.observe(), *self.judge()

    def targets(self, action: Float32, *batch: int) -> Array:
        """Actions (*batch, 6) in LeRobot's units as joint targets [rad]; ValueError where they are no such thing."""
        values, shape = np.asarray(action, dtype=np.float64), (*batch, len(self.spec_robot.joints))
        if values.shape != shape or not math.isfinite(values.sum()):
            raise ValueError(f"an action is {shape} finite numbers, got {values.shape}: {values}")
        return self.spec_robot.from_lerobot(values)

    def projection(self, cameras: Any) -> Projection:
        """How this environment's cameras see, at the poses that something with `cam_xpos` and `cam_xmat` has."""
        aspect = self.image_size[1] / self.image_size[0]
        return Projection(self.world.model, cameras.cam_xpos, cameras.cam_xmat, aspect)

    @property
    def points(self) -> Array:
        """Where the named thing and its goal are, (2, 3) [m], base frame."""
        return np.array([self._task.object_point, self._task.goal_point])

    def judge(self, pixels: Float32 | None = None) -> tuple[float, bool, bool, dict[str, Any]]:
        """What came of the period just past: reward, terminated, truncated, info.

        Args:
            pixels: the projection of `points` where somebody has it already, (C, 2, 2).
        """
        self._steps += 1
        if not self._touched:
            self._touched = self._names.get(self._touch.first(), "")
        self._held = self._held + 1 if self._task.satisfied else 0
        success, invalid = self._held >= self._hold, self.world.warning()
        reward = self._task.progress if self._dense else float(success)
        info = self.info(pixels)
        if invalid:
            info["invalid"], info["is_success"], success = invalid, False, False
        return reward, success, not success and bool(invalid or self._steps >= self._limit), info

    def agent_pos(self, qpos: Array) -> Float32:
        """Joints of engine positions (..., nq), (..., 6) in LeRobot's units."""
        return self.spec_robot.to_lerobot(qpos[..., self.world.arm]).astype(np.float32)

    def observe(self, state: Float32 | None = None) -> dict[str, Any]:
        """The observation of now; `state` is `agent_pos` where somebody has it already, (6,)."""
        state = self.agent_pos(self.world.data.qpos) if state is None else state
        if not self.cameras:
            return {"agent_pos": state}
        return {"pixels": {c: self.picture(c) for c in self.cameras}, "agent_pos": state}

    def picture(self, camera: str) -> NDArray[np.uint8]:
        """What a camera sees now, (H, W, 3) uint8."""
        if self._renderer is None:
            self._renderer = Cameras(self.world.model, self.image_size, self._quality.shadows)
        return self._renderer.render(self.world.data, camera)

    def info(self, pixels: Float32 | None = None) -> dict[str, Any]:
        """What is asked, what was touched, whether it is done, and the labels; `pixels` as in `judge`."""
        points = self.points
        pixels = self._projection(points) if pixels is None else pixels
        labels = {"labels.points": points.astype(np.float32), "progress": np.array([self._task.progress], np.float32)}
        labels |= {f"labels.pixels.{c}": pixels[i] for c, i in self._camera_ids.items()}
        return {
            "is_success": self._held >= self._hold,
            "instruction": self._instruction,
            "target": self._target,
            "touched": self._touched,
            "labels": labels,
        }

    def expert(self, clumsy: bool = False, seed: int = 0, pace: float = 1.0) -> Expert:
        """A scripted expert for the episode under way; it acts on the state as it is when asked.

        Args:
            clumsy: of mixed quality: misses, hesitates, visits the wrong thing.
            seed: of its variation in speed and approach.
            pace: how many times faster it does everything, accelerations included.
        """
        from vla_rl.sim.expert import Expert, Style

        style = Style.clumsy(seed) if clumsy else Style.careful(seed)
        return Expert(self.world, self._kinematics, self._task, replace(style, tempo=pace))

    def save_state(self) -> NDArray[np.uint8]:
        """The whole episode as bytes, (N,) uint8: the engine's state and everything that is latched."""
        touched = list(self._names.values()).index(self._touched) if self._touched else -1
        header = np.array([self._scene, self._task.variant, self._steps, self._held, touched, 0, 0, 0], np.int64)
        return np.concatenate([header.view(np.uint8), self.world.save().view(np.uint8)])

    def restore_state(self, state: NDArray[np.uint8]) -> dict[str, Any]:
        """Go back to a saved state of this or an equal environment, bit for bit.

        Returns:
            The observation at that state.
        """
        header = state[: HEADER * 8].copy().view(np.int64)
        scene, variant, steps, held, touched = (int(v) for v in header[:5])
        self._set_scene(scene, variant)
        self._steps, self._held = steps, held
        self._touched = list(self._names.values())[touched] if touched >= 0 else ""
        self.world.load(state[HEADER * 8 :].copy().view(np.float64))
        return self.observe()

    def render(self) -> NDArray[np.uint8] | None:
        """The front camera's picture, or None where `render_mode` is None."""
        return self.picture("front") if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _check_choice(what: str, given: Sequence[str | None], known: Sequence[str | None]) -> None:
    for value in given:
        if value not in known:
            raise ValueError(f"unknown {what} '{value}'; there are: {', '.join(map(str, known))}")


def home(kinematics: Kinematics) -> Array:
    """Joints (6,) [rad] of the pose that every episode starts from: gripper half open, drawn back, looking down."""
    forward, down = np.array([math.sin(0.35), 0.0, -math.cos(0.35)]), np.array([0.0, -1.0, 0.0])
    rotation = np.stack([down, np.cross(forward, down), forward], axis=1)
    position = np.array([PAN_AXIS[0] + 0.15, 0.0, 0.13])
    return kinematics.inverse(Pose(position, rotation), np.array([0.0, -0.6, 0.5, 1.2, 1.57, 0.45]))

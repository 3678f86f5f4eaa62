"""A small honest environment under LeRobot's convention: move a dot to the named one of two corners."""

import time
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

CORNERS = {"left corner": np.array([-0.8, 0.8]), "right corner": np.array([0.8, 0.8])}


class Expert:
    """Goes to the named corner; the clumsy one wavers, and at times goes to the other."""

    may_perturb = True

    def __init__(self, env, clumsy, seed):
        self.env, self.clumsy, self.rng = env, clumsy, np.random.default_rng(seed)
        wrong = clumsy and self.rng.random() < 0.4
        self.corner = CORNERS[next(name for name in CORNERS if (name == env.target) != wrong)]

    def act(self):
        noise = self.rng.normal(0, 0.3, 2) if self.clumsy else 0.0
        return np.clip(self.corner - self.env.dot + noise, -0.2, 0.2).astype(np.float32)


class Reach(gymnasium.Env):
    metadata: ClassVar = {"render_fps": 10, "render_modes": ["rgb_array"]}
    variants = 2

    def __init__(self, image_size=32, success_key="is_success", pause=0.0, reach=0.1):
        self.side, self.success_key, self.pause, self.reach = image_size, success_key, pause, reach
        pixels = spaces.Dict({"top": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)})
        self.observation_space = spaces.Dict({"pixels": pixels, "agent_pos": spaces.Box(-1, 1, (2,), np.float64)})
        self.action_space = spaces.Box(-0.2, 0.2, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.dot = self.np_random.uniform(-0.3, 0.3, 2)
        drawn = int(self.np_random.integers(2))
        self.target = list(CORNERS)[(options or {}).get("variant", drawn)]
        self.touched, self.steps = "", 0
        return self._observe(), self._info()

    def step(self, action):
        time.sleep(self.pause)
        assert self.action_space.contains(action), action
        self.dot = np.clip(self.dot + action, -1, 1)
        self.steps += 1
        near = [name for name, corner in CORNERS.items() if np.linalg.norm(self.dot - corner) < self.reach]
        self.touched = self.touched or (near[0] if near else "")
        success = self.touched == self.target
        return self._observe(), float(success), success, self.steps >= 30, self._info()

    def expert(self, clumsy=False, seed=0):
        return Expert(self, clumsy, seed)

    def _observe(self):
        image = np.full((self.side, self.side, 3), 30, np.uint8)
        x, y = ((self.dot + 1) / 2 * (self.side - 3)).astype(int)
        image[y : y + 3, x : x + 3] = (250, 60, 60)
        return {"pixels": {"top": image}, "agent_pos": self.dot.copy()}

    def _info(self):
        success = self.touched != "" and self.touched == self.target
        info = {"instruction": f"go to the {self.target}", "target": self.target, "touched": self.touched}
        return {
            **info,
            self.success_key: success,
            "labels": {"labels.points": np.stack([self.dot, CORNERS[self.target]])},
        }


class Savable(Reach):
    """One that can go back in time."""

    def save_state(self):
        return {"dot": self.dot.copy(), "target": self.target, "touched": self.touched, "steps": self.steps}

    def restore_state(self, state):
        vars(self).update({**state, "dot": state["dot"].copy()})
        return self._observe()


class Endless(Reach):
    """Never done, and says so."""

    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, False, info


class Drawn(Reach):
    """Counts the pictures it draws, and draws none while it has no camera, as our own tasks do."""

    pictures: ClassVar = []

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.cameras = ("top",)

    def _observe(self):
        observation = super()._observe()
        if not self.cameras:
            return {"agent_pos": observation["agent_pos"]}
        self.pictures.append(self.steps)
        return observation


class Discrete(Reach):
    """Actions that are not vectors."""

    def __init__(self):
        super().__init__()
        self.action_space = spaces.Discrete(4)


gymnasium.register("toy/Reach-v0", Reach)
gymnasium.register("toy/Savable-v0", Savable)
gymnasium.register("toy/Endless-v0", Endless)
gymnasium.register("toy/Drawn-v0", Drawn)
gymnasium.register("toy/Discrete-v0", Discrete)

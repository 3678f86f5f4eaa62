"""Cameras: real pixels, of the size and place they claim."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import vla_rl.sim  # noqa: F401
from vla_rl.sim.render import Cameras
from vla_rl.sim.scene import Quality


@pytest.fixture
def env():
    env = gymnasium.make("vla_rl/Lift-v0", randomisation="none").unwrapped
    yield env
    env.close()


def test_the_named_cube_is_drawn_where_its_label_says(env):
    for variant in range(env.variants):
        obs, info = env.reset(seed=0, options={"variant": variant})
        x, y = info["labels"]["labels.pixels.front"][0]
        column, row = int((x + 1) / 2 * 96), int((y + 1) / 2 * 96)
        pixel = obs["pixels"]["front"][row, column].astype(int)
        wanted = {"red": [1, 0, 0], "green": [0, 1, 0], "blue": [0, 0, 1], "yellow": [1, 1, 0]}[
            info["target"].split()[0]
        ]
        strong = pixel > pixel.max() * 0.6
        assert strong.tolist() == [bool(w) for w in wanted], (info["target"], pixel)


def test_a_point_behind_a_camera_or_far_outside_is_out_of_view(env):
    env.reset(seed=0)
    behind, outside = [5.0, 0.0, 0.5], [0.2, 3.0, 0.0]
    assert (env._projection(np.array([behind, outside]))[0] == 2.0).all()


def test_everything_within_reach_is_in_the_front_cameras_picture(env):
    env.reset(seed=0)
    corners = [
        [0.0388 + r * np.cos(a), r * np.sin(a), z] for r in (0.13, 0.25) for a in (-0.6, 0, 0.6) for z in (0, 0.03)
    ]
    assert np.abs(env._projection(np.array(corners))[0]).max() < 0.95


def test_a_closed_camera_leaves_the_next_one_right(env):
    reference = env.reset(seed=0)[0]["pixels"]["front"]
    for _ in range(3):
        camera = Cameras(env.world.model, (96, 96))
        picture = camera.render(env.world.data, "front")
        camera.close()
        assert np.array_equal(picture, reference)


def test_several_environments_draw_side_by_side_as_each_would_alone():
    envs = [gymnasium.make("vla_rl/Lift-v0", image_size=64).unwrapped for _ in range(3)]
    first = [env.reset(seed=i)[0]["pixels"]["front"] for i, env in enumerate(envs)]
    again = [env.observe()["pixels"]["front"] for env in reversed(envs)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])
    for env in envs:
        env.close()


def test_shadows_and_multisampling_are_off_and_can_be_had(env):
    plain = env.reset(seed=0)[0]["pixels"]["front"]
    fine = gymnasium.make("vla_rl/Lift-v0", randomisation="none", quality=Quality(shadows=True, samples=4)).unwrapped
    pretty = fine.reset(seed=0)[0]["pixels"]["front"]
    fine.close()
    assert not np.array_equal(plain, pretty)
    assert np.abs(plain.astype(int) - pretty).mean() < 12


def test_closing_one_environment_leaves_the_pictures_of_those_that_stay():
    kept, closed = (gymnasium.make(f"vla_rl/{task}-v0").unwrapped for task in ("Lift", "Stack"))
    closed.reset(seed=0)
    before = kept.reset(seed=3)[0]["pixels"]  # the last one drawn: its context is the current one
    closed.close()
    after = kept.reset(seed=3)[0]["pixels"]
    for camera in before:
        np.testing.assert_array_equal(after[camera], before[camera])
    kept.close()


DRAW = "env = gymnasium.make('vla_rl/Lift-v0'); env.reset(seed=0)"


@pytest.mark.parametrize(
    "code",
    [
        DRAW,
        f"import weakref; held = gymnasium.Space(); weakref.finalize(held, int)\n{DRAW}",
        f"import threading\ndef draw():\n global env; {DRAW}\nt = threading.Thread(target=draw); t.start(); t.join()",
    ],
    ids=["alone", "others clean up at exit too", "drawn by a thread"],
)
def test_an_environment_that_nobody_closed_is_quiet_at_exit(code):
    environment = {**os.environ, "MUJOCO_GL": "egl"}
    command = [sys.executable, "-c", f"import gymnasium, vla_rl.sim\n{code}"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")

"""What every tabletop environment promises, whichever its task."""

import ast
import subprocess
import sys
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import vla_rl.sim
from vla_rl.sim.env import TabletopEnv
from vla_rl.sim.randomize import LEVELS

TASKS = tuple(vla_rl.sim.ENV_IDS)


@pytest.fixture
def make():
    """Makes environments and closes them afterwards."""
    made = []

    def build(task="lift", **options):
        made.append(gymnasium.make(vla_rl.sim.ENV_IDS[task], **options).unwrapped)
        return made[-1]

    yield build
    for env in made:
        env.close()


def play(env, steps, actions=None):
    """Observations and infos of some steps, the expert's or given ones."""
    expert, seen = env.expert(seed=1), []
    for k in range(steps):
        action = expert.act() if actions is None else actions[k]
        seen.append((action, *env.step(action)))
    return seen


def same(a, b):
    """Whether two nested observations or infos are equal bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return np.array_equal(a, b)


def assert_same_steps(first, second):
    for one, other in zip(first, second, strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_gymnasiums_own_check_passes(make, task):
    check_env(make(task))


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_gives_the_same_episode_bit_for_bit_images_included(make, task):
    episodes = []
    for env in (make(task), make(task)):
        start = env.reset(seed=7)
        episodes.append([(start[0], start[1]), *play(env, 12)])
    assert_same_steps(*episodes)


@pytest.mark.parametrize("task", TASKS)
def test_a_restored_state_continues_bit_for_bit_also_in_another_environment(make, task):
    env, other = make(task), make(task)
    env.reset(seed=3)
    play(env, 25)
    state, now = env.save_state(), env.observe()
    after = play(env, 8)
    actions = [action for action, *_ in after]
    other.reset(seed=99)
    for restored in (env, other):
        assert same(restored.restore_state(state), now)
        assert_same_steps(after, play(restored, 8, actions))


@pytest.mark.parametrize("task", TASKS)
def test_every_info_says_what_is_asked_and_where_it_is(make, task):
    env = make(task)
    _, info = env.reset(seed=0)
    info_after = env.step(env.expert().act())[4]
    for i in (info, info_after):
        assert isinstance(i["is_success"], bool)
        assert i["instruction"] == env.task_description
        assert i["target"] in i["instruction"]
        assert i["touched"] == ""
        assert i["labels"]["labels.points"].shape == (2, 3)
        for camera in ("front", "wrist"):
            assert i["labels"][f"labels.pixels.{camera}"].shape == (2, 2)
        assert all(v.dtype == np.float32 for v in i["labels"].values())


@pytest.mark.parametrize("task", TASKS)
def test_the_time_limit_truncates_and_never_terminates(make, task):
    env = make(task, cameras=())
    start, _ = env.reset(seed=0)
    ends = []
    while not ends or not any(ends[-1]):
        *_, terminated, truncated, _ = env.step(start["agent_pos"])
        ends.append((terminated, truncated))
    assert ends[-1] == (False, True)
    assert len(ends) == round(env._task.time_limit * env.fps)


def test_a_success_terminates_with_reward_one(make):
    env = make(cameras=())
    env.reset(seed=0)
    *_, last = play(env, 1)
    expert = env.expert(seed=0)
    while not (last[3] or last[4]):
        last = (None, *env.step(expert.act()))
    assert (last[2], last[3], last[4], last[5]["is_success"]) == (1.0, True, False, True)


def test_states_only_needs_no_pictures_and_images_have_the_size_asked_for(make):
    assert set(make(cameras=()).reset(seed=0)[0]) == {"agent_pos"}
    pixels = make(cameras=("wrist",), image_size=(48, 64)).reset(seed=0)[0]["pixels"]
    assert {c: p.shape for c, p in pixels.items()} == {"wrist": (48, 64, 3)}


def test_the_first_thing_touched_is_latched(make):
    env = make(cameras=())
    _, other = env.reset(seed=1, options={"variant": 1})
    actions = [action for action, *_ in play(env, 60)]
    env.reset(seed=1, options={"variant": 0})
    touched = [info["touched"] for *_, info in play(env, 60, actions)]  # what another instruction would have asked for
    first = touched.index(other["target"])
    assert set(touched[:first]) == {""}
    expert = env.expert(seed=1)
    while not env._task.satisfied:
        touched.append(env.step(expert.act())[4]["touched"])
    assert set(touched[first:]) == {other["target"]}


def first_touched_at_any_step(world, targets, things):
    """The oracle: contacts of every engine step of a control period, one by one; moves the world."""
    world.data.ctrl[:] = targets
    for _ in range(world.substeps):
        mujoco.mj_step2(world.model, world.data)
        mujoco.mj_step1(world.model, world.data)
        touched = [name for name, body in things.items() if world.touches(body)]
        if touched:
            return touched[0]
    return ""


@pytest.mark.parametrize(("task", "seeds"), [("push", range(6)), ("lift", range(2)), ("button", range(2))])
def test_a_touch_between_two_looks_counts(make, task, seeds):
    env, twin, unseen = make(task, cameras=()), make(task, cameras=()), 0
    for seed in seeds:
        env.reset(seed=seed)
        twin.reset(seed=seed)
        expert, touched, done = env.expert(seed=seed), "", False
        while not (done or touched):
            action = expert.act()
            touched = first_touched_at_any_step(twin.world, twin.targets(action), twin._task.things)
            *_, done, _, info = env.step(action)
            assert info["touched"] == touched
        unseen += not any(env.world.touches(body) for body in env._task.things.values())
    assert unseen > 0 or task != "push"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_before_anything_moves(make, value):
    env = make(cameras=())
    start, _ = env.reset(seed=0)
    state, action = env.save_state(), start["agent_pos"].copy()
    action[2] = value
    with pytest.raises(ValueError, match="finite"):
        env.step(action)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.zeros(5, np.float32))
    assert np.array_equal(env.save_state(), state)


def test_an_unstable_engine_ends_the_episode_as_invalid_and_leaves_no_log(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = make(cameras=())
    start, _ = env.reset(seed=0)
    env.world.data.qvel[:] = 1e12
    _, reward, terminated, truncated, info = env.step(start["agent_pos"])
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["invalid"] == "mjWARN_BADQVEL"
    assert not list(tmp_path.iterdir())
    env.reset(seed=0)
    assert "invalid" not in env.step(start["agent_pos"])[4]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"cameras": ("side",)}, ("side", "front", "wrist")),
        ({"randomisation": "hard"}, ("hard", *LEVELS)),
        ({"reward": "shaped"}, ("shaped", "sparse", "dense")),
        ({"phrasings": "odd"}, ("odd", "train", "unseen")),
        ({"task": "juggle"}, ("juggle", *TASKS)),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line_that_says_what_does(options, names):
    with pytest.raises(ValueError, match=names[0]) as error:
        TabletopEnv(**options)
    assert "\n" not in str(error.value)
    assert all(name in str(error.value) for name in names)


def test_a_variant_that_does_not_exist_is_refused(make):
    with pytest.raises(ValueError, match="0 to 2"):
        make(cameras=()).reset(seed=0, options={"variant": 3})


def test_without_a_graphics_driver_the_error_is_one_line_and_states_still_work():
    code = (
        "import gymnasium, vla_rl.sim\n"
        "gymnasium.make('vla_rl/Lift-v0', cameras=()).reset(seed=0)\n"
        "gymnasium.make('vla_rl/Lift-v0').reset(seed=0)"
    )
    env = {"__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent", "MUJOCO_GL": "egl", "PATH": ""}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("vla_rl.sim.render.RenderingError: cannot render: ")


def test_an_engine_imported_too_early_to_draw_is_an_error_and_no_crash():
    code = "import mujoco, gymnasium, vla_rl.sim\ngymnasium.make('vla_rl/Lift-v0').reset(seed=0)"
    run = subprocess.run([sys.executable, "-c", code], env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "mujoco was imported before MUJOCO_GL was set" in run.stderr.splitlines()[-1]


def test_importing_the_package_imports_no_engine_and_importing_vla_rl_no_gymnasium():
    first = "import sys, vla_rl; assert 'gymnasium' not in sys.modules"
    then = "import vla_rl.sim; assert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"{first}\n{then}"], check=True)


def test_the_readmes_few_lines_give_what_they_say():
    code = (Path(__file__).parents[2] / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    *lines, last = code.strip().splitlines()
    expression, _, said = last.partition("# ")
    names = {}
    exec("\n".join(lines), names)
    assert eval(expression, names) == ast.literal_eval(said)
    names["env"].close()

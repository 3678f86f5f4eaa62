"""Randomisation: pure functions, and held-out levels that training never sees."""

import colorsys
import math

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vla_rl.sim  # noqa: F401
from vla_rl.sim import randomize
from vla_rl.sim.randomize import LEVELS, LOOKS, REACH, held_out
from vla_rl.sim.scene import PALETTE, PAN_AXIS

SEEDS = st.integers(0, 2**32 - 1)
WORLD = gymnasium.make("vla_rl/Lift-v0", cameras=()).unwrapped.world
NAMED = {"cube0": "red", "cube1": "green", "cube2": "blue"}


def draw(seed, level):
    return randomize.draw(WORLD.nominal, np.random.default_rng(seed), level, NAMED)


def angle(position):
    return math.atan2(position[1] - PAN_AXIS[1], position[0] - PAN_AXIS[0])


@pytest.mark.parametrize("level", LEVELS)
def test_drawing_is_a_function_of_model_and_rng_and_changes_neither_model_nor_result(level):
    before = {name: getattr(WORLD.nominal, name).copy() for name in draw(0, level)}
    first, second = draw(5, level), draw(5, level)
    for name, values in first.items():
        assert np.array_equal(values, second[name])
        assert np.array_equal(getattr(WORLD.nominal, name), before[name])


def test_a_scene_does_not_depend_on_the_scenes_before_it():
    env, fresh = (gymnasium.make("vla_rl/Lift-v0", cameras=()).unwrapped for _ in range(2))
    for seed in range(5):
        env.reset(seed=seed)
    env.reset(seed=9)
    fresh.reset(seed=9)
    for name in draw(0, "train"):
        assert np.array_equal(getattr(env.world.model, name), getattr(fresh.world.model, name))
    assert np.array_equal(env.world.save(), fresh.world.save())


def test_level_none_is_one_scene_and_the_nominal_model_but_for_the_named_colours():
    fields = draw(1, "none")
    for name in fields:
        if name != "geom_rgba":
            assert np.array_equal(fields[name], getattr(WORLD.nominal, name))
    cube = WORLD.nominal.geom("cube0").id
    np.testing.assert_allclose(fields["geom_rgba"][cube, :3], PALETTE["red"], atol=1e-6)
    env = gymnasium.make("vla_rl/Lift-v0", cameras=(), randomisation="none").unwrapped
    states = []
    for seed in range(3):
        env.reset(seed=seed)
        states.append(env.world.save())
    assert all(np.array_equal(state, states[0]) for state in states)


@given(SEEDS, st.sampled_from(LEVELS), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_positions_are_within_reach_apart_and_on_their_levels_side_of_the_border(seed, level, n):
    found = randomize.positions(np.random.default_rng(seed), level, n)
    for i, place in enumerate(found):
        assert REACH.inner <= np.hypot(*(place - PAN_AXIS)) <= REACH.outer
        assert abs(angle(place)) <= REACH.half_angle
        assert held_out(angle(place)) == (level == "positions")
        assert all(np.hypot(*(place - other)) >= 0.06 for other in found[:i])


def test_things_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        randomize.positions(np.random.default_rng(0), "train", 40)


@pytest.mark.parametrize(
    "field", ["saturation", "value", "table_hue", "table_value", "light", "lamp_tilt", "camera_shift"]
)
def test_the_looks_level_draws_from_ranges_that_training_never_draws_from(field):
    low, high = getattr(LOOKS["train"], field)
    other_low, other_high = getattr(LOOKS["looks"], field)
    assert other_low > high or other_high < low


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_named_colours_stay_nearest_to_their_own_hue_at_every_level(seed):
    for level in LEVELS:
        rgba = draw(seed, level)["geom_rgba"]
        for geom, colour in NAMED.items():
            hue = colorsys.rgb_to_hsv(*rgba[WORLD.nominal.geom(geom).id, :3])[0]
            distance = {n: abs((hue - colorsys.rgb_to_hsv(*c)[0] + 0.5) % 1 - 0.5) for n, c in PALETTE.items()}
            assert min(distance, key=distance.get) == colour


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_cameras_at_train_are_within_two_millimetres_and_a_third_of_a_degree(seed):
    fields = draw(seed, "train")
    assert np.linalg.norm(fields["cam_pos"] - WORLD.nominal.cam_pos, axis=1).max() <= 0.002
    cosine = np.abs((fields["cam_quat"] * WORLD.nominal.cam_quat).sum(axis=1))
    assert np.degrees(2 * np.arccos(np.clip(cosine, -1, 1))).max() <= 0.31


@pytest.mark.parametrize("level", ["train", "positions", "looks"])
def test_masses_and_friction_vary_within_their_bounds(level):
    fields = draw(3, level)
    cube = WORLD.nominal.body("cube0").id
    assert 0.75 <= fields["body_mass"][cube] / WORLD.nominal.body_mass[cube] <= 1.25
    ratio = fields["geom_friction"][:, 0] / WORLD.nominal.geom_friction[:, 0]
    assert 0.85 <= ratio.min() < ratio.max() <= 1.15

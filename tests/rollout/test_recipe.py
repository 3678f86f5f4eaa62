"""Promises of `bench uplift --full`: whose folder it is, and what LeRobot's training is asked for."""

from dataclasses import replace

import pytest

from vla_rl.commands.recipe import Recipe, _claim
from vla_rl.commands.third_party import ThirdParty


def test_a_folder_belongs_to_the_recipe_that_began_it(tmp_path):
    _claim(tmp_path, Recipe.quick())
    _claim(tmp_path, Recipe.quick())
    with pytest.raises(ValueError, match=r"was begun by another recipe \(rollouts\); choose another folder"):
        _claim(tmp_path, replace(Recipe.quick(), rollouts=5))


def test_the_third_party_is_a_policy_that_lerobot_accepts():
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

    how = ThirdParty()
    given = dict(flag.removeprefix("--policy.").split("=") for flag in how.flags() if flag.startswith("--policy."))
    assert given.pop("type") == "diffusion"
    assert set(given) <= set(DiffusionConfig.__dataclass_fields__)
    config = DiffusionConfig(n_obs_steps=1, horizon=how.horizon, n_action_steps=how.executed, down_dims=how.channels)
    assert config.horizon % 2 ** len(config.down_dims) == 0
    assert int(given["drop_n_last_frames"]) == how.horizon - how.executed - int(given["n_obs_steps"]) + 1

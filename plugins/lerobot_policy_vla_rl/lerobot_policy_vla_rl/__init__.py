"""Importing this registers the policy types `vla_rl` and `vla_rl_steered` and the environment `vla_rl` with LeRobot."""

from lerobot_policy_vla_rl.environment import TabletopEnvConfig
from vla_rl.policy.configuration_vla_rl import VLAConfig
from vla_rl.steer.configuration_vla_rl_steered import SteeredConfig

__all__ = ["SteeredConfig", "TabletopEnvConfig", "VLAConfig"]

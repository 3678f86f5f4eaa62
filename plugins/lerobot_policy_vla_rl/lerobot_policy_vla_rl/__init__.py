"""Importing this registers the policy type `vla_rl` and the environment type `vla_rl` with LeRobot."""

from lerobot_policy_vla_rl.environment import TabletopEnvConfig
from vla_rl.policy.configuration_vla_rl import VLAConfig

__all__ = ["TabletopEnvConfig", "VLAConfig"]

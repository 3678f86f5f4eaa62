"""MuJoCo worlds, tasks, scripted experts and Gymnasium environments of the SO-101 tabletop.

Importing this registers `vla_rl/Lift-v0` and its siblings; MuJoCo itself loads when one is made.
"""

import os

from gymnasium.envs.registration import register, registry

os.environ.setdefault("MUJOCO_GL", "egl")

ENV_IDS = {task: f"vla_rl/{task.capitalize()}-v0" for task in ("lift", "place", "push", "stack", "button", "drawer")}

for _task, _id in ENV_IDS.items():
    if _id not in registry:
        register(
            _id,
            entry_point="vla_rl.sim.env:TabletopEnv",
            vector_entry_point="vla_rl.sim.vector:TabletopVectorEnv",
            kwargs={"task": _task},
        )

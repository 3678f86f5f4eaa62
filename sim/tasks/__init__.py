"""The tasks by name; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from vla_rl.sim import ENV_IDS
from vla_rl.sim.tasks.base import Task

TASKS = tuple(ENV_IDS)


def make_task(name: str) -> Task:
    """A task by name.

    Raises:
        ValueError: no such task; the message lists those that exist.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task '{name}'; there are: {', '.join(TASKS)}")
    task: Task = getattr(import_module(f"vla_rl.sim.tasks.{name}"), name.capitalize())()
    return task

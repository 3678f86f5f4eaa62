"""The flags that say where episodes are played, shared by collect and eval."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vla_rl import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --task, --env and what belongs to them."""
    group = parser.add_argument_group("where")
    group.add_argument("--task", default="", metavar="NAMES", help="lift, or several: lift,place; or all")
    group.add_argument(
        "--env",
        default="",
        metavar="gymnasium:MODULE:ID",
        help="any Gymnasium environment with LeRobot's convention, instead",
    )
    group.add_argument(
        "--env-kwargs", default="{}", metavar="JSON", help="arguments of gymnasium.make, as a JSON object"
    )
    group.add_argument("--instruction", default="", help="what to do, for an environment that does not say")
    group.add_argument(
        "--max-steps", type=int, default=0, help="cut episodes here (default: the environment's own limit)"
    )
    group.add_argument(
        "--randomisation", default="train", metavar="LEVEL", help=f"{', '.join(build.LEVELS)} (default train)"
    )
    group.add_argument("--phrasings", default="train", metavar="SET", help="train or unseen (default train)")
    group.add_argument("--image-size", type=int, default=96, help="height and width of the task's cameras (default 96)")
    group.add_argument("--cameras", default=",".join(build.CAMERAS), metavar="NAMES", help="default front,wrist")


def env_config(args: argparse.Namespace) -> build.EnvConfig:
    """The environment that the flags describe.

    Raises:
        ValueError: neither or both of --task and --env, or a name that does not exist.
    """
    if bool(args.task) == bool(args.env):
        raise ValueError(f"give either --task ({', '.join(build.task_names())}, all) or --env gymnasium:<module>:<id>")
    return build.EnvConfig(
        env=args.env,
        kwargs=_json_object(args.env_kwargs),
        randomisation=args.randomisation,
        phrasings=args.phrasings,
        image_size=args.image_size,
        cameras=tuple(name for name in args.cameras.split(",") if name),
        instruction=args.instruction,
        max_steps=args.max_steps,
    )


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--env-kwargs is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError('--env-kwargs must be a JSON object, {"obs_type": "pixels_agent_pos"} for one')
    return value

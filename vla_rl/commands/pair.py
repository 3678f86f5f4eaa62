"""Put a policy and the critic that steers it into one folder: a LeRobot policy of type vla_rl_steered.

  vla-rl pair CKPT --critic DIR --candidates 8 --selector lcb --out OUT
  lerobot-eval --policy.path=OUT --env.type=vla_rl --env.task=Lift-v0

The second line needs plugins/lerobot_policy_vla_rl installed. CKPT is a policy folder, ours or one of LeRobot's;
both parts are copied.
"""

from __future__ import annotations

import argparse

from vla_rl import build
from vla_rl.commands import Result, steering


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The policy, where to, and the flags of steering."""
    parser.add_argument("policy", metavar="CKPT", help="name of a shipped policy, or a policy's folder")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder to write")
    steering.add_arguments(parser)


def run(args: argparse.Namespace) -> Result:
    """Pair them."""
    asked = steering.options(args)
    critic, trusted = asked.pop("critic"), asked.pop("trusted")
    critic = build.check_critic(critic) if critic else None
    folder = build.check_policy(args.policy)
    if folder in build.SCRIPTED:
        raise ValueError(f"'{folder}' is a script; there are: {', '.join(build.shipped())}, or a policy's folder")
    from vla_rl.steer.modeling_vla_rl_steered import pair

    pair(folder, critic, args.out, trust_critic=trusted, seed=args.seed, **asked)
    print(f"{args.out}: {args.candidates} candidates, {args.selector}")
    return Result({"out": args.out, "policy": folder, "critic": critic, **asked})

"""The flags that say how one of K candidates is chosen, for every command that runs a policy in this process."""

from __future__ import annotations

import argparse
from typing import Any

from vla_rl import build

_OPTIONS = ("temperature", "k", "tau", "aggregate", "margin", "novelty")
_DRAWN = ("draws", "spread", "guide", "guide_temperature")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --candidates, --selector, --critic and what belongs to them; defaults are those of the rules themselves."""
    group = parser.add_argument_group("steering")
    group.add_argument("--candidates", type=int, default=1, help="chunks drawn for each observation (default 1)")
    group.add_argument(
        "--selector",
        default="first",
        help="first (default), random, medoid, mean; with --critic: argmax, softmax, lcb, quantile, weighted, "
        "weighted_mean",
    )
    group.add_argument("--draws", type=int, help="candidates that the policy draws, the others are perturbed (0: all)")
    group.add_argument("--spread", type=float, help="size of these perturbations, in spreads of the actions (0.1)")
    group.add_argument("--critic", default="", metavar="DIR", help="who says what candidates are worth")
    group.add_argument("--guide", help="the critic acts while chunks are drawn: fk (particles) or gradient")
    group.add_argument("--guide-temperature", type=float, help="of --guide, in units of the value (0.1)")
    group.add_argument("--trust-critic", action="store_true", help="follow it even though its report failed")
    group.add_argument(
        "--temperature", type=float, help="of softmax, weighted and weighted_mean, in units of the value (0.1)"
    )
    group.add_argument("--k", type=float, help="standard deviations of the ensemble that lcb subtracts (1)")
    group.add_argument("--tau", type=float, help="which lower quantile of the return `quantile` compares (0.1)")
    group.add_argument("--aggregate", choices=("mean", "min"), help="how the other rules join the ensemble (mean)")
    group.add_argument(
        "--margin", type=float, help="keep to the first where the gain is below so many deviations of it (0: never)"
    )
    group.add_argument(
        "--novelty", type=float, help="keep to the first where the observation is so many times too far off (0: never)"
    )


def options(args: argparse.Namespace) -> dict[str, Any]:
    """What `build.plan` takes.

    Raises:
        ValueError: a number was given that nothing reads.
    """
    _require_read(args)
    return {
        "candidates": args.candidates,
        "selector": args.selector,
        "critic": args.critic,
        "trusted": args.trust_critic,
        **tuned(args),
    }


def _require_read(args: argparse.Namespace) -> None:
    """Raise ValueError for a number that the rule does not read: whoever gave it believes that it counts."""
    from vla_rl.steer.selectors import SELECTORS, options_of

    for part, whole in (("spread", "draws"), ("guide_temperature", "guide")):
        if getattr(args, part) is not None and not getattr(args, whole):
            raise ValueError(f"--{part.replace('_', '-')} is of --{whole}: add that, or leave it out")
    if args.selector not in SELECTORS:  # which is said, with those there are, where the rule is made
        return
    idle = [name for name in _OPTIONS if getattr(args, name) is not None and name not in options_of(args.selector)]
    if idle:
        read = ", ".join(f"--{name}" for name in options_of(args.selector)) or "none"
        raise ValueError(f"--selector {args.selector} does not read --{', --'.join(idle)}; it reads: {read}")


def tuned(args: argparse.Namespace) -> dict[str, Any]:
    """Numbers that were given in place of the rules' own."""
    return {name: getattr(args, name) for name in (*_OPTIONS, *_DRAWN) if getattr(args, name) is not None}


def request(args: argparse.Namespace) -> dict[str, Any]:
    """What of it decides an episode, JSON-ready; a critic is told apart by its weights."""
    asked = options(args)
    del asked["trusted"]
    if args.critic:
        return {**asked, "critic_weights": build.critic_fingerprint(args.critic)}
    return {name: value for name, value in asked.items() if name != "critic"}

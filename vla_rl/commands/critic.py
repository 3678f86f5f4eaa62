"""`vla-rl eval --critic-report`: a critic judged on episodes it never saw, and by success against candidates."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from vla_rl import build
from vla_rl.commands import Result

Evaluate = Callable[[argparse.Namespace, str, Path | None], dict[str, Any]]
PAGE = "critic.html"


def run(args: argparse.Namespace, evaluate: Evaluate) -> Result:
    """Judge, play the curve, write the verdict into the critic's folder and say it.

    Args:
        args: of `vla-rl eval`.
        evaluate: plays the episodes that (changed) arguments describe.

    Raises:
        ValueError: no critic was given, or it can not be judged.
    """
    if not args.critic:
        raise ValueError("--critic-report needs --critic DIR")
    from vla_rl.rollout.critic_report import Gate, conclude, critic_report

    folder, out = build.check_critic(args.critic), Path(args.out) if args.out else None
    data = [str(build.dataset_root(path)) for path in args.data]
    report = critic_report(folder, data, _ours(args.policy), seed=args.seed_base, device=args.device)
    if args.curve:
        report["n_curve"] = curve(args, _counts(args.curve), evaluate, out)
        report = conclude(folder, report, Gate(), turned_down(report["n_curve"]))
    if out is not None:
        _write(out, report, folder)
    _say(report)
    return Result({"command": "eval --critic-report", "critic": folder, **report})


def curve(
    args: argparse.Namespace, counts: Sequence[int], evaluate: Evaluate, out: Path | None
) -> list[dict[str, Any]]:
    """Success with so many candidates, each paired with the first of them."""
    from vla_rl.rollout.evaluate import compare

    points: list[dict[str, Any]] = []
    base: dict[str, Any] = {}
    for n in counts:
        asked = copy(args)
        asked.candidates, asked.trust_critic, asked.films = n, True, 0
        asked.selector = "argmax" if args.selector == "first" else args.selector
        result = evaluate(asked, args.policy, None if out is None else out / f"candidates-{n}")
        base = base or result
        point = {key: result[key] for key in ("episodes", "success_rate", "ci95")}
        value = (result["steering"] or {}).get("value")
        points.append({"candidates": n, **point, "value": value, "compare": compare(result, base)})
    return points


def turned_down(points: Sequence[dict[str, Any]]) -> list[str]:
    """Why a curve speaks against the critic: more candidates are surely worse than fewer, in words."""
    worse = [p["candidates"] for p in points if p["compare"]["ci95"][1] < 0]
    return [f"success falls with {', '.join(map(str, worse))} candidates"] if worse else []


def _ours(name: str) -> str:
    """A policy's folder where it is one of ours, whose chunks can be drawn anywhere; else ""."""
    from vla_rl.policy.folder import OWN_TYPE, read_config

    policy = build.check_policy(name)
    return policy if policy not in build.SCRIPTED and read_config(policy)["type"] == OWN_TYPE else ""


def _counts(text: str) -> list[int]:
    try:
        counts = [int(n) for n in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise ValueError(f"--curve {text} must read 1,2,4,8: numbers of candidates, at least 1")
    return counts


def _write(out: Path, report: dict[str, Any], name: str) -> None:
    from vla_rl.record.durable import whole_file
    from vla_rl.rollout import critic_page

    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / "critic_report.json") as file:
        file.write(json.dumps(report, indent=1).encode())
    critic_page.write(out / PAGE, report, name, shlex.join(["vla-rl", *sys.argv[1:]]))
    print(f"report: {out / PAGE}")


def _say(report: dict[str, Any]) -> None:
    low, high = report["rank_correlation_ci95"]
    print(f"{report['decisions']} decisions of {report['episodes']} episodes that the critic never saw")
    line = f"rank correlation with the return {report['rank_correlation']:.2f} ({low:.2f} to {high:.2f})"
    line += f", {report['rank_correlation_seen']:.2f} on those it saw" if "rank_correlation_seen" in report else ""
    print(f"{line}, calibration error {report['calibration_error']:.2f} of the range, bias {report['bias']:+.3f}")
    wins = [f"{name} {found['wins']:.0%}" for name, found in report["actions"].items()]
    print(f"the data's own chunk is valued above: {', '.join(wins)}")
    if "advantage_rank" in report:
        low, high = report["advantage_rank_ci95"]
        line = f"rank correlation of its advantages with those that came out {report['advantage_rank']:.2f}"
        print(f"{line} ({low:.2f} to {high:.2f}) over {report['advantages']} decisions")
    if "candidate_rank" in report:
        low, high = report["candidate_rank_ci95"]
        line = f"rank correlation of candidates' values with nearness to demonstrations {report['candidate_rank']:.2f}"
        print(f"{line} ({low:.2f} to {high:.2f}) over {report['demonstrated']} decisions")
    for point in report.get("n_curve", []):
        value = "" if point["value"] is None else f", value {point['value']:.3f}"
        print(f"  {point['candidates']:>3} candidates: {point['success_rate']:.1%}{value}")
    print(f"verdict: {report['verdict']} ({report['reason']})")

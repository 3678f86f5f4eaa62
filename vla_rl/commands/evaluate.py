"""Measure a policy over seeded episodes.

  vla-rl eval --policy outputs/lift --task lift --episodes 100 --out outputs/lift/eval
  vla-rl eval --policy expert --task all --episodes 200 --json expert.json
  vla-rl eval --policy outputs/lift --task lift --phrasings unseen --pairs
  vla-rl eval --policy A --task lift --compare B            (B: another policy, or an eval.json)
  vla-rl eval --policy A --task lift --graph --compare A    (through the ROS 2 graph in real time, against one process)
  vla-rl eval --policy outputs/six --task push --only push:yellow   (what train --exclude push:yellow left out)
  vla-rl eval --policy A --task lift --candidates 8 --critic CRITIC --selector lcb --compare first.json
  vla-rl eval --policy A --task lift --candidates 8 --critic-audit         (execute all candidates: what can be won)
  vla-rl eval --policy A --critic CRITIC --critic-report --out DIR         (may this critic steer?)

Success with its 95% Wilson interval, cycle time, language accuracy (was the named object touched first? no touch is
wrong) and, with --pairs, counterfactual pairs (one scene, another object named: both must go to the right one). With
--out DIR: films, report.html, eval.json; the same command goes on where an interrupted one stopped. Scenes are seeded
from 1,000,000 upwards, collection's from 0. The same seeds give the same result, whatever the number of workers.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl import build
from vla_rl.commands import Result, critic, steering, where
from vla_rl.commands.progress import Bar

if TYPE_CHECKING:
    from vla_rl.rollout.audit import AuditConfig

_IN_PROCESS = {"max_steps": 0, "instruction": "", "env_kwargs": "{}"}  # of flags that mean nothing to a graph
_PART_OF: dict[str, dict[str, Any]] = {  # flags that mean nothing without another one
    "critic_audit": {"audit_stride": 2, "continuations": 1, "follow": "chosen"},
    "critic_report": {"data": [], "curve": ""},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vla-rl eval`."""
    parser.add_argument("--policy", required=True, help=f"{', '.join(build.policy_names())} or a checkpoint folder")
    where.add_arguments(parser)
    parser.add_argument("--episodes", type=int, default=50, help="scenes a task (default 50)")
    parser.add_argument(
        "--seed-base", "--seed", type=int, default=1_000_000, help="first scene's seed (default 1000000)"
    )
    parser.add_argument(
        "--steps-per-chunk", type=int, default=0, help="actions executed of a chunk (default: the policy's)"
    )
    parser.add_argument(
        "--ensemble", default="none", help="join overlapping chunks: none (default), temporal, adaptive"
    )
    steering.add_arguments(parser)
    parser.add_argument("--pairs", action="store_true", help="play every scene again with another object named")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TASK:OBJECT", help="only episodes that name this: push:yellow, yellow"
    )
    parser.add_argument(
        "--compare", default="", metavar="OTHER", help="a policy on the same episodes, or an earlier eval.json"
    )
    parser.add_argument(
        "--graph",
        action="store_true",
        help="play through the ROS 2 graph, in real time; --compare stays in one process",
    )
    parser.add_argument(
        "--joining", default="", help="with --graph: how chunks follow one another (default: as vla-rl up)"
    )
    audits = parser.add_argument_group("audit and report of a critic")
    audits.add_argument(
        "--critic-audit", action="store_true", help="execute ALL candidates of decisions to the end: regret, ceiling"
    )
    audits.add_argument("--audit-stride", type=int, default=2, help="every how many decisions (default 2)")
    audits.add_argument("--continuations", type=int, default=1, help="endings a candidate (default 1)")
    audits.add_argument(
        "--follow", default="chosen", help="an audited decision goes on with the `chosen` candidate, or the `oracle`'s"
    )
    audits.add_argument(
        "--critic-report", action="store_true", help="judge --critic on episodes it never saw, and write the verdict"
    )
    audits.add_argument(
        "--data", nargs="+", default=[], metavar="DIR", help="data sets for it (default: what its training held out)"
    )
    audits.add_argument("--curve", default="", metavar="N,N", help="and play --task with so many candidates: 1,2,4,8")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2); 0 plays in this one")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where learned policies run")
    parser.add_argument("--films", type=int, default=6, help="episodes a task to film, with --out (default 6)")
    parser.add_argument("--out", default="", metavar="DIR", help="folder for report, films and result")


def run(args: argparse.Namespace) -> Result:
    """Evaluate, compare, write the report, and say what came of it."""
    from vla_rl.rollout.evaluate import REPORT

    for whole, parts in _PART_OF.items():
        if not getattr(args, whole) and (idle := _flags(args, parts)):
            raise ValueError(f"{idle} only with {_flag(whole)}: add that, or leave out")
    if args.critic_report:
        return critic.run(args, _evaluate)
    if args.joining and not args.graph:
        raise ValueError(
            "--joining is of the graph: add --graph, or give --ensemble, which joins chunks in one process"
        )
    out = Path(args.out) if args.out else None
    result = (_evaluate_graph if args.graph else _evaluate)(args, args.policy, out)
    if args.compare:
        result["compare"] = _compare(args, result)
    if args.out:
        _write(Path(args.out), REPORT, result)
    _say(result)
    if args.out:
        print(f"report: {Path(args.out) / REPORT}")
    return Result(result)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _flags(args: argparse.Namespace, defaults: Mapping[str, Any]) -> str:
    """Those of some flags that do not have their defaults, for a message."""
    return ", ".join(_flag(name) for name, default in defaults.items() if getattr(args, name) != default)


def _evaluate(args: argparse.Namespace, name: str, out: Path | None) -> dict[str, Any]:
    """Every episode in worker processes."""
    policy = build.check_policy(name)
    env = build.fit_env(where.env_config(args), policy)
    plan = build.plan(policy, args.steps_per_chunk, args.ensemble, **steering.options(args))
    config, audit = build.PolicyConfig(policy, plan=plan, device=args.device), _audit(args)
    player = partial(build.make_player, env, config, threads=1, audit=audit)
    return _play(args, name, env, player, args.workers, out, {"audited": asdict(audit)} if audit else {})


def _audit(args: argparse.Namespace) -> AuditConfig | None:
    from vla_rl.rollout.audit import AuditConfig

    return AuditConfig(args.audit_stride, args.continuations, args.follow) if args.critic_audit else None


def _evaluate_graph(args: argparse.Namespace, name: str, out: Path | None) -> dict[str, Any]:
    """Every episode through the graph; `graph` in the result says whether the machine kept up with real time."""
    from vla_rl.ros import evaluate as graph

    if args.critic_audit:
        raise ValueError("--critic-audit goes back in time, which a graph cannot: leave out --graph")
    if args.steps_per_chunk or args.ensemble != "none":
        raise ValueError(
            "with --graph the policy plans as often as it can: give --joining, not --ensemble or --steps-per-chunk"
        )
    if alien := _flags(args, _IN_PROCESS):
        raise ValueError(f"--graph plays our own tasks to their own end, in their own words: leave out {alien}")
    if given := sorted(steering.tuned(args)):
        raise ValueError(f"--graph takes the selector's defaults: leave out --{', --'.join(given)}")
    env = build.fit_env(where.env_config(args), build.check_policy(name))
    asked = {
        **({"critic": args.critic, "trust_critic": str(args.trust_critic).lower()} if args.critic else {}),
        "candidates": str(args.candidates),
        "selector": args.selector,
        "joining": args.joining,
        "device": args.device,
    }
    players: list[graph.GraphPlayer] = []

    def make_player() -> graph.GraphPlayer:
        players.append(graph.make_player(env, build.check_policy(name), asked, str(out / "logs") if out else ""))
        return players[-1]

    how = {"through": "graph", "joining": graph.joining(args.joining)}
    result = _play(args, name, env, make_player, 0, out, how)
    return {**result, "graph": players[-1].pace.to_dict()} if players else result


def _play(
    args: argparse.Namespace,
    name: str,
    env: build.EnvConfig,
    player: Callable[[], Any],
    workers: int,
    out: Path | None,
    through: dict[str, Any],
) -> dict[str, Any]:
    from vla_rl.rollout.evaluate import EvalConfig, evaluate

    films = args.films if out is not None else 0
    tasks = build.tasks(args.task, args.env)
    config = EvalConfig(tasks, args.episodes, args.seed_base, args.pairs, films, tuple(args.only))
    request = {
        "policy": name,
        **steering.request(args),
        "steps_per_chunk": args.steps_per_chunk,
        "ensemble": args.ensemble,
        "randomisation": env.randomisation,
        "phrasings": env.phrasings,
        "env": env.to_dict(),
        "checkpoint": build.fingerprint(build.check_policy(name)),
        **through,
    }
    scout = partial(build.make_world, replace(env, cameras=()))
    total = config.episodes * len(config.tasks) * (2 if config.pairs else 1)
    with Bar(f"eval {Path(name).name}", total) as bar:
        try:
            return evaluate(config, request, player, workers, out, lambda n, s: bar.update(n, f"{s} successes"), scout)
        except KeyboardInterrupt as error:
            kept = (
                f"finished episodes are kept in {out}, the same command goes on"
                if out
                else "nothing was kept: no --out"
            )
            raise KeyboardInterrupt(f"interrupted; {kept}") from error


def _compare(args: argparse.Namespace, result: dict[str, Any]) -> dict[str, Any]:
    from vla_rl.rollout.evaluate import compare

    if not Path(args.compare).is_file():
        out = Path(args.out) / "compare" if args.out else None
        return compare(result, _evaluate(args, args.compare, out))
    try:
        other = json.loads(Path(args.compare).read_text())
        return {**compare(result, other), "file": args.compare}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"--compare {args.compare} is not the result of an evaluation: {error!r}") from error


def _write(out: Path, page: str, result: dict[str, Any]) -> None:
    from vla_rl.record.durable import whole_file
    from vla_rl.rollout import report
    from vla_rl.rollout.evaluate import RESULT

    with whole_file(out / RESULT) as file:
        file.write(json.dumps(result, indent=1).encode())
    report.write(out / page, result, shlex.join(["vla-rl", *sys.argv[1:]]))


def _say(result: dict[str, Any]) -> None:
    """A line a task, and the report's place."""
    for task, figures in (result.get("tasks") or {result["task"]: result}).items():
        low, high = (100 * end for end in figures["ci95"])
        line = f"{task}: {figures['success_rate']:.0%} ({low:.0f} to {high:.0f}%) of {figures['episodes']} episodes"
        if figures["cycle_time_s"] is not None:
            line += f", {figures['cycle_time_s']:.1f} s"
        for key, text in (("language", "named object first"), ("pairs", "pairs right")):
            line += f", {text} {figures[key]['accuracy']:.0%}" if figures[key] else ""
        print(line)
        if audited := figures.get("audit"):
            print(f"  {audit_line(audited)}")
    if (pace := result.get("graph")) and pace["slow"]:
        late = f"{pace['held']} of {pace['periods']} periods without a chunk, {pace['control_overruns']} late commands"
        print(f"this machine was too slow for real time, which costs success: {late}")
    if compared := result.get("compare"):
        low, high = (100 * end for end in compared["ci95"])
        line = f"against {compared['other']}: {100 * compared['difference']:+.0f} points ({low:+.0f} to {high:+.0f})"
        print(f"{line}, McNemar p = {compared['p_value']:.3g} over {compared['pairs']} episodes")


def audit_line(audit: dict[str, Any]) -> str:
    """What an audit found, in a line."""
    said = f"{audit['decisions']} decisions ({audit['coverage']:.0%}) x {audit['candidates']} candidates"
    said += f", {audit['contested']:.0%} contested: best over first {audit['oracle_gain_points']:+.1f} points"
    said += f", regret of the chosen {audit['regret_points']:.1f}"
    if "ranking_regret_points" in audit:
        said += f", of the critic's ranking {audit['ranking_regret_points']:.1f}"
    if audit.get("concordance") is not None:
        said += f", concordance {audit['concordance']:.2f}"
    return said

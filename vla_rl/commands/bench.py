"""Measure this machine.

  vla-rl bench render --json render.json
  vla-rl bench all          every benchmark in a process of its own; JSON files and a table in docs/benchmarks
  vla-rl bench uplift --episodes 200 --work outputs/uplift        hours: not part of `all`; goes on where it stopped

Each prints {"name", "machine", "metrics", "against", "command"}; `against` holds peers measured on the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vla_rl import bench
from vla_rl.commands import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vla-rl bench`."""
    parser.add_argument("name", metavar="NAME", help=f"{', '.join(bench.names())} or all")
    parser.add_argument(
        "--quick", action="store_true", help="fewer repetitions: seconds instead of minutes, rougher figures"
    )
    parser.add_argument(
        "--out", default="docs/benchmarks", metavar="DIR", help="where `all` writes (default docs/benchmarks)"
    )
    parser.add_argument("--policy", metavar="CKPT", help="ask_for_help: whose episodes (default tabletop)")
    parser.add_argument("--seconds", type=float, help="record: how long (default 600)")
    parser.add_argument("--kills", type=int, help="crash: how often the recorder is killed (default 200)")
    parser.add_argument("--fills", type=int, help="crash: how often the disk is filled (default 50)")
    uplift = parser.add_argument_group("uplift")
    uplift.add_argument("--episodes", type=int, help="scenes a task and arm (default 200)")
    uplift.add_argument("--setup", metavar="FILE", help="policies, critics and rule (default: what is shipped)")
    uplift.add_argument("--work", metavar="DIR", help="keep logs, and go on from them")
    uplift.add_argument("--only", metavar="ARMS", help="only these arms: first,steered,random")
    uplift.add_argument("--workers", type=int, help="processes (default 2)")
    uplift.add_argument("--seed-base", type=int, help="first scene (default 1000000)")
    uplift.add_argument("--full", action="store_true", default=None, help="train everything anew first, in --work")


_OPTIONS = ("seconds", "kills", "fills", "policy", "episodes", "setup", "work", "only", "workers", "seed_base", "full")


def run(args: argparse.Namespace) -> Result:
    """Run one benchmark, or all of them."""
    if args.name == "all":
        return _run_all(Path(args.out), args.quick)
    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    result = bench.run(args.name, args.quick, **given)
    if args.json != "-":
        print(json.dumps(result, indent=1))
    return Result(result)


def _run_all(out: Path, quick: bool) -> Result:
    results: list[dict[str, Any]] = []
    failures = {}
    for name in (name for name in bench.names() if name not in bench.LONG):
        print(f"vla-rl: {name} ...", file=sys.stderr)
        try:
            results.append(bench.run_apart(name, quick))
        except RuntimeError as error:
            failures[name] = str(error)
            print(f"vla-rl: {error}", file=sys.stderr)
    bench.write(out, results)
    print(bench.table(results))
    return Result({"results": results, "failures": failures}, 1 if failures else 0)

"""Measure this machine.

  vla-rl bench render --json render.json
  vla-rl bench all          every benchmark in a process of its own; JSON files and a table in docs/benchmarks

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


def run(args: argparse.Namespace) -> Result:
    """Run one benchmark, or all of them."""
    if args.name == "all":
        return _run_all(Path(args.out), args.quick)
    result = bench.run(args.name, args.quick)
    if args.json != "-":
        print(json.dumps(result, indent=1))
    return Result(result)


def _run_all(out: Path, quick: bool) -> Result:
    results: list[dict[str, Any]] = []
    failures = {}
    for name in bench.names():
        print(f"vla-rl: {name} ...", file=sys.stderr)
        try:
            results.append(bench.run_apart(name, quick))
        except RuntimeError as error:
            failures[name] = str(error)
            print(f"vla-rl: {error}", file=sys.stderr)
    bench.write(out, results)
    print(bench.table(results))
    return Result({"results": results, "failures": failures}, 1 if failures else 0)

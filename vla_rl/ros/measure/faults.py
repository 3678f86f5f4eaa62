"""Faults: real nodes stopped, killed and cut off at random moments, and what the arm did.

  python -m vla_rl.ros.measure.faults --stops 120 --kills 40 --cuts 40 --json faults.json

Policy, steering and control live in processes of their own. Every fault hits one of them while the arm is under way in
an episode of its own; a listener that is no part of the graph judges by what goes over the wires (`stalls`). A stop is
SIGSTOP and later SIGCONT, a kill is SIGKILL and a restart, a cut takes the network away from the process, which then
lives in another network namespace. Cuts need `unshare -rn`; where that is not allowed there are none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODES = ("policy", "steering", "control")
LIMIT_MS, OPEN_LOOP_MS = 77.0, 500.0  # two control periods and 10 ms; and what a chunk may be played open loop
_PRIVATE = ("unshare", "--map-root-user", "--net")
_FAR_ENVIRONMENT = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}  # the cable is the whole network in there


@dataclass(frozen=True)
class FaultsConfig:
    """How many faults of each kind; `nodes` take turns. `seed` decides the moments."""

    stops: int = 120
    kills: int = 40
    cuts: int = 40
    seed: int = 0
    policy: str = "tabletop"
    nodes: tuple[str, ...] = NODES


def measure(quick: bool = False) -> dict[str, float]:
    """The figures of bench `gate` that need real nodes."""
    found = run(FaultsConfig(6, 3, 3) if quick else FaultsConfig())
    return figures(found["verdicts"], found["false_holds"], found["added_ms"])


def run(config: FaultsConfig, logs: str = "") -> dict[str, Any]:
    """Every fault; stops and kills on one graph, cuts on one for each node, which lives on the far side of a cable.

    Returns:
        `verdicts` (as `Verdict.to_dict` gives them, and `ok`), and of the time without any fault `periods`,
        `false_holds` and `added_ms` (see `Injector`).
    """
    parts = [_apart(config, "", logs)]
    if config.cuts and subprocess.run([*_PRIVATE, "true"], capture_output=True).returncode == 0:
        parts += [_apart(config, node, logs) for node in config.nodes]
    return {
        "verdicts": [v for part in parts for v in part["verdicts"]],
        "false_holds": sum(part["false_holds"] for part in parts),
        "periods": sum(part["periods"] for part in parts),
        "added_ms": [ms for part in parts for ms in part["added_ms"]],
    }


def figures(verdicts: Sequence[dict[str, Any]], false_holds: int, added_ms: Sequence[float]) -> dict[str, float]:
    """Counts and worst cases over the verdicts; `ros_added` is what the graph adds to a command's time."""
    held = [v for v in verdicts if v["held"]]
    counts = {how: sum(v["fault"]["how"] == how for v in verdicts) for how in ("stop", "kill", "cut")}
    return {
        "stalls": len(verdicts),
        **{f"stalls_{how}": count for how, count in counts.items()},
        "stalls_kept": sum(v["ok"] for v in verdicts),
        "stalls_not_held": len(verdicts) - len(held),
        "stall_to_hold_max_ms": _worst(held, "due_ms"),
        **{f"stall_to_hold_{n}_max_ms": _worst([v for v in held if v["fault"]["node"] == n], "due_ms") for n in NODES},
        "fault_to_hold_max_ms": _worst(held, "fault_ms"),
        "kill_to_hold_max_ms": _worst([v for v in held if v["fault"]["how"] == "kill"], "fault_ms"),
        "grip_lost": sum(not v["grip_kept"] for v in held),
        "crept": sum(not v["still"] for v in held),
        "old_chunk_commands": sum(v["old_chunks"] for v in held),
        "resume_jump_max": _worst(held, "jump"),
        "false_holds": false_holds,
        "ros_added_p50_ms": statistics.median(added_ms) if added_ms else float("nan"),
        "ros_added_p99_ms": sorted(added_ms)[int(0.99 * len(added_ms))] if added_ms else float("nan"),
    }


def _worst(verdicts: Sequence[dict[str, Any]], key: str) -> float:
    return max((float(v[key]) for v in verdicts), default=float("nan"))


def _apart(config: FaultsConfig, far: str, logs: str) -> dict[str, Any]:
    """One graph in a process of its own, in a private network where a node is to be cut off."""
    cuts = _turns(config.cuts, config.nodes).count(far)
    stops, kills = (0, 0) if far else (config.stops, config.kills)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "part.json"
        command = [sys.executable, "-m", "vla_rl.ros.measure.faults", "--part", far or "none", "--json", str(target)]
        command += ["--logs", logs, "--seed", str(config.seed), "--policy", config.policy, "--nodes", *config.nodes]
        command += ["--stops", str(stops), "--kills", str(kills), "--cuts", str(cuts)]
        environment = {**os.environ, **(_FAR_ENVIRONMENT if far else {})}
        done = subprocess.run([*(_PRIVATE if far else ()), *command], env=environment, stdout=sys.stderr)
        if done.returncode:
            raise RuntimeError(f"fault injection ended with status {done.returncode}; see the lines above")
        found: dict[str, Any] = json.loads(target.read_text())
        return found


def _part(args: argparse.Namespace) -> dict[str, Any]:
    """The faults of one graph, here."""
    from vla_rl.ros.measure.injector import Injector

    far = "" if args.part == "none" else args.part
    kinds = [(n, h) for h, count in (("stop", args.stops), ("kill", args.kills)) for n in _turns(count, args.nodes)]
    kinds += [(far, "cut")] * args.cuts
    injector = Injector(args.policy, args.seed, far, args.logs)
    verdicts = []
    try:
        for node, how in kinds:
            verdict = injector.inject(node, how)
            verdicts.append({**verdict.to_dict(), "ok": verdict.ok(LIMIT_MS, OPEN_LOOP_MS)})
            print(f"{how} of {node}: {json.dumps(verdicts[-1])}", file=sys.stderr, flush=True)
    finally:
        injector.close()
    undisturbed = {key: getattr(injector, key) for key in ("false_holds", "periods", "added_ms")}
    return {"verdicts": verdicts, **undisturbed}


def _turns(count: int, nodes: Sequence[str]) -> list[str]:
    return [nodes[i % len(nodes)] for i in range(count)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("vla_rl.ros.measure.faults", description=(__doc__ or "").split("\n")[0])
    for name in ("stops", "kills", "cuts", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(FaultsConfig, name))
    parser.add_argument("--policy", default=FaultsConfig.policy)
    parser.add_argument("--nodes", nargs="+", choices=NODES, default=NODES, help="whom to hit, in turn")
    parser.add_argument("--json", default="", metavar="FILE")
    parser.add_argument("--logs", default="", metavar="DIR")
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    config = FaultsConfig(args.stops, args.kills, args.cuts, args.seed, args.policy, tuple(args.nodes))
    found = _part(args) if args.part else run(config, args.logs)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1))
    if not args.part:
        print(json.dumps(figures(found["verdicts"], found["false_holds"], found["added_ms"]), indent=1))


if __name__ == "__main__":
    main()

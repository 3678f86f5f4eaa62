"""When a policy shall ask for help: a threshold with a chosen false-alarm rate, from episodes that nobody corrected.

  vla-rl collect --policy CKPT --candidates 8 --selector random --task lift --episodes 300 --out DIR
  vla-rl calibrate --data DIR --false-alarms 0.1 --out help.json
  vla-rl up correct --policy CKPT --candidates 8 --ask-for-help help.json

Looked at are the time that it takes, how far the arm gets, how much the candidates disagree and, with a critic, whether
the value falls and the critics disagree. Half of the episodes calibrate, the other half says what is caught, and when;
the file that is written is calibrated on all of them.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from vla_rl.commands import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `vla-rl calibrate`."""
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="folders of vla-rl collect --policy")
    parser.add_argument("--false-alarms", type=float, default=0.1, metavar="RATE", help="of successes (default 0.1)")
    parser.add_argument("--out", required=True, metavar="FILE", help="where the calibration goes, a JSON file")
    parser.add_argument("--arm", default="so101", help="the robot's description in hardware/arms (default so101)")


def run(args: argparse.Namespace) -> Result:
    """Calibrate, and say what it catches.

    Raises:
        ValueError: folders without candidates, or too few successes for the rate.
    """
    from vla_rl.robot import arm_spec
    from vla_rl.rollout import watched

    spec = arm_spec(args.arm)
    found = [episode for folder in args.data for episode in watched.episodes(folder, spec)]
    first, second = watched.halves(found)
    try:
        told = watched.coverage(watched.calibrate(first, args.false_alarms), second)
    except ValueError as error:
        half = f"half of the {len(found)} episodes are kept apart to measure it, failures are no help"
        raise ValueError(f"{error}; {half}: collect more, or raise --false-alarms") from None
    calibration = watched.calibrate(found, args.false_alarms)
    calibration.save(args.out)
    data: dict[str, Any] = {"episodes": len(found), "signals": list(calibration.signals), **told.to_dict()}
    if args.json != "-":
        print(json.dumps(data, indent=1))
    return Result({"command": "calibrate", "out": args.out, **data})

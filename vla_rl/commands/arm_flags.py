"""Which real arm is meant: the flags that commands share, and what they say to `build_arm`."""

from __future__ import annotations

import argparse

from vla_rl.build_arm import ArmConfig
from vla_rl.ros.arm_settings import mapping


def add_arm_flags(parser: argparse._ActionsContainer) -> None:
    """LeRobot's names and places of an arm; `--arm`, its description, is the command's own."""
    parser.add_argument("--port", default="", help="its serial port; looked for where not given")
    parser.add_argument("--id", default="", help="LeRobot's name of this very arm (default: the description's name)")
    parser.add_argument(
        "--calibration", default="", metavar="DIR", help="folder of its calibration, else LeRobot's own"
    )
    parser.add_argument("--driver", default="", help="LeRobot's name of the robot, else the description's")
    parser.add_argument("--settings", default="", metavar="YAML", help="further fields of LeRobot's configuration")


def read_arm_flags(args: argparse.Namespace, arm: str) -> ArmConfig:
    """The arm of this description, as the flags have it.

    Raises:
        ValueError: settings that are none.
    """
    return ArmConfig(
        arm=arm, driver=args.driver, port=args.port, id=args.id, calibration=args.calibration,
        settings=mapping("--settings", args.settings),
    )  # fmt: skip

"""Interrupt: Ctrl-C at random moments of `vla-rl up sim`; everything must be gone in five seconds, the arm held.

python -m vla_rl.ros.measure.interrupt --count 20 --json interrupt.json
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vla_rl.robot import arm_spec
from vla_rl.ros import dds
from vla_rl.ros.measure.stalls import SETTLE_NS
from vla_rl.ros.measure.watch import Heard, Watch

LIMIT_S = 5.0
WITHIN_S = 30.0  # of the command: while it loads, configures, activates and moves the arm
_STILL = 1e-3  # [rad] between the last commands


@dataclass(frozen=True)
class Interrupted:
    """What one Ctrl-C came to: when it came, how long everything took to go, and how."""

    after_s: float
    seconds: float
    status: int
    left: int
    held: bool

    @property
    def ok(self) -> bool:
        """Whether everything was gone in time, with status 0, nothing left and the arm held."""
        return self.seconds <= LIMIT_S and self.status == 0 and not self.left and self.held


def interrupt(after_s: float) -> Interrupted:
    """Start the graph, interrupt it after so many seconds, and see what is left."""
    watch = Watch(arm_spec("so101"))
    process = subprocess.Popen(
        [sys.executable, "-m", "vla_rl", "up", "sim"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(after_s)
    family = _descendants(process.pid)
    begun, begun_ns = time.monotonic(), time.time_ns()
    process.send_signal(signal.SIGINT)
    status = process.wait()
    seconds = time.monotonic() - begun
    left = sum(Path(f"/proc/{pid}").exists() for pid in family)
    held = _held(watch.heard, begun_ns)
    watch.close()
    return Interrupted(after_s, seconds, status, left, held)


def _held(heard: Heard, begun_ns: int) -> bool:
    """Whether nothing moved the arm at the end: commands stopped, or came to rest, before the robot went."""
    late = [c.targets for c in heard.commands if c.received_ns > begun_ns + SETTLE_NS]
    return not late or float(np.ptp(late, axis=0).max()) <= _STILL


def _descendants(pid: int) -> list[int]:
    """A process's children and theirs."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    children = [int(child) for child in text.split()]
    return children + [grandchild for child in children for grandchild in _descendants(child)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("vla_rl.ros.measure.interrupt", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", default="", metavar="FILE")
    args = parser.parse_args()
    dds.use_profile()
    moments = np.random.default_rng(args.seed).uniform(0.5, WITHIN_S, args.count)
    found = []
    for moment in moments:
        found.append(interrupt(float(moment)))
        print(json.dumps({**asdict(found[-1]), "ok": found[-1].ok}), flush=True)
    summary = {
        "interrupts": len(found),
        "ok": sum(i.ok for i in found),
        "seconds_max": max(i.seconds for i in found),
        "left": sum(i.left for i in found),
        "each": [asdict(i) for i in found],
    }
    if args.json:
        Path(args.json).write_text(json.dumps(summary, indent=1))
    sys.exit(summary["ok"] != len(found))


if __name__ == "__main__":
    main()

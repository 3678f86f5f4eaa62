"""A twin on a port of its own, with the calibration file that LeRobot would have written of it."""

import json
import time
from pathlib import Path

from vla_rl.build_arm import make_twin
from vla_rl.hardware.lerobot_arm import LeRobotArm, LeRobotConfig
from vla_rl.hardware.twin.faults import Fault
from vla_rl.hardware.twin.twin import TwinConfig
from vla_rl.robot import arm_spec

SPEC = arm_spec("so101")
PATIENCE_S = 30.0  # nothing is judged by it: a loaded machine is slow


class Desk:
    """A twin, its calibration, and arms that are closed when the test is over."""

    def __init__(self, folder, **twin):
        self.folder, self.said, self.arms = Path(folder), [], []
        self.twin = make_twin(TwinConfig(self.folder / "follower", **twin)).start()
        self.calibration = self.twin.calibration()
        self.write(self.calibration)

    def write(self, calibration):
        """LeRobot's calibration file of the arm."""
        (self.folder / "so101.json").write_text(json.dumps(calibration))

    def settings(self, **further):
        return {"port": str(self.twin.port), "id": "so101", "calibration_dir": str(self.folder), **further}

    def arm(self, spec=SPEC, settings=None, **config):
        """Our driver on it; where the machine is slow an arm is not silent yet."""
        config = {"silence_s": 2.0, "settings": self.settings(**(settings or {})), **config}
        self.arms.append(LeRobotArm(spec, LeRobotConfig(**config), self.said.append))
        return self.arms[-1]

    def fault(self, kind, **how):
        """From now on; returns when it began, monotonic [s]."""
        self.twin.faults([Fault(kind, **how)])
        return time.monotonic()

    def mend(self):
        self.twin.faults([])

    def torque(self):
        """Whether each servo's torque is on."""
        return [servo["torque"] for servo in self.twin.status()["follower"]["servos"].values()]

    def goals(self):
        """Of each servo [ticks]."""
        return [servo["goal"] for servo in self.twin.status()["follower"]["servos"].values()]

    def close(self):
        self.mend()
        for arm in self.arms:
            arm.close()
        self.twin.close()


def until(condition, what="it happens"):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.005)

"""Touch: what the gripper touched first, at any engine step and not only at the end of a control period.

A cube that is pushed runs ahead of the finger and is met again for some milliseconds at a time. One contact sensor a
body keeps its readings of a control period in the engine's own history, which is part of the state: nothing has to look
while the engine steps, alone or in a batch, and what is saved and restored continues bit for bit.
"""

from __future__ import annotations

import mujoco

from vla_rl.sim.arm import GRIPPER_BODIES, LINKS

_PREFIX = "touch_"
_HEADER = 2  # numbers in front of a sensor's history, which is the samples' times and then the samples


def add_touch_sensors(spec: mujoco.MjSpec, period: float) -> None:
    """Have the engine notice where the gripper touches what can be moved, and remember it for a control period [s]."""
    arm = {link.name for link in LINKS}
    for body in spec.bodies:
        if body.joints and body.name not in arm:
            spec.add_sensor(
                name=_PREFIX + body.name, type=mujoco.mjtSensor.mjSENS_CONTACT,
                objtype=mujoco.mjtObj.mjOBJ_XBODY, objname=GRIPPER_BODIES[0],  # and all that hangs on it
                reftype=mujoco.mjtObj.mjOBJ_BODY, refname=body.name,
                intprm=[1 << mujoco.mjtConDataField.mjCONDATA_FOUND.value, 0, 1],
                nsample=round(period / spec.option.timestep),
            )  # fmt: skip


class Touch:
    """Reads what `add_touch_sensors` added to a model.

    Args:
        model, data: the engine's own.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.bodies = [model.sensor(i).name.removeprefix(_PREFIX) for i in range(model.nsensor)]
        self._past = data.history.reshape(model.nsensor, -1)[:, _HEADER + model.sensor_history[0, 0] :]
        self._now = data.sensordata

    def first(self) -> str:
        """The body that the gripper touched first in the control period that has just ended, "" where none."""
        if self._past.any():
            # a period writes each place once, so the samples stand in the order of time
            moment = self._past[:, int(self._past.any(axis=0).argmax())]
        elif self._now.any():
            moment = self._now
        else:
            return ""
        return self.bodies[int(moment.argmax())]

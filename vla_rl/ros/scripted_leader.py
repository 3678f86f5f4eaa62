"""ScriptedLeader: somebody who knows the simulated task, with a leader arm in hand.

::

    control/mode         AUTONOMOUS                | CORRECTING                   | AUTONOMOUS
    leader/joint_states  where the arm is, as is   | the task's scripted expert,  | where the arm is
                         a leader that is led      | begun from things as they are|

hil_node's device `leader` follows it. Who takes over and hands back is somebody else: a page, a gamepad, a script.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sensor_msgs.msg import JointState
from std_msgs.msg import String

from vla_rl.robot import Sensed, SupportsExpert
from vla_rl.ros import messages, qos
from vla_rl.ros.node import Receipt
from vla_rl.types import Array, Mode

_SMALL = 4096  # bytes


class ScriptedLeader:
    """See the module.

    Args:
        node: who publishes and subscribes.
        names: of the joints.
        clumsy: of mixed quality.
        pace: multiple of the expert's usual speed.
    """

    def __init__(self, node: Any, names: tuple[str, ...], clumsy: bool, pace: float) -> None:
        self._names, self._clumsy, self._pace = names, clumsy, pace
        self._mode, self._corrections = Mode.PAUSED, 0
        self._act: Callable[[], Array] | None = None
        self._leader = node.create_publisher(JointState, "leader/joint_states", qos.OFFER)
        node.subscribe(String, "control/mode", self._on_mode, qos.LATCHED, _SMALL)

    def _on_mode(self, message: String, _: Receipt) -> None:
        self._mode = Mode(message.data)

    def begin(self) -> None:
        """A new scene: what was meant in the one before is void."""
        self._act = None

    def lead(self, robot: SupportsExpert, sensed: Sensed) -> None:
        """Say where the leader is in this period; of the thread that senses."""
        if self._mode is not Mode.CORRECTING:
            self._act = None
        elif self._act is None:
            self._act = robot.expert(self._clumsy, self._corrections, self._pace)
            self._corrections += 1
        joints = sensed.joints if self._act is None else self._act()
        self._leader.publish(messages.joint_state(self._names, joints, sensed.stamp_ns))

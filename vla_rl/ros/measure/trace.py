"""Follow observations through the graph: when was each answered by candidates, by a chunk, by a command."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from vla_rl.ros import qos
from vla_rl.ros.measure.client import Client
from vla_rl.ros.messages import SECOND, stamp_ns, vector_of
from vla_rl.types import Source

Times = dict[int, int]


def follow(client: Client, candidates: Times, chunks: Times, commands: Times, transport: list[float]) -> None:
    """Fill in, while the client listens, when each was published, system clock [ns], by the observation's stamp [ns].

    Args:
        client: listens.
        candidates, chunks: the policy's and the steering's answers.
        commands: the first command of each chunk.
        transport: for every joint_states the time from its publisher to its arrival here [ns].
    """

    def noted(times: Times) -> Any:
        return lambda message, _, sent_ns: times.setdefault(stamp_ns(message.header.stamp), sent_ns)

    def step(message: JointState, _: int, sent_ns: int) -> None:
        values = vector_of(message)
        chunk = round(values["chunk_stamp_s"]) * SECOND + round(values["chunk_stamp_ns"])
        if chunk > 0 and round(values["source"]) != Source.HOLD:
            commands.setdefault(chunk, sent_ns)

    client.listen(JointTrajectory, "policy/candidates", noted(candidates), qos.EVERY)
    client.listen(JointTrajectory, "steering/chunk", noted(chunks), qos.EVERY)
    client.listen(JointState, "control/step", step, qos.EVERY)
    client.listen(JointState, "joint_states", lambda _, got, sent: transport.append(got - sent), qos.LATEST)

"""policy and steering in one process: candidates and their context are handed over in memory, and published as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from vla_rl.ros.leaving import abortable, leave

if TYPE_CHECKING:
    from vla_rl.ros.steering_node import SteeringNode


def main() -> NoReturn:
    """Run both nodes on one executor; inference and choice each have a thread, so that neither waits for the other."""
    with abortable():
        from vla_rl.ros import node
        from vla_rl.ros.policy_node import PolicyNode
        from vla_rl.ros.steering_node import SteeringNode
    made: list[SteeringNode] = []

    def steering() -> SteeringNode:
        made.append(SteeringNode(inside=True))
        return made[0]

    leave(node.main(steering, lambda: PolicyNode(hand_over=made[0].take)))


if __name__ == "__main__":
    main()

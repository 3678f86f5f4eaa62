"""Quality of service of every topic. Offer the most, ask for the least: then any peer's choice is compatible.

A reliable writer with a history of one never waits for a slow or stopped reader: its sample is replaced by the next.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int) -> QoSProfile:
    return QoSProfile(reliability=reliability, durability=durability, history=HistoryPolicy.KEEP_LAST, depth=depth)


OFFER = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)
"""Published streams (joint_states, camera, joint_commands): for reliable and for best-effort readers."""

LATEST = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)
"""Subscribed streams of which only the newest counts (joint_states, human/command, camera)."""

COMMANDS = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 10)
"""Subscribed joint_commands: deep enough that a second publisher can not push out what the first one said."""

FRAMES = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 5)
"""Subscribed pictures where each one counts (a recorder), with room for five that wait."""

EVERY = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 10)
"""Decisions, none to be missed, published and subscribed (candidates, chunk, values, control/step, sim/status)."""

PRESSES = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 100)
"""Subscribed buttons: none of a second is pushed out, however often sticks speak meanwhile and nobody listens."""

LATCHED = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 1)
"""State that a late joiner needs too (control/mode, instruction, robot_description)."""

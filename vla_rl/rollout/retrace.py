"""Retrace: a recorded episode once more through policy and steering; what comes out must be what was recorded, exactly.

Everything that either drew is decided by its seed and the observation's stamp, and both are on record, as is every
picture. What can not be compared (a picture kept with loss, a critic that was late) is counted by its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_rl.observe.encoded import Encoded
from vla_rl.observe.instruction import clean
from vla_rl.observe.streams import JOINTS
from vla_rl.policy.engine import Engine
from vla_rl.record.frames import file_of, lossless
from vla_rl.record.tape import Drawn, Frame, Seen, Tape
from vla_rl.steer.steering import Decision, Steering
from vla_rl.types import ActionChunk, Candidates, Image, Observation, RobotSpec

SHOWN = 20


@dataclass
class Part:
    """What was compared of one part of the graph.

    Attributes:
        compared, equal: how many, and how many of these to the last bit.
        skipped: how many could not be compared, by reason.
        differences: the first SHOWN, one line each.
    """

    compared: int = 0
    equal: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def note(self, differs: str) -> None:
        """One more was compared; `differs` says how it differs, "" where it does not."""
        self.compared += 1
        self.equal += not differs
        if differs and len(self.differences) < SHOWN:
            self.differences.append(differs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self), "skipped": dict(self.skipped)}


def retrace_policy(tape: Tape, spec: RobotSpec, engine: Engine) -> tuple[Part, dict[int, Candidates]]:
    """Draw every set of candidates again.

    Args:
        tape: the episode.
        spec: the robot.
        engine: of the policy that drew them, set up as it was.

    Returns:
        What differs, and the sets that are equal by their stamps, for a critic that needs more than was recorded.
    """
    part, equal = Part(), dict[int, Candidates]()
    look = _Pictures(tape, engine.cameras)
    for drawn in tape.candidates:
        reason, history = _history(tape, drawn, look, engine)
        if reason:
            part.skipped[reason] += 1
            continue
        again = engine.candidates(history, k=len(drawn.chunks))
        differs = _apart(again.chunks, drawn.chunks, again.seed, tape.seen[drawn.stamp_ns].seed)
        part.note(differs and f"candidates of {drawn.stamp_ns}: {differs}")
        if not differs:
            equal[drawn.stamp_ns] = again
    return part, equal


def _history(tape: Tape, drawn: Drawn, look: _Pictures, engine: Engine) -> tuple[str, list[Observation]]:
    """The observation that a set answers, or why it can not be known."""
    seen = tape.seen.get(drawn.stamp_ns)
    if seen is None or seen.joints is None:
        return "no policy/context was recorded with it", []
    if engine.frames > 1:
        return "the policy looks at several observations at once", []
    images = {
        camera: look(camera, drawn.stamp_ns - round(seen.ages.get(camera, 0.0) * 1e9)) for camera in engine.cameras
    }
    if missing := [camera for camera, image in images.items() if isinstance(image, str)]:
        return f"{missing[0]}: {images[missing[0]]}", []
    pictures = {camera: image for camera, image in images.items() if not isinstance(image, str)}
    ages = {name: age for name, age in seen.ages.items() if name == JOINTS or name in pictures}
    words = clean(tape.instruction_at(drawn.log_ns))
    return "", [Observation(seen.joints, pictures, words, drawn.stamp_ns, ages)]


class _Pictures:
    """The pictures of an episode by camera and stamp, decoded one at a time."""

    def __init__(self, tape: Tape, cameras: Sequence[str]) -> None:
        self._frames: dict[str, dict[int, Frame]] = {
            camera: {frame.stamp_ns: frame for frame in tape.frames.get(camera, [])} for camera in cameras
        }
        self._sent_encoded = tape.about.get("graph", {}).get("policy", {}).get("image_transport") == "compressed"

    def __call__(self, camera: str, stamp_ns: int) -> Image | str:
        """The pixels that the policy saw, or why they are not known."""
        frame = self._frames[camera].get(stamp_ns)
        if frame is None:
            return "the picture was not recorded"
        if not self._sent_encoded and not lossless(frame.data, frame.kind):
            return "the picture was kept with loss"
        return Encoded(file_of(frame.data, frame.kind)).decode()


def _apart(again: Any, before: Any, seed: int, seed_before: int) -> str:
    """How two sets differ, "" where they are the same bit by bit."""
    if seed != seed_before:
        return f"seed {seed}, recorded {seed_before}"
    if again.shape != before.shape:
        return f"shape {again.shape}, recorded {before.shape}"
    return "" if np.array_equal(again, before) else f"up to {np.abs(again - before).max():.3g} rad apart"


def retrace_steering(
    tape: Tape, spec: RobotSpec, steering: Steering, known: Mapping[int, Candidates], scores: bool
) -> Part:
    """Choose among every recorded set again.

    Args:
        tape: the episode.
        spec: the robot.
        steering: set up as it was, but with all the time it wants.
        known: sets with all that the critic reads, by their stamps; others are made of what was recorded.
        scores: whether there is a critic.
    """
    part, chosen = Part(), {each.stamp_ns: each for each in tape.chosen}
    first = tape.candidates[0].stamp_ns if tape.candidates else 0
    if tape.chosen and tape.chosen[0].stamp_ns < first:  # the chunk that was under way when the episode began
        _goes_on(steering, tape.chosen[0], spec)
    for drawn in tape.candidates:
        was = chosen.get(drawn.stamp_ns)
        if was is None:
            part.skipped["nothing was chosen of it: refused, or replaced by a newer set"] += 1
            continue
        reason = _late(tape, drawn) if scores else ""
        if reason:
            part.skipped[reason] += 1
        else:
            decision = steering.decide(
                known.get(drawn.stamp_ns) or _recorded(drawn, tape.seen.get(drawn.stamp_ns), spec)
            )
            part.note(_other(decision, was, tape))
        _goes_on(steering, was, spec)
    return part


def _goes_on(steering: Steering, was: Drawn, spec: RobotSpec) -> None:
    """The recorded chunk is under way, whatever was chosen now."""
    steering.restart(ActionChunk(was.chunks[0], spec.action_spec, was.dt, was.stamp_ns))


def _late(tape: Tape, drawn: Drawn) -> str:
    """Why a choice hung on time and can not be repeated."""
    values = tape.values.get(drawn.stamp_ns)
    late = values is None or len(values.mean) < len(drawn.chunks)
    return "the critic was late" if late else ""


def _recorded(drawn: Drawn, seen: Seen | None, spec: RobotSpec) -> Candidates:
    """A set as far as it travelled over topics."""
    if seen is None:
        return Candidates(drawn.chunks, spec.action_spec, drawn.dt, drawn.stamp_ns)
    observation = None if seen.joints is None else Observation(seen.joints, {}, "", drawn.stamp_ns)
    return Candidates(drawn.chunks, spec.action_spec, drawn.dt, drawn.stamp_ns, seen.features, seen.seed, observation)


def _other(decision: Decision | None, was: Drawn, tape: Tape) -> str:
    """How a decision differs from the recorded one, "" where it does not."""
    if decision is None:
        return f"choice of {was.stamp_ns}: the set is refused now"
    if str(decision.index) != was.said or not np.array_equal(decision.chunk.actions, was.chunks[0]):
        return f"choice of {was.stamp_ns}: candidate {decision.index} ({decision.reason}), recorded {was.said}"
    values = tape.values.get(was.stamp_ns)
    if values is None or decision.values is None:
        return ""
    same = np.array_equal(decision.values.mean(0), values.mean) and np.array_equal(
        decision.values.std(0), values.spread
    )
    return "" if same else f"values of {was.stamp_ns}: {decision.values.mean(0)}, recorded {values.mean}"

"""Retrace: a recorded episode once more through policy and steering; what comes out must be what was recorded.

Everything that either drew is decided by its seed and the observation's stamp, and both are on record, as is every
picture: candidates are the same to the last bit, and so are choices. Values are to float32's rounding: how many chunks
were scored in one pass depended on the time there was. What can not be compared (a picture kept with loss, a critic
that was late) is counted by its reason.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vla_rl.execute.foresight import Foresight, ForesightConfig
from vla_rl.observe.encoded import Encoded
from vla_rl.observe.streams import JOINTS
from vla_rl.policy.engine import Engine
from vla_rl.record.frames import file_of, lossless
from vla_rl.record.tape import Drawn, Frame, Seen, Tape
from vla_rl.steer.steering import Decision, Steering
from vla_rl.types import ActionChunk, Array, Candidates, Image, Observation, RobotSpec

SHOWN = 20
_ROUNDING = 1e-5


@dataclass
class Part:
    """What was compared of one part of the graph.

    Attributes:
        compared, equal: how many, and how many of these came out again.
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


def retrace_policy(tape: Tape, engine: Engine) -> Part:
    """Draw every set of candidates again.

    Args:
        tape: the episode.
        engine: of the policy that drew them, set up as it was.
    """
    part = Part()
    past = _Past(tape, engine.frames, engine.cameras)
    for drawn in tape.candidates:
        reason, history = past(drawn)
        if reason:
            part.skipped[reason] += 1
            continue
        again = engine.candidates(history, k=len(drawn.chunks))
        differs = _apart(again.chunks, drawn.chunks, again.seed, tape.seen[drawn.stamp_ns].seed)
        part.note(differs and f"candidates of {drawn.stamp_ns}: {differs}")
    return part


def looked_at(tape: Tape, spec: RobotSpec, cameras: Sequence[str]) -> dict[int, Candidates | str]:
    """The recorded sets with their pictures by stamp, for a critic with an encoder of its own; or why one has none.

    Args:
        tape: the episode.
        spec: the robot.
        cameras: those that the critic's encoder looks through.
    """
    past, sets = _Past(tape, 1, cameras), dict[int, Candidates | str]()
    for drawn in tape.candidates:
        reason, history = past(drawn)
        if reason:
            sets[drawn.stamp_ns] = f"the critic's encoder: {reason}"
        else:
            recorded = _recorded(drawn, tape.seen.get(drawn.stamp_ns), spec)
            sets[drawn.stamp_ns] = replace(recorded, observation=history[-1])
    return sets


class _Past:
    """What a policy saw when it drew a set: its observations, oldest first, or why they can not be known."""

    def __init__(self, tape: Tape, frames: int, cameras: Sequence[str]) -> None:
        self._tape, self._frames, self._cameras = tape, frames, cameras
        self._look = _Pictures(tape, cameras)
        self._joints = {each.stamp_ns: each.values for each in tape.joints}

    def __call__(self, drawn: Drawn) -> tuple[str, list[Observation]]:
        seen = self._tape.seen.get(drawn.stamp_ns)
        if seen is None or seen.joints is None:
            return "no policy/context was recorded with it", []
        if (first := len(seen.past) - (self._frames - 1)) < 0:
            return "policy/context does not say what the policy looked at before", []
        words = self._tape.instruction_at(drawn.log_ns)
        try:
            before = [self._observation(ages, drawn.stamp_ns, words) for ages in seen.past[first:]]
            newest = self._observation(seen.ages, drawn.stamp_ns, words, seen.joints)
        except LookupError as missing:
            return str(missing.args[0]), []
        return "", [*before, newest]

    def _observation(
        self, ages: Mapping[str, float], stamp_ns: int, words: str, joints: Array | None = None
    ) -> Observation:
        """One observation, by the age of every stream's sample before `stamp_ns` [s].

        Raises:
            LookupError: a sample is not on the tape as the policy saw it; the message says which.
        """
        stamps = {name: stamp_ns - round(age * 1e9) for name, age in ages.items()}
        images = {camera: self._look(camera, stamps.get(camera, stamp_ns)) for camera in self._cameras}
        joints = self._joints.get(stamps.get(JOINTS, stamp_ns)) if joints is None else joints
        if joints is None:
            raise LookupError(f"{JOINTS}: what the policy looked at before was not recorded")
        known = {name: age for name, age in ages.items() if name == JOINTS or name in images}
        return Observation(joints, images, words, stamp_ns, known)


class _Pictures:
    """The pictures of an episode by camera and stamp, decoded one at a time."""

    def __init__(self, tape: Tape, cameras: Sequence[str]) -> None:
        self._frames: dict[str, dict[int, Frame]] = {
            camera: {frame.stamp_ns: frame for frame in tape.frames.get(camera, [])} for camera in cameras
        }
        self._sent_encoded = tape.about.get("graph", {}).get("policy", {}).get("image_transport") == "compressed"

    def __call__(self, camera: str, stamp_ns: int) -> Image:
        """The pixels that the policy saw.

        Raises:
            LookupError: they are not known; the message says why.
        """
        frame = self._frames[camera].get(stamp_ns)
        if frame is None:
            raise LookupError(f"{camera}: the picture was not recorded")
        if not self._sent_encoded and not lossless(frame.data, frame.kind):
            raise LookupError(f"{camera}: the picture was kept with loss")
        return Encoded(file_of(frame.data, frame.kind)).decode()


def _apart(again: Any, before: Any, seed: int, seed_before: int) -> str:
    """How two sets differ, "" where they are the same bit by bit."""
    if seed != seed_before:
        return f"seed {seed}, recorded {seed_before}"
    if again.shape != before.shape:
        return f"shape {again.shape}, recorded {before.shape}"
    return "" if np.array_equal(again, before) else f"up to {np.abs(again - before).max():.3g} rad apart"


class AsRecorded:
    """Foresight of what control made of the recorded chunks, whatever is chosen now.

    Args:
        config: of control, as the steering knew it.
        tape: the episode.
        spec: the robot.
    """

    def __init__(self, config: ForesightConfig, tape: Tape, spec: RobotSpec) -> None:
        self._foresight, self._spec = Foresight(config), spec
        self._waiting, self._newest_ns = deque(tape.chosen), -1
        began = bool(tape.chosen and tape.candidates and tape.chosen[0].stamp_ns < tape.candidates[0].stamp_ns)
        reach = round(config.player.max_open_loop_s * 1e9)
        self._known_ns = tape.chosen[0].stamp_ns + reach if began else 0

    def knows(self, stamp_ns: int) -> bool:
        """Whether no chunk from before the episode is in play any more."""
        return stamp_ns > self._known_ns

    def hear(self, chosen: Drawn) -> None:
        """All that was chosen before this one is under way."""
        while self._waiting and self._waiting[0] is not chosen:
            was = self._waiting.popleft()
            if was.stamp_ns <= self._newest_ns:  # the robot's clock went back
                self._foresight.restart()
            self._newest_ns = was.stamp_ns
            self._foresight.chosen(_chunk(was, self._spec))

    def executed(self, candidates: Candidates) -> Array:
        """As `Foresight.executed`."""
        return self._foresight.executed(candidates)

    def chosen(self, chunk: ActionChunk) -> None:
        """Changes nothing."""

    def restart(self) -> None:
        """Changes nothing."""


def retrace_steering(
    tape: Tape,
    spec: RobotSpec,
    steering: Steering,
    known: Mapping[int, Candidates | str],
    scores: bool,
    foresight: AsRecorded | None = None,
) -> Part:
    """Choose among every recorded set again.

    Args:
        tape: the episode.
        spec: the robot.
        steering: set up as it was, but with all the time it wants.
        known: by their stamps, sets with more than travels over topics, or why they can not be had; see `looked_at`.
        scores: whether there is a critic.
        foresight: the steering's, where its critic values what will be executed.
    """
    part, chosen = Part(), {each.stamp_ns: each for each in tape.chosen}
    first = tape.candidates[0].stamp_ns if tape.candidates else 0
    if tape.chosen and tape.chosen[0].stamp_ns < first:  # the chunk that was under way when the episode began
        _goes_on(steering, tape.chosen[0], spec)
    for drawn in tape.candidates:
        was = chosen.pop(drawn.stamp_ns, None)
        if was is None:
            part.skipped["nothing was chosen of it: refused, or replaced by a newer set"] += 1
            continue
        if foresight is not None:
            foresight.hear(was)
        reason = _late(tape, drawn) if scores else ""
        if foresight is not None and not foresight.knows(drawn.stamp_ns):
            reason = reason or "chunks from before the episode were still under way"
        whole = known.get(drawn.stamp_ns) or _recorded(drawn, tape.seen.get(drawn.stamp_ns), spec)
        if isinstance(whole, str):
            reason = reason or whole
        if reason or isinstance(whole, str):
            part.skipped[reason] += 1
        else:
            part.note(_other(steering.decide(whole), was, tape))
        _goes_on(steering, was, spec)
    return part


def _goes_on(steering: Steering, was: Drawn, spec: RobotSpec) -> None:
    """The recorded chunk is under way, whatever was chosen now."""
    steering.restart(_chunk(was, spec))


def _chunk(was: Drawn, spec: RobotSpec) -> ActionChunk:
    return ActionChunk(was.chunks[0], spec.action_spec, was.dt, was.stamp_ns)


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
    if str(decision.index) != was.said or not _same(decision.chunk.actions, was.chunks[0]):
        return f"choice of {was.stamp_ns}: candidate {decision.index} ({decision.reason}), recorded {was.said}"
    values = tape.values.get(was.stamp_ns)
    if values is None or decision.values is None:
        return ""
    mean, spread = decision.values.mean(0), decision.values.std(0)
    same = _same(mean, values.mean) and _same(spread, values.spread)
    return "" if same else f"values of {was.stamp_ns}: {mean}, recorded {values.mean}"


def _same(now: Array, then: Array) -> bool:
    """Whether numbers are equal but for float32's rounding, relative and absolute."""
    return now.shape == then.shape and np.allclose(now, then, rtol=_ROUNDING, atol=_ROUNDING)

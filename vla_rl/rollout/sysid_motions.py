"""Where motions come from: a person's recorded session, or a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla_rl.data.dataset import Dataset, open_dataset
from vla_rl.record.folder import SessionFolder, is_session
from vla_rl.record.tape import Joints, Tape
from vla_rl.rollout.sysid_model import Motion, Stamps
from vla_rl.types import Array, RobotSpec

GAP_S = 0.5  # a longer silence ends a motion
_REAL_NS = 100_000_000  # between a target's stamp and its arrival; of a simulation's own time they are years apart
_NEEDED = ("observation.state", "action")


def motions_of(root: str | Path, spec: RobotSpec, limit_s: float = 60.0) -> list[Motion]:
    """What was asked of an arm, and what it did.

    A session has both as they happened: targets when they were sent, joints when they were so. A data set has one row a
    period: its commands count from the row's stamp, and so does the delay that is found from it.

    Args:
        root: a session, or a LeRobotDataset v3.
        spec: the arm.
        limit_s: take no more than so much of driving, from the beginning [s].

    Raises:
        ValueError: neither, or of another arm; one line.
    """
    root = Path(root)
    found = _of_session(SessionFolder(root), spec) if is_session(root) else _of_dataset(_dataset(root), spec)
    taken, seconds = list[Motion](), 0.0
    for motion in found:
        taken.append(_first(motion, limit_s - seconds))
        seconds += (taken[-1].seen_ns[-1] - taken[-1].seen_ns[0]) * 1e-9
        if seconds >= limit_s:
            break
    return taken


def arm_of(root: str | Path) -> str:
    """Which arm a session or a data set is of, "" where it does not say."""
    root = Path(root)
    if is_session(root):
        return str(SessionFolder(root).about["robot"].get("name", ""))
    return str(_dataset(root).info.get("robot_type") or "")


def _dataset(root: Path) -> Dataset:
    for place in (root, root / "dataset"):
        if (place / "meta" / "info.json").is_file():
            return open_dataset(place)
    raise ValueError(f"{root} is neither a session nor a data set")


def _of_session(session: SessionFolder, spec: RobotSpec) -> Iterator[Motion]:
    for entry in session.episodes():
        tape = Tape.load(entry.path, spec.names)
        asked, seen = _series(_as_sent(tape.targets)), _series(tape.joints)
        if asked is not None and seen is not None:
            yield from _unbroken(*asked, *seen)


def _as_sent(targets: Sequence[Joints]) -> list[Joints]:
    """With the time of arrival for a stamp, where time is real: a target is told once it was sent."""
    late = [target.log_ns - target.stamp_ns for target in targets]
    real = bool(late) and 0 <= np.median(late) < _REAL_NS
    return [replace(target, stamp_ns=target.log_ns) for target in targets] if real else list(targets)


def _series(joints: Sequence[Joints]) -> tuple[Stamps, Array] | None:
    """Stamps that grow (N,) [ns] and joints (N, J) [rad]; None of nothing."""
    if not joints:
        return None
    stamps = np.array([each.stamp_ns for each in joints], np.int64)
    order = np.unique(stamps, return_index=True)[1]
    return stamps[order], np.stack([joints[i].values for i in order])


def _of_dataset(dataset: Dataset, spec: RobotSpec) -> Iterator[Motion]:
    wanted = list(spec.lerobot_action_spec.names)
    for column in _NEEDED:
        if dataset.names(column) != wanted:
            raise ValueError(
                f"{dataset.root}: its '{column}' has {', '.join(dataset.names(column)) or 'no names'}; "
                f"arm '{spec.name}' has {', '.join(wanted)}"
            )
    clock = "stamp_ns" if "stamp_ns" in dataset.features else "timestamp"
    columns = dataset.columns([*_NEEDED, clock, "episode_index"])
    times = columns[clock].reshape(-1)
    stamps = times if clock == "stamp_ns" else np.round(times.astype(np.float64) * 1e9).astype(np.int64)
    state, action = (spec.from_lerobot(columns[name]) for name in _NEEDED)
    for episode in np.unique(columns["episode_index"]):
        rows = np.flatnonzero(columns["episode_index"].reshape(-1) == episode)
        rows = rows[np.unique(stamps[rows], return_index=True)[1]]
        yield from _unbroken(stamps[rows], action[rows], stamps[rows], state[rows])


def _unbroken(asked_ns: Stamps, targets: Array, seen_ns: Stamps, joints: Array) -> Iterator[Motion]:
    """Stretches in which neither commands nor joints are silent."""
    gaps = [stamps[:-1][np.diff(stamps) > GAP_S * 1e9] for stamps in (asked_ns, seen_ns)]
    first, last = max(asked_ns[0], seen_ns[0]), min(asked_ns[-1], seen_ns[-1])
    ends = [*np.unique(np.concatenate(gaps)), last]
    for begin, end in zip([first - 1, *ends[:-1]], ends, strict=True):
        asked, seen = (asked_ns > begin) & (asked_ns <= end), (seen_ns > begin) & (seen_ns <= end)
        if asked.sum() > 1 and seen.sum() > 1:
            yield Motion(asked_ns[asked], targets[asked], seen_ns[seen], joints[seen])


def _first(motion: Motion, seconds: float) -> Motion:
    """The first seconds of a motion."""
    end = min(motion.asked_ns[0], motion.seen_ns[0]) + seconds * 1e9
    asked, seen = max(int((motion.asked_ns <= end).sum()), 2), max(int((motion.seen_ns <= end).sum()), 2)
    return Motion(motion.asked_ns[:asked], motion.targets[:asked], motion.seen_ns[:seen], motion.joints[:seen])

"""Sessions to LeRobotDataset v3: what was recorded of a person's episodes, in the schema that `vla-rl collect` writes.

`python -m vla_rl.data.sessions SESSION` makes SESSION/dataset of the complete episodes, or leaves it where it is of
them already. Pictures are taken over as they were recorded, JPEG or PNG, byte for byte: nothing is encoded twice.

A row is a control period in which somebody acted; periods of a hold (paused, stopped, nothing to do) are left out. Its
observation is the newest of each stream that had been captured by then, on the robot's clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

from vla_rl.data.dataset import MARKER
from vla_rl.data.lerobot import export
from vla_rl.observe.encoded import Encoded
from vla_rl.record import folder
from vla_rl.record.candidates import Draw, stack
from vla_rl.record.columns import columns
from vla_rl.record.durable import locked
from vla_rl.record.episode_file import Columns
from vla_rl.record.folder import EpisodeEntry, SessionFolder
from vla_rl.record.frames import file_of
from vla_rl.record.schema import Schema
from vla_rl.record.tape import Drawn, Frame, Joints, Period, Tape
from vla_rl.types import Episode, Image, Mode, Observation, Outcome, RobotSpec, Source, Step, Termination

STALE_NS = 1_000_000_000  # a stream that said nothing for so long has no observation
LATE_NS = 200_000_000  # what was captured before a period may arrive so long after it
APART_NS = 10 * STALE_NS  # a row and what was drawn for it arrive no farther apart
IMAGE = "observation.images."


class NoRowsError(ValueError):
    """An episode, or a session, with nothing to learn from: no step, or a stream that was never there."""


class SessionEpisodes:
    """A session's complete episodes as a source of `data.lerobot.export`.

    Args:
        root: the session's folder.
        said: takes one line for every episode that is left out, and why: at once for what sizes and ends tell, while
            they are read for what is found only then.

    Raises:
        NotASessionError: the folder is no session, or of no robot.

    Attributes:
        root, id: of the session.
        spec: the robot.
    """

    def __init__(self, root: str | Path, said: Callable[[str], None] = lambda _: None) -> None:
        session = SessionFolder(root)
        self.root, self.id = session.root, str(session.about["id"])
        self.spec, self._cameras, self._said = session.robot, session.about["cameras"], said
        self._entries = [entry for entry in session.episodes() if not entry.damage()]
        for line in session.problems():
            said(f"left out: {line}")

    def __len__(self) -> int:
        """Complete episodes, those that will be left out among them."""
        return len(self._entries)

    @cached_property
    def schema(self) -> Schema | None:
        """What the first episode that has rows has; None where none has."""
        for entry in self._entries:
            try:
                found, meta, _ = convert(entry, self.spec, self._cameras)
                return _schema(found, meta)
            except (ValueError, OSError):  # `episodes` says which
                continue
        return None

    def digest(self) -> str:
        """Identity of the content: of every file, by its checksum, and of every mark."""
        state = hashlib.sha256(self.id.encode())
        for entry in self._entries:
            notes = "".join(f" {json.dumps(note)}" for note in entry.meta.get("notes", ()))
            state.update(f"{entry.number} {entry.meta['crc32']} {entry.meta['outcome']}{notes}\n".encode())
        return state.hexdigest()

    def episodes(self, *, decode: bool = True) -> Iterator[tuple[Columns, dict[str, Any], Columns]]:
        """Columns, meta and candidates of each; pictures as `Pixels`, or else as `Files`: none is kept in memory."""
        for entry in self._entries:
            try:
                found, meta, drawn = convert(entry, self.spec, self._cameras)
                if self.schema is not None:
                    self.schema.require(_schema(found, meta))
            except (ValueError, OSError) as error:  # whatever is wrong with it costs this one alone
                self._said(f"episode {entry.number:06d} is left out: {error}")
                continue
            if "unseen_outcome" in meta:
                lost = (
                    f"{meta['unseen_outcome']} was marked {meta['unseen_s']:.0f} s after a camera or the joints stopped"
                )
                self._said(f"episode {entry.number:06d} counts as unknown: {lost}")
            yield (_decoded(found) if decode else found), meta, drawn


def convert(entry: EpisodeEntry, spec: RobotSpec, cameras: Sequence[str]) -> tuple[Columns, dict[str, Any], Columns]:
    """An episode's columns (pictures as `Files`), meta and candidates.

    Raises:
        NoRowsError: there is nothing to learn from in it.
        DamagedEpisodeError: its file is not whole.
    """
    tape = Tape.load(entry.path, spec.names)
    rows = [row for row in map(_Aligned(tape, cameras), tape.periods) if row is not None]
    if not rows:
        raise NoRowsError(f"in {len(tape.periods)} control periods nobody acted with joints and every camera at hand")
    unseen = _unseen(tape, rows, entry)
    outcome = Outcome.UNKNOWN if unseen else Outcome(entry.meta.get("outcome", Outcome.UNKNOWN))
    episode = _episode(tape, rows, outcome, spec)
    found, meta = columns(episode, spec)
    for camera in cameras:
        found[IMAGE + camera] = Files([row.frames[camera] for row in rows])
    draws = _draws(tape, rows, spec)
    story = {**_story(tape, rows, entry), **unseen, "dropped_draws": len(tape.candidates) - len(draws)}
    return found, {**meta, **story}, stack(draws)


class Files(Sequence[bytes]):
    """The pictures of an episode's rows as files, JPEG or PNG, each read when it is asked for.

    Args:
        frames: one a row.
    """

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._frames)

    @overload
    def __getitem__(self, rows: int) -> bytes: ...

    @overload
    def __getitem__(self, rows: slice) -> list[bytes]: ...

    def __getitem__(self, rows: int | slice) -> bytes | list[bytes]:
        """The file of a row, or those of some."""
        found = self._frames[rows]
        return file_of(found.data, found.kind) if isinstance(found, Frame) else [file_of(f.data, f.kind) for f in found]


class Pixels:
    """The same pictures decoded, (T, H, W, 3) uint8, as far as a writer of videos looks: a row at a time."""

    ndim = 4

    def __init__(self, files: Sequence[bytes]) -> None:
        self._files = files

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._files)

    def __getitem__(self, row: int) -> Image:
        """The picture of a row, (H, W, 3) uint8 RGB."""
        return Encoded(self._files[row]).decode()


@dataclass(frozen=True, eq=False)
class _Row:
    """A period in which somebody acted, with what had been seen by then; `time_ns` grows whatever clocks do."""

    period: Period
    joints: Joints
    frames: Mapping[str, Frame]


class _Aligned:
    """Finds for a period the newest of each stream that had been captured by then."""

    def __init__(self, tape: Tape, cameras: Sequence[str]) -> None:
        self._joints = _Stream(tape.joints)
        self._frames = {camera: _Stream(tape.frames.get(camera, [])) for camera in cameras}

    def __call__(self, period: Period) -> _Row | None:
        """None where nobody acted, or a stream has nothing fresh."""
        joints = self._joints.at(period)
        frames = {camera: stream.at(period) for camera, stream in self._frames.items()}
        nobody = period.executed is None or period.source is Source.HOLD
        if nobody or joints is None or None in frames.values():
            return None
        return _Row(period, joints, frames)


class _Stream:
    """Samples in order of arrival; where the robot's clock went back, a new run of growing stamps begins."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self._samples = samples
        self._log = np.array([each.log_ns for each in samples], np.int64)
        self._stamps = np.array([each.stamp_ns for each in samples], np.int64)
        self._run = np.cumsum(np.diff(self._stamps, prepend=self._stamps[:1]) < 0)

    def at(self, period: Period) -> Any:
        """The newest captured at or before a period, of those in different runs the nearest by arrival."""
        first = int(np.searchsorted(self._log, period.log_ns - STALE_NS))
        end = int(np.searchsorted(self._log, period.log_ns + LATE_NS))
        age = period.stamp_ns - self._stamps[first:end]
        fitting = first + np.flatnonzero((age >= 0) & (age <= STALE_NS))
        if not len(fitting):
            return None
        newest = fitting[np.append(np.diff(self._run[fitting]) != 0, True)]
        return self._samples[int(newest[np.argmin(np.abs(self._log[newest] - period.log_ns))])]


def _episode(tape: Tape, rows: Sequence[_Row], outcome: Outcome, spec: RobotSpec) -> Episode:
    chunks = {stamp: i for i, stamp in enumerate(dict.fromkeys(row.period.chunk_stamp_ns for row in rows))}
    instruction = tape.instruction_at(rows[0].period.log_ns)
    times = _times([row.period.stamp_ns for row in rows], round(1e9 / spec.rate))
    steps = []
    for row, stamp in zip(rows, times, strict=True):
        last, p = row is rows[-1], row.period
        assert p.executed is not None
        said = tape.values.get(p.chunk_stamp_ns)
        steps.append(
            Step(
                Observation(row.joints.values, {}, instruction, stamp),
                p.proposed,
                p.executed,
                Source.HUMAN if p.mode is Mode.CORRECTING else p.source,
                p.mode,
                p.chunk_stamp_ns,
                chunks[p.chunk_stamp_ns] if p.chunk_stamp_ns >= 0 else -1,
                p.age_s,
                p.candidate,
                said.mean if said is not None else np.zeros(0),
                bool(p.clamped),
                float(last and outcome is Outcome.SUCCESS),
                last and outcome is not Outcome.UNKNOWN,
                last and outcome is Outcome.UNKNOWN,
                last and outcome is Outcome.SUCCESS,
            )
        )
    return Episode(steps, instruction, outcome, Termination.OPERATOR, spec.rate)


def _unseen(tape: Tape, rows: Sequence[_Row], entry: EpisodeEntry) -> dict[str, Any]:
    """Where somebody went on for long after the last row: the mark speaks of an end that no row has, {} elsewhere."""
    acted = [p.log_ns for p in tape.periods if p.executed is not None and p.source is not Source.HOLD]
    missing, said = max(acted) - rows[-1].period.log_ns, entry.meta.get("outcome", Outcome.UNKNOWN)
    if missing <= STALE_NS or said == Outcome.UNKNOWN:
        return {}
    return {"unseen_outcome": said, "unseen_s": missing * 1e-9}


def _times(stamps: Sequence[int], period_ns: int) -> list[int]:
    """Stamps that grow: where the robot's clock went back, or leapt, a period is what passed."""
    passed = np.diff(np.array(stamps, np.int64))
    passed = np.where((passed <= 0) | (passed > 600 * 10**9), period_ns, passed)
    return [int(t) for t in stamps[0] + np.concatenate([[0], np.cumsum(passed)])]


def _story(tape: Tape, rows: Sequence[_Row], entry: EpisodeEntry) -> dict[str, Any]:
    """What else an episode's meta says."""
    told = {key: entry.meta[key] for key in ("notes", "damage", "human_s", "takeovers") if key in entry.meta}
    others = {text for _, text in tape.instructions} - {tape.instruction_at(rows[0].period.log_ns)}
    return {
        **told,
        "session_episode": entry.number,
        "steps": len(rows),
        "held_steps": sum(p.source is Source.HOLD for p in tape.periods),
        "dropped_steps": sum(p.source is not Source.HOLD for p in tape.periods) - len(rows),
        "weights": tape.about.get("weights", {}),
        **({"other_instructions": sorted(others)} if others else {}),
    }


def _draws(tape: Tape, rows: Sequence[_Row], spec: RobotSpec) -> list[Draw]:
    """All candidates, at the row whose observation they answer; of several at one row the last."""
    chosen, row_of = {chunk.stamp_ns: chunk.candidate for chunk in tape.chosen}, _Rows(tape, rows)
    found: dict[int, Draw] = {}
    for each in tape.candidates:
        row = row_of(each)
        if row is None:
            continue
        index, seen, said = chosen.get(each.stamp_ns, -1), tape.seen.get(each.stamp_ns), tape.values.get(each.stamp_ns)
        found[row] = Draw(
            row,
            spec.to_lerobot(each.chunks).astype(np.float32),
            None if said is None else said.mean[None].astype(np.float32),
            index if 0 <= index < len(each.chunks) else 0,
            0 if seen is None else seen.seed,
        )
    horizons = [draw.chunks.shape[1] for draw in found.values()]
    usual = max(set(horizons), key=horizons.count, default=0)
    return [found[row] for row in sorted(found) if found[row].chunks.shape[1] == usual]


class _Rows:
    """Finds the row whose observation a draw answers, however the robot's clock has stepped: a stamp may come twice."""

    def __init__(self, tape: Tape, rows: Sequence[_Row]) -> None:
        samples: list[Joints | Frame] = [*tape.joints, *chain.from_iterable(tape.frames.values())]
        self._heard = {each.stamp_ns: each.log_ns for each in samples}
        self._stamps = np.array([row.period.stamp_ns for row in rows], np.int64)
        self._log = np.array([row.period.log_ns for row in rows], np.int64)
        back = np.flatnonzero(np.diff(self._stamps) < 0) + 1
        self._runs = list(pairwise([0, *back.tolist(), len(rows)]))

    def __call__(self, drawn: Drawn) -> int | None:
        """The first row at or after its stamp, of those in different runs of growing stamps the nearest by arrival."""
        heard = self._heard.get(drawn.stamp_ns, drawn.log_ns)
        apart = {}
        for first, end in self._runs:
            row = first + int(np.searchsorted(self._stamps[first:end], drawn.stamp_ns))
            if row < end and self._stamps[row] - drawn.stamp_ns <= STALE_NS:
                apart[row] = abs(int(self._log[row]) - heard)
        nearest = min(apart, key=apart.__getitem__, default=None)
        return nearest if nearest is not None and apart[nearest] <= APART_NS else None


def _schema(found: Columns, meta: Mapping[str, Any]) -> Schema:
    """Of columns whose images are files: their sizes are read from the first."""
    sizes = {name: (len(f), *Encoded(f[0]).size, 3) for name, f in found.items() if IMAGE in name}
    shown = {name: np.broadcast_to(np.zeros((), np.uint8), size) for name, size in sizes.items()}
    return Schema.of({**found, **shown}, meta)


def _decoded(found: Columns) -> Columns:
    return {name: Pixels(values) if IMAGE in name else values for name, values in found.items()}


def dataset_of(root: str | Path, said: Callable[[str], None] = lambda _: None) -> Path:
    """SESSION/dataset, made where it is missing or older than the session; waits for another process that makes it.

    Args:
        root: the session's folder.
        said: takes one line for whatever is left out.

    Raises:
        NotASessionError: the folder is no session.
        NoRowsError: no episode of it has anything to learn from; a data set of what was discarded since is removed.
        DiskFullError: no room; the session is untouched.
    """
    made = SessionFolder(root).root / folder.DATASET
    with locked(made.with_name(f"{folder.DATASET}.lock"), "the data set", wait=True):
        episodes = SessionEpisodes(root, said)
        if episodes.schema is None:
            if (made / MARKER).is_file():
                shutil.rmtree(made)
            raise NoRowsError(f"the session {root} has no complete episode with anything to learn from")
        return export(episodes, made, said=said)


def main() -> int:
    """`python -m vla_rl.data.sessions SESSION`: the background process that makes SESSION/dataset."""
    os.nice(19)
    try:
        if not SessionFolder(sys.argv[1]).episodes() and not (Path(sys.argv[1]) / folder.DATASET).exists():
            return 0
        dataset_of(sys.argv[1], lambda line: print(f"sessions: {line}", file=sys.stderr))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"sessions: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

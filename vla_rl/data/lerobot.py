"""Episodes, of a store or a session, to LeRobotDataset v3.

Images are PNG inside the Parquet files by default: a policy then trains on exactly the pixels that it sees live. At
96x96 LeRobot's default video (AV1, yuv420p) leaves 34 dB, and a 6-pixel cube loses its colour to its neighbours; PNG
costs 3 KB an image there and reads three times as fast. For large images `images="video"` writes H.264 with full colour
resolution (yuv444p, crf 8): 46 to 49 dB at a fraction of PNG's size.
"""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

from vla_rl.data.dataset import EPISODES, MARKER, open_dataset
from vla_rl.data.inspect import check_files
from vla_rl.data.sidecars import candidates_writer, is_sidecar
from vla_rl.data.writers import PngWriter, VideoWriter, Writer
from vla_rl.record.durable import DiskFullError, is_full, locked, sync_folder
from vla_rl.record.episode_file import Columns
from vla_rl.record.schema import Schema
from vla_rl.record.store import EpisodeStore

# LeRobot's image writer only prints its errors: with less room than this left, any failure is a full disk's.
_NO_ROOM = 1 << 20  # [bytes]

Progress = Callable[[int, int], None]
Said = Callable[[str], None]


class EpisodeSource(Protocol):
    """Where episodes come from: an `EpisodeStore`, or a session that a person recorded.

    Attributes:
        root, id: which; an export is only ever replaced by a newer one of the same source.
    """

    root: Path
    id: str

    @property
    def schema(self) -> Schema | None:
        """What all episodes have in common; None where there are none."""

    def __len__(self) -> int:
        """Number of episodes."""

    def digest(self) -> str:
        """Identity of the whole content."""

    def episodes(self, *, decode: bool = True) -> Iterator[tuple[Columns, dict[str, Any], Columns]]:
        """Columns, meta and candidates of each; images as (T, H, W, 3) uint8, or else as a sequence of their files."""


class OutputExistsError(ValueError):
    """The output folder holds something that this export did not write."""


def export(
    source: str | Path | EpisodeSource,
    out_root: str | Path,
    *,
    images: Literal["png", "video"] = "png",
    progress: Progress | None = None,
    said: Said = lambda _: None,
) -> Path:
    """Write all episodes of a store as a LeRobotDataset v3; do nothing where that was done already.

    The set is built beside `out_root` and renamed when complete, so that an interrupted export leaves no half of a set.
    `meta/vla_rl.json` says which store, and which state of it, the set was made from; `meta/vla_rl_episodes.jsonl` has
    the episodes' meta (outcome, seed, variant, ...), for which LeRobot has no place; `meta/candidates.parquet` all
    chunks that were drawn, where the store has them.

    Args:
        source: with at least one episode; a path is the folder of an EpisodeStore.
        out_root: folder of the data set; replaced where it holds an older export of the same store.
        images: "png" (the files that the source has, unchanged: a store has PNG, a session JPEG of large pictures), or
            "video".
        progress: called with (episodes done, episodes).
        said: takes one line where sidecars go with the export that is replaced: they speak of other frames.

    Returns:
        `out_root` as a path.

    Raises:
        OutputExistsError: `out_root` holds something else.
        DiskFullError: no room; the store is untouched.
        DamagedEpisodeError: an episode can not be read.
        LockedError: another process exports to the same place.
    """
    store: EpisodeSource = EpisodeStore(source, readonly=True) if isinstance(source, str | Path) else source
    out = Path(out_root)
    if len(store) == 0 or store.schema is None:
        raise ValueError(f"the episode store {store.root} has no finished episode to export")
    marker = {"format": "vla_rl.export.v1", "store": store.id, "digest": store.digest(), "images": images}
    if _exported(out, marker):
        return out
    scratch = out.with_name(out.name + ".exporting")
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with locked(scratch / ".lock", f"the data set {out}"):
            _clear(scratch)
            _build(store, store.schema, scratch / "dataset", marker, progress)
            _tell_dropped(scratch / "dataset", out, said)
            _publish(scratch, out)
            shutil.rmtree(scratch)
    except Exception as error:
        if not is_full(error) and shutil.disk_usage(out.parent).free > _NO_ROOM:
            raise
        _forget(error)
        shutil.rmtree(scratch, ignore_errors=True)
        raise DiskFullError(
            f"no room left to export to {out}: the store {store.root} keeps all {len(store)} episodes; "
            "free some space and run the same command again"
        ) from error
    return out


def _exported(out: Path, marker: dict[str, Any]) -> bool:
    """Whether `out` is this very export already; refuses what is neither that nor an older one of the same store."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    path = out / MARKER
    if not path.is_file():
        raise OutputExistsError(f"{out} exists and holds something else than an export; choose another folder")
    try:
        found = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise OutputExistsError(f"{path} is damaged ({error}): remove {out}, and it is made again") from None
    if found.get("store") != marker["store"]:
        raise OutputExistsError(f"{out} was exported from another episode store; choose another folder")
    return all(found.get(key) == value for key, value in marker.items())


def _clear(scratch: Path) -> None:
    for entry in scratch.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()


def _tell_dropped(fresh: Path, out: Path, said: Said) -> None:
    beside = sorted(path.name for path in (out / "meta").glob("*.parquet") if is_sidecar(path, out))
    if gone := [name for name in beside if not (fresh / "meta" / name).is_file()]:
        said(f"{out} is made anew: {', '.join(gone)} spoke of what it was, and must be made again where it is needed")


def snapshot(root: str | Path, out: str | Path) -> Path:
    """A data set as it is now, in links to its files: the next export, and sidecars of either, leave the other alone.

    Args:
        root: folder of the data set; waits for whoever makes it anew under its lock (see `data.sessions`).
        out: folder of the copy, missing.
    """
    root, lock = Path(root), Path(f"{root}.lock")
    with locked(lock, "the data set", wait=True) if lock.is_file() else nullcontext():
        return Path(shutil.copytree(root, out, copy_function=_link))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _publish(scratch: Path, out: Path) -> None:
    """Swap the finished set in: a kill in between leaves no set, and the next export makes it again."""
    if out.exists():
        out.rename(scratch / "replaced")
    (scratch / "dataset").rename(out)
    sync_folder(out.parent)


def _forget(error: BaseException | None) -> None:
    """Let go of LeRobot's writers, which write once more when they are collected."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _build(store: EpisodeSource, schema: Schema, root: Path, marker: dict[str, Any], progress: Progress | None) -> None:
    """Write the whole set under `root`, and look at it before anybody else does."""
    writer: Writer = (VideoWriter if marker["images"] == "video" else PngWriter)(schema, root)
    metas, frames = [], 0
    try:
        with candidates_writer(root) as beside:
            for index, (columns, meta, drawn) in enumerate(store.episodes(decode=writer.decoded)):
                writer.add(columns, str(meta.get("instruction") or ""))
                beside.add(index, frames, drawn)
                metas.append(meta)
                frames += len(next(iter(columns.values())))
                if progress is not None:
                    progress(index + 1, len(store))
    finally:
        writer.close()
    shutil.rmtree(root / "images", ignore_errors=True)  # where LeRobot's writer keeps frames for a while
    (root / EPISODES).write_text("".join(json.dumps(meta) + "\n" for meta in metas))
    extra = {"action_spec": dict(schema.action_spec), "units": dict(schema.units)}
    (root / MARKER).write_text(json.dumps({**marker, **extra}, indent=1))
    problems = check_files(open_dataset(root))
    if problems:
        raise RuntimeError(f"the exported set is not whole: {problems[0]}")

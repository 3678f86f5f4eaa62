"""ChunkDataset: windows of actions around frames, a whole batch at a time, without a Python loop over its items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl.data.cache import FrameCache
from vla_rl.data.dataset import DatasetError
from vla_rl.data.outcomes import left_alone
from vla_rl.data.weights import following, grasps, shares

Keep = Callable[[Mapping[str, Any]], bool]
LABELS = "labels."  # columns that only a simulation knows


class ChunkDataset:
    """Frames of one or several caches, each with the chunk of actions that follows it.

    ::

        episode     0 . . . . . t . . . . . T-1
        past              o o o                      n_obs_steps frames up to t, the first one repeated before 0
        chunk                   a a a a a a a P P    horizon actions from t on, the last one repeated where padded
        at pace 2               a   a   a   a P P    every second of them: the same movement in half of the time

    Where the arm was left alone for long (see `data.outcomes.left_alone`), what came before ends like an episode.

    Args:
        caches: one cache, or several with the same cameras, observations, actions, names and fps; where one has labels
            (`labels.*`) that another lacks, those of the other are NaN.
        horizon: actions in a chunk, H.
        n_obs_steps: frames an observation is made of, To.
        action_column: "action" (executed), or "policy_action": the clean target where an expert was perturbed, and the
            executed action where no proposal is valid or a human drove.
        cameras: which image columns, all by default.
        keep: predicate on an episode's meta (instruction, task, seed, variant, outcome, ...); the others are left out.
        device: hold all images and columns there and gather there (a GPU with room for them); None leaves them on disk.
        extra: more numeric columns to return, at the frame itself.
        pace: how many recorded periods a period of the chunk covers, for all caches or for each; between two recorded
            actions on a straight line. Demonstrations replayed faster than they were given, as in arXiv:2506.11948.

    Attributes:
        cameras, tasks, fps, names: as in FrameCache.
        episodes: meta of all episodes, those left out included.

    Raises:
        DatasetError: a feature is missing, caches do not fit together, a value is not finite, nothing is kept.
        ValueError: a pace that is not positive, or not one for each cache.
    """

    def __init__(
        self,
        caches: FrameCache | Sequence[FrameCache],
        horizon: int = 16,
        n_obs_steps: int = 1,
        action_column: str = "action",
        *,
        cameras: Sequence[str] | None = None,
        keep: Keep | None = None,
        device: str | torch.device | None = None,
        extra: Sequence[str] = (),
        pace: float | Sequence[float] = 1.0,
    ) -> None:
        self._caches = [caches] if isinstance(caches, FrameCache) else list(caches)
        first = _require_same(self._caches)
        self.horizon, self.n_obs_steps, self.action_column = horizon, n_obs_steps, action_column
        self.fps, self.names = first.fps, first.names
        self.robot_type, self.action_spec = first.robot_type, first.action_spec
        self.cameras = list(first.images) if cameras is None else list(cameras)
        _require(first, [*self.cameras, action_column, "action", *extra])
        self.observations = sorted(c for c in first.columns if c.startswith("observation."))
        self._extra = [*sorted({name for c in self._caches for name in c.columns if name.startswith(LABELS)}), *extra]
        self.episodes = tuple(episode for cache in self._caches for episode in cache.episodes)
        self._index()
        self._pace = _paces(pace, [len(cache) for cache in self._caches])
        self.rows = _kept_rows(self._starts, self.episodes, keep)
        self._load(torch.device(device) if device is not None else None)

    def __len__(self) -> int:
        """Number of frames that a chunk may start at."""
        return len(self.rows)

    @property
    def state_dim(self) -> int:
        """Numbers in `observation.state`, 0 where there is none."""
        return int(self.column("observation.state").shape[1]) if "observation.state" in self.observations else 0

    @property
    def action_dim(self) -> int:
        """Numbers in an action, A."""
        return int(self._actions.shape[1])

    @property
    def image_shapes(self) -> dict[str, tuple[int, int]]:
        """Camera to (height, width) [pixels]."""
        shapes = {camera: self._caches[0].images[camera].shape for camera in self.cameras}
        return {camera: (shape[1], shape[2]) for camera, shape in shapes.items()}

    def column(self, name: str) -> NDArray[Any]:
        """A numeric column over the kept frames, (len, ...); `action` is the chosen action column."""
        if name == "action":
            return self._actions[self.rows]
        _require(self._caches[0], [name])
        return self._numbers(name)[self.rows]

    def episode_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Position in `episodes` of each index, (B,)."""
        return self._episode[self.rows[indices]]

    def describe(self, index: int) -> str:
        """Where an index lies, in words: for error messages."""
        row = int(self.rows[index])
        return _where(self._caches, self._starts, row)

    def weights(
        self,
        decision_s: float = 0.5,
        decision_fraction: float | None = 0.5,
        balance: str | None = None,
        after_grasp_s: float = 0.5,
    ) -> NDArray[np.float64]:
        """Sampling weights, (len,), summing to one; see `vla_rl.data.weights` for the reason.

        Args:
            decision_s: how long the choice of an object takes, from an episode's start [s].
            decision_fraction: share of the decision frames, or None for uniform weights.
            balance: a key of the episodes' meta ("task", for one) whose values then get equal shares.
            after_grasp_s: how long the choice of a goal takes, from the moment when the gripper's command has closed
                [s]; for episodes whose `labels.points` know a goal apart from the object, and where there is a gripper.
        """
        decisive = self._offset < round(decision_s * self.fps)
        decisive |= following(self._goal_choices(), self._episode, round(after_grasp_s * self.fps))
        values = [str(episode.get(balance, "")) if balance else "" for episode in self.episodes]
        groups = np.unique(values, return_inverse=True)[1][self._episode[self.rows]]
        return shares(decisive[self.rows], decision_fraction, groups)

    def _goal_choices(self) -> NDArray[np.int64]:
        """Rows where something has just been grasped that has to go somewhere."""
        names = self.names.get("action") or []
        grippers = [i for i, name in enumerate(names) if name.endswith("gripper.pos")]
        if not grippers or "labels.points" not in self._columns:
            return np.zeros(0, np.int64)
        points = self._columns["labels.points"].cpu().numpy()
        rows = np.concatenate([grasps(self._actions[:, i], self._episode) for i in grippers])
        return rows[np.abs(points[rows, :3] - points[rows, 3:]).max(axis=1, initial=0.0) > 1e-6]

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """Items at `indices` (B,), as one batch.

        Returns:
            `observation.<name>` (B, S) float32, or (B, To, S) with several past frames; images (B, 3, H, W) or
            (B, To, 3, H, W) uint8, channels last in memory; `action` (B, H, A) float32, `action_is_pad` (B, H) bool;
            `labels.*` (B, ...) and extra columns; `task` list of str; `weight` (B,) float32.
        """
        rows = self.rows[np.asarray(indices)]
        start, last = self._bounds[:, rows]
        ahead = self.ahead(indices)
        past = np.maximum(rows[:, None] + np.arange(1 - self.n_obs_steps, 1), start[:, None])
        if self.n_obs_steps == 1:
            past = rows
        batch: dict[str, Any] = {name: self._gather(self._columns[name], past) for name in self.observations}
        for camera in self.cameras:
            batch[camera] = self._gather_images(camera, past)
        batch["action"] = self._between(self._columns["action"], np.minimum(ahead, last[:, None]))
        batch["action_is_pad"] = self._tensor(ahead > last[:, None])
        batch.update({name: self._gather(self._columns[name], rows) for name in self._extra})
        batch["task"] = self._task_texts[self._task[rows]].tolist()
        batch["weight"] = torch.ones(len(rows), device=self._device)
        return batch

    def ahead(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Where the steps of chunks lie, (B, H), in rows; past an episode's last row, or a pause, they are padding."""
        rows = self.rows[np.asarray(indices)]
        return np.asarray(rows[:, None] + self._pace[rows][:, None] * np.arange(self.horizon), np.float64)

    def _index(self) -> None:
        """Row tables: episode starts (E + 1,), and for each row its episode, its place in it and its task."""
        self._offsets = np.cumsum([0, *(len(c) for c in self._caches)])
        pieces = [c.starts[:-1] + o for c, o in zip(self._caches, self._offsets, strict=False)]
        self._starts: NDArray[np.int64] = np.concatenate([*pieces, self._offsets[-1:]])
        lengths = np.diff(self._starts)
        self._episode = np.repeat(np.arange(len(lengths)), lengths)
        self._offset = np.arange(self._starts[-1]) - np.repeat(self._starts[:-1], lengths)
        self._bounds = self._unbroken()
        self.tasks = tuple(dict.fromkeys(task for cache in self._caches for task in cache.tasks))
        self._task_texts = np.array([*self.tasks, ""], dtype=object)
        position = {task: i for i, task in enumerate(self.tasks)}
        tables = [np.array([*(position[t] for t in cache.tasks), len(self.tasks)]) for cache in self._caches]
        found = [np.asarray(c.columns["task_index"]) for c in self._caches]
        known = [np.where((f >= 0) & (f < len(t) - 1), f, len(t) - 1) for f, t in zip(found, tables, strict=True)]
        self._task = np.concatenate([t[k] for t, k in zip(tables, known, strict=True)])

    def _unbroken(self) -> NDArray[np.int64]:
        """First and last row of what followed without a pause, in its episode, around each row, (2, N)."""
        paused = np.flatnonzero(np.concatenate([left_alone(cache) for cache in self._caches])) + 1
        borders = np.union1d(self._starts, paused[paused < self._starts[-1]])
        lengths = np.diff(borders)
        return np.stack([np.repeat(borders[:-1], lengths), np.repeat(borders[1:] - 1, lengths)])

    def _load(self, device: torch.device | None) -> None:
        """Numbers into memory, or everything onto `device`."""
        self._device = device
        self._actions = self._action_targets()
        columns = {name: self._numbers(name) for name in [*self.observations, *self._extra]}
        columns["action"] = self._actions
        for name, values in columns.items():
            _require_finite(name, values, self._caches, self._starts)
        self._columns = {name: torch.from_numpy(values).to(device or "cpu") for name, values in columns.items()}
        self._maps = {camera: [np.asarray(c.images[camera]) for c in self._caches] for camera in self.cameras}
        self._resident = {c: _to_device(maps, device) for c, maps in self._maps.items()} if device is not None else {}

    def _numbers(self, name: str) -> NDArray[Any]:
        """A column of all data sets; NaN in those that lack a label."""
        shape = next(cache.columns[name].shape[1:] for cache in self._caches if name in cache.columns)
        return np.concatenate([
            np.asarray(c.columns[name]) if name in c.columns else np.full((len(c), *shape), np.nan, np.float32)
            for c in self._caches
        ])  # fmt: skip

    def _action_targets(self) -> NDArray[np.float32]:
        if self.action_column == "action":
            return self._numbers("action")
        return np.concatenate([_proposed(cache, self.action_column) for cache in self._caches])

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor if self._device is None else tensor.to(self._device, non_blocking=True)

    def _between(self, column: Tensor, places: NDArray[np.float64]) -> Tensor:
        """Values at `places` between rows, on a straight line; at a row exactly its own."""
        rows = places.astype(np.int64)
        share, values = (places - rows).astype(np.float32), self._gather(column, rows)
        if not share.any():  # asked of numpy: a GPU would have to be waited for
            return values
        after = self._gather(column, np.ceil(places).astype(np.int64))
        return torch.lerp(values, after, self._tensor(share)[..., None])

    def _gather(self, column: Tensor, rows: NDArray[np.int64]) -> Tensor:
        return column[self._tensor(rows)]

    def _gather_images(self, camera: str, rows: NDArray[np.int64]) -> Tensor:
        if camera in self._resident:
            images = self._resident[camera][self._tensor(rows)]
        else:
            images = torch.from_numpy(self._read(self._maps[camera], rows))
        return images.movedim(-1, -3)

    def _read(self, maps: list[NDArray[np.uint8]], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Rows of the concatenation of `maps`, one gather a map."""
        if len(maps) == 1:
            return maps[0][rows]
        out = np.empty((*rows.shape, *maps[0].shape[1:]), np.uint8)
        owner = np.searchsorted(self._offsets, rows, side="right") - 1
        for number in np.unique(owner):
            mine = owner == number
            out[mine] = maps[number][rows[mine] - self._offsets[number]]
        return out


def _paces(pace: float | Sequence[float], lengths: Sequence[int]) -> NDArray[np.float64]:
    """The pace of every row."""
    each = [float(pace)] * len(lengths) if isinstance(pace, (int, float)) else [float(value) for value in pace]
    if len(each) != len(lengths) or not all(0.0 < value < float("inf") for value in each):
        raise ValueError(f"pace must be positive, one for all data sets or one for each of {len(lengths)}: got {pace}")
    return np.repeat(np.asarray(each, np.float64), lengths)


def _proposed(cache: FrameCache, column: str) -> NDArray[np.float32]:
    """What was proposed at each frame, (N, A); what was executed where no proposal is valid, or a human drove."""

    def flags(name: str, default: bool) -> NDArray[np.bool_]:
        found = cache.columns.get(name)
        return np.full(len(cache), default) if found is None else np.asarray(found).reshape(len(cache)).astype(bool)

    trusted = flags(f"{column}_valid", True) & ~flags("intervention", False)
    return np.where(trusted[:, None], cache.columns[column], cache.columns["action"])


def _require(cache: FrameCache, names: Sequence[str]) -> None:
    have = {*cache.columns, *cache.images}
    missing = [name for name in dict.fromkeys(names) if name not in have]
    if missing:
        raise DatasetError(f"the data set lacks {', '.join(missing)}; it has: {', '.join(sorted(have))}")


def _require_same(caches: Sequence[FrameCache]) -> FrameCache:
    """The first cache, after holding the others against it."""
    if not caches:
        raise DatasetError("no data set was given")
    first = caches[0]
    for other in caches[1:]:
        for what, mine, theirs in _compared(first, other):
            if mine != theirs:
                sides = f"{mine or 'none'} in {first.source}, {theirs or 'none'} in {other.source}"
                raise DatasetError(f"data sets differ in {what}: {sides}")
    return first


def _compared(first: FrameCache, other: FrameCache) -> Iterator[tuple[str, Any, Any]]:
    """What two caches must agree on to be trained on together: its name, and the value in each."""
    yield "fps", first.fps, other.fps
    for name in sorted({*first.images, *other.images, *first.columns, *other.columns}):
        labelled = name.startswith(LABELS) and {name} <= first.columns.keys() & other.columns.keys()
        if name == "action" or name.startswith("observation.") or labelled:
            yield f"'{name}'", _shape(first, name), _shape(other, name)
            yield f"the names of '{name}'", first.names.get(name), other.names.get(name)


def _shape(cache: FrameCache, name: str) -> list[int] | None:
    found = cache.images.get(name, cache.columns.get(name))
    return None if found is None else list(found.shape[1:])


def _kept_rows(
    starts: NDArray[np.int64], episodes: Sequence[Mapping[str, Any]], keep: Keep | None
) -> NDArray[np.int64]:
    if keep is None:
        return np.arange(starts[-1])
    wanted = np.array([bool(keep(episode)) for episode in episodes])
    if not wanted.any():
        raise DatasetError(f"the filter keeps none of {len(episodes)} episodes")
    return np.flatnonzero(np.repeat(wanted, np.diff(starts)))


def _require_finite(name: str, values: NDArray[Any], caches: Sequence[FrameCache], starts: NDArray[np.int64]) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    given = np.repeat([not name.startswith(LABELS) or name in c.columns for c in caches], [len(c) for c in caches])
    wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1) & given)
    if len(wrong):
        row = int(wrong[0])
        raise DatasetError(f"column '{name}' has a value that is not finite in {_where(caches, starts, row)}")


def _where(caches: Sequence[FrameCache], starts: NDArray[np.int64], row: int) -> str:
    episode = int(np.searchsorted(starts, row, side="right") - 1)
    sets = np.cumsum([len(cache.episodes) for cache in caches])
    owner = int(np.searchsorted(sets, episode, side="right"))
    number = episode - (int(sets[owner - 1]) if owner else 0)
    return f"episode {number}, frame {row - int(starts[episode])} of {caches[owner].source}"


def _to_device(maps: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    return torch.cat([torch.from_numpy(np.array(images)).to(device) for images in maps])

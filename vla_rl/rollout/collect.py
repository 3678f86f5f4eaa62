"""collect: seeded episodes into a crash-safe store, then into a LeRobotDataset v3.

::

    DIR/collect.json    what was asked, so that the same command goes on where an interrupted one stopped
    DIR/episodes/       the store: finished episodes in the order of their numbers, and all chunks drawn in them
    DIR/dataset/        LeRobotDataset v3, made from the store

Episode n is a pure function of the request: its scene is `seed + n // variants_per_scene`, and the episodes of one
scene name different objects in it. The store therefore always holds the beginning of one fixed sequence, and going on
equals never having stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl.record.durable import whole_file
from vla_rl.record.store import EpisodeStore
from vla_rl.rollout.play import Job, Player, Rollout
from vla_rl.rollout.workers import play

MANIFEST, STORE, DATASET = "collect.json", "episodes", "dataset"
TRIES = 20  # with `only_success`: give up after this many attempts an episode


@dataclass(frozen=True)
class CollectConfig:
    """What to collect.

    Attributes:
        tasks: episodes take them in turn.
        episodes: how many to store.
        seed: scene of the first episode.
        variants_per_scene: how many episodes share a scene, each naming another of its objects.
        only_success: drop failures, and play until `episodes` successes are stored.
    """

    tasks: tuple[str, ...]
    episodes: int
    seed: int = 0
    variants_per_scene: int = 2
    only_success: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for what can not be collected."""
        if not self.tasks or self.episodes < 1 or self.variants_per_scene < 1 or self.seed < 0:
            raise ValueError(
                "collect needs a task, --episodes and --variants-per-scene of at least 1 and --seed of at least 0"
            )


@dataclass(frozen=True)
class Progress:
    """How far a collection is: stored episodes, successes among them, attempts made, episodes wanted."""

    stored: int
    successes: int
    attempts: int
    wanted: int


def jobs(config: CollectConfig, first: int = 0) -> Iterator[Job]:
    """The fixed sequence of episodes, from number `first` on. Tasks take turns, scene by scene."""
    last = config.episodes * (TRIES if config.only_success else 1)
    for number in range(first, last):
        scene, choice = divmod(number, config.variants_per_scene)
        task = config.tasks[scene % len(config.tasks)]
        yield Job(number, task, config.seed + scene, choice, keep_columns=True)


def collect(
    config: CollectConfig,
    request: Mapping[str, Any],
    out: str | Path,
    make_player: Callable[[], Player],
    workers: int = 0,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Collect episodes into `out`/episodes; goes on where an earlier run with the same request stopped.

    Args:
        config: what to collect.
        request: everything else that decides what an episode looks like (policy, environment, noise), JSON-ready.
        out: the collection's folder.
        make_player: picklable factory of the player that each worker uses.
        workers: processes; 0 plays in this one.
        on_progress: told after every stored episode.

    Returns:
        Counts: episodes, successes, attempts, frames, success_rate; with an operator takeovers and human_share.

    Raises:
        ValueError: `out` holds something else, or a collection made by another request.
        WorkerError: a worker failed; finished episodes are kept.
        DiskFullError: no room; finished episodes are kept.
    """
    claim(Path(out), {**asdict(config), **request})
    with EpisodeStore(Path(out) / STORE) as store:
        metas = [store.meta(i) for i in range(len(store))]
        attempts = metas[-1]["index"] + 1 if metas else 0
        successes = sum(m["outcome"] == "success" for m in metas)
        frames = sum(m["steps"] for m in metas)
        on_progress(Progress(len(store), successes, attempts, config.episodes))
        left = jobs(config, attempts) if len(store) < config.episodes else iter(())
        for rollout in play(left, make_player, workers):
            attempts = rollout.job.index + 1
            if _keep(rollout, config):
                meta = {**rollout.meta, "index": rollout.job.index, **_origin(request)}
                meta |= _corrections(rollout, request)
                store.append(rollout.columns, meta, rollout.candidates)
                successes += rollout.meta["outcome"] == "success"
                frames += rollout.meta["steps"]
            on_progress(Progress(len(store), successes, attempts, config.episodes))
            if len(store) >= config.episodes:
                break
        stored = len(store)
        corrected = _corrected(store.meta(i) for i in range(stored)) if "operator" in request else {}
    if stored < config.episodes:
        raise ValueError(
            f"only {stored} of {config.episodes} episodes succeeded in {attempts} attempts; they are kept in {out}. "
            "Use a better --policy or leave out --only-success"
        )
    return {
        "episodes": stored,
        "successes": successes,
        "success_rate": successes / stored,
        "attempts": attempts,
        "frames": frames,
        **corrected,
    }


def claim(out: Path, request: Mapping[str, Any]) -> None:
    """Make `out` this collection's folder, or find that it is.

    Raises:
        ValueError: it holds something else, or a collection with another request (`episodes` may grow).
    """
    manifest = out / MANIFEST
    wanted = json.loads(json.dumps(request))
    if not manifest.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"--out {out} exists and holds something else than a collection; choose another folder")
        out.mkdir(parents=True, exist_ok=True)
    else:
        try:
            before = json.loads(manifest.read_text())
            free = {"episodes"} | ({"policy"} if _same_weights(before, wanted) else set())
            different = [k for k in sorted({*before, *wanted} - free) if before.get(k) != wanted.get(k)]
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{manifest} is damaged: {error}; choose another --out") from error
        if different:
            was = ", ".join(f"{k} was {before.get(k)!r}, now {wanted.get(k)!r}" for k in different)
            raise ValueError(f"--out {out} holds a collection made otherwise: {was}; choose another folder")
        if before["episodes"] >= wanted["episodes"]:
            return
    with whole_file(manifest) as file:
        file.write(json.dumps(wanted, indent=1).encode())


def _same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two requests are of one checkpoint, wherever it lies by now."""
    return bool(one.get("policy_weights")) and one["policy_weights"] == other.get("policy_weights")


def _keep(rollout: Rollout, config: CollectConfig) -> bool:
    if not rollout.columns:
        return False  # not one action could be executed
    return rollout.meta["outcome"] == "success" or not config.only_success


def _origin(request: Mapping[str, Any]) -> dict[str, Any]:
    return {key: request[key] for key in ("policy", "policy_weights", "env", "operator") if key in request}


def _corrections(rollout: Rollout, request: Mapping[str, Any]) -> dict[str, int]:
    """How often an operator took over in an episode, and for how many steps; empty where there was none."""
    if "operator" not in request:
        return {}
    drove = rollout.columns["intervention"].astype(int)
    return {"takeovers": int((np.diff(drove, prepend=0) > 0).sum()), "human_steps": int(drove.sum())}


def _corrected(metas: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The same over all episodes, the steps as a share."""
    found = [(meta["takeovers"], meta["human_steps"], meta["steps"]) for meta in metas]
    takeovers, human, steps = np.sum(found, axis=0).tolist() if found else (0, 0, 1)
    return {"takeovers": takeovers, "human_share": human / steps}

"""eval: seeded episodes over tasks, and what they say: success, language, cycle time, pairs.

::

    DIR/eval.json         the result
    DIR/episodes.jsonl    what was asked, then one line an episode as it finishes: the same command goes on from here
    DIR/videos/           the first episodes of every task
    DIR/report.html

Scene seeds start at `SEED_BASE`, collection's at 0: no training scene is ever a test scene. Every policy that is asked
the same plays the same episodes, so that results pair up.
"""

from __future__ import annotations

import json
import statistics as stats
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from vla_rl.data.combinations import Combination, spelled
from vla_rl.record.durable import whole_file
from vla_rl.rollout import film
from vla_rl.rollout.play import Job, Player, Rollout
from vla_rl.rollout.regret import audit
from vla_rl.rollout.statistics import paired, wilson
from vla_rl.rollout.workers import play
from vla_rl.rollout.world import World

SEED_BASE = 1_000_000
SCENES_PER_MATCH = 50  # with `only`: give up after so many scenes for each that is wanted
LOG, RESULT, VIDEOS, REPORT = "episodes.jsonl", "eval.json", "videos", "report.html"
_KEPT: tuple[str, ...] = (
    "task",
    "seed",
    "choice",
    "variant",
    "instruction",
    "target",
    "touched",
    "outcome",
    "termination",
)
_KEPT += ("steps", "return", "cycle_time_s", "invalid", "actions")

Record = dict[str, Any]


@dataclass(frozen=True)
class EvalConfig:
    """What to play.

    Attributes:
        tasks: every one gets `episodes` scenes.
        episodes: scenes a task.
        seed_base: the first scene's seed; all tasks use the same ones.
        pairs: play every scene twice, naming another object the second time (counterfactual pairs).
        films: how many episodes a task are filmed.
        only: combinations of task and named object (`push:yellow`, see `data.combinations`); of each scene the first
            choice that names one is played, scenes without any are passed over.
    """

    tasks: tuple[str, ...]
    episodes: int = 50
    seed_base: int = SEED_BASE
    pairs: bool = False
    films: int = 6
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for what can not be played."""
        if self.only and self.pairs:
            raise ValueError("--pairs names two objects of every scene, --only keeps one kind: leave out either")
        if not self.tasks or self.episodes < 1 or self.seed_base < 0:
            raise ValueError("eval needs a task, --episodes of at least 1 and --seed-base of at least 0")


def jobs(config: EvalConfig, make_world: Callable[[str], World] | None = None) -> list[Job]:
    """Every episode, task by task; `make_world` is needed for `only`, to see what a scene's choices name."""
    scenes = range(config.seed_base, config.seed_base + config.episodes)
    plays: list[tuple[str, int, int, int]] = []
    for task in config.tasks:
        if make_world is not None and config.only:
            played = _naming(make_world(task), config)
        else:
            played = [(seed, choice) for seed in scenes for choice in ((0, 1) if config.pairs else (0,))]
        plays += [(task, place, seed, choice) for place, (seed, choice) in enumerate(played)]
    films = config.films * (2 if config.pairs else 1)
    return [Job(n, task, seed, choice, film=i < films) for n, (task, i, seed, choice) in enumerate(plays)]


def _naming(world: World, config: EvalConfig) -> list[tuple[int, int]]:
    """The first scenes in which some choice names what `config.only` asks for: their (seed, choice).

    Raises:
        ValueError: too many scenes without one; the message lists what they name.
    """
    rules = [Combination.parse(text) for text in config.only]
    found: list[tuple[int, int]] = []
    seen: list[dict[str, Any]] = []
    for seed in range(config.seed_base, config.seed_base + config.episodes * SCENES_PER_MATCH + SCENES_PER_MATCH):
        if len(found) == config.episodes:
            break
        named = [{"task": world.name, "target": world.reset(seed, c).info.get("target")} for c in range(world.variants)]
        found += [(seed, c) for c, name in enumerate(named) if any(rule.matches(name) for rule in rules)][:1]
        seen += named
    world.close()
    if len(found) < config.episodes:
        raise ValueError(f"--only {' '.join(config.only)}: not enough scenes name that; there are: {spelled(seen)}")
    return found


def evaluate(
    config: EvalConfig,
    request: Mapping[str, Any],
    make_player: Callable[[], Player],
    workers: int = 0,
    out: str | Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, successes: None,
    make_world: Callable[[str], World] | None = None,
) -> dict[str, Any]:
    """Play every episode and sum up.

    Args:
        config: what to play.
        request: everything else that decides an episode (policy, environment, plan), JSON-ready; part of the result.
        make_player: picklable factory of the player that each worker uses.
        workers: processes; 0 plays in this one. The result does not depend on it.
        out: folder for log, videos and result; episodes that its log has already are not played again.
        on_progress: told how many episodes are done, and how many of them succeeded.
        make_world: as in `jobs`.

    Returns:
        The result as DESIGN section 7 has it (see `summarise`).

    Raises:
        ValueError: `out` holds something else, or an evaluation made by another request.
        WorkerError: a worker failed; finished episodes stay in the log.
    """
    log = _Log(Path(out), {**asdict(config), **request}) if out is not None else None
    try:
        records = list(log.done) if log else []
        left = [job for job in jobs(config, make_world) if job.index >= len(records)]
        on_progress(len(records), sum(map(succeeded, records)))
        for rollout in play(left, make_player, workers):
            if log:
                log.add(rollout)
            records.append(record(rollout))
            on_progress(len(records), sum(map(succeeded, records)))
    finally:
        if log:
            log.close()
    return {**summarise(records), **request}


def record(rollout: Rollout) -> Record:
    """The JSON line of one episode; `actions` digests all executed actions: equal where two runs were, bit for bit."""
    meta = {key: rollout.meta[key] for key in _KEPT}
    more = {key: rollout.meta[key] for key in ("choices", "notes") if rollout.meta.get(key)}
    return {**meta, **more, "success": meta["outcome"] == "success"}


def succeeded(record: Record) -> bool:
    """Whether an episode's record is a success."""
    return bool(record["success"])


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """All figures of some episodes, and of every task among them when there are several."""
    tasks = list(dict.fromkeys(r["task"] for r in records))
    summary = {"task": ",".join(tasks), **_figures(records)}
    if len(tasks) > 1:
        summary["tasks"] = {task: _figures([r for r in records if r["task"] == task]) for task in tasks}
        summary["mean_task_success_rate"] = stats.mean(t["success_rate"] for t in summary["tasks"].values())
    return {**summary, "seeds": sorted({r["seed"] for r in records}), "per_episode": list(records)}


def _figures(records: Sequence[Record]) -> dict[str, Any]:
    successes = sum(map(succeeded, records))
    times = [r["cycle_time_s"] for r in records if r["success"]]
    return {
        "episodes": len(records),
        "successes": successes,
        "success_rate": successes / len(records),
        "ci95": list(wilson(successes, len(records))),
        "cycle_time_s": stats.mean(times) if times else None,
        "cycle_time_p50_s": stats.median(times) if times else None,
        "invalid": sum(bool(r["invalid"]) for r in records),
        "language": language(records),
        "pairs": counterfactual(records),
        "steering": steering(records),
        "audit": audit(records),
    }


def steering(records: Sequence[Record]) -> dict[str, Any] | None:
    """How often another candidate than the first was taken, how often the critic was not followed, and what it said.

    None where there was nothing to choose. Values that rise while success falls show a critic that is being exploited.
    """
    chosen = [r["choices"] for r in records if r.get("choices")]
    made = sum(choices["made"] for choices in chosen)
    if not made:
        return None
    abstained: Counter[str] = Counter()
    for choices in chosen:
        abstained.update(choices["abstained"])
    values = [choices["value"] for choices in chosen if choices["value"] is not None]
    return {
        "decisions": made,
        "steered": sum(choices["steered"] for choices in chosen) / made,
        "abstained": {why: count / made for why, count in abstained.items()},
        "value": stats.mean(values) if values else None,
    }


def language(records: Sequence[Record]) -> dict[str, Any] | None:
    """How often the first thing touched was the named one; no touch counts as wrong. None where nothing is named."""
    named = [r for r in records if r["target"]]
    if not named:
        return None
    right = sum(r["touched"] == r["target"] for r in named)
    return {
        "episodes": len(named),
        "right": right,
        "accuracy": right / len(named),
        "ci95": list(wilson(right, len(named))),
        "untouched": sum(not r["touched"] for r in named),
    }


def counterfactual(records: Sequence[Record]) -> dict[str, Any] | None:
    """How often both episodes of a scene went to the object that each named. None where no scene was played twice."""
    scenes: dict[tuple[str, int], list[Record]] = {}
    for r in records:
        scenes.setdefault((r["task"], r["seed"]), []).append(r)
    pairs = [rs for rs in scenes.values() if len(rs) == 2 and rs[0]["target"] != rs[1]["target"]]
    if not pairs:
        return None
    right = sum(all(r["touched"] == r["target"] for r in rs) for rs in pairs)
    solved = sum(all(map(succeeded, rs)) for rs in pairs)
    return {
        "pairs": len(pairs),
        "right": right,
        "accuracy": right / len(pairs),
        "ci95": list(wilson(right, len(pairs))),
        "both_succeed": solved,
    }


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two results on the episodes that both have: McNemar's test and a bootstrapped difference, first minus second.

    Raises:
        ValueError: they share no episode.
    """
    other = {_identity(r): succeeded(r) for r in second["per_episode"]}
    shared = [(succeeded(r), other[_identity(r)]) for r in first["per_episode"] if _identity(r) in other]
    if not shared:
        raise ValueError(
            "the two results share no episode: evaluate both with the same --task, --episodes and --seed-base"
        )
    return {"other": second.get("policy", "?"), **paired([a for a, _ in shared], [b for _, b in shared]).to_dict()}


def _identity(record: Record) -> tuple[Any, ...]:
    return record["task"], record["seed"], record["choice"]


class _Log:
    """Finished episodes on disk, one JSON line each behind a header that says what was asked."""

    def __init__(self, out: Path, request: Mapping[str, Any]) -> None:
        self._out, self._path = out, out / LOG
        wanted = json.loads(json.dumps(request))
        if not self._path.is_file():
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise ValueError(
                    f"--out {out} exists and holds something else than an evaluation; choose another folder"
                )
            out.mkdir(parents=True, exist_ok=True)
            self._write([wanted])
        lines = list(_whole_lines(self._path))
        if not lines or lines[0] != wanted:
            raise ValueError(
                f"--out {out} holds an evaluation made otherwise: {_difference(lines, wanted)}; choose another folder"
            )
        self.done: list[Record] = lines[1:]
        self._write(lines)
        self._file: TextIO = self._path.open("a")

    def _write(self, lines: Sequence[Any]) -> None:
        with whole_file(self._path) as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())

    def add(self, rollout: Rollout) -> None:
        """Keep one episode, its film first: a line in the log means that all of it is there."""
        if rollout.film is not None:
            film.write(self._out / VIDEOS / film_name(record(rollout)), rollout.film, rollout.meta["fps"])
        self._file.write(json.dumps(record(rollout)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def film_name(record: Record) -> str:
    """File name of an episode's film."""
    return f"{record['task'].replace('/', '_')}-{record['seed']}-{record['choice']}.mp4"


def _whole_lines(path: Path) -> Iterator[Any]:
    """Lines up to the first that a kill cut short."""
    for line in path.read_text(errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _difference(lines: Sequence[Any], wanted: Mapping[str, Any]) -> str:
    before = lines[0] if lines and isinstance(lines[0], dict) else {}
    keys = [k for k in sorted({*before, *wanted}) if before.get(k) != wanted.get(k)]
    return ", ".join(f"{k} was {before.get(k)!r}, now {wanted.get(k)!r}" for k in keys)

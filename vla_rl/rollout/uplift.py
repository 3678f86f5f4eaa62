"""Uplift: what steering gains, arm by arm, on the same episodes: the arms of the benchmark and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.rollout.setup import read_setup
from vla_rl.rollout.statistics import mean_of_tasks

CURVE = (1, 2, 4, 8, 16, 32)
LEVELS = ("positions", "looks")  # of randomisation, unseen in training

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to act.

    Attributes:
        policy: checkpoint, by name or folder.
        candidates: K.
        critic: by name or folder, "" for none.
        options: further arguments of `build.plan`: selector, temperature, k, steps_per_chunk, draws, ....
        level: of randomisation.
        share: of the episodes that are played.
        audit: arguments of `AuditConfig`, empty for none.
    """

    policy: str
    candidates: int = 1
    critic: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    level: str = "train"
    share: float = 1.0
    audit: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True)
class Setup:
    """The policies and critics under test, and the rule, frozen before any test episode is played.

    Attributes:
        policy: the deliberately weak one.
        critic: on its features.
        candidates: N.
        rule: `selector` and its options, chosen on validation seeds.
        filtered_bc: the policy retrained on its demonstrations and the successes among the critic's rollouts, or "".
        distilled: the policy that learned from the critic.
        third_party: a LeRobot policy, and the critic with an encoder of its own that steers it by `third_party_rule`.
        third_party_critic: see there.
        third_party_rule: `selector` ..., `steps_per_chunk`, `draws`.
    """

    policy: str
    critic: str
    rule: Mapping[str, Any]
    candidates: int = 8
    filtered_bc: str = ""
    distilled: str = ""
    third_party: str = ""
    third_party_critic: str = ""
    third_party_rule: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Setup:
        """Read a setup from JSON.

        Raises:
            ValueError: it is no such file; names what is missing or unknown.
        """
        return read_setup(cls, path, "an uplift")

    def arms(self) -> dict[str, Arm]:
        """All arms by name, those first that matter most; a name without a policy is left out."""
        n, blind = self.candidates, {k: v for k, v in self.rule.items() if k == "steps_per_chunk"}
        steered = Arm(self.policy, n, self.critic, self.rule)
        arms = {"first": Arm(self.policy, options=blind), "steered": steered}
        for rule in ("random", "medoid", "mean"):
            arms[rule] = Arm(self.policy, n, options={**blind, "selector": rule})
        arms |= {name: Arm(getattr(self, name)) for name in ("distilled", "filtered_bc") if getattr(self, name)}
        if self.third_party:
            plain = {k: v for k, v in self.third_party_rule.items() if k == "steps_per_chunk"}
            arms["third_party"] = Arm(self.third_party, options=plain)
            arms["third_party_steered"] = Arm(self.third_party, n, self.third_party_critic, self.third_party_rule)
        for level in LEVELS:
            arms[f"first_{level}"] = Arm(self.policy, options=blind, level=level, share=0.25)
            arms[f"steered_{level}"] = Arm(self.policy, n, self.critic, self.rule, level=level, share=0.25)
        arms["audit"] = Arm(self.policy, n, self.critic, self.rule, share=0.05, audit={"stride": 2})
        oracle = {"stride": 1, "follow": "oracle"}
        arms["oracle"] = Arm(self.policy, n, self.critic, self.rule, share=0.05, audit=oracle)
        for k in CURVE:
            if k not in (1, n):
                arms[f"steered_{k}"] = Arm(self.policy, k, self.critic, self.rule, share=0.25)
        return arms


def differences(first: Result, second: Result) -> dict[str, NDArray[np.float64]]:
    """Success of the first minus the second on the episodes that both played [points], (n,) a task.

    Raises:
        ValueError: they share none.
    """
    other = {_identity(r): float(r["success"]) for r in second["per_episode"]}
    found: dict[str, list[float]] = {}
    for record in first["per_episode"]:
        if _identity(record) in other:
            gap = 100.0 * (float(record["success"]) - other[_identity(record)])
            found.setdefault(record["task"], []).append(gap)
    if not found:
        raise ValueError("the two arms share no episode")
    return {task: np.array(gaps) for task, gaps in found.items()}


def gain(first: Result, second: Result) -> dict[str, Any]:
    """Mean over tasks of the paired difference [points] with its 95% interval, and the same for each task."""
    gaps = differences(first, second)
    mean, low, high = mean_of_tasks(list(gaps.values()))
    return {
        "points": mean,
        "lo": low,
        "hi": high,
        "tasks": {task: mean_of_tasks([some]) for task, some in gaps.items()},
    }


PAIRS = {  # metric: first arm, second arm
    "gain": ("steered", "first"),
    "vs_random": ("steered", "random"),
    "vs_medoid": ("steered", "medoid"),
    "vs_mean": ("steered", "mean"),
    "vs_filtered_bc": ("steered", "filtered_bc"),
    "distilled_gain": ("distilled", "first"),
    "third_party_gain": ("third_party_steered", "third_party"),
    "positions_gain": ("steered_positions", "first_positions"),
    "looks_gain": ("steered_looks", "first_looks"),
    "oracle_gain": ("oracle", "first"),
}


def metrics(results: Mapping[str, Result], candidates: int = 8) -> dict[str, Any]:
    """The benchmark's figures of the arms that were played.

    Returns:
        `<pair>_points`, `..._lo` and `..._hi` for every pair of `PAIRS`; `worst_task_points_hi`: the lowest upper end
        of a task's gain; `ranking_regret_points` of the audit; `n_curve` as "N: success", and `n_curve_best`.
    """
    found: dict[str, Any] = {}
    for name, (first, second) in PAIRS.items():
        if first in results and second in results:
            said = gain(results[first], results[second])
            found |= {
                f"{name}_points": said["points"],
                f"{name}_points_lo": said["lo"],
                f"{name}_points_hi": said["hi"],
            }
            if name == "gain":
                found["worst_task_points_hi"] = min(high for _, _, high in said["tasks"].values())
    if "audit" in results:
        found |= _audit(results["audit"])
    return {**found, **_curve(results, candidates)}


def rates(results: Mapping[str, Result]) -> dict[str, dict[str, float]]:
    """Success of every arm, task by task and as their mean [%]."""
    table = {}
    for name, result in results.items():
        tasks = result.get("tasks") or {result["task"]: result}
        each = {task: 100.0 * figures["success_rate"] for task, figures in tasks.items()}
        table[name] = {**each, "mean": float(np.mean(list(each.values())))}
    return table


def _audit(result: Result) -> dict[str, Any]:
    tasks = [figures["audit"] for figures in (result.get("tasks") or {result["task"]: result}).values()]
    names = {"ranking_regret_points": "ranking_regret_points", "decision_oracle_gain_points": "oracle_gain_points"}
    names |= {"ranking_gain_points": "ranking_gain_points", "concordance": "concordance"}
    found = {}
    for name, key in names.items():
        said = [audit[key] for audit in tasks if audit and audit.get(key) is not None]
        if said:
            found[name] = float(np.mean(said))
    return found


def _curve(results: Mapping[str, Result], candidates: int) -> dict[str, Any]:
    """Success against N on the episodes that all of the curve's arms played."""
    arms = {k: "first" if k == 1 else "steered" if k == candidates else f"steered_{k}" for k in CURVE}
    played = {k: results[name] for k, name in arms.items() if name in results}
    if len(played) < 3:
        return {}
    shared = set.intersection(*({_identity(r) for r in result["per_episode"]} for result in played.values()))
    points = {k: 100.0 * _success(result, shared) for k, result in played.items()}
    best = max(points, key=lambda k: points[k])
    text = ", ".join(f"{k}: {rate:.1f}" for k, rate in points.items())
    return {"n_curve": text, "n_curve_best": float(best), "n_curve_episodes": float(len(shared))}


def _success(result: Result, among: set[tuple[Any, ...]]) -> float:
    """Mean over tasks of the success rate among some episodes."""
    tasks: dict[str, list[bool]] = {}
    for record in result["per_episode"]:
        if _identity(record) in among:
            tasks.setdefault(record["task"], []).append(bool(record["success"]))
    return float(np.mean([np.mean(some) for some in tasks.values()]))


def _identity(record: Result) -> tuple[Any, ...]:
    return record["task"], record["seed"], record["choice"]


def table(found: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
    """Rates of all arms as lines of a Markdown table."""
    tasks = list(next(iter(found.values())))
    lines = [f"| arm | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    return [*lines, *(f"| {arm} | {' | '.join(f'{row[t]:.1f}%' for t in tasks)} |" for arm, row in found.items())]

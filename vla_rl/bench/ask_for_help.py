"""Whether a policy that is in trouble calls a human in time, at a chosen rate of false alarms."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

EPISODES, QUICK = 1000, 120
FALSE_ALARMS = 0.1
REPEATS = 20
POLICY, CANDIDATES, SEED, WORKERS = "tabletop", 8, 6_000_000, 2


def run(quick: bool = False, work: str = "", policy: str = POLICY) -> dict[str, Any]:
    """Play episodes, calibrate on a half of them and test on the other; all over again with other halves.

    Args:
        quick: fewer episodes.
        work: folder of `vla-rl collect` for the episodes, kept, and gone on from; "" throws them away.
        policy: whose; the shipped one where it is not said.

    Returns:
        `metrics`: episodes, share that failed, measured false-alarm rate (mean over the halves, and how much it
        varies), share of the failures in which a human is called half a second or more before the end, and how much of
        the episode was then still to come; the same for each signal alone.
    """
    from vla_rl.hil.help import SIGNALS
    from vla_rl.robot import arm_spec
    from vla_rl.rollout import watched

    with _folder(work) as folder:
        _collect(folder, policy, QUICK if quick else EPISODES)
        found = list(watched.episodes(folder, arm_spec("so101")))
    metrics = {"episodes": len(found), "failed": float(np.mean([e.failed for e in found]))}
    metrics |= {"wanted_false_alarm_rate": FALSE_ALARMS, **_figures(found, "")}
    for i, name in enumerate(SIGNALS):
        alone = [replace(e, series=np.where(np.arange(len(SIGNALS)) == i, e.series, np.nan)) for e in found]
        metrics |= _figures(alone, f"{name}_")
    return {"metrics": metrics}


def _figures(found: list[Any], prefix: str) -> dict[str, float]:
    """Means over many halves; nothing for a signal that nobody knows."""
    from vla_rl.rollout import watched

    told = []
    for seed in range(REPEATS):
        first, second = watched.halves(found, seed)
        calibration = watched.calibrate(first, FALSE_ALARMS)
        if not calibration.signals:
            return {}
        told.append(watched.coverage(calibration, second))
    rates = [c.false_alarm_rate for c in told]
    return {
        f"{prefix}false_alarm_rate": float(np.mean(rates)), f"{prefix}false_alarm_sd": float(np.std(rates)),
        f"{prefix}caught": float(np.mean([c.caught for c in told])),
        f"{prefix}left": float(np.nanmean([c.left for c in told])),
    }  # fmt: skip


def _collect(folder: str, policy: str, count: int) -> None:
    """Play what is still missing."""
    from vla_rl import build
    from vla_rl.rollout.collect import CollectConfig, collect

    found = build.check_policy(policy)
    actor = build.PolicyConfig(found, plan=build.plan(found, candidates=CANDIDATES, selector="random"))
    player = partial(build.make_player, build.fit_env(build.EnvConfig(), found), actor, threads=1)
    request = {"policy": build.fingerprint(found), "candidates": CANDIDATES, "selector": "random"}
    collect(CollectConfig(build.tasks("all"), count, SEED), request, folder, player, WORKERS)


@contextmanager
def _folder(work: str) -> Iterator[str]:
    if work:
        yield work
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(Path(folder) / "collected")

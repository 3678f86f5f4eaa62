"""gate: what gets past the safety gate, what it costs, and how fast the arm holds when something upstream dies.

In process: random chunks through the real checks and the real filter, and the scripted experts' own commands. Through
the graph (`vla_rl.ros.measure.faults`): stalls and kills of real nodes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from vla_rl.execute.actions import ChunkReader, RejectedError
from vla_rl.execute.control import Controller
from vla_rl.execute.limits import Limits
from vla_rl.execute.safety import SafetyFilter
from vla_rl.robot import arm_spec
from vla_rl.types import ActionChunk, Array, RobotSpec

LENGTH = 16  # actions a chunk
BATCH = 5_000  # chunks at once
PLAYED = 4  # actions played of each
ROUNDS = 10  # chunks an arm is given one after the other
INSIDE = 1e-6  # relative: rounding in third differences of positions
ROUNDING = 1e-6  # rad: LeRobot's actions are float32 degrees


def run(quick: bool = False) -> dict[str, Any]:
    """Fuzz the gate, pass the experts through it, time it, and kill what feeds it."""
    from vla_rl.ros.measure import faults

    metrics = {
        **fuzz(20_000 if quick else 1_000_000),
        **experts(2 if quick else 25),
        **latency(500 if quick else 10_000),
    }
    return {"metrics": metrics | faults.measure(quick)}


def fuzz(count: int) -> dict[str, float]:
    """Random chunks through the checks of a chunk and, where those accept it, through the filter, in batches of arms.

    One in ten chunks is not finite, huge or of a wrong size. Most play on the SO-101; every twentieth batch on one at
    100 Hz and on a slow one. Arms that begin outside the limits are recoveries, counted apart.
    """
    rng, totals, started = np.random.default_rng(0), Counter[str](), time.process_time()
    so101 = arm_spec("so101")
    slow = tuple(replace(joint, velocity=0.5, acceleration=1.0, jerk=5.0) for joint in so101.joints)
    arms = [so101] * 18 + [replace(so101, rate=100.0), replace(so101, joints=slow)]
    session = 0
    while totals["fuzz_count"] < count:
        _fuzz_session(arms[session % len(arms)], min(BATCH, count // (2 * ROUNDS)), rng, totals, recovery=False)
        session += 1
    for arm in (so101, arms[-1]):
        _fuzz_session(arm, min(BATCH, count // 20), rng, totals, recovery=True)
    return {**totals, "fuzz_s": time.process_time() - started}


def _fuzz_session(spec: RobotSpec, arms: int, rng: np.random.Generator, totals: Counter[str], recovery: bool) -> None:
    """Give each of some arms a row of chunks, and count the arms whose commands broke a limit."""
    limits, reader = Limits.from_spec(spec), ChunkReader(spec)
    gate = SafetyFilter(limits)
    start = _states(limits, arms, rng, recovery)
    gate.reset(start)
    commands = [start]
    for _ in range(ROUNDS):
        targets = gate.command[:, None] + np.zeros((1, PLAYED, 1))  # what is rejected moves nothing
        for i, (chunk, bad) in enumerate(_chunks(spec, gate.command, rng)):
            try:
                targets[i] = reader.targets(chunk)[:PLAYED]
                totals["fuzz_violations"] += bad
            except RejectedError:
                totals["fuzz_rejected"] += 1
        commands += [gate.step(targets[:, k]).command for k in range(PLAYED)]
    if recovery:
        totals["recoveries"] += arms
        totals["recovery_violations"] += int(_worsened(limits, np.array(commands)).sum())
    else:
        totals["fuzz_count"] += arms * ROUNDS
        totals["fuzz_commands"] += arms * ROUNDS * PLAYED
        totals["fuzz_violations"] += int(broken(limits, np.array(commands)).sum())


def _states(limits: Limits, count: int, rng: np.random.Generator, outside: bool) -> Array:
    """Joint vectors (count, J) within position limits and workspace, or all of them outside."""
    found, margin = np.empty((0, len(limits.names))), 0.1 * outside * (limits.high - limits.low)
    while len(found) < count:
        drawn = rng.uniform(limits.low - margin, limits.high + margin, (4 * count, len(limits.names)))
        inside = ((drawn >= limits.low) & (drawn <= limits.high)).all(-1) & (limits.excess(drawn) == 0).all(-1)
        found = np.concatenate([found, drawn[inside != outside]])
    return found[:count]


def _chunks(spec: RobotSpec, joints: Array, rng: np.random.Generator) -> Iterator[tuple[ActionChunk, bool]]:
    """A random chunk for each arm, and whether it is one that must never be played."""
    count, size = joints.shape
    span, kinds, dt, own = spec.high - spec.low, rng.integers(0, 20, count), 1.0 / spec.rate, spec.action_spec
    low, high = spec.low - span, spec.high + span
    noise, scales = rng.standard_normal((count, LENGTH, size)), 10.0 ** rng.uniform(-4, 0, count)
    goals = rng.uniform(low, high, (count, size))
    for i, kind in enumerate(kinds):
        if kind < 2:
            yield ActionChunk(_spoiled(noise[i], rng), own, dt, 1), True
            continue
        walk = scales[i] * span * (np.cumsum(noise[i], axis=0) if kind % 2 else noise[i])
        actions = np.broadcast_to(goals[i], walk.shape) if kind < 6 else joints[i] + walk
        yield ActionChunk(np.minimum(np.maximum(actions, low), high), own, dt, 1), False


def _spoiled(actions: Array, rng: np.random.Generator) -> Array:
    """The same with one or more values that no robot must follow, or of a wrong size."""
    kind = rng.integers(6)
    if kind == 5:
        return actions[:, : rng.integers(0, actions.shape[1])]
    value = [np.nan, np.inf, -np.inf, 10.0 ** rng.uniform(2, 300), -(10.0 ** rng.uniform(2, 300))][kind]
    spoiled = rng.random(actions.shape) < 0.5 * rng.integers(2)
    spoiled[rng.integers(actions.shape[0]), rng.integers(actions.shape[1])] = True
    return np.where(spoiled, value, actions)


def broken(limits: Limits, commands: Array) -> Any:
    """Which arms' commands (T, B, J), begun at rest, break a limit or are not finite, (B,); by differences alone."""
    path = np.concatenate([commands[:1], commands[:1], commands[:1], commands])
    bad = ~((path >= limits.low) & (path <= limits.high)).all((0, 2))
    for bound in (limits.velocity, limits.acceleration, limits.jerk):
        path = np.diff(path, axis=0) / limits.dt
        bad |= ~(np.abs(path) <= bound * (1 + INSIDE)).all((0, 2))
    return bad | (limits.excess(commands) != 0).any((0, 2))


def _worsened(limits: Limits, commands: Array) -> Any:
    """Which arms, begun outside the limits, got farther out in any step, or too fast, (B,)."""
    beyond = np.maximum(np.maximum(limits.low - commands, commands - limits.high), 0.0)
    bad = (np.diff(beyond, axis=0) > 0).any((0, 2)) | (np.diff(limits.excess(commands), axis=0) > 0).any((0, 2))
    fast = np.abs(np.diff(commands, axis=0)) > limits.velocity * limits.dt * (1 + INSIDE)
    return bad | fast.any((0, 2)) | ~np.isfinite(commands).all((0, 2))


def experts(scenes: int) -> dict[str, float]:
    """The six experts' own commands, careful and clumsy: how many pass unchanged, how many a chunk's checks reject."""
    from vla_rl.sim.env import TabletopEnv
    from vla_rl.sim.tasks import TASKS

    spec, passed, rejected, count = arm_spec("so101"), 0, 0, 0
    for task in TASKS:
        env = TabletopEnv(task, cameras=(), render_mode=None)
        for seed, clumsy in ((seed, clumsy) for seed in range(scenes) for clumsy in (False, True)):
            gate = SafetyFilter(Limits.from_spec(spec))
            commands, start = _demonstrate(env, seed, clumsy)
            gate.reset(start)
            passed += sum(bool((np.abs(gate.step(c).command - c) < ROUNDING).all()) for c in commands)
            rejected += sum(_rejected(commands[i : i + LENGTH], spec) for i in range(0, len(commands), LENGTH))
            count += len(commands)
        env.close()
    return {"expert_commands": count, "expert_passed_fraction": passed / count, "expert_rejected": rejected}


def _demonstrate(env: Any, seed: int, clumsy: bool) -> tuple[Array, Array]:
    """An expert's commands (T, 6) [rad] in one scene, and the joints it began at."""
    env.reset(seed=seed)
    start, expert, commands, done = env.world.joints.copy(), env.expert(clumsy=clumsy, seed=seed), [], False
    while not done:
        action = expert.act()
        commands.append(env.targets(action))
        _, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    return np.array(commands), start


def _rejected(actions: Array, spec: RobotSpec) -> bool:
    try:
        ChunkReader(spec).targets(ActionChunk(actions, spec.action_spec, 1.0 / spec.rate, 1))
    except RejectedError:
        return True
    return False


def latency(ticks: int) -> dict[str, float]:
    """What a whole control period costs in process: joints and, every fourth time, a chunk in; a command out [ms]."""
    spec = arm_spec("so101")
    controller, rng = Controller(spec), np.random.default_rng(0)
    controller.activate()
    joints, period, durations = np.array([0.0, -0.6, 0.5, 1.2, 1.57, 0.45]), round(1e9 / spec.rate), []
    for k in range(1, ticks + 1):
        now = k * period
        actions = joints + np.cumsum(rng.normal(0, 0.02, (LENGTH, 6)), axis=0)
        began = time.perf_counter()
        controller.observe(joints, now, now)
        if k % 4 == 1:
            controller.chunk(ActionChunk(actions, spec.action_spec, 1.0 / spec.rate, now), 0, now)
        command = controller.tick(now).command
        durations.append(time.perf_counter() - began)
        joints = joints if command is None else command
    return {
        "filter_p50_ms": 1e3 * float(np.median(durations)),
        "filter_p99_ms": 1e3 * float(np.percentile(durations, 99)),
    }

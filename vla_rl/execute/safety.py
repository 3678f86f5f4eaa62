"""SafetyFilter: every command it gives comes with a proven way to stop.

The filter keeps a plan: the commands that would bring the robot to rest from the last command on, found before to keep
position, velocity, acceleration, jerk and the tip's workspace. A target is cut to what one period can reach, then a new
plan is rolled out that goes there and brakes as hard as it may. The limits of joints are linear in a sequence of
commands, and the old plan keeps them: so the largest feasible step from the old plan towards the new one is known in
closed form, for each joint by itself. For the workspace it is found by bisection, for all joints together. Only a blend
that was checked in full is followed, and at worst that is the old plan's own next command:

::

    q[k]    old plan   o---o--o-oooo        verified at the tick before
            wanted     o----o---o--o-ooo    rolled out now; infeasible where it passes a limit
            blend      o----o--o-oooo       the furthest that keeps every limit; o[0] is sent, the rest is the plan

A target that keeps all limits passes unchanged, bit for bit. A joint that had to be cut catches up with its target as
one comes to a stop: it never passes where the target is going to be at its present velocity.

All arrays are (..., J) over joints: one arm live, or a batch of a million in a test, by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_rl.execute.limits import Limits, Mask
from vla_rl.types import Array

SLACK = 1e-9  # relative, for rounding in the third difference of positions
BISECTIONS = 6


@dataclass(frozen=True, eq=False)
class Filtered:
    """One command, and what the limits made of its target.

    Attributes:
        command: what to send, (..., J) [rad].
        reasons: limit ("position", "velocity", "acceleration", "jerk", "stop", "workspace") to the joints whose target
            it cut, (..., J); "stop": no feasible way to stop from there.
        changed: where the command is not the target, (..., J).
    """

    command: Array
    reasons: dict[str, Mask]
    changed: Mask

    @property
    def clamped(self) -> tuple[str, ...]:
        """The limits that cut a target."""
        return tuple(reason for reason, mask in self.reasons.items() if mask.any())


class SafetyFilter:
    """Turns targets into commands within every limit; see the module.

    Args:
        limits: of the commanded sequence.

    Attributes:
        command: the last command, (..., J) [rad].
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._horizon = _longest_stop(limits)

    def reset(self, joints: Array) -> None:
        """Start at rest from joints (..., J) [rad], within the limits or not.

        Raises:
            ValueError: wrong size, or a value that is not finite.
        """
        self.command = self._checked(joints, (*np.shape(joints)[:-1], len(self.limits.names))).copy()
        self._velocity, self._acceleration = np.zeros_like(self.command), np.zeros_like(self.command)
        self._plan = np.broadcast_to(self.command, (self._horizon, *self.command.shape)).copy()
        self._targets = [self.command, self.command]
        self._catching = np.zeros(self.command.shape, bool)

    @property
    def recovering(self) -> Mask:
        """Whether the last command is outside position limits or workspace, (...); commands only lead back in."""
        limits, q = self.limits, self.command
        return np.asarray(((q < limits.low) | (q > limits.high)).any(-1) | (limits.excess(q) > 0).any(-1))

    @property
    def at_rest(self) -> bool:
        """Whether the plan is to stay where the last command is."""
        return bool(np.abs(self._plan - self.command).max() < SLACK)

    def brake(self) -> Array:
        """The next command of the verified plan, (..., J) [rad]: the way to stop."""
        self._targets = [self.command, self.command]
        self._catching[:] = True
        return self._send(self._plan)

    def step(self, target: Array) -> Filtered:
        """The command (..., J) [rad] for a target (..., J) [rad]: the target itself where it keeps every limit.

        Raises:
            ValueError: wrong size, or a value that is not finite; nothing changed.
        """
        target = self._checked(target, self.command.shape)
        wanted, reasons = self._reachable(target)
        new = self._roll_out(wanted)
        share = self._joint_share(new)
        caught = (share == 1.0) & (wanted == target)
        chasing = ~caught | self._catching
        if chasing.any():
            share = np.where(chasing, np.minimum(share, self._chase_share(new, target)), share)
        reasons["stop"] = (share < 1.0) & (wanted == target)
        plan = new if (share == 1.0).all() else self._blend(new, share)
        plan, cut = self._into_workspace(plan)
        reasons["workspace"] = np.broadcast_to(cut[..., None], target.shape)
        changed = plan[0] != target
        self._targets, self._catching = [target, self._targets[0]], changed
        return Filtered(self._send(plan), reasons, changed)

    def _checked(self, values: Array, shape: tuple[int, ...]) -> Array:
        values = np.asarray(values, dtype=np.float64)
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(f"joints must be {shape} finite numbers, got {values.shape}: {values}")
        return values

    def _send(self, plan: Array) -> Array:
        """Take the first command of a plan; the rest, with its last repeated, is the plan for the next period."""
        dt, command = self.limits.dt, plan[0].copy()
        velocity = (command - self.command) / dt
        self._acceleration = (velocity - self._velocity) / dt
        self._velocity, self.command = velocity, command
        self._plan = np.concatenate([plan[1:], plan[-1:]])
        return command

    def _reachable(self, target: Array) -> tuple[Array, dict[str, Mask]]:
        """A target cut to what the next period can reach, and which limits cut it."""
        limits, dt, q, v, a = self.limits, self.limits.dt, self.command, self._velocity, self._acceleration
        drift, jump = q + v * dt, limits.jerk * dt**3
        reach, push = limits.velocity * dt, limits.acceleration * dt**2
        bounds = {
            "position": (limits.low, limits.high),
            "velocity": (q - reach, q + reach),
            "acceleration": (drift - push, drift + push),
            "jerk": (drift + a * dt**2 - jump, drift + a * dt**2 + jump),
        }
        reasons = {}
        for name, (low, high) in bounds.items():
            cut = np.minimum(np.maximum(target, low), high)
            reasons[name], target = cut != target, cut
        return target, reasons

    def _roll_out(self, first: Array) -> Array:
        """The plan (N, ..., J) that goes to `first` and then brakes as hard as acceleration and jerk allow."""
        velocity = (first - self.command) / self.limits.dt
        path = braking(self.limits, velocity, (velocity - self._velocity) / self.limits.dt, self._horizon)
        return first + path

    def _joint_share(self, new: Array) -> Array:
        """How far each joint may go from the old plan to a new one within position and velocity, (..., J) in [0, 1]."""
        limits, q = self.limits, self.command
        below, above = q < limits.low, q > limits.high
        share = _share(self._plan, new, np.minimum(limits.low, q), np.maximum(limits.high, q))
        fast = limits.velocity * (1 + SLACK)
        slow = np.where(below, 0.0, -fast), np.where(above, 0.0, fast)  # from outside, only inwards
        old, speed = (np.diff(p, axis=0, prepend=q[None]) / limits.dt for p in (self._plan, new))
        settled = np.abs(speed[-1]) <= SLACK * limits.velocity  # and with an acceleration that can end at once:
        settled &= np.abs(speed[-2]) <= limits.jerk * limits.dt**2 * (1 + SLACK)
        return np.where(settled, np.minimum(share, _share(old, speed, *slow)), 0.0)

    def _chase_share(self, new: Array, target: Array) -> Array:
        """How far each joint may go to a new plan without passing its target, (..., J) in [0, 1].

        The target is taken to go on at the slower of its last two velocities, where both have the same direction.
        """
        last, before = target - self._targets[0], self._targets[0] - self._targets[1]
        pace = np.where(last * before > 0, np.sign(last) * np.minimum(np.abs(last), np.abs(before)), 0.0)
        ahead = np.arange(self._horizon).reshape(-1, *[1] * target.ndim)
        goal = np.clip(target + ahead * pace, self.limits.low, self.limits.high)
        rising = self.command < target
        high = np.where(rising, np.maximum(goal, self._plan), np.inf)
        low = np.where(rising, -np.inf, np.minimum(goal, self._plan))
        return _share(self._plan, new, low, high)

    def _blend(self, new: Array, share: Array) -> Array:
        """Between the old plan (share 0) and a new one (share 1), within the positions that both keep."""
        blend = self._plan + share * (new - self._plan)
        blend = np.clip(blend, np.minimum(self._plan, new), np.maximum(self._plan, new))
        limits, q = self.limits, self.command
        blend = np.clip(blend, np.minimum(limits.low, q), np.maximum(limits.high, q))
        return np.where(share == 1.0, new, np.where(share == 0.0, self._plan, blend))

    def _into_workspace(self, plan: Array) -> tuple[Array, Mask]:
        """A plan that keeps the tip's box, as near to the given one as bisection finds, and where it was cut, (...)."""
        cut = ~self._inside(plan, self.command)
        if cut.any():
            plan = plan.copy()
            plan[:, cut] = self._bisect(self._plan[:, cut], plan[:, cut], self.command[cut])
        return plan, cut

    def _inside(self, plan: Array, command: Array) -> Mask:
        """Whether the tip stays inside its box along a plan (N, ..., J), or gets no farther outside, (...)."""
        excess = self.limits.excess(np.concatenate([command[None], plan]))
        return np.asarray((np.diff(excess, axis=0) <= 0.0).all((0, -1)))

    def _bisect(self, old: Array, new: Array, command: Array) -> Array:
        """The furthest plans (N, ..., J) from `old` to `new` that bisection finds inside the box; `old` is inside."""
        good, bad = np.zeros(command.shape[:-1]), np.ones(command.shape[:-1])
        best = old
        for _ in range(BISECTIONS):
            middle = (good + bad) / 2.0
            blend = old + middle[..., None] * (new - old)
            inside = self._inside(blend, command)
            best = np.where(inside[..., None], blend, best)
            good, bad = np.where(inside, middle, good), np.where(inside, bad, middle)
        return best


def _share(old: Array, new: Array, low: Array, high: Array) -> Array:
    """Largest s in [0, 1] with low <= old + s (new - old) <= high along axis 0, given that `old` keeps the bounds."""
    bound = np.where(new > high, high, low)
    outside = (new > high) | (new < low)
    if not outside.any():
        return np.ones(new.shape[1:])
    ratio = np.divide(bound - old, new - old, out=1.0 - outside, where=outside & (new != old))
    return np.clip(ratio.min(axis=0), 0.0, 1.0)


def braking(limits: Limits, velocity: Array, acceleration: Array, periods: int) -> Array:
    """The way to stop, braking as hard as acceleration and jerk allow: displacements (periods, ..., J) [rad].

    The deceleration that brings v to rest and itself back to zero in the same period, shrinking by at most j = jerk dt
    a period, is x = (v / dt + j n (n + 1) / 2) / (n + 1) with n the largest whole number for which
    dt j n (n + 1) / 2 <= v: then v / dt is the sum of x, x - j, x - 2 j, ... > 0.

    Args:
        limits: of the joints.
        velocity, acceleration: of the last command, which is the first row, (..., J).
        periods: rows; the last one is repeated once at rest.
    """
    dt, step = limits.dt, limits.jerk * limits.dt
    path = np.zeros((periods, *velocity.shape))
    v, a = velocity, acceleration
    for i in range(1, periods):
        if not (v.any() or a.any()):
            path[i:] = path[i - 1]
            break
        speed = np.abs(v) / dt
        n = np.floor((np.sqrt(1.0 + 8.0 * speed / step) - 1.0) / 2.0)
        x = np.copysign((speed + step * n * (n + 1) / 2.0) / (n + 1), -v)
        a = np.minimum(np.maximum(x, a - step), a + step)
        a = np.minimum(np.maximum(a, -limits.acceleration), limits.acceleration)
        v = v + a * dt
        v = np.where(np.abs(v) < SLACK * limits.velocity, 0.0, v)
        path[i] = path[i - 1] + v * dt
    return path


def _longest_stop(limits: Limits) -> int:
    """Periods that `braking` takes from the worst state within the limits, and one more."""
    share = np.linspace(-1.0, 1.0, 9)[:, None]
    velocity, acceleration = np.broadcast_arrays(share[:, None] * limits.velocity, share[None] * limits.acceleration)
    periods = 16
    while True:
        path = braking(limits, velocity, acceleration, periods).reshape(periods, -1)
        moving = np.flatnonzero((path[1:] != path[:-1]).any(axis=1))
        if moving[-1] < periods - 3:
            return int(moving[-1]) + 3
        periods *= 2

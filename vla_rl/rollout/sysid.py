"""System identification: an arm's delay and servo gains, from what was asked of it and what it did.

The commands are replayed in MuJoCo; the parameters are those whose joints come nearest to the measured ones
(Gauss-Newton with Marquardt's damping and Huber's weights). What is known to be otherwise on an arm does not pass for
either: a servo's own ramp towards a goal is fitted as well, and so are how late the joints' stamps are and a constant
error of each joint's calibration.
Gains show in how far gravity and acceleration pull a joint off its setpoint, about a milliradian: the more the arm
moves, and the longer, the better they are known.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl.rollout.sysid_model import Motion, Servo, Simulate, begin, replayed
from vla_rl.types import Array

_Z95 = 1.96


@dataclass(frozen=True)
class SysidConfig:
    """How the fit is done.

    Attributes:
        delays_s: where to look for the delay first [s]; then around the best of them, a sixth of a step at a time.
        ramps: where to look for the ramp [s^2/rad].
        starts: from how many ramps, the best ones, descents begin: there are local minima.
        spreads: how far around a guess slopes are taken, coarse to fine: delay [s], logarithm of the gain, ramp
            [s^2/rad], lag of the joints' stamps [s]. A wide box is hard to get stuck in, but it blurs what
            accelerations tell of the gain.
        iterations: Gauss-Newton steps with each spread, at most.
        tolerance: stop where a step moves no parameter by more than this part of the spread.
        settle_s: the first moments of a motion are left out: the model starts at rest [s].
        huber_rad: residuals beyond it count linearly: contact, of which the model knows nothing [rad].
        sensor_rad, stamp_s: how well positions [rad] and stamps [s] are known: what moves fast is trusted less.
        block_s: errors within such a stretch belong together, for the intervals [s].
    """

    delays_s: tuple[float, ...] = tuple(0.03 * i for i in range(9))
    ramps: tuple[float, ...] = (0.0, 0.0125, 0.025, 0.05, 0.1)
    starts: int = 3
    spreads: tuple[tuple[float, float, float, float], ...] = (
        (2e-3, 0.1, 1e-3, 1e-3), (5e-4, 0.1, 2e-4, 5e-4), (2e-4, 0.03, 1e-4, 2e-4),
    )  # fmt: skip
    iterations: int = 8
    tolerance: float = 0.1
    settle_s: float = 0.5
    huber_rad: float = 5e-3
    sensor_rad: float = 1e-3
    stamp_s: float = 2e-3
    block_s: float = 2.0


@dataclass(frozen=True, eq=False)
class Fit:
    """What was found.

    Attributes:
        servo: the parameters.
        half_widths: of their 95% intervals, in the order of `Servo`.
        offsets: measured minus simulated joints, constant errors of the calibration, (J,) [rad].
        rms_before, rms_after: difference between measured and simulated joints, (J,) [rad]: of the model as it is, and
            with what was found.
        samples, seconds: measured joint vectors, and how long the arm was driven [s].
    """

    servo: Servo
    half_widths: tuple[float, float, float, float]
    offsets: Array
    rms_before: Array
    rms_after: Array
    samples: int
    seconds: float

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """JSON-ready form: milliseconds, radians."""
        delay, gain, ramp, lag = self.half_widths
        each = zip(names, self.rms_before, self.rms_after, self.offsets, strict=True)
        return {
            "delay_ms": 1e3 * self.servo.delay_s, "delay_ms_ci95": 1e3 * delay,
            "gain": self.servo.gain, "gain_ci95": gain,
            "ramp_acceleration": 1 / self.servo.ramp if self.servo.ramp > 0 else None, "ramp_ci95": ramp,
            "lag_ms": 1e3 * self.servo.lag_s, "lag_ms_ci95": 1e3 * lag,
            "samples": self.samples, "seconds": self.seconds,
            "joints": {n: {"rms_model": float(b), "rms_fit": float(a), "offset": float(o)} for n, b, a, o in each},
        }  # fmt: skip


class Fitter:
    """Fits a servo model to motions.

    Args:
        motions: what was asked and seen.
        simulate: the arm's model.
        config: how.

    Raises:
        ValueError: there is nothing to fit.
    """

    def __init__(self, motions: Sequence[Motion], simulate: Simulate, config: SysidConfig | None = None) -> None:
        self.config, self._simulate = config or SysidConfig(), simulate
        self._motions = [motion for motion in motions if _seconds(motion) > 2 * self.config.settle_s]
        if not self._motions:
            raise ValueError(
                f"nothing to fit: no stretch of more than {2 * self.config.settle_s:g} s with commands and joints"
            )
        self._arm = np.array([not joint.gripper for joint in simulate.spec.joints])
        self._kept = [m.seen_ns > begin(m) + self.config.settle_s * 1e9 for m in self._motions]
        measured = [m.joints[kept] for m, kept in zip(self._motions, self._kept, strict=True)]
        self._measured = np.concatenate(measured)
        self._trust = np.concatenate([self._trusted(m)[k] for m, k in zip(self._motions, self._kept, strict=True)])
        self._blocks = self._block_of()

    def _trusted(self, motion: Motion) -> Array:
        """Weights of the measured arm joints, (M, A): 1 at rest, less where an error of a stamp moves them."""
        speed = np.gradient(motion.joints[:, self._arm], motion.seen_ns * 1e-9, axis=0)
        return np.asarray(1.0 / (1.0 + (self.config.stamp_s * speed / self.config.sensor_rad) ** 2))

    def _block_of(self) -> NDArray[np.int64]:
        """Which block of time each sample is in."""
        found, first = [], 0
        for motion, kept in zip(self._motions, self._kept, strict=True):
            stamps = motion.seen_ns[kept]
            found.append(first + ((stamps - stamps[0]) // round(self.config.block_s * 1e9)))
            first = int(found[-1][-1]) + 1
        return np.concatenate(found)

    def predicted(self, servos: Sequence[Servo]) -> Array:
        """Joints at the stamps of the samples, (P, S, J) [rad]."""
        return np.concatenate(
            [replayed(m, servos, self._simulate)[:, kept] for m, kept in zip(self._motions, self._kept, strict=True)],
            axis=1,
        )

    def fit(self) -> Fit:
        """The servo that explains the motions best."""
        descents = [self._refined(_theta(start)) for start in self._starts()]
        return self._found(*min(descents, key=lambda descent: self._cost(self._residual(descent[1]))))

    def _refined(self, theta: Array) -> tuple[Array, Array, Array]:
        """Down from a start with every spread: which valley is the deepest shows only at its bottom."""
        coarse, *finer = map(np.array, self.config.spreads)
        found = self._descend(theta, coarse)
        for spread in finer:
            found = self._descend(found[0], spread)
        return found

    def _descend(self, theta: Array, spread: Array) -> tuple[Array, Array, Array]:
        """Gauss-Newton until nothing moves by much of the spread; parameters, joints and slopes."""
        damping, (joints, slopes) = 1e-3, self._around(theta, spread)
        for _ in range(self.config.iterations):
            residual = self._residual(joints)
            hessian, gradient, _ = self._normal(slopes, residual)
            trial = _bounded(theta + _step(hessian + damping * np.diag(np.diag(hessian)), gradient, theta))
            moved = float(np.abs((trial - theta) / spread).max())
            trial_joints, trial_slopes = self._around(trial, spread)
            if self._cost(self._residual(trial_joints)) < self._cost(residual):
                theta, joints, slopes, damping = trial, trial_joints, trial_slopes, damping / 10
            else:
                damping *= 10
            if moved < self.config.tolerance:
                break
        return theta, joints, slopes

    def _starts(self) -> list[Servo]:
        """Where to begin: with each ramp its best delay, and of those servos the `starts` best."""
        step = self.config.delays_s[1] - self.config.delays_s[0]
        found = []
        for ramp in self.config.ramps:
            _, near = self._nearest(self.config.delays_s, ramp)
            found.append(self._nearest([near.delay_s + step * part / 6 for part in range(-3, 4)], ramp))
        return [servo for _, servo in sorted(found, key=lambda each: each[0])[: self.config.starts]]

    def _nearest(self, delays_s: Sequence[float], ramp: float) -> tuple[float, Servo]:
        """The best of some delays with a ramp, and its cost."""
        servos = [Servo(delay, 1.0, ramp) for delay in delays_s]
        costs = [self._cost(self._residual(predicted)) for predicted in self.predicted(servos)]
        best = int(np.argmin(costs))
        return costs[best], servos[best]

    def _residual(self, predicted: Array) -> Array:
        """Measured minus predicted arm joints without their constant parts, (S, A) [rad]."""
        difference = (self._measured - predicted)[:, self._arm]
        return np.asarray(difference - np.average(difference, axis=0, weights=self._trust))

    def _cost(self, residual: Array) -> float:
        """Huber's loss: squares up to `huber_rad`, linear beyond; each sample as far as it is trusted."""
        size, bend = np.abs(residual), self.config.huber_rad
        return float((self._trust * np.where(size <= bend, 0.5 * size**2, bend * (size - 0.5 * bend))).sum())

    def _around(self, theta: Array, spread: Array) -> tuple[Array, Array]:
        """Predicted joints (S, J) and their derivatives by each parameter (4, S, J), from half the corners of a box.

        A prediction has a fine grain, for ramp and friction switch: eight corners average it out of the slopes. Half of
        the sixteen do, those whose signs multiply to 1: a 2^(4-1) factorial design. The residual is that of the middle:
        the corners' mean is another arm's, whose gain came out 5 to 8% too low.
        """
        signs = np.array([s for s in itertools.product((-1.0, 1.0), repeat=len(theta)) if np.prod(s) > 0])
        middle, *corners = self.predicted([_servo(point) for point in (theta, *(theta + signs * spread))])
        slopes = np.einsum("cp,csj->psj", signs, np.stack(corners)) / (len(signs) * spread[:, None, None])
        return middle, slopes

    def _normal(self, slopes: Array, residual: Array) -> tuple[Array, Array, Array]:
        """Normal equations with each joint's constant eliminated: hessian (4, 4), gradient (4,), scores (4, S)."""
        slopes = slopes[:, :, self._arm]
        weights = self._trust * np.minimum(1.0, self.config.huber_rad / np.maximum(np.abs(residual), 1e-12))
        free = slopes - (weights * slopes).sum(1, keepdims=True) / weights.sum(0)
        hessian = np.einsum("psa,sa,qsa->pq", free, weights, free)
        scores = np.einsum("psa,sa,sa->ps", free, weights, residual)
        return hessian, scores.sum(1), scores

    def _found(self, theta: Array, joints: Array, slopes: Array) -> Fit:
        """With intervals that know that errors of one stretch belong together (a sandwich over blocks of time)."""
        hessian, _, scores = self._normal(slopes, self._residual(joints))
        by_block = np.stack([np.bincount(self._blocks, score) for score in scores])
        inverse = np.linalg.pinv(hessian)
        half = _Z95 * np.sqrt(np.diag(inverse @ by_block @ by_block.T @ inverse))
        servo = _servo(theta)
        away, model = self._measured - self.predicted([servo, Servo()])
        return Fit(
            servo, (float(half[0]), float(half[1] * servo.gain), float(half[2]), float(half[3])),
            np.median(away, axis=0), _rms(model), _rms(away), len(self._measured), sum(map(_seconds, self._motions)),
        )  # fmt: skip


def _seconds(motion: Motion) -> float:
    if not len(motion.asked_ns) or not len(motion.seen_ns):
        return 0.0
    return float(min(motion.asked_ns[-1], motion.seen_ns[-1]) - begin(motion)) * 1e-9


def _theta(servo: Servo) -> Array:
    return np.array([servo.delay_s, np.log(servo.gain), servo.ramp, servo.lag_s])


def _servo(theta: Array) -> Servo:
    return Servo(float(theta[0]), float(np.exp(theta[1])), max(float(theta[2]), 0.0), float(theta[3]))


def _step(hessian: Array, gradient: Array, theta: Array) -> Array:
    """Gauss-Newton's step (4,) where bounds leave room: a parameter that is pushed out of its bound stays there."""
    free, step = np.ones(len(theta), bool), np.zeros(len(theta))
    while free.any():
        step[:] = 0.0
        step[free] = np.linalg.lstsq(hessian[np.ix_(free, free)], gradient[free])[0]  # a ramp may not show
        stopped = free & (step != 0) & (_bounded(theta + step) == theta)
        if not stopped.any():
            break
        free &= ~stopped
    return step


def _bounded(theta: Array) -> Array:
    """What can be: -0.05 to 1 s of delay, a tenth to ten times the gains, ramps of 2 rad/s^2 and more, 5 ms of lag."""
    return np.clip(theta, [-0.05, np.log(0.1), 0.0, -0.005], [1.0, np.log(10.0), 0.5, 0.005])


def _rms(difference: Array) -> Array:
    return np.asarray(np.sqrt((difference**2).mean(axis=0)))

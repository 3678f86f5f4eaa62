"""Actors that run a learned policy: K chunks for every episode that is due, one of them chosen and executed."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl.execute import ensemble
from vla_rl.policy.folder import OWN_TYPE, choose_device, fingerprint, load_lerobot, read_config
from vla_rl.policy.perturb import PerturbConfig, perturbed
from vla_rl.rollout.draw import Drawer, Drawn, OwnDrawer, Question, ServedDrawer, check_fit
from vla_rl.rollout.judge import UNJUDGED, Judge, Judged, load_judge
from vla_rl.rollout.play import Actor, Job, Proposal
from vla_rl.rollout.world import Frame, World
from vla_rl.steer.choose import Chooser, ChooserConfig
from vla_rl.steer.critic import LoadedCritic
from vla_rl.steer.guided import Guided, GuidedConfig
from vla_rl.steer.selectors import BLIND, Choice
from vla_rl.types import Source

ENSEMBLES = ("none", "temporal", "adaptive")


@dataclass(frozen=True)
class Plan:
    """How chunks are chosen and executed.

    Attributes:
        steps_per_chunk: actions executed before the next chunk is asked for; 0 takes the policy's own number.
        ensemble: how chunks that overlap are joined: the newest alone, temporal (ACT) or adaptive (CogACT).
        candidates: chunks drawn for each observation, K.
        chooser: which of the K is executed.
        critic: folder of who says what they are worth; "" for rules that need nobody.
        trusted: follow a critic even though its report failed.
        perturb: candidates from a few draws and perturbations of them; by default all are drawn.
        guidance: the critic acts while candidates are drawn, too; None: it compares them only.
        batch: observations the network sees at once. A fixed size, filled up where fewer are due: the result of an
            episode then does not depend on which others were in the batch.
        slots: episodes under way at once.
    """

    steps_per_chunk: int = 0
    ensemble: str = "none"
    candidates: int = 1
    chooser: ChooserConfig = field(default_factory=ChooserConfig)
    critic: str = ""
    trusted: bool = False
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    guidance: GuidedConfig | None = None
    batch: int = 8
    slots: int = 16

    def __post_init__(self) -> None:
        """Raise ValueError for a choice that does not exist, with those that do."""
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"unknown ensemble '{self.ensemble}'; there are: {', '.join(ENSEMBLES)}")
        if self.steps_per_chunk < 0 or min(self.candidates, self.batch, self.slots) < 1:
            raise ValueError("--candidates, batch and slots must be at least 1, --steps-per-chunk at least 0")
        if self.guidance is not None and (not self.critic or self.perturb.draws):
            raise ValueError("--guide needs a --critic, and goes without --draws")
        if self.guidance is not None:
            self.guidance.check(self.candidates)
        if not self.critic and self.chooser.selector not in BLIND:
            rules = ", ".join(BLIND)
            raise ValueError(f"--selector {self.chooser.selector} needs a --critic; without one there are: {rules}")


def load_actor(folder: str, plan: Plan, device: str) -> Actor:
    """The actor of a policy folder: ours, or one of LeRobot's, which runs as LeRobot runs it unless asked for more.

    Raises:
        ValueError: it can not be loaded, or the critic does not fit it.
    """
    if read_config(folder)["type"] != OWN_TYPE and plan == Plan(slots=plan.slots, batch=plan.batch):
        return LeRobotActor(folder, choose_device(device))
    return load_chunks(folder, plan, device)


def load_chunks(folder: str, plan: Plan, device: str) -> ChunkActor:
    """The actor of a policy folder, ours or one of LeRobot's, that draws chunks and knows them.

    Raises:
        ValueError: it can not be loaded, or the critic does not fit it.
    """
    if plan.guidance is not None:
        drawer: Drawer = load_guided(folder, plan, plan.guidance, device)
    else:
        drawer = load_drawer(folder, device, plan.batch, plan.perturb)
    return ChunkActor(drawer, plan, load_judge(plan.critic, drawer, device, plan.trusted) if plan.critic else None)


def load_guided(folder: str, plan: Plan, guidance: GuidedConfig, device: str) -> Drawer:
    """A policy of ours whose chunks are drawn under the plan's critic.

    Raises:
        ValueError: policy or critic can not be loaded, or they can not work together during denoising.
    """
    from vla_rl.policy.served import load_served

    chosen = choose_device(device)
    served, critic = load_served(folder, chosen), LoadedCritic.load(plan.critic, chosen, trusted=plan.trusted)
    critic.require_fit(policy_fingerprint=fingerprint(folder), where=folder)
    return ServedDrawer(Guided(served, critic, guidance), folder)


def load_drawer(folder: str, device: str, batch: int = 8, perturb: PerturbConfig | None = None) -> Drawer:
    """A policy folder's drawer, ours or one of LeRobot's.

    Raises:
        ValueError: it can not be loaded.
    """
    chosen, how = choose_device(device), perturb or PerturbConfig()
    if how.draws or read_config(folder)["type"] != OWN_TYPE:
        from vla_rl.policy.served import load_served

        return ServedDrawer(perturbed(load_served(folder, chosen), how), folder)
    from vla_rl.policy.modeling_vla_rl import VLAPolicy

    return OwnDrawer(VLAPolicy.from_pretrained(folder).to(chosen).eval(), folder, batch)


def noise_seed(episode: int, decision: int) -> int:
    """Seed of the noise of an episode's decision; `episode` is the episode's own seed."""
    return int(np.random.SeedSequence([episode, decision]).generate_state(1)[0])


@dataclass(frozen=True, eq=False)
class Decision:
    """One choice among candidates.

    Attributes:
        chunks: (K, H, A) in the data set's units.
        seed: of their noise.
        values: what the critic says of them, (E, K), None without a critic.
        choice: which one, and why.
    """

    chunks: NDArray[np.float32]
    seed: int
    values: NDArray[np.float64] | None
    choice: Choice

    @property
    def value(self) -> float:
        """The ensemble's mean of the chosen chunk, 0 without a critic."""
        return 0.0 if self.values is None else float(self.values[:, self.choice.index].mean())


@dataclass(eq=False)
class _Episode:
    """What a policy remembers of one episode."""

    seed: int
    rng: np.random.Generator
    frames: deque[Frame]
    chunks: deque[tuple[int, NDArray[np.float32]]] = field(default_factory=deque)  # (step it begins at, (H, A))
    decisions: int = 0
    decision: Decision | None = None
    step: int = 0

    @property
    def left(self) -> NDArray[np.float32] | None:
        """What is left of the chunk under way, (H', A), None before the first."""
        return self.chunks[-1][1][self.step - self.chunks[-1][0] :] if self.chunks else None


class ChunkActor:
    """A policy's chunks: K for every episode that is due, one chosen, executed open loop or ensembled.

    Args:
        drawer: the policy.
        plan: how chunks are chosen and executed.
        judge: the critic beside the policy, None without one.

    Attributes:
        drawer: as given.

    Raises:
        ValueError: the plan does not fit policy or critic.
    """

    def __init__(self, drawer: Drawer, plan: Plan, judge: Judge | None = None) -> None:
        self.drawer, self._plan, self._judge = drawer, plan, judge
        self.slots, self.period = plan.slots, plan.steps_per_chunk or drawer.steps
        if self.period > drawer.horizon:
            raise ValueError(f"--steps-per-chunk {self.period} is longer than the policy's chunk ({drawer.horizon})")
        self._chooser = Chooser(plan.chooser, None if judge is None else judge.critic)
        self._episodes: dict[int, _Episode] = {}

    def begin(self, slot: int, world: World, job: Job, seed: int) -> None:
        """Check that the world fits the policy, and seed this episode's draws."""
        self.drawer.check(world)
        if self._judge is not None:
            self._judge.check(world, self.drawer, self.period)
        frames: deque[Frame] = deque(maxlen=self.drawer.frames)
        self._episodes[slot] = _Episode(seed, np.random.default_rng([seed, 2]), frames)

    def act(self, frames: Mapping[int, Frame]) -> Mapping[int, Proposal]:
        """Actions of the chunks under way; whose time has run out gets a new chunk first."""
        for slot, frame in frames.items():
            self._episodes[slot].frames.append(frame)
        self._replan([self._episodes[slot] for slot in frames if self._episodes[slot].step % self.period == 0])
        return {slot: self._next(self._episodes[slot]) for slot in frames}

    def history(self, slot: int) -> tuple[Frame, ...]:
        """The frames that an episode's last decision was made on, oldest first."""
        return tuple(self._episodes[slot].frames)

    def blend(self, slot: int) -> NDArray[np.float32] | None:
        """The chunk of the decision just made where it is none of the candidates but a blend of some, (H, A)."""
        decision = self._episodes[slot].decision
        assert decision is not None
        return decision.choice.of(decision.chunks) if decision.choice.shares else None

    def redirect(self, slot: int, index: int) -> None:
        """Execute another candidate of the decision just made: its first action is the caller's to give."""
        episode = self._episodes[slot]
        assert episode.decision is not None
        episode.decision = replace(episode.decision, choice=Choice(index, "redirected"))
        episode.chunks[-1] = (episode.chunks[-1][0], episode.decision.chunks[index])

    def _replan(self, episodes: Sequence[_Episode]) -> None:
        """A new decision for these episodes."""
        asked = [Question(tuple(e.frames), self._plan.candidates, noise_seed(e.seed, e.decisions)) for e in episodes]
        drawn = self.drawer.draw(asked)
        foreseen = [self._executed(episode, answer) for episode, answer in zip(episodes, drawn, strict=True)]
        judged = self._judge(asked, foreseen, self._chooser.tau) if self._judge else [UNJUDGED] * len(drawn)
        for episode, question, answer, values in zip(episodes, asked, drawn, judged, strict=True):
            episode.decision = self._decide(episode, question.seed, answer, values)
            episode.chunks.append((episode.step, episode.decision.choice.of(answer.chunks)))
            episode.decisions += 1

    def _executed(self, episode: _Episode, drawn: Drawn) -> Drawn:
        """What would be executed of each chunk: itself, or what joining it with those under way makes of it."""
        if self._plan.ensemble == "none" or self._judge is None:
            return drawn
        steps = range(episode.step, episode.step + self.period)
        before, now = list(episode.chunks), episode.step
        joined = [[self._joined([*before, (now, chunk)], step) for step in steps] for chunk in drawn.chunks]
        return replace(drawn, chunks=np.array(joined, dtype=np.float32))

    def _joined(self, chunks: Sequence[tuple[int, NDArray[np.float32]]], step: int) -> NDArray[np.float32]:
        starts, each = zip(*chunks, strict=True)
        return join(ensemble.predictions_for(step, starts, each), self._plan.ensemble)

    def _decide(self, episode: _Episode, seed: int, drawn: Drawn, judged: Judged) -> Decision:
        """Which candidate is executed; where none is finite the first, which the player refuses."""
        compared = drawn.chunks[:, : self.period]
        choice = self._chooser.choose(compared, judged.values, episode.left, episode.rng, judged.distance)
        return Decision(drawn.chunks, seed, judged.values, choice or Choice(0, "nothing finite"))

    def _next(self, episode: _Episode) -> Proposal:
        """What the chunks under way say about this step."""
        while episode.chunks[0][0] + len(episode.chunks[0][1]) <= episode.step:
            episode.chunks.popleft()
        action = self._joined(episode.chunks, episode.step)
        fresh = episode.step % self.period == 0
        episode.step += 1
        assert episode.decision is not None
        look = -episode.step % self.period < self.drawer.frames
        return _proposal(action, episode.decision, episode.decisions - 1, fresh, look)


def _proposal(action: NDArray[np.float32], decision: Decision, ordinal: int, fresh: bool, look: bool) -> Proposal:
    """A step of a decision's chunk; with all candidates at its first."""
    about: dict[str, Any] = {"chunk": ordinal, "value": decision.value, "selected": decision.choice.index, "look": look}
    if fresh:
        values = None if decision.values is None else decision.values.astype(np.float32)
        about |= {"candidates": decision.chunks, "values": values, "noise_seed": decision.seed}
        about |= {"abstained": decision.choice.abstained}
    return Proposal(action, action, Source.POLICY, **about)


def join(predictions: NDArray[Any], how: str) -> NDArray[np.float32]:
    """One action (A,) from N predictions of it, (N, A), oldest first."""
    functions = {"temporal": ensemble.temporal_ensemble, "adaptive": ensemble.adaptive_ensemble}
    joined = predictions[-1] if how == "none" else functions[how](predictions)
    return np.asarray(joined, dtype=np.float32)


class LeRobotActor:
    """Any LeRobot policy, through its own factory, processors and action queue."""

    slots = 1
    period = 1

    def __init__(self, folder: str, device: str) -> None:
        parts = load_lerobot(folder, device)
        self._policy, self._before, self._after = parts.policy, parts.before, parts.after
        self._name = folder

    def begin(self, slot: int, world: World, job: Job, seed: int) -> None:
        """Check the fit, empty the policy's queue, and seed torch: these policies draw from its global generator."""
        config = self._policy.config
        check_fit(config.input_features, config.output_features, world, self._name)
        self._policy.reset()
        torch.manual_seed(seed)

    @torch.inference_mode()
    def act(self, frames: Mapping[int, Frame]) -> Mapping[int, Proposal]:
        """The next action of the policy's own queue."""
        return {slot: self._propose(frame) for slot, frame in frames.items()}

    def _propose(self, frame: Frame) -> Proposal:
        batch: dict[str, Any] = {"task": [frame.instruction]}
        for key, value in frame.columns.items():
            tensor = torch.from_numpy(value)[None]
            batch[key] = tensor.permute(0, 3, 1, 2).float() / 255.0 if value.dtype == np.uint8 else tensor
        action = self._after(self._policy.select_action(self._before(batch)))[0].float().cpu().numpy()
        return Proposal(action, action, Source.POLICY)

"""Names to objects: environments, policies, data sets. Alone in importing sim and hardware, and only when asked."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl.build_arm import ARMS

if TYPE_CHECKING:
    from vla_rl.hil.scripted import OperatorConfig
    from vla_rl.robot import Robot
    from vla_rl.rollout.audit import AuditConfig
    from vla_rl.rollout.learned import Plan
    from vla_rl.rollout.play import Actor, Player
    from vla_rl.rollout.world import World

ROBOTS = ("mujoco", *ARMS)
SCRIPTED = ("expert", "clumsy", "random")
LEVELS = ("none", "train", "positions", "looks")
CAMERAS = ("front", "wrist")
PHRASINGS = ("train", "unseen")
AUDITED = 2  # episodes under audit at once: their branches fill the policy's batch
_FOREIGN = "gymnasium:"


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, without having made it: picklable and JSON-ready.

    Attributes:
        env: empty for our own tasks, else `gymnasium:<module>:<id>`.
        kwargs: further arguments of `gymnasium.make`.
        randomisation, phrasings, image_size, cameras: of our own tasks.
        instruction: what to do, for environments that do not say; empty asks the environment.
        max_steps: cut episodes here; 0 leaves it to the environment.
    """

    env: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    randomisation: str = "train"
    phrasings: str = "train"
    image_size: int = 96
    cameras: tuple[str, ...] = CAMERAS
    instruction: str = ""
    max_steps: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a name that does not exist, with those that do."""
        _choose("randomisation", self.randomisation, LEVELS)
        _choose("phrasings", self.phrasings, PHRASINGS)
        for camera in self.cameras:
            _choose("camera", camera, CAMERAS)
        if self.image_size < 16:
            raise ValueError(f"--image-size {self.image_size} is too small; it must be at least 16")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True)
class PolicyConfig:
    """Who acts.

    Attributes:
        name: expert, clumsy, random, or a checkpoint folder (ours or any LeRobot policy's).
        noise: execution noise of scripted experts, arm joints [rad].
        plan: how a learned policy's chunks are chosen and executed; None takes its defaults.
        device: "auto", "cpu" or "cuda".
        operator: who watches a learned policy and corrects it; None for nobody.
    """

    name: str
    noise: float = 0.0
    plan: Plan | None = None
    device: str = "auto"
    operator: OperatorConfig | None = None


def _choose(what: str, name: str, known: tuple[str, ...] | list[str]) -> str:
    if name not in known:
        raise ValueError(f"unknown {what} '{name}'; there are: {', '.join(known)}")
    return name


def task_names() -> list[str]:
    """Names of our own tasks."""
    from vla_rl.sim.tasks import TASKS

    return list(TASKS)


def tasks(text: str, env: str = "") -> tuple[str, ...]:
    """Task names from a command line: `lift`, `lift,place` or `all`; another environment is its own one task.

    Raises:
        ValueError: an unknown name; the message lists those that exist.
    """
    if env:
        if not env.startswith(_FOREIGN) or env.count(":") < 2:
            raise ValueError(
                f"--env '{env}' must read gymnasium:<module>:<id>, gymnasium:gym_pusht:gym_pusht/PushT-v0 for one"
            )
        return (env.split(":", 2)[2],)
    known = task_names()
    names = tuple(known) if text == "all" else tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        _choose("task", name, [*known, "all"])
    if not names:
        raise ValueError(f"no task given; there are: {', '.join(known)}, all")
    return names


def make_world(config: EnvConfig, task: str) -> World:
    """The environment of one task.

    Raises:
        ValueError: module, id or arguments do not fit; the message says what exists.
    """
    import gymnasium

    from vla_rl.rollout.world import World

    if config.env:
        env = _make_foreign(config)
    else:
        os.environ.setdefault("MUJOCO_GL", "egl")
        importlib.import_module("vla_rl.sim")
        own = {k: getattr(config, k) for k in ("randomisation", "phrasings", "image_size", "cameras")}
        identifier = f"vla_rl/{task.capitalize()}-v0"
        env = gymnasium.make(identifier, disable_env_checker=True, **own, **config.kwargs)
    return World(env, task, config.instruction, config.max_steps)


def _package_of(spec: Any) -> str:
    """The top-level package of what an environment id stands for."""
    entry = spec.entry_point
    return (entry if isinstance(entry, str) else getattr(entry, "__module__", "")).split(":")[0].split(".")[0]


def _make_foreign(config: EnvConfig) -> Any:
    import gymnasium

    _, module, identifier = config.env.split(":", 2)
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"--env: no module '{module}' in this environment ({error}); install its package") from error
    if identifier not in gymnasium.registry:
        known = sorted(i for i, spec in gymnasium.registry.items() if _package_of(spec) == module.split(".")[0])
        raise ValueError(f"--env: {module} registers no '{identifier}'; there are: {', '.join(known) or 'none'}")
    try:
        return gymnasium.make(identifier, disable_env_checker=True, **config.kwargs)
    except TypeError as error:
        raise ValueError(
            f"--env-kwargs {json.dumps(dict(config.kwargs))} do not fit '{identifier}': {error}"
        ) from error


def shipped() -> dict[str, Path]:
    """Checkpoints that come with the package: name to folder."""
    root = Path(str(files("vla_rl") / "policy" / "checkpoints"))
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def policy_names() -> list[str]:
    """Everything that `--policy` knows by name."""
    return [*SCRIPTED, *shipped()]


def check_policy(name: str) -> str:
    """The policy's canonical name: a script's name, or the checkpoint folder that a name or path means.

    Raises:
        ValueError: none of them.
    """
    if name in SCRIPTED:
        return name
    known = shipped()
    if name not in known and not (name and Path(name).is_dir()):
        raise ValueError(f"no policy '{name}'; there are: {', '.join(policy_names())}, or give a checkpoint folder")
    from vla_rl.learn.checkpoint import resolve

    return str(resolve(known.get(name, name)))


def shipped_critics() -> dict[str, Path]:
    """Critics that come with the package: name to folder."""
    root = Path(str(files("vla_rl") / "value" / "checkpoints"))
    return {path.parent.name: path.parent for path in sorted(root.glob("*/critic.json"))}


def check_critic(name: str) -> str:
    """The critic's folder: that of a shipped one's name, a critic folder, or the newest of a training.

    Raises:
        ValueError: none of them.
    """
    known = shipped_critics()
    if name not in known and not (name and Path(name).is_dir()):
        there = f"there are: {', '.join(known)}" if known else "none is shipped"
        raise ValueError(f"no critic '{name}'; {there}, or give its folder")
    from vla_rl.learn.checkpoint import resolve

    return str(resolve(known.get(name, name)))


def plan(
    policy: str,
    steps_per_chunk: int = 0,
    ensemble: str = "none",
    candidates: int = 1,
    selector: str = "first",
    critic: str = "",
    trusted: bool = False,
    draws: int = 0,
    spread: float = 0.1,
    guide: str = "",
    guide_temperature: float = 0.1,
    **options: Any,
) -> Plan | None:
    """How chunks are chosen and executed; None for a script, which has no chunks.

    Args:
        policy: who acts.
        steps_per_chunk, ensemble, candidates, trusted: see `Plan`.
        selector: name of the rule that chooses.
        critic: name of a shipped one, its folder, or that of its training.
        draws, spread: `draws` and `scale` of `PerturbConfig`.
        guide, guide_temperature: `method` ("" for none) and `temperature` of `GuidedConfig`.
        options: see `ChooserConfig`.

    Raises:
        ValueError: a choice that does not exist, or chunks asked of a script.
    """
    if policy not in SCRIPTED:
        from vla_rl.policy.perturb import PerturbConfig
        from vla_rl.rollout.learned import Plan
        from vla_rl.steer.choose import ChooserConfig
        from vla_rl.steer.guided import GuidedConfig

        chooser, perturb = ChooserConfig(selector=selector, **options), PerturbConfig(draws, spread)
        guidance = GuidedConfig(guide, guide_temperature) if guide else None
        found = critic and check_critic(critic)
        return Plan(steps_per_chunk, ensemble, candidates, chooser, found, trusted, perturb, guidance)
    if (steps_per_chunk, ensemble, candidates, selector, critic, draws, guide) != (0, "none", 1, "first", "", 0, ""):
        raise ValueError(
            f"'{policy}' has no chunks: leave out --steps-per-chunk, --ensemble, --candidates, --selector, --critic, "
            "--draws and --guide"
        )
    return None


def fingerprint(policy: str) -> str:
    """SHA-256 of a checkpoint's weights, empty for a script: whether two results are of one policy."""
    if policy in SCRIPTED:
        return ""
    from vla_rl.policy import folder

    return folder.fingerprint(policy)


def critic_fingerprint(critic: str) -> str:
    """SHA-256 of a critic's weights.

    Raises:
        ValueError: there is no such critic.
    """
    from vla_rl.policy import folder
    from vla_rl.value.checkpoint import WEIGHTS

    return folder.fingerprint(check_critic(critic), WEIGHTS)


def fit_env(config: EnvConfig, policy: str) -> EnvConfig:
    """The environment as a checkpoint wants to see it: our own tasks take its cameras and image size."""
    if config.env or policy in SCRIPTED:
        return config
    from vla_rl.policy.folder import read_config

    features = read_config(policy).get("input_features") or {}
    images = {k.removeprefix("observation.images."): f["shape"] for k, f in features.items() if "image" in k}
    missing = sorted(set(images) - set(CAMERAS))
    if missing:
        raise ValueError(f"{policy} wants the cameras {', '.join(missing)}; the tasks have: {', '.join(CAMERAS)}")
    size = max((shape[-1] for shape in images.values()), default=config.image_size)
    return EnvConfig(**{**asdict(config), "cameras": tuple(c for c in CAMERAS if c in images), "image_size": size})


def make_actor(config: PolicyConfig) -> Actor:
    """The actor of a policy's name.

    Raises:
        ValueError: no such policy, or a checkpoint that can not be loaded.
    """
    from vla_rl.rollout.actors import ExpertActor, RandomActor

    if config.name in SCRIPTED and config.operator is not None:
        raise ValueError(f"an operator corrects learned policies, and '{config.name}' is a script; give a checkpoint")
    if config.name == "random":
        return RandomActor()
    if config.name in SCRIPTED:
        return ExpertActor(clumsy=config.name == "clumsy", noise=config.noise)
    from vla_rl.rollout.learned import Plan, load_actor, load_chunks

    if config.operator is None:
        return load_actor(config.name, config.plan or Plan(), config.device)
    from vla_rl.rollout.corrected import CorrectedActor

    return CorrectedActor(load_chunks(config.name, config.plan or Plan(), config.device), config.operator)


def make_player(env: EnvConfig, policy: PolicyConfig, threads: int = 0, audit: AuditConfig | None = None) -> Player:
    """A player of these episodes.

    Args:
        env: where.
        policy: who.
        threads: torch threads of this process; 0 leaves them.
        audit: execute all candidates of decisions to the end, and note what came of them; None does not.
    """
    from vla_rl.rollout.play import Player

    if threads and policy.name not in SCRIPTED:
        import torch

        torch.set_num_threads(threads)
    actor = make_actor(policy) if audit is None else make_audit(env, policy, audit)
    return Player(partial(make_world, env), actor)


def make_audit(env: EnvConfig, policy: PolicyConfig, audit: AuditConfig) -> Actor:
    """The actor of a policy's name under audit.

    Raises:
        ValueError: it has no candidates, or joins the chunks that it chooses.
    """
    from vla_rl.rollout.audit import AuditActor
    from vla_rl.rollout.branches import Branches
    from vla_rl.rollout.learned import ChunkActor

    plan = policy.plan
    if plan is None or plan.candidates < 2 or plan.ensemble != "none":
        raise ValueError("--critic-audit needs a checkpoint with --candidates of at least 2, and no --ensemble")
    actor = make_actor(replace(policy, plan=replace(plan, slots=AUDITED)))
    assert isinstance(actor, ChunkActor)
    return AuditActor(actor, Branches(partial(make_world, env), actor.drawer, actor.period), audit)


def make_robot(name: str, task: str, env: EnvConfig, size: tuple[int, int], speed: float = 0.0) -> Robot:
    """A robot by name.

    Args:
        name: mujoco.
        task, env: what a simulated one finds on its table.
        size: height and width of its pictures [pixels].
        speed: simulated seconds a second; 0 for one period a command.

    Raises:
        ValueError: no such robot or task.
    """
    _choose("simulated robot", name, [robot for robot in ROBOTS if robot not in ARMS])
    _choose("task", task, task_names())
    os.environ.setdefault("MUJOCO_GL", "egl")
    from vla_rl.sim.env import TabletopEnv
    from vla_rl.sim.mujoco_robot import MujocoRobot
    from vla_rl.sim.realtime import RealTimeRobot

    tabletop = TabletopEnv(
        task, randomisation=env.randomisation, image_size=size, cameras=env.cameras, phrasings=env.phrasings
    )
    robot = MujocoRobot(tabletop)
    return RealTimeRobot(robot, speed) if speed else robot


def dataset_root(path: str | Path) -> Path:
    """The LeRobotDataset meant by a path: itself, or the one inside a collection.

    Raises:
        ValueError: neither.
    """
    root = Path(path)
    for candidate in (root, root / "dataset"):
        if (candidate / "meta" / "info.json").is_file():
            return candidate
    hint = (
        "; its collection was interrupted: run the same collect command again" if (root / "episodes").is_dir() else ""
    )
    raise ValueError(f"no data set in {root}: there is no meta/info.json{hint}")

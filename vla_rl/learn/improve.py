"""improve: sessions with corrections to a better policy, by any of the methods; `vla-rl improve` is this.

::

    OUT/critic/         the run of the critic, for methods that have one
    OUT/policy/         the run of the policy: a checkpoint for --policy
    OUT/asked.json      what --resume goes on with: method, sessions, demonstrations, policy
    OUT/improve.json    what was asked, what came of it, and what the sessions say of the policy that drove them
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vla_rl.data.cache import open_numbers
from vla_rl.data.dataset import open_dataset
from vla_rl.data.sidecars import write_column
from vla_rl.learn import rounds
from vla_rl.learn.advantages import carried, judge
from vla_rl.learn.bc import STATE
from vla_rl.learn.best_chunk import train_best_chunk
from vla_rl.learn.checkpoint import resolve
from vla_rl.learn.config import RunConfig
from vla_rl.learn.correction_config import BestChunkConfig, HGDaggerConfig, PreferenceConfig
from vla_rl.learn.corrections import drove
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.extraction_config import RecapConfig
from vla_rl.learn.hg_dagger import NothingToImitateError, train_hg_dagger
from vla_rl.learn.improve_config import ImproveConfig
from vla_rl.learn.preference import train_preference
from vla_rl.learn.recap import train_recap
from vla_rl.learn.run import write_json
from vla_rl.learn.value import train_value
from vla_rl.policy.folder import read_config
from vla_rl.reward.label import label
from vla_rl.value.checkpoint import read_card

RESULT, ASKED = "improve.json", "asked.json"
TAG = {"recap": "recap", "hil_serl": "marks", "expo": "marks"}
"""Sidecars with the rewards that a method's critic learns from; pvp needs none."""

SETTLED = ("data", "sessions", "out", "init", "critic", "reward", "resume")
"""Settings of a method's run that improve itself decides: another value would make a liar of its report."""

KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", tuple: "a list like [1, 2]"}
"""What --set takes, in words."""

Result = dict[str, Any]


def improve(config: ImproveConfig, progress: bool = True) -> Result:
    """A better policy from sessions.

    On the way it writes rewards and returns beside the data sets, as sidecars, where the method needs them.

    Args:
        config: what to do; `session` and `data` are folders of LeRobotDataset v3.
        progress: whether to show bars.

    Returns:
        JSON-ready: `policy` (checkpoint), `critic` (folder, or ""), `session` (`rounds.Round`), `curve`, `train`.

    Raises:
        ValueError: sessions, demonstrations, policy and critic do not fit, nothing was corrected, or --resume asks for
            something else than what `out` was begun with.
    """
    kind = POLICIES.get(config.method, BestChunkConfig)
    kind(**_asked(config, kind))  # what can not be is refused before anything is trained
    for root in (*config.session, *config.data):
        require_fit(root, config.policy)
    sessions = [open_numbers(root) for root in config.session]
    result: Result = {
        "method": config.method,
        "config": dataclasses.asdict(config),
        "session": rounds.summary(sessions).to_dict(),
        "curve": rounds.curve(sessions),
    }
    result |= METHODS[config.method](config, progress)
    Path(config.out).mkdir(parents=True, exist_ok=True)
    write_json(Path(config.out) / RESULT, result)
    return result


def _begin(config: ImproveConfig) -> None:
    """Write down what is asked, or hold it against what `out` was begun with: its weights speak of that alone.

    Raises:
        ValueError: it was begun with something else; names it, with both sides.
    """
    out = Path(config.out)
    asked = {"method": config.method, "policy": os.path.abspath(config.policy)}
    asked |= {name: " ".join(map(os.path.abspath, getattr(config, name))) for name in ("session", "data")}
    if not any((out / run).is_dir() for run in ("policy", "critic")):
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / ASKED, asked)
    elif config.resume and (out / ASKED).is_file():
        before = json.loads((out / ASKED).read_text())
        other = [name for name, now in asked.items() if before.get(name) != now]
        if said := [f"--{name} was {before.get(name) or 'none'}, now {asked[name] or 'none'}" for name in other]:
            raise ValueError(f"--resume: {out} was begun otherwise: {'; '.join(said)}")


def require_fit(root: str, policy: str) -> None:
    """Refuse a data set of another robot, or with other cameras, than the policy's.

    Raises:
        ValueError: names what differs, with both sides.
    """
    config, found = read_config(resolve(policy)), open_dataset(root)
    wanted = [name for name in config["input_features"] if "image" in name]
    sides = {
        "cameras": (sorted(wanted), sorted(set(wanted) & set(found.features))),
        "rate [Hz]": (float(config["fps"]), float(found.fps)),
        "joints": (list((config.get("action_spec") or {}).get("names", [])), found.names("action")),
        "state": (list(config.get("state_names") or []), found.names(STATE) if STATE in found.features else []),
    }
    for what, (has, gives) in sides.items():
        if has and has != gives:
            raise ValueError(f"{root} does not fit {policy} in {what}: it has {gives}, the policy wants {has}")


def _hg_dagger(config: ImproveConfig, progress: bool) -> Result:
    return _policy(config, HGDaggerConfig, train_hg_dagger, progress)


def _preference(config: ImproveConfig, progress: bool) -> Result:
    return _policy(config, PreferenceConfig, train_preference, progress)


def _recap(config: ImproveConfig, progress: bool) -> Result:
    """The value of what followed, split at the first takeover; then a policy that is told what was better."""
    tag = _label(config, "recap", 1.0, {})
    critic = _critic(config, progress, algo="monte_carlo", reward=tag, gamma=1.0)
    result = _policy(config, RecapConfig, train_recap, progress, critic=critic, reward=tag)
    _write_advantages(config, critic, tag)
    return result


def _hil_serl(config: ImproveConfig, progress: bool) -> Result:
    tag = _label(config, "sparse", config.gamma, {"unmarked": 1.0})
    return _by_critic(config, progress, reward=tag, ensemble=10, draw=True, candidates=4, samples=4)


def _pvp(config: ImproveConfig, progress: bool) -> Result:
    if not any(drove(open_numbers(root)).any() for root in config.session):
        raise NothingToImitateError(
            f"nobody corrected anything in {', '.join(config.session)}, and pvp's critic learns from nothing else"
        )
    return _by_critic(config, progress, draw=True, candidates=4, samples=4)


def _by_critic(config: ImproveConfig, progress: bool, **options: Any) -> Result:
    """A critic by temporal differences, then corrections and its best chunks."""
    critic = _critic(config, progress, algo=config.method, gamma=config.gamma, sessions=len(config.session), **options)
    return _policy(config, BestChunkConfig, train_best_chunk, progress, critic=critic, candidates=4)


POLICIES: dict[str, type[RunConfig]] = {
    "hg_dagger": HGDaggerConfig,
    "preference": PreferenceConfig,
    "recap": RecapConfig,
}
"""What the policy's run can be told; of all other methods it is BestChunkConfig."""

METHODS: dict[str, Callable[[ImproveConfig, bool], Result]] = {
    "hg_dagger": _hg_dagger,
    "preference": _preference,
    "recap": _recap,
    "hil_serl": _hil_serl,
    "pvp": _pvp,
    "expo": _hil_serl,
}


def _label(config: ImproveConfig, rule: str, gamma: float, options: dict[str, float]) -> str:
    """Tag of the rewards and returns of all data: the one asked for, or now written from the operator's marks."""
    if config.reward:
        return config.reward
    for root in (*config.data, *config.session):
        label(root, rule, TAG[config.method], gamma, options)
    return TAG[config.method]


def _write_advantages(config: ImproveConfig, critic: str, tag: str) -> None:
    """What the critic says of every frame, as sidecars `advantage_<tag>`; frames between decisions go with the last."""
    common = _common(config, "policy")
    judged = judge(RecapConfig(data=common["data"], init=config.policy, critic=critic, reward=tag, out="-"), "cpu")
    rows, advantage = judged.of_steps()
    for number, root in enumerate(common["data"]):
        first, last = judged.offsets[number], judged.offsets[number + 1]
        mine = (rows >= first) & (rows < last)
        starts = judged.sets[number].starts
        values = carried(rows[mine] - first, advantage[mine], starts, 0.0)
        write_column(Path(root), "advantage", tag, values, starts, {"critic": critic, "reward": tag})


def _critic(config: ImproveConfig, progress: bool, **options: Any) -> str:
    """The critic's folder: the given one, or the one that is trained.

    Raises:
        ValueError: the given one is another method's, where its critic is all that a method is.
    """
    if config.value:
        folder = resolve(config.value)
        made = read_card(folder)["algorithm"]
        if config.method in ("pvp", "expo") and made != config.method:
            raise ValueError(
                f"--value {config.value} is a critic of {made}, and {config.method} is nothing but its own: leave "
                "--value out to train one, or take --method hil_serl"
            )
        return str(folder)
    wanted = {**_common(config, "critic"), "policy": config.policy, "steps": config.critic_steps, **options}
    wanted["encoder"] = "policy" if config.method == "recap" else "own"  # the policy to be steered will have moved on
    done = train_value(CriticRunConfig(**wanted), progress)
    _stop_where_interrupted(done)
    return str(done["checkpoint"])


def _policy[C: RunConfig](
    config: ImproveConfig, kind: type[C], train: Callable[[C, bool], Result], progress: bool, **options: Any
) -> Result:
    """The policy by a method of `vla-rl train`."""
    wanted = {**_common(config, "policy"), "init": config.policy, "steps": config.steps, "lr": config.lr}
    wanted |= {"batch": config.batch, "warmup": min(200, config.steps // 10), "ema": 0.99}
    wanted |= {"checkpoint_interval": max(100, config.steps // 4), "image_size": _image_size(config.policy)}
    if "sessions" in _names(kind):
        wanted |= {"sessions": len(config.session)}
    done = train(kind(**{**wanted, **options, **_asked(config, kind)}), progress)
    _stop_where_interrupted(done)
    return {"policy": done["checkpoint"], "critic": options.get("critic", ""), "train": done}


def _image_size(policy: str) -> int:
    """Side of the pictures that a policy sees [pixels], 0 where it sees none."""
    features = read_config(resolve(policy))["input_features"]
    return max((int(feature["shape"][-1]) for name, feature in features.items() if "image" in name), default=0)


def _names(kind: type[RunConfig]) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


def _asked(config: ImproveConfig, kind: type[RunConfig]) -> Result:
    """What the user asked of the policy's run, beyond what all runs are told."""
    shared = {"share": config.share, "pace": config.pace} if "sessions" in _names(kind) else {}
    return {**shared, **_overrides(config, kind)}


def _overrides(config: ImproveConfig, kind: type[RunConfig]) -> Result:
    """`--set` as fields of the method's config.

    Raises:
        ValueError: one names no field, and the message lists them; or one that improve decides itself; or its value is
            of another kind than the default.
    """
    default, found, names = kind(), {}, [name for name in _names(kind) if name not in SETTLED]
    for name, text in config.settings().items():
        if name in SETTLED:
            raise ValueError(f"--set {name}: improve decides that itself, by its own flags (--session, --out, ...)")
        if name not in names:
            raise ValueError(f"--set {name}: {config.method} has no such setting; there are: {', '.join(names)}")
        found[name] = _value(name, text, getattr(default, name))
    return found


def _value(name: str, text: str, default: Any) -> Any:
    """A setting's value, of the default's kind.

    Raises:
        ValueError: it is of another.
    """
    kind = type(default)
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    if kind is str:
        return value if isinstance(value, str) else text
    if (type(value), kind) in ((list, tuple), (int, float)):
        value = kind(value)
    if default is not None and type(value) is not kind:
        raise ValueError(f"--set {name}={text}: '{name}' must be {KINDS[kind]}, by default it is {default!r}")
    return value


def _common(config: ImproveConfig, folder: str) -> Result:
    """What critic and policy are told alike, once it is sure that the folder is theirs."""
    _begin(config)
    out = Path(config.out) / folder
    return {
        "data": (*config.data, *config.session),
        "out": str(out),
        "resume": config.resume and out.is_dir(),
        "seed": config.seed,
        "threads": config.threads,
        "device": config.device,
        "tensorboard": False,
    }


def _stop_where_interrupted(done: Result) -> None:
    if done["stopped"] == "interrupted":
        raise KeyboardInterrupt("interrupted; the same command with --resume goes on")

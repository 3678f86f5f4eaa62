"""Train a policy.

  vla-rl train bc --data data/lift --out outputs/lift --minutes 60
  vla-rl train bc --data data/lift --out outputs/lift --minutes 60 --resume
  vla-rl train value --algo iql --data data/rollouts --policy outputs/lift --out outputs/critic --reward sparse
  vla-rl train best_of_n --data data/rollouts --init outputs/lift --critic outputs/critic --out outputs/better
  vla-rl train classifier --data data/rollouts --out outputs/classifier --steps 1000

bc is behaviour cloning with a diffusion action head; value is a chunk critic by offline RL, which ranks the policy's
candidates; awr (with filtered and 10% BC), best_of_n and recap make a better policy of rollouts and a critic;
hg_dagger, preference and best_chunk make one of sessions with corrections (`vla-rl improve` does all that it takes in
one go). OUT holds checkpoints, each a LeRobot policy folder (or a critic folder), and logs for TensorBoard. Ctrl-C
saves and says how to go on.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import itertools
import types
import typing
from collections.abc import Callable
from typing import Any

from vla_rl import build
from vla_rl.commands import Result
from vla_rl.learn.classifier_config import ClassifierConfig
from vla_rl.learn.config import BCConfig
from vla_rl.learn.correction_config import BestChunkConfig, HGDaggerConfig, PreferenceConfig
from vla_rl.learn.critic_config import CriticRunConfig
from vla_rl.learn.extraction_config import AWRConfig, BestOfNConfig, RecapConfig

ALGORITHMS = {
    "bc": BCConfig,
    "value": CriticRunConfig,
    "classifier": ClassifierConfig,
    "awr": AWRConfig,
    "best_of_n": BestOfNConfig,
    "recap": RecapConfig,
    "hg_dagger": HGDaggerConfig,
    "preference": PreferenceConfig,
    "best_chunk": BestChunkConfig,
}
_REQUIRED = {
    "bc": ("data", "out"),
    "value": ("data", "policy", "out"),
    "classifier": ("data", "out"),
    "awr": ("data", "out"),
    "best_of_n": ("data", "out", "init", "critic"),
    "recap": ("data", "out", "init", "critic"),
    "hg_dagger": ("data", "out", "init"),
    "preference": ("data", "out", "init"),
    "best_chunk": ("data", "out", "init", "critic"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand an algorithm; its flags are the fields of its config."""
    subparsers = parser.add_subparsers(dest="algorithm", required=True, metavar="|".join(ALGORITHMS))
    for name, config in ALGORITHMS.items():
        child = subparsers.add_parser(name, help=(inspect.getdoc(config) or "").splitlines()[0])
        add_config_flags(child, config, _REQUIRED[name])


def run(args: argparse.Namespace) -> Result:
    """Train; 130 where Ctrl-C ended it, after a checkpoint was saved."""
    config = read_config_flags(args, ALGORITHMS[args.algorithm])
    config = dataclasses.replace(config, data=tuple(str(build.dataset_root(path)) for path in config.data))
    config = dataclasses.replace(config, **_shipped(config))
    result = _trainer(args.algorithm)(config, progress=True)
    return Result(
        {"command": f"train {args.algorithm}", **result}, 130 if result.get("stopped") == "interrupted" else 0
    )


def _shipped(config: Any) -> dict[str, str]:
    """Fields that name what comes with the package, with its folder."""
    known = {name: build.shipped() for name in ("init", "policy", "drawn_by")} | {"critic": build.shipped_critics()}
    given = {field: getattr(config, field, "") for field in known}
    return {field: str(known[field][name]) for field, name in given.items() if name in known[field]}


def _trainer(algorithm: str) -> Callable[..., dict[str, Any]]:
    """The function that trains; torch loads here."""
    module = importlib.import_module(f"vla_rl.learn.{algorithm}")
    trainer: Callable[..., dict[str, Any]] = getattr(module, f"train_{algorithm}")
    return trainer


def add_config_flags(parser: argparse.ArgumentParser, config: type[Any], required: tuple[str, ...] = ()) -> None:
    """A flag for each field of a frozen dataclass; help texts are the docstrings that follow the fields."""
    texts = field_docs(config)
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        flag, text = f"--{field.name.replace('_', '-')}", texts.get(field.name, "").replace("%", "%%")
        options: dict[str, Any] = {"dest": field.name, "required": field.name in required, "default": field.default}
        kind, many = _plain_type(hints[field.name])
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text, **options)
            continue
        if many:
            options["nargs"] = "+"
        shown = "" if field.default in ((), "", None) or field.name in required else f" (default {field.default})"
        parser.add_argument(flag, type=kind, metavar=kind.__name__.upper(), help=text + shown, **options)


def read_config_flags(args: argparse.Namespace, config: type[Any]) -> Any:
    """The dataclass that the flags of `add_config_flags` describe. Raises what its constructor does."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(config)}
    return config(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def field_docs(config: type[Any]) -> dict[str, str]:
    """Field name to the docstring behind it in the source of the class, or of what it derives from."""
    docs = {}
    for kind in reversed(config.__mro__[:-1]):
        body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[getattr(field.target, "id", "")] = " ".join(str(text.value.value).split())
    return docs


def _plain_type(hint: Any) -> tuple[type, bool]:
    """The type of one value on the command line, and whether several are taken."""
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None)), False
    if typing.get_origin(hint) is typing.Literal:
        return type(typing.get_args(hint)[0]), False
    return hint, False

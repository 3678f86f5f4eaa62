"""Train a policy.

  vla-rl train bc --data data/lift --out outputs/lift --minutes 60
  vla-rl train bc --data data/lift --out outputs/lift --minutes 60 --resume

bc is behaviour cloning with a diffusion action head. OUT holds checkpoints, each a LeRobot policy folder, and logs for
TensorBoard. Ctrl-C saves and says how to go on.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import types
import typing
from typing import Any

from vla_rl import build
from vla_rl.commands import Result
from vla_rl.learn import config as bc

ALGORITHMS = {"bc": bc.BCConfig}
_REQUIRED = ("data", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand an algorithm; its flags are the fields of its config."""
    subparsers = parser.add_subparsers(dest="algorithm", required=True, metavar="|".join(ALGORITHMS))
    for name, config in ALGORITHMS.items():
        child = subparsers.add_parser(name, help=(inspect.getdoc(config) or "").splitlines()[0])
        add_config_flags(child, config, _REQUIRED)


def run(args: argparse.Namespace) -> Result:
    """Train; 130 where Ctrl-C ended it, after a checkpoint was saved."""
    config = read_config_flags(args, ALGORITHMS[args.algorithm])
    config = dataclasses.replace(config, data=tuple(str(build.dataset_root(path)) for path in config.data))
    from vla_rl.learn.bc import train_bc

    result = train_bc(config, progress=True)
    return Result(
        {"command": f"train {args.algorithm}", **result}, 130 if result.get("stopped") == "interrupted" else 0
    )


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
    """Field name to the docstring behind it in the class's source."""
    body = ast.parse(inspect.getsource(config)).body[0].body  # type: ignore[attr-defined]
    docs = {}
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
    return hint, False

"""A frozen dataclass as a node's ROS parameters: types, descriptions, ranges and choices from its fields."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def parameter(
    default: Any,
    description: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    fixed: bool = False,
) -> Any:
    """A field of a configuration that is a ROS parameter.

    Args:
        default: bool, int, float, str or a tuple of str; its type is the parameter's.
        description: what it means, with its unit.
        low, high: bounds, included.
        choices: the only strings allowed.
        fixed: can only be given at the start.
    """
    meta = {"description": description, "low": low, "high": high, "choices": choices, "fixed": fixed}
    return dataclasses.field(default=default, metadata=meta)


def declare[Config](node: Node, kind: type[Config]) -> Config:
    """Declare every field and read what was given.

    Raises:
        ValueError: an unknown parameter, a wrong type, a value out of range; one line.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    given = node._parameter_overrides
    unknown = sorted(n for n in given if n not in fields and not n.startswith(_OF_ROS))
    if unknown:
        raise ValueError(
            f"unknown parameter '{unknown[0]}' of {node.get_name()}; there are: {', '.join(sorted(fields))}"
        )
    for field in fields.values():
        _as_double(given, field)
        try:
            node.declare_parameter(field.name, _to_ros(field.default), _descriptor(field))
        except InvalidParameterTypeException as error:
            wanted = type(field.default).__name__.replace("tuple", "list of strings")
            raise ValueError(f"parameter '{field.name}' of {node.get_name()} takes a {wanted}") from error
        except InvalidParameterValueException as error:
            raise ValueError(str(error).replace("\n", " ")) from error
    values = {name: _from_ros(node.get_parameter(name).value, fields[name]) for name in fields}
    return kind(**values)


def on_set[Config](current: Callable[[], Config], accept: Callable[[Config], None]) -> Any:
    """A callback that hands a changed configuration to `accept`, whose ValueError refuses the change."""

    def callback(changes: list[Parameter]) -> SetParametersResult:
        config = current()
        fields = {f.name: f for f in dataclasses.fields(config)}  # type: ignore[arg-type]
        try:
            values = {p.name: _from_ros(p.value, fields[p.name]) for p in changes if p.name in fields}
            if values:
                accept(dataclasses.replace(config, **values))  # type: ignore[type-var]
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    return callback


def _descriptor(field: dataclasses.Field) -> ParameterDescriptor:
    meta, default = field.metadata, field.default
    text = meta["description"] + (f"; one of {', '.join(meta['choices'])}" if meta["choices"] else "")
    descriptor = ParameterDescriptor(description=text, read_only=meta["fixed"])
    low, high = meta["low"], meta["high"]
    if low is not None and high is not None:
        if isinstance(default, int):
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    return descriptor


def _as_double(given: dict[str, Parameter], field: dataclasses.Field) -> None:
    """`rate:=30` means 30.0."""
    found = given.get(field.name)
    if isinstance(field.default, float) and found is not None and found.type_ == Parameter.Type.INTEGER:
        given[field.name] = Parameter(field.name, Parameter.Type.DOUBLE, float(found.value))


def _to_ros(value: Any) -> Any:
    """ROS knows no empty list of strings: a list of one empty string stands for it."""
    return list(value or [""]) if isinstance(value, tuple) else value


def _from_ros(value: Any, field: dataclasses.Field) -> Any:
    """A parameter's value as the field's, checked for what ROS does not check."""
    if isinstance(field.default, tuple):
        return tuple(v for v in value if v)
    if isinstance(field.default, float) and not math.isfinite(value):
        raise ValueError(f"parameter '{field.name}' is not finite")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise ValueError(f"parameter '{field.name}' is '{value}'; there are: {', '.join(choices)}")
    return value

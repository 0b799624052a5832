"""Given options: those that stand on the command line, and the refusal of any that do not apply."""

from collections.abc import Collection, Mapping
from typing import Any


def is_given(context: Any, name: str) -> bool:
    """True if the option stands on the command line, be it with its default value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def write_given(context: Any, excluded: Collection[str] = ()) -> list[str]:
    """Write the options that are given as arguments of a command, but those excluded."""
    written: list[str] = []
    for param in context.command.params:
        option = param.param_type_name == "option"
        if not option or param.name in excluded or not is_given(context, param.name):
            continue
        value = context.params[param.name]
        for each in value if isinstance(value, list | tuple) else [value]:
            written += [param.opts[0]] if param.is_flag else [param.opts[0], str(each)]
    return written


def refuse_given(context: Any, reasons: Mapping[str, str]) -> None:
    """Refuse options that do not apply; `reasons` has what to say of each, by its parameter's name.

    Raises ValueError for the first that is given.
    """
    for param in context.command.params:
        if param.name in reasons and is_given(context, param.name):
            raise ValueError(f"{param.opts[0]}: {reasons[param.name]}")

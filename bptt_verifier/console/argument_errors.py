"""Argument errors: Typer's refusals of a command line, raised as a ValueError of one sentence.

Typer prints its own refusals before it raises them, so this module catches them where Typer parses.
It relies only on what Click documents, and reads the types from the annotations of the commands:
Typer's representation of them, and its wording, differ from version to version.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

# Typer has no public name for this class, and has moved it once already.
UsageError: type[Any] = typer.BadParameter.__mro__[1]

ALIKE = 0.65  # of two names, at which one is suggested for the other
NOUNS = {int: "an integer", float: "a number"}
PLACEHOLDERS = {bool: "", int: "N", float: "NUMBER", Path: "FILE"}  # of a value, in the help
F = TypeVar("F", bound=Callable[..., Any])


def find_type(param: Any, context: Any) -> tuple[Any, Any]:
    """The type of an option by the annotation of its command, and what Typer knows of it."""
    declared = inspect.signature(context.command.callback, eval_str=True).parameters[param.name]
    kind, information = declared.annotation, None
    if get_origin(kind) is Annotated:
        kind, information = get_args(kind)[:2]
    if NoneType in get_args(kind):
        kind = next(other for other in get_args(kind) if other is not NoneType)
    return kind, information


def describe_values(param: Any, context: Any) -> str | None:
    """The values that an option takes, by its command's annotation; None where any will do."""
    kind, information = find_type(param, context)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(member.value for member in kind)}"
    if kind not in NOUNS:
        return None
    least, most = getattr(information, "min", None), getattr(information, "max", None)
    if least is None:
        return NOUNS[kind] if most is None else f"{NOUNS[kind]} of at most {most}"
    return NOUNS[kind] + (f" of at least {least}" if most is None else f" from {least} to {most}")


def name_values(params: list[Any], context: Any) -> list[Any]:
    """Give each option without one the name of its value, which the help shows; none to switches.

    Typer shows the name of a Python type otherwise.
    """
    for param in params:
        if param.metavar is None and param.param_type_name == "option":
            kind = bool if param.is_flag else find_type(param, context)[0]
            param.metavar = PLACEHOLDERS.get(kind)
    return params


def quote_unprintable(text: str) -> str:
    """The text on one line, quoted where it has characters that control a terminal."""
    return text if text.isprintable() else repr(text)


def describe_error(error: Any, context: Any, arguments: list[str]) -> str:
    """What is wrong with a command's arguments, in one sentence."""
    command, path, see = context.command, context.command_path, f"see {context.command_path} --help"
    option, param = getattr(error, "option_name", None), getattr(error, "param", None)
    if option is not None:
        for known in command.get_params(context):
            if option in (*known.opts, *known.secondary_opts):
                if not known.is_flag:
                    values = describe_values(known, context) or "a value"
                    return f"{option}: expected {values}, found none"
                given = next(text for text in arguments if text.startswith(f"{option}="))
                return f"{option}: expected no value, found {given.partition('=')[2]!r}"
        every = [name for known in command.get_params(context) for name in known.opts]
        similar = " or ".join(get_close_matches(option, every, n=2, cutoff=ALIKE))
        perhaps = f", perhaps {similar}" if similar else ""
        return f"{quote_unprintable(option)}: no such option of {path}{perhaps}; {see}"
    context.resilient_parsing = True  # parse everything else, whatever is wrong
    values, surplus, _ = command.make_parser(context).parse_args(list(arguments))
    if param is not None:
        value, expected = values.get(param.name), describe_values(param, context)
        if isinstance(value, str) and expected is not None:
            name = param.opts[0] if param.param_type_name == "option" else param.name.upper()
            return f"{name}: expected {expected}, found {value!r}"
    elif surplus and not context.allow_extra_args:
        return f"{path}: expected no more arguments, found {', '.join(map(repr, surplus))}; {see}"
    return f"{' '.join(error.format_message().split()).rstrip('.')}; {see}"


@contextmanager
def raising_value_errors(context: Any, arguments: list[str]) -> Iterator[None]:
    """Inside, a UsageError becomes a ValueError, except the one by which Typer shows the help."""
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        raise ValueError(describe_error(error, context, arguments)) from error


def refuse_repeated(command: Any, context: Any, arguments: list[str]) -> None:
    """Raise ValueError for an option that stands twice and takes one value: which one is meant?"""
    _, _, in_order = command.make_parser(context).parse_args(list(arguments))
    for number, param in enumerate(in_order):
        option = param.param_type_name == "option" and not (param.is_flag or param.multiple)
        if option and param in in_order[:number]:
            raise ValueError(f"{param.opts[0]}: expected it once, found it several times")


class Command(TyperCommand):
    """A command that refuses bad arguments with one sentence."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters as Typer does, with the names of their values in the help."""
        return name_values(super().get_params(ctx), ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as Typer does. Raises ValueError for arguments that the command does not take."""
        given = list(args)
        with raising_value_errors(ctx, given):
            rest = super().parse_args(ctx, args)
        refuse_repeated(self, ctx, given)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run as Typer does. Raises ValueError where the command raises a UsageError."""
        with raising_value_errors(ctx, []):
            return super().invoke(ctx)


class Group(TyperGroup):
    """A group of commands that refuses an unknown command with one sentence."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters as Typer does, with the names of their values in the help."""
        return name_values(super().get_params(ctx), ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as Typer does. Raises ValueError for options that the group does not have."""
        with raising_value_errors(ctx, list(args)):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run as Typer does. Raises ValueError where no command is named."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            if ctx.invoked_subcommand is not None:
                raise
            raise ValueError(self.describe_name_error(ctx, "none")) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve as Typer does. Raises ValueError where no command has this name."""
        if self.get_command(ctx, args[0]) is None:
            raise ValueError(self.describe_name_error(ctx, repr(args[0])))
        return super().resolve_command(ctx, args)

    def describe_name_error(self, ctx: Any, found: str) -> str:
        """What is wrong with a command's name, in one sentence."""
        commands = self.list_commands(ctx)
        said = f"COMMAND: expected one of {', '.join(commands)}, found {found}"
        similar = get_close_matches(found.strip("'"), commands, n=1, cutoff=ALIKE)
        if "verify" in commands and found.strip("'").endswith((".py", ".ipynb")):
            similar = [f"bptt verify {found.strip(chr(39))}"]
        return f"{said}; perhaps {similar[0]}" if similar else said


class App(typer.Typer):
    """A Typer application that raises bad usage as a ValueError of one sentence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=Group, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Register a command as Typer does."""
        return super().command(name, cls=Command, **options)

"""What Typer refuses by itself, said as everything else is: a ValueError of one sentence.

Typer prints its own refusals before it hands them on, so they are caught where it parses. All that
is asked of it is what Click documents; the types are read off the commands' own annotations, since
what Typer makes of those, and its words, differ from version to version.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

# Typer has no public name for it, and has taken it from two places so far.
UsageError: type[Any] = typer.BadParameter.__mro__[1]

NOUNS = {int: "an integer", float: "a number"}
F = TypeVar("F", bound=Callable[..., Any])


def expected(param: Any, context: Any) -> str | None:
    """The values that an option takes, as its command declares them, or None where any will do."""
    declared = inspect.signature(context.command.callback, eval_str=True).parameters[param.name]
    kind, information = declared.annotation, None
    if get_origin(kind) is Annotated:
        kind, information = get_args(kind)[:2]
    if NoneType in get_args(kind):
        kind = next(other for other in get_args(kind) if other is not NoneType)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(member.value for member in kind)}"
    if kind not in NOUNS:
        return None
    least, most = getattr(information, "min", None), getattr(information, "max", None)
    if least is None:
        return NOUNS[kind] if most is None else f"{NOUNS[kind]} of at most {most}"
    return NOUNS[kind] + (f" of at least {least}" if most is None else f" from {least} to {most}")


def plainly(text: str) -> str:
    """The text, on one line and without what a terminal would obey."""
    return text if text.isprintable() else repr(text)


def refusal(error: Any, context: Any, arguments: list[str]) -> str:
    """What is wrong with a command's arguments, in one sentence."""
    command, path = context.command, context.command_path
    see = f"see {path} --help"
    option, param = getattr(error, "option_name", None), getattr(error, "param", None)
    if option is not None:
        for known in command.get_params(context):
            if option in (*known.opts, *known.secondary_opts):
                if not known.is_flag:
                    return f"{option}: expected {expected(known, context) or 'a value'}, found none"
                given = next(text for text in arguments if text.startswith(f"{option}="))
                return f"{option}: expected no value, found {given.partition('=')[2]!r}"
        similar = " or ".join(sorted(getattr(error, "possibilities", None) or ()))
        perhaps = f", perhaps {similar}" if similar else ""
        return f"{plainly(option)}: no such option of {path}{perhaps}; {see}"
    context.resilient_parsing = True  # what can be parsed is, whatever is wrong with the rest
    values, surplus, _ = command.make_parser(context).parse_args(list(arguments))
    if param is not None:
        value, wanted = values.get(param.name), expected(param, context)
        if isinstance(value, str) and wanted is not None:
            name = param.opts[0] if param.param_type_name == "option" else param.name.upper()
            return f"{name}: expected {wanted}, found {value!r}"
    elif surplus and not context.allow_extra_args:
        return f"{', '.join(map(repr, surplus))}: more than {path} takes; {see}"
    return f"{' '.join(error.format_message().split()).rstrip('.')}; {see}"


@contextmanager
def refused_in_a_sentence(context: Any, arguments: list[str]) -> Iterator[None]:
    """Inside, a UsageError becomes a ValueError, unless it is how Typer shows the help."""
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        raise ValueError(refusal(error, context, arguments)) from error


class Command(TyperCommand):
    """A command that refuses its arguments in one sentence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's. Raises ValueError for arguments that the command does not take."""
        with refused_in_a_sentence(ctx, list(args)):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """As Typer's. Raises ValueError for what the command's function refuses as Typer does."""
        with refused_in_a_sentence(ctx, []):
            return super().invoke(ctx)


class Group(TyperGroup):
    """A group of commands that refuses in one sentence what names none of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's. Raises ValueError for options that the group does not have."""
        with refused_in_a_sentence(ctx, list(args)):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """As Typer's. Raises ValueError where no command is named."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            if ctx.invoked_subcommand is not None:
                raise
            raise ValueError(self.wanted(ctx, "none")) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As Typer's. Raises ValueError for another name than a command's."""
        if self.get_command(ctx, args[0]) is None:
            raise ValueError(self.wanted(ctx, repr(args[0])))
        return super().resolve_command(ctx, args)

    def wanted(self, ctx: Any, found: str) -> str:
        """The sentence about a command's name."""
        return f"COMMAND: expected one of {', '.join(self.list_commands(ctx))}, found {found}"


class App(typer.Typer):
    """A Typer application whose bad usage is a ValueError of one sentence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=Group, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """As Typer's."""
        return super().command(name, cls=Command, **options)

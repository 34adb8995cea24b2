"""The table of functions: a Python signature is the single source of a function's validation and documentation.

`@table.function(...)` takes a coroutine function whose first parameter is the queue. The other parameters, with their
types and defaults, become the JSON array that a client sends as `args`; their Node names are the same words in
camelCase.
"""

from __future__ import annotations

import difflib
import enum
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Raw

from gateway.wire.envelope import UNREADABLE
from gateway.wire.errors import ErrorCode, GatewayError, invalid_arguments


class Permission(enum.StrEnum):
    """What a key must be allowed to do to call a function."""

    PRODUCE = "produce"
    CONSUME = "consume"
    OBSERVE = "observe"
    MANAGE = "manage"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: how its argument is read (None: not at all, it stays text), and what stands for a missing one."""

    decoder: msgspec.json.Decoder[Any] | None
    default: Any


@dataclass(frozen=True, slots=True)
class Function:
    """One row of the table.

    Attributes:
        name: the function's name in Node's BullMQ, which is its name on the wire.
        permission: what a key must be allowed to do.
        writes: whether it changes anything: decides between REDIS_UNAVAILABLE and OUTCOME_UNKNOWN when a reply is lost.
        signature: for people, such as `clean(grace, limit, type?)`.
        direct: `run` is a plain function that gives its result, as JSON text, to a `sink`: the hot ones need no task.
            Otherwise it is a coroutine function whose result is still to be encoded.
        run: takes the queue and the bound arguments.
    """

    name: str
    permission: Permission
    writes: bool
    signature: str
    doc: str
    direct: bool
    run: Callable[..., Any]
    _parameters: tuple[Parameter, ...]
    _least: int  # arguments that must be given
    _variadic: bool  # the only parameter takes all there are
    _known: frozenset[str]

    def bind(self, args: Sequence[Raw]) -> list[Any]:
        """Check and convert the arguments, each of them JSON text.

        Raises:
            GatewayError: INVALID_ARGUMENTS that names the place, as `args[2].delay`.
        """
        parameters = self._parameters * len(args) if self._variadic else self._parameters
        given = len(args)
        if not self._least <= given <= len(parameters):
            raise self._refuse_count(given)
        bound = [self._decode(place, parameters[place], text) for place, text in enumerate(args)]
        bound.extend([parameter.default for parameter in parameters[given:]])
        return bound

    def _decode(self, place: int, parameter: Parameter, text: Raw) -> Any:
        if parameter.decoder is None:
            return text
        try:
            return parameter.decoder.decode(text)
        except UNREADABLE as error:
            raise invalid_arguments(describe(error, self._known, f"args[{place}]")) from None

    def _refuse_count(self, given: int) -> GatewayError:
        wanted = f"at least length {self._least}, got {given}"
        if given > len(self._parameters):
            wanted = f"at most length {len(self._parameters)}"
        return invalid_arguments(f"Expected `array` of {wanted} - at `args`: {self.signature}")


Run = TypeVar("Run", bound=Callable[..., Any])


class FunctionTable:
    """Functions by their Node names; what is not in the table cannot be called."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}

    def function(self, permission: Permission, *, writes: bool, name: str | None = None) -> Callable[[Run], Run]:
        """Enter a coroutine function into the table.

        Args:
            permission: what a key must be allowed to do.
            writes: whether the function changes anything in Redis.
            name: the Node name, where it is not the Python name in camelCase.
        """
        return self._entry(permission, writes, name, direct=False)

    def direct(self, permission: Permission, *, writes: bool) -> Callable[[Run], Run]:
        """Enter a plain function that gives its result to the keyword argument `sink`."""
        return self._entry(permission, writes, None, direct=True)

    def _entry(self, permission: Permission, writes: bool, name: str | None, *, direct: bool) -> Callable[[Run], Run]:
        def enter(run: Run) -> Run:
            row = _row(run, permission, writes, name or camel_case(run.__name__), direct)
            self._functions[row.name] = row
            return run

        return enter

    def __getitem__(self, name: str) -> Function:
        try:
            return self._functions[name]
        except KeyError:
            raise unknown_function(name, self._functions) from None

    def __iter__(self) -> Iterator[Function]:
        return iter(self._functions.values())

    def get(self, name: str) -> Function | None:
        """The function, or None where there is none of that name."""
        return self._functions.get(name)


def unknown_function(name: str, known: Any) -> GatewayError:
    """The refusal of a name that is not in the table; offers the nearest known one."""
    return GatewayError(
        ErrorCode.UNKNOWN_FUNCTION, f"Unknown function `{shortened(name)}`{nearest(name, known)} - at `fn`"
    )


def shortened(name: str) -> str:
    """A name of the client's making, cut for a message."""
    return name if len(name) <= 100 else name[:100] + "…"


def nearest(name: str, known: Any) -> str:
    """`, did you mean …?` where a known name is near enough, else nothing."""
    close = difflib.get_close_matches(name[:100], list(known), n=1)
    return f", did you mean `{close[0]}`?" if close else ""


def camel_case(name: str) -> str:
    """`get_job_counts` as Node writes it: `getJobCounts`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)


def describe(error: Exception, known: frozenset[str], root: str = "args") -> str:
    """A decoding error in the words of the wire: the place is written `args[2].delay`, a typo gets the nearest name."""
    text = str(error)
    what, _, place = text.partition(" - at `$")
    if unknown := _UNKNOWN_FIELD.match(what):
        field = shortened(unknown["field"])
        what = f"Unknown option `{field}`{nearest(field, known)}"
    place = place.rstrip("`")
    return f"{what} - at `{root}{place}`"


def _row(run: Callable[..., Any], permission: Permission, writes: bool, name: str, direct: bool) -> Function:
    hints = get_type_hints(run, include_extras=True)
    parameters = [
        parameter
        for parameter in list(inspect.signature(run).parameters.values())[1:]  # the first one is the queue
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY  # the sink
    ]
    return Function(
        name=name,
        permission=permission,
        writes=writes,
        signature=f"{name}({', '.join(map(_shown, parameters))})",
        doc=inspect.getdoc(run) or "",
        direct=direct,
        run=run,
        _parameters=tuple(_parameter(parameter, hints[parameter.name]) for parameter in parameters),
        _least=sum(_is_required(parameter) for parameter in parameters),
        _variadic=any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters),
        _known=frozenset(name for parameter in parameters for name in _option_names(hints[parameter.name])),
    )


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    default = None if parameter.default is inspect.Parameter.empty else parameter.default
    return Parameter(None if hint is Raw else msgspec.json.Decoder(hint), default)


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_POSITIONAL


def _shown(parameter: inspect.Parameter) -> str:
    name = camel_case(parameter.name)
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return f"...{name}"
    return name if parameter.default is inspect.Parameter.empty else f"{name}?"


def _option_names(shape: Any) -> Iterator[str]:
    """The option names of every object type within `shape`."""
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
        info = msgspec.structs.fields(shape)
        if not shape.__struct_config__.array_like:
            yield from (field.encode_name for field in info)
        for field in info:
            yield from _option_names(field.type)
    elif get_origin(shape) is not None:
        for inner in get_args(shape):
            yield from _option_names(inner)

"""The table of functions: a Python signature is the single source of a function's validation and documentation.

`@table.function(...)` takes a coroutine function whose first parameter is the queue. The other positional parameters,
with their types and defaults, become the JSON array that a client sends as `args`; their Node names are the same words
in camelCase. What stands behind the `*` comes from the gateway: `sink`, `context`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw, Struct

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, invalid_arguments
from bullmq_proxy.gateway.values.json_text import UNREADABLE
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import nearest, read_again, reader_of, shortened


class Parameter(Struct, frozen=True):
    """One parameter of a function.

    Attributes:
        name: in Node's spelling.
        type: of the argument; `Raw` is any JSON.
        required: whether the argument must be given.
        default: what stands for a missing one.
        reader: reads the argument; None leaves it text.
    """

    name: str
    type: Any
    required: bool
    default: Any
    reader: Reader[Any] | None


class Function(Struct, frozen=True, dict=True):
    """One row of the table.

    Attributes:
        name: the function's name in Node's BullMQ, which is its name on the wire.
        permission: what a key must be allowed to do; None where any permission is enough.
        permissions: a key must have one of these: `permission`, or for a function of held jobs `manage`.
        held: a key without the permission `manage` may call it for jobs that it holds, and no others. The last
            parameter is the token of a job that was taken by hand; it is not for `run`.
        writes: whether it changes anything: decides between REDIS_UNAVAILABLE and OUTCOME_UNKNOWN when a reply is lost.
        signature: for people, such as `clean(grace, limit, type?)`.
        direct: `run` is a plain function that gives its result, as JSON text, to a `sink`: the hot ones need no task.
            What it cannot do in one turn of the loop it returns as a coroutine; what comes behind it waits for that.
            Otherwise it is a coroutine function whose result is still to be encoded.
        waits: it may take as long as the client likes: it ends with the connection, and nothing waits for it.
        heavy: it may go through a whole queue, or family of jobs: only a few of these run at a time.
        in_context: `run` takes the keyword argument `context`.
        parameters: of the call, in their order.
        variadic: the only parameter stands for as many arguments as there are.
        result: the type of what the client gets.
        example: arguments for the documents; a test calls it with them.
        run: takes the queue and the bound arguments.
    """

    name: str
    permission: Permission | None
    permissions: frozenset[Permission]
    held: bool
    writes: bool
    signature: str
    direct: bool
    waits: bool
    heavy: bool
    in_context: bool
    parameters: tuple[Parameter, ...]
    variadic: bool
    result: Any
    example: Sequence[Any]
    run: Callable[..., Any]
    _least: int  # arguments that must be given

    @property
    def doc(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.run) or ""

    @cached_property
    def _known(self) -> frozenset[str]:
        """The names of options; found when a call is refused first."""
        return frozenset(option for parameter in self.parameters for option in _option_names(parameter.type))

    @property
    def needs(self) -> str:
        """The permission, for people."""
        if self.permission is None:
            return "any permission"
        return f"{self.permission} for a job that the caller holds, else manage" if self.held else self.permission

    def bind(self, args: Sequence[Raw]) -> list[Any]:
        """Check and convert the arguments, each of them JSON text; null, where it is no value, is left out.

        Raises:
            GatewayError: INVALID_ARGUMENTS that names the place, as `args[2].delay`.
        """
        parameters = self.parameters
        if self.variadic:
            args = [text for text in args if bytes(memoryview(text)[:5]) != _NULL]
            parameters *= len(args)
        given = len(args)
        if not self._least <= given <= len(parameters):
            raise self._refuse_count(given)
        bound: list[Any] = []
        for parameter, text in zip(parameters, args, strict=False):  # nothing but a loop: each call comes by here
            reader = parameter.reader
            if reader is None:
                bound.append(text)
                continue
            try:
                bound.append(reader.decode(text))
            except UNREADABLE as error:
                bound.append(self._decode_again(len(bound), parameter, reader, text, error))
        if given < len(parameters):
            bound += [parameter.default for parameter in parameters[given:]]
        return bound

    def _decode_again(self, place: int, parameter: Parameter, reader: Reader[Any], text: Raw, error: Exception) -> Any:
        if not parameter.required and bytes(text) == _NULL:
            return parameter.default
        return read_again(reader, text, error, f"args[{place}]", self._known)

    def _refuse_count(self, given: int) -> GatewayError:
        wanted = f"at least length {self._least}, got {given}"
        if given > len(self.parameters):
            wanted = f"at most length {len(self.parameters)}"
        return invalid_arguments(f"Expected an array of {wanted} - at `args`: {self.signature}")


_NULL: Final = b"null"
Run = TypeVar("Run", bound=Callable[..., Any])


class FunctionTable:
    """Functions by their Node names; what is not in the table cannot be called.

    Attributes:
        elsewhere: functions of other kinds of connections, by their paths: for the hint in a refusal.
    """

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self.elsewhere: Mapping[str, Container[str]] = {}

    def function(
        self,
        permission: Permission | None,
        *,
        writes: bool,
        name: str | None = None,
        waits: bool = False,
        heavy: bool = False,
        held: bool = False,
        packs: bool = False,
        example: Sequence[Any] = (),
    ) -> Callable[[Run], Run]:
        """Enter a coroutine function into the table.

        Args:
            permission: what a key must be allowed to do; None where any permission is enough.
            writes: whether the function changes anything in Redis.
            name: the Node name, where it is not the Python name in camelCase.
            waits: it may take as long as the client likes.
            heavy: it may go through a whole queue.
            held: the permission is for jobs that the caller holds; `manage` is for all. The first argument is the id;
                a further one, the token, is added behind the others.
            packs: Node packs the texts of its arguments; see `Reader`.
            example: arguments for the documents.
        """

        def enter(run: Run) -> Run:
            signature = inspect.signature(run, eval_str=True)
            self._enter(
                _row(
                    run,
                    signature,
                    permission,
                    writes=writes,
                    name=name,
                    waits=waits,
                    heavy=heavy,
                    held=held,
                    packs=packs,
                    result=signature.return_annotation,
                    example=example,
                )
            )
            return run

        return enter

    def direct(
        self, permission: Permission, *, writes: bool, packs: bool, result: Any, example: Sequence[Any] = ()
    ) -> Callable[[Run], Run]:
        """Enter a plain function that gives its result, of the type `result`, to the keyword argument `sink`."""

        def enter(run: Run) -> Run:
            signature = inspect.signature(run, eval_str=True)
            self._enter(
                _row(
                    run, signature, permission, writes=writes, packs=packs, result=result, direct=True, example=example
                )
            )
            return run

        return enter

    def _enter(self, row: Function) -> None:
        assert row.name not in self._functions, row.name
        self._functions[row.name] = row

    def with_rows(self, *rows: Function) -> FunctionTable:
        """Return a table in which these rows stand in place of those of the same names."""
        table = FunctionTable()
        table.elsewhere = self.elsewhere
        table._functions = {**self._functions, **{row.name: row for row in rows}}
        return table

    def __getitem__(self, name: str) -> Function:
        try:
            return self._functions[name]
        except KeyError:
            raise unknown_function(name, self._functions, self.elsewhere) from None

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def __iter__(self) -> Iterator[Function]:
        return iter(self._functions.values())

    def get(self, name: str) -> Function | None:
        """Return the function, or None where there is none of that name."""
        return self._functions.get(name)


def unknown_function(name: str, known: Collection[str], elsewhere: Mapping[str, Container[str]] = {}) -> GatewayError:
    """Return the refusal of a name that is not known, with the path where it is, or the nearest known one."""
    paths = [path for path, functions in elsewhere.items() if name in functions]
    hint = f": it is one of connections to {' and '.join(paths)}" if paths else nearest(name, known)
    return GatewayError(ErrorCode.UNKNOWN_FUNCTION, f"Unknown function `{shortened(name)}`{hint} - at `fn`")


def camel_case(name: str) -> str:
    """Return `get_job_counts` as Node writes it: `getJobCounts`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _row(
    run: Callable[..., Any],
    signature: inspect.Signature,
    permission: Permission | None,
    *,
    writes: bool,
    result: Any,
    name: str | None = None,
    waits: bool = False,
    heavy: bool = False,
    held: bool = False,
    packs: bool = False,
    direct: bool = False,
    example: Sequence[Any] = (),
) -> Function:
    taken = list(signature.parameters.values())[1:]  # the first one is the queue
    given = [parameter for parameter in taken if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    parameters = tuple(_parameter(parameter, packed=packs) for parameter in given)
    if held:
        parameters += (_TOKEN,)
    name = name or camel_case(run.__name__)
    return Function(
        name=name,
        permission=permission,
        permissions=_enough(permission, held=held),
        held=held,
        writes=writes,
        signature=f"{name}({', '.join([*map(_shown, given), *(['token?'] if held else [])])})",
        direct=direct,
        waits=waits,
        heavy=heavy,
        in_context=any(parameter.name == "context" for parameter in taken),
        parameters=parameters,
        variadic=any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in given),
        result=result,
        example=example,
        run=run,
        _least=sum(parameter.required for parameter in parameters),
    )


@cache
def _enough(permission: Permission | None, *, held: bool) -> frozenset[Permission]:
    """Return the permissions of which a key must have one."""
    if permission is None:
        return frozenset(Permission)
    return frozenset({permission, Permission.MANAGE} if held else {permission})


def _parameter(parameter: inspect.Parameter, *, packed: bool) -> Parameter:
    hint = parameter.annotation
    missing = parameter.default is inspect.Parameter.empty
    return Parameter(
        name=camel_case(parameter.name),
        type=hint,
        required=missing and parameter.kind is not inspect.Parameter.VAR_POSITIONAL,
        default=None if missing else parameter.default,
        reader=None if _is_text(hint) else reader_of(hint, packed=packed),
    )


JobToken = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
"""The token of a job's lock."""

_TOKEN: Final = Parameter(
    "token", JobToken | None, required=False, default=None, reader=reader_of(JobToken | None, packed=False)
)


def _is_text(hint: Any) -> bool:
    return hint is Raw or (get_origin(hint) is Annotated and get_args(hint)[0] is Raw)


def _shown(parameter: inspect.Parameter) -> str:
    name = camel_case(parameter.name)
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return f"...{name}"
    return name if parameter.default is inspect.Parameter.empty else f"{name}?"


def _option_names(shape: Any, within: tuple[Any, ...] = ()) -> Iterator[str]:
    """Return the option names of every object type within `shape`; one that holds itself is read once."""
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
        if shape in within:
            return
        info = msgspec.structs.fields(shape)
        if not shape.__struct_config__.array_like:
            yield from (field.encode_name for field in info)
        for field in info:
            yield from _option_names(field.type, (*within, shape))
    elif get_origin(shape) is not None:
        for inner in get_args(shape):
            yield from _option_names(inner, within)

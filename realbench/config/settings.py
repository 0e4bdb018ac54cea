"""Settings from Python: one of a wrong type is told in a line, as a wrong key of a file is."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache, wraps
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, InstanceOf, TypeAdapter, ValidationError

from realbench.errors import UsageError

Target = TypeVar("Target", bound=Callable[..., Any])


def checked_settings(target: Target) -> Target:
    """Have a function, or a class when it is made, refuse settings of a wrong type.

    They must be what the annotations say; NumPy's numbers are taken for Python's, a list where a
    tuple is wanted, and a ``torch.device`` for its name. An annotation that names what is imported
    for type checkers alone is not looked at, nor is the choice among texts (``Literal``), which the
    function refuses in words of its own.

    The call raises a UsageError that names the setting, what it takes and what it got.
    """
    if isinstance(target, type):
        target.__init__ = checked_settings(target.__init__)  # type: ignore[misc]
        return target
    signature = inspect.signature(target)
    parameters = signature.parameters
    name = target.__qualname__.removesuffix(".__init__")

    @cache
    def adapter(parameter: str) -> TypeAdapter[Any] | None:
        try:
            kind = eval(parameters[parameter].annotation, vars(inspect.getmodule(target)))
        except (NameError, TypeError):  # TypeError: there is no annotation, as of self
            return None
        if is_dataclass(kind):
            kind = Annotated[kind, InstanceOf()]
            return TypeAdapter(kind)
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))

    def check(parameter: str, value: Any) -> Any:
        found = adapter(parameter)
        if getattr(value, "shape", None) == ():
            value = value.item()
        elif isinstance(value, list) and parameters[parameter].annotation.startswith("tuple["):
            value = tuple(value)
        elif type(value).__module__ == "torch" and type(value).__name__ == "device":
            value = str(value)
        try:
            if found is not None:
                found.validate_python(value, strict=True)
        except ValidationError as error:
            if any(one["type"] != "literal_error" for one in error.errors()):
                takes = parameters[parameter].annotation
                raise UsageError(
                    f"{name}: {parameter} takes {takes}, not {reprlib.repr(value)}"
                ) from error
        return value

    def checked(parameter: str, value: Any) -> Any:
        if parameters[parameter].kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(check(parameter, one) for one in value)
        return check(parameter, value)

    @wraps(target)
    def call(*args: Any, **settings: Any) -> Any:
        try:
            given = signature.bind(*args, **settings)
        except TypeError:  # an unknown name, say, which Python tells of
            return target(*args, **settings)
        arguments: Mapping[str, Any] = given.arguments
        given.arguments = {key: checked(key, value) for key, value in arguments.items()}
        return target(*given.args, **given.kwargs)

    return call  # type: ignore[return-value]

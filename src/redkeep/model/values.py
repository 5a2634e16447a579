"""What values are: frozen dataclasses that cost little to define.

``dataclass`` compiles six functions a class, which is a millisecond of the start of a program, and a command uses a third
of the classes that it imports. Here a class is made when its first value is, and one function is compiled for it.
"""

from __future__ import annotations

import threading
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, dataclass_transform

#: Modules are imported by other threads as well, and have values of their own.
_MAKING = threading.RLock()


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Value:
    """``class Point(Value)`` is like ``@dataclass(frozen=True) class Point``."""

    _parts: ClassVar[Any]

    def __init_subclass__(cls) -> None:
        cls.__init__ = _first  # type: ignore[method-assign]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self._parts(self) == self._parts(other))

    def __hash__(self) -> int:
        return hash(self._parts(self))

    def __repr__(self) -> str:
        shown: tuple[Field[Any], ...] = fields(self)  # type: ignore[arg-type]  # its subclasses have them
        parts = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in shown if f.repr)
        return f"{type(self).__qualname__}({parts})"

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


def _first(self: Any, *args: Any, **kwargs: Any) -> None:
    with _MAKING:
        for kind in reversed(type(self).__mro__):
            if issubclass(kind, Value) and kind is not Value and kind.__init__ is _first:
                _make(kind)
    type(self).__init__(self, *args, **kwargs)


def _make(kind: Any) -> None:
    kind.__doc__ = kind.__doc__ or kind.__name__  # else its signature is worked out
    dataclass(init=False, repr=False, eq=False)(kind)
    every = fields(kind)
    kind._parts = attrgetter(*(f.name for f in every))
    kind.__init__ = _init(every)  # the last: whoever finds it finds the rest


def _init(every: tuple[Field[Any], ...]) -> Any:
    """Takes the fields in their order or by name, as that of a dataclass does."""
    names: dict[str, Any] = {"_put": object.__setattr__, "_MISSING": MISSING}
    head, body = ["self"], []
    for f in every:
        value = f.name
        if f.default_factory is not MISSING:
            names[f"new_{f.name}"] = f.default_factory
            value = f"new_{f.name}() if {f.name} is _MISSING else {f.name}"
        names[f"or_{f.name}"] = f.default
        optional = f.default is not MISSING or f.default_factory is not MISSING
        head.append(f"{f.name}=or_{f.name}" if optional else f.name)
        body.append(f"_put(self, {f.name!r}, {value})")
    exec(f"def __init__({', '.join(head)}):\n {'; '.join(body)}", names)  # noqa: S102  names of fields only
    return names["__init__"]

"""Values: objects that are what their fields are, and cannot be changed.

``dataclasses`` makes the same of a class by compiling source text, a third of a millisecond each.  Every worker of
every run would pay that for some fifty classes, at its first server: half of what that costs.  Here the methods are
closures over the names of the fields, which takes a tenth of it; making an object takes longer, and few are made.

``dataclasses.field`` says what is particular about a field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, overload

from ..errors.location import hide_frame

if TYPE_CHECKING:
    from inspect import Signature

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[T], T]:
        return lambda made: made


__tracebackhide__ = hide_frame

T = TypeVar("T")

#: The attribute of a class that has its fields, those of its bases first.
_FIELDS: Final = "_value_fields"


@overload
def frozen(cls: type[T], /) -> type[T]: ...


@overload
def frozen(*, init: bool = True, repr: bool = True) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T] | None = None, /, *, init: bool = True, repr: bool = True) -> Any:
    """Give a class what a frozen dataclass has: equality, a hash and a text by its fields, and no assignment.

    Args:
        init: Its ``__init__`` takes the fields; else it has one of its own.
        repr: Its text names them, if it has none of its own.
    """
    if cls is None:
        return lambda made: frozen(made, init=init, repr=repr)  # type: ignore[call-overload]
    fields: dict[str, Any] = dict(getattr(cls, _FIELDS, {}))
    for name, kind in cls.__annotations__.items():
        if not kind.startswith("ClassVar"):
            default = cls.__dict__.get(name, MISSING)
            fields[name] = default
            if isinstance(default, Field):
                delattr(cls, name)
    for name, names in ((_FIELDS, fields), ("__match_args__", tuple(fields))):
        setattr(cls, name, names)
    made: Any = cls
    if init:
        made.__init__ = _init(cls.__name__, fields)
        made.__signature__ = _Signature()
    if repr and "__repr__" not in cls.__dict__:
        made.__repr__ = _repr([name for name, default in fields.items() if not _has(default, "repr", False)])
    compared = [name for name, default in fields.items() if not _has(default, "compare", False)]
    made.__eq__, made.__hash__ = _comparison(compared)
    made.__setattr__, made.__delattr__ = _refuse_setting, _refuse_deleting
    return cls


def fields_of(value: Any) -> Mapping[str, Any]:
    """Return the fields of a value or its class, by name: the default, ``MISSING`` where there is none."""
    return getattr(value, _FIELDS)  # type: ignore[no-any-return]


def replaced(value: T, **changes: Any) -> T:
    """Return a value that differs from another in these fields."""
    return type(value)(**{name: getattr(value, name) for name in fields_of(value)} | changes)


def _has(default: Any, option: str, wanted: object) -> bool:
    return isinstance(default, Field) and getattr(default, option) is wanted


def _init(name: str, fields: Mapping[str, Any]) -> Callable[..., None]:
    names = [each for each, default in fields.items() if not _has(default, "init", False)]

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        if len(args) > len(names):
            raise TypeError(f"{name}() takes {len(names)} arguments, and {len(args)} were given")
        values = dict(zip(names, args, strict=False))
        for each in given:
            if each in values or each not in names:
                what = "got two values for the argument" if each in values else "has no argument"
                raise TypeError(f"{name}() {what} {each!r}")
        values.update(given)
        if len(values) < len(names):
            for each in names:
                if each not in values:
                    values[each] = _default(name, each, fields[each])
        self.__dict__.update(values)
        if (post := getattr(self, "__post_init__", None)) is not None:
            post()

    return __init__


def _default(name: str, each: str, default: Any) -> Any:
    if isinstance(default, Field):
        if default.default_factory is not MISSING:
            return default.default_factory()
        default = default.default
    if default is MISSING:
        raise TypeError(f"{name}() needs the argument {each!r}")
    return default


def _repr(names: list[str]) -> Callable[[Any], str]:
    def __repr__(self: Any) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return __repr__


def _comparison(names: list[str]) -> tuple[Callable[[Any, object], Any], Callable[[Any], int]]:
    def key(self: Any) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in names])

    def __eq__(self: Any, other: object) -> Any:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(key(self))

    return __eq__, __hash__


def _refuse_setting(self: object, name: str, value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deleting(self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


class _Signature:
    """What ``inspect.signature()`` asks a class for, made when it is asked."""

    def __get__(self, instance: object, owner: type) -> Signature:
        from inspect import Parameter, Signature

        parameters = []
        for name, default in fields_of(owner).items():
            if not _has(default, "init", False):
                shown = default.default if isinstance(default, Field) else default
                kind = Parameter.POSITIONAL_OR_KEYWORD
                note = next(each.__annotations__[name] for each in owner.__mro__ if name in each.__annotations__)
                empty = Parameter.empty
                parameters.append(Parameter(name, kind, default=empty if shown is MISSING else shown, annotation=note))
        return Signature(parameters)

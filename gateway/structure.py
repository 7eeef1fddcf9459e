"""TOML values → frozen attrs classes, with every mistake found in one go and told apart by its path.

cattrs does the work, with stricter hooks than its own: a string is never taken for a number or a list, and a
field's validator runs although other fields are broken.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import is_mapping, list_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from gateway.toml_lines import KeyPath
from gateway.units import Duration, Size, parse_duration, parse_size

Hook = Callable[[Any, Any], Any]

_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a decimal number",
    str: "a string",
    list: "a list",
    dict: "a table",
}
# Types a list in TOML can be asked to become.
_LISTS: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list, tuple: tuple, set: set, frozenset: frozenset, Sequence: tuple, AbstractSet: frozenset,
}  # fmt: skip


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest of ``choices``, or nothing."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def make_converter() -> cattrs.Converter:
    """A converter for settings: units, scalars, lists, tables and attrs classes, all strict."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, _only(kind))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Path, lambda value, _: Path(_only(str)(value, str)))
    converter.register_structure_hook(Duration, lambda value, _: parse_duration(value))
    converter.register_structure_hook(Size, lambda value, _: parse_size(value))
    converter.register_structure_hook(str | tuple[str, ...], _one_or_more)
    converter.register_structure_hook_func(_is_choice, _choice)
    converter.register_structure_hook_factory(_is_list, lambda cls: _list_hook(cls, converter))
    converter.register_structure_hook_factory(
        is_mapping, lambda cls: _after(_only(dict), converter.gen_structure_mapping(cls))
    )
    converter.register_structure_hook_factory(attrs.has, lambda cls: _class_hook(cls, converter))
    return converter


def mistakes(error: BaseException, path: KeyPath = (), others: Collection[str] = ()) -> Iterator[tuple[KeyPath, str]]:
    """Where and what: every mistake in what a converter of ours raised.

    ``others`` are keys of the outermost table that somebody else takes: an unknown one may be a misspelling of them.
    """
    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            step = _step(inner, error.cl)
            yield from mistakes(inner, path + step, () if step else others)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in getattr(error.cl, "__attrs_attrs__", ()) if field.init]
        for key in sorted(error.extra_fields):
            yield (*path, key), "unknown key." + did_you_mean(key, [*known, *others])
    elif isinstance(error, KeyError) and error.args == path[-1:]:
        yield path, "is missing."
    else:
        # The validators of attrs carry the value itself in further arguments.
        reason = str(error.args[0]) if error.args else type(error).__name__
        yield path, reason if reason.endswith((".", "?")) else f"{reason}."


def _step(error: BaseException, cls: type) -> KeyPath:
    """What ``error`` adds to the path of the table or list in which it happened."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return (note.name,)
        if isinstance(note, IterableValidationNote):
            return (note.index,)
    # Raised by the finished object's constructor. A validator of attrs starts with the field's name in quotes.
    quoted = re.match(r"'(\w+)'", str(error.args[0])) if error.args and attrs.has(cls) else None
    return (quoted[1],) if quoted and quoted[1] in attrs.fields_dict(cls) else ()


def _only(kind: type) -> Hook:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            # The value itself stays out: it may be a secret in the wrong place.
            raise ValueError(f"expected {_KINDS[kind]}, not {_KINDS.get(type(value), 'a date or time')}.")
        return value

    return check


def _number(value: Any, _: Any) -> float:
    if type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if type(value) is not float or not isfinite(value):
        raise ValueError("expected a number.")
    return value


def _one_or_more(value: Any, _: Any) -> str | tuple[str, ...]:
    if type(value) is list and all(type(one) is str for one in value):
        return tuple(value)
    if type(value) is not str:
        raise ValueError("expected a string or a list of strings.")
    return value


def _is_choice(cls: Any) -> bool:
    origin: Any = get_origin(cls)
    return origin is Literal


def _choice(value: Any, cls: Any) -> Any:
    choices = get_args(cls)
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        names = [str(choice) for choice in choices]
        raise ValueError(f"expected one of {', '.join(names)}." + did_you_mean(str(value), names))
    return value


def _is_list(cls: Any) -> bool:
    origin = get_origin(cls)
    return origin in _LISTS and (origin is not tuple or get_args(cls)[1:] == (Ellipsis,))


def _list_hook(cls: Any, converter: cattrs.Converter) -> Hook:
    make = _LISTS[get_origin(cls)]
    elements = list_structure_factory(cls, converter)
    return _after(_only(list), lambda value, _: make(elements(value, cls)))


def _class_hook(cls: Any, converter: cattrs.Converter) -> Hook:
    attrs.resolve_types(cls)
    checked: dict[str, Any] = {
        field.name: override(struct_hook=_validated(field, field.validator, converter))
        for field in attrs.fields(cls)
        # With a converter the value is only what the validator is meant for once the object is made.
        if field.init and field.validator is not None and field.converter is None
    }
    return _after(_only(dict), make_dict_structure_fn(cls, converter, **checked))


def _after(check: Hook, hook: Hook) -> Hook:
    return lambda value, cls: hook(check(value, cls), cls)


def _validated(field: attrs.Attribute[Any], validator: Callable[..., None], converter: cattrs.Converter) -> Hook:
    """Validate as soon as the value is there, so that one broken field does not hide another one's mistake."""
    structure = converter.get_structure_hook(field.type)

    def hook(value: Any, cls: Any) -> Any:
        result = structure(value, cls)
        try:
            validator(None, field, result)
        except AttributeError:
            pass  # it looks at other fields too; the constructor runs it again on the finished object
        return result

    return hook

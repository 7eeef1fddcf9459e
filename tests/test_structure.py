"""``gateway.structure``: strict conversion, and every mistake at once with its path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from attrs.validators import ge, in_
from hypothesis import given
from hypothesis import strategies as st

from gateway.structure import did_you_mean, make_converter, mistakes
from gateway.toml_lines import KeyPath
from gateway.units import Duration, Size


class Colour(Enum):
    RED = "red"


@attrs.frozen(kw_only=True)
class Inner:
    name: str
    level: Literal["low", "high"] = "low"


@attrs.frozen(kw_only=True)
class Settings:
    inner: Inner
    count: int = attrs.field(default=1, validator=ge(1))
    ratio: float = 0.5
    flag: bool = False
    wait: Duration = Duration(1.0)
    limit: Size = Size(1)
    tags: tuple[str, ...] = ()
    numbers: list[int] = attrs.field(factory=list)
    some: frozenset[str] = frozenset()
    several: Sequence[str] = ()
    one_or_more: str | tuple[str, ...] = ""
    inners: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = attrs.field(factory=dict)
    texts: Mapping[str, str] = attrs.field(factory=dict)
    anything: dict[str, Any] = attrs.field(factory=dict)
    maybe: int | None = None
    place: Path | None = None
    colour: Colour = Colour.RED
    low: int = 0
    high: int = attrs.field(default=9)
    made: str = attrs.field(init=False, default="")

    @high.validator
    def _above_low(self, _: attrs.Attribute[int], value: int) -> None:
        if value < self.low:
            raise ValueError("high must not be below low")


def wrong(value: Any, cls: type[Any] = Settings) -> dict[KeyPath, str]:
    with pytest.raises(Exception) as caught:
        make_converter().structure(value, cls)
    return dict(mistakes(caught.value))


def test_everything_right() -> None:
    value = {
        "inner": {"name": "a", "level": "high"}, "count": 2, "ratio": 1, "flag": True, "wait": "2m", "limit": "1KiB",
        "tags": ["x", "y"], "numbers": [1], "some": ["z"], "several": ["s"], "inners": [{"name": "b"}],
        "by_name": {"k": {"name": "c"}}, "texts": {"t": "u"}, "anything": {"deep": [{"er": date.max}]}, "maybe": 3,
        "place": "/x", "colour": "red", "low": 1, "high": 1,
    }  # fmt: skip
    assert make_converter().structure(value, Settings) == Settings(
        inner=Inner(name="a", level="high"), count=2, ratio=1.0, flag=True, wait=Duration(120.0), limit=Size(1024),
        tags=("x", "y"), numbers=[1], some=frozenset({"z"}), several=("s",), inners=(Inner(name="b"),),
        by_name={"k": Inner(name="c")}, texts={"t": "u"}, anything={"deep": [{"er": date.max}]}, maybe=3,
        place=Path("/x"), low=1, high=1,
    )  # fmt: skip


def test_every_mistake_at_once_each_with_its_path() -> None:
    value = {
        "inner": {"level": "hihg", "nmae": 1}, "count": 0, "ratio": "1", "flag": 1, "wait": "5 parsecs", "limit": True,
        "tags": "xy", "numbers": [1, "2", 3.0], "inners": [{"name": "b"}, {"name": 2, "extra": 1}, 7],
        "by_name": {"k": {"name": None}, "l": []}, "texts": {"t": 1}, "maybe": "3", "place": 1, "colour": "blue",
        "cuont": 3, "made": "x",
    }  # fmt: skip
    assert wrong(value) == {
        ("inner", "name"): "is missing.",
        ("inner", "level"): "expected one of low, high. Did you mean 'high'?",
        ("inner", "nmae"): "unknown key. Did you mean 'name'?",
        ("count",): "'count' must be >= 1: 0.",
        ("ratio",): "expected a number.",
        ("flag",): "expected true or false, not a whole number.",
        ("wait",): 'expected a duration such as "250ms", "5s", "2m", "1h" or "1d".',
        ("limit",): 'expected bytes or a size such as "64MiB".',
        ("tags",): "expected a list, not a string.",
        ("numbers", 1): "expected a whole number, not a string.",
        ("numbers", 2): "expected a whole number, not a decimal number.",
        ("inners", 1, "name"): "expected a string, not a whole number.",
        ("inners", 1, "extra"): "unknown key.",
        ("inners", 2): "expected a table, not a whole number.",
        ("by_name", "k", "name"): "expected a string, not a date or time.",
        ("by_name", "l"): "expected a table, not a list.",
        ("texts", "t"): "expected a string, not a whole number.",
        ("maybe",): "expected a whole number, not a string.",
        ("place",): "expected a string, not a whole number.",
        ("colour",): "'blue' is not a valid Colour.",
        ("cuont",): "unknown key. Did you mean 'count'?",
        ("made",): "unknown key. Did you mean 'maybe'?",
    }


@pytest.mark.parametrize(("value", "given"), [("a", "a"), (["a", "b"], ("a", "b")), ([], ())], ids=str)
def test_one_string_or_several(value: object, given: object) -> None:
    assert make_converter().structure({"inner": {"name": "a"}, "one_or_more": value}, Settings).one_or_more == given


@pytest.mark.parametrize("value", [1, ["a", 1], {"a": "b"}, None, [["a"]]], ids=str)
def test_neither_one_string_nor_several(value: object) -> None:
    message = "expected a string or a list of strings."
    assert wrong({"inner": {"name": "a"}, "one_or_more": value}) == {("one_or_more",): message}


@pytest.mark.parametrize("value", [True, 1.0, "1", [], {}, date.max])
def test_only_a_whole_number_is_one(value: object) -> None:
    assert wrong({"inner": {"name": "a"}, "count": value}).keys() == {("count",)}


@pytest.mark.parametrize("value", [True, "1", float("inf"), float("nan"), 10**400])
def test_only_a_finite_number_is_one(value: object) -> None:
    assert wrong({"inner": {"name": "a"}, "ratio": value}) == {("ratio",): "expected a number."}


def test_a_validator_that_looks_at_other_fields_runs_on_the_finished_object() -> None:
    assert wrong({"inner": {"name": "a"}, "low": 5, "high": 4}) == {(): "high must not be below low."}


def test_a_field_with_a_converter_is_validated_after_it() -> None:
    def lowered(text: str) -> str:
        return text.lower()

    @attrs.frozen
    class Converted:
        name: str = attrs.field(converter=lowered, validator=in_(["a"]))

    assert make_converter().structure({"name": "A"}, Converted) == Converted("a")
    (path,) = wrong({"name": "B"}, Converted)
    assert path == ("name",)


def test_a_value_of_the_wrong_type_is_not_in_the_message() -> None:
    (message,) = wrong({"inner": {"name": "a"}, "count": "sk-canary"}).values()
    assert "sk-canary" not in message


@pytest.mark.parametrize("value", [None, 1, "x", [], [("inner", {})]])
def test_what_is_no_table(value: object) -> None:
    (message,) = wrong(value).values()
    assert message.startswith("expected a table, not ")


def test_did_you_mean() -> None:
    assert did_you_mean("prot", ["host", "port"]) == " Did you mean 'port'?"
    assert did_you_mean("prot", ["colour"]) == did_you_mean("prot", []) == ""


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = [field.name for field in attrs.fields(Settings)]


@given(st.dictionaries(st.sampled_from([*names, "x"]), json_like, max_size=5) | json_like)
def test_any_value_is_structured_or_has_mistakes_with_paths_into_it(value: Any) -> None:
    try:
        assert isinstance(make_converter().structure(value, Settings), Settings)
    except Exception as error:  # noqa: BLE001
        found = list(mistakes(error, ("root",)))
        assert found
        assert all(path[0] == "root" and message.endswith((".", "?")) for path, message in found)

"""Gemini's contents → messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import gemini_thoughts
from gateway.dialects.dropped import Dropped
from gateway.dialects.gemini_history import History, content_text
from gateway.errors import InvalidRequest


def messages(*contents: Any) -> list[dict[str, Any]]:
    history = History(Dropped())
    history.read(list(contents))
    return history.messages


def model(*parts: Any) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def called(name: str, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **more}}


def answered(name: str, response: Any, **more: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": response, **more}}


def test_results_find_their_calls_by_id_then_name_then_order() -> None:
    said = messages(
        model(called("f"), called("g"), called("f", id="own")),
        user(answered("f", {}, id="own"), answered("g", {}), answered("other", {})),
    )
    assert [message["tool_call_id"] for message in said[1:]] == ["own", "call_2", "call_1"]


@pytest.mark.parametrize(
    ("response", "content", "failed"),
    [({"output": "a"}, "a", False), ({"error": "a"}, "a", True), ({"output": {"b": 1}}, '{"output":{"b":1}}', False),
     ({"result": "a"}, '{"result":"a"}', False), (None, "{}", False)],
)  # fmt: skip
def test_a_result_is_text(response: Any, content: str, failed: bool) -> None:
    said = messages(model(called("f")), user(answered("f", response)))[1]
    assert (said["content"], said.get("is_error", False)) == (content, failed)


def test_the_dummy_is_nobody_s_signature() -> None:
    part = called("f") | {"thoughtSignature": gemini_thoughts.DUMMY}
    assert "extra_content" not in messages(model(part))[0]["tool_calls"][0]


def test_what_others_signed_comes_out_of_its_wrapping() -> None:
    details = [{"type": "reasoning.text", "text": "a", "signature": "b", "format": "anthropic-claude-v1", "index": 0}]
    for part in ({"text": "x"}, called("f")):
        said = messages(model({**part, "thoughtSignature": gemini_thoughts.wrap(details)}))[0]
        assert said["reasoning_details"] == details
        assert "extra_content" not in str(said)


def test_pictures_of_the_model_stay_its_own() -> None:
    said = messages(model({"inlineData": {"mimeType": "image/png", "data": "aGk="}}))[0]
    assert said["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]


def test_the_text_of_an_instruction() -> None:
    assert content_text("a", "x") == "a"
    assert content_text({"parts": {"text": "a"}}, "x") == "a"
    assert content_text(None, "x") == ""


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        (["hi"], r"^contents\[0\].role"),
        ([{"role": "system", "parts": []}], r"^contents\[0\].role: must be user or model"),
        ([{"parts": "hi"}], r"^contents\[0\].parts: must be a list"),
        ([user({"videoMetadata": {}})], r"^contents\[0\].parts\[0\]: must be text"),
        ([user({"inlineData": {"mimeType": "image/png"}})], "inlineData.data: must be a string"),
        ([user(answered("f", {}))], "answers no functionCall"),
        ([model(called("f", args=[]))], "args: must be an object"),
        ([model({"functionCall": {}})], "functionCall.name: must be a string"),
    ],
)
def test_what_is_no_content_is_refused(contents: list[Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        messages(*contents)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
PARTS = ("text", "thought", "inlineData", "fileData", "functionCall", "functionResponse", "thoughtSignature")
parts = st.lists(st.dictionaries(st.sampled_from(PARTS), json_values), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["user", "model"]), parts), min_size=1, max_size=3))
def test_any_contents_are_translated_or_refused(contents: list[Any]) -> None:
    try:
        said = messages(*[{"role": role, "parts": list(made)} for role, made in contents])
    except InvalidRequest:
        return
    assert all(message["role"] in ("user", "assistant", "tool") for message in said)

"""Canonical messages → Anthropic's turns."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic_turns import Turns
from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped
from gateway.errors import InvalidRequest

ANY = Capabilities()
USER = {"role": "user", "content": "hi"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "x"}


def turns(*messages: Any, caps: Capabilities = ANY) -> tuple[Turns, list[str]]:
    dropped = Dropped()
    made = Turns(caps, dropped)
    made.add_all(list(messages))
    return made, dropped.names


def shape(made: Turns) -> list[tuple[str, list[str]]]:
    return [(turn["role"], [block["type"] for block in turn["content"]]) for turn in made.messages]


def test_neighbours_of_one_role_are_one_turn() -> None:
    made, _ = turns(USER, USER, {"role": "assistant", "content": "a"}, CALLS, RESULT, USER)
    assert shape(made) == [
        ("user", ["text", "text"]),
        ("assistant", ["text", "tool_use"]),
        ("user", ["tool_result", "text"]),
    ]


def test_a_result_goes_in_front_of_what_came_before_it_in_its_turn() -> None:
    made, _ = turns(USER, CALLS, USER, RESULT, RESULT | {"tool_call_id": "2"})
    assert [block.get("tool_use_id") for block in made.messages[-1]["content"]] == ["1", "2", None]


def test_an_instruction_between_a_call_and_its_result_does_not_part_them() -> None:
    made, dropped = turns(USER, CALLS, {"role": "system", "content": "Hurry."}, RESULT)
    assert shape(made)[-1] == ("user", ["tool_result", "text"])
    assert dropped == ["messages.system"]


def test_empty_text_is_left_out_because_anthropic_refuses_it() -> None:
    made, _ = turns(USER, {"role": "assistant", "content": "\n\n", "tool_calls": [CALL]}, RESULT | {"content": ""})
    assert shape(made) == [("user", ["text"]), ("assistant", ["tool_use"]), ("user", ["tool_result"])]
    assert "content" not in made.messages[-1]["content"][0]
    with pytest.raises(InvalidRequest, match="no content"):
        turns({"role": "user", "content": "  "})


def test_a_beginning_of_the_answer_must_not_end_in_white_space() -> None:
    made, dropped = turns(USER, {"role": "assistant", "content": "Once "})
    assert made.messages[-1]["content"] == [{"type": "text", "text": "Once"}]
    assert dropped == []


def test_a_refusal_is_what_the_assistant_said() -> None:
    made, _ = turns(USER, {"role": "assistant", "content": None, "refusal": "No."}, USER)
    assert made.messages[1]["content"] == [{"type": "text", "text": "No."}]


def test_a_mark_on_a_message_goes_to_its_last_block() -> None:
    mark = {"type": "ephemeral"}
    made, _ = turns(
        {"role": "system", "content": "s", "cache_control": mark},
        USER | {"cache_control": mark},
        CALLS | {"tool_calls": [CALL | {"cache_control": mark}]},
        RESULT | {"cache_control": mark},
    )
    marked = [*made.system, *(turn["content"][-1] for turn in made.messages)]
    assert all(block["cache_control"] == mark for block in marked)


def test_reasoning_without_a_signature_is_named_as_dropped() -> None:
    _, dropped = turns(USER, {"role": "assistant", "content": "a", "reasoning_content": "Hm."}, USER)
    assert dropped == ["messages.reasoning_content"]


def test_what_the_model_cannot_see_is_refused() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    pdf = {"type": "file", "file": {"file_url": "https://example.org/a.pdf"}}
    sound = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
    blind = Capabilities(images=False, documents=False)
    for part, caps in ((image, blind), (pdf, blind), (sound, Capabilities(audio=True)), ({"type": "video"}, blind)):
        with pytest.raises(InvalidRequest, match="takes no"):
            turns({"role": "user", "content": [part]}, caps=caps)


def test_a_file_may_be_a_picture_or_its_name_be_absent() -> None:
    image = {"type": "file", "file": {"file_data": "data:image/png;name=a.png;base64,aGk="}}
    made, _ = turns({"role": "user", "content": [image]})
    assert made.messages[0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        "x", [1], [{"role": "robot"}], [{"role": "function", "content": "x"}], [{"role": "user", "content": 1}],
        [{"role": "user", "content": ["x"]}], [{"role": "user", "content": [{"type": "image_url", "image_url": 1}]}],
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": "aGk="}}]}],
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain,hi"}}]}],
        [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain;base64,!"}}]}],
        [{"role": "user", "content": [{"type": "file", "file": {}}]}],
        [USER, {"role": "assistant", "tool_calls": "x"}], [USER, {"role": "assistant", "tool_calls": [{"id": "1"}]}],
        [USER, {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[]"}}]}],
        [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]}],
    ],
)  # fmt: skip
def test_a_wrong_shape_is_refused_with_its_place(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        Turns(Capabilities(), Dropped()).add_all(wrong)


def test_an_address_of_ten_megabytes_is_read_in_no_time() -> None:
    url = "data:" + ";x" * 5_000_000
    made, _ = turns({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    assert made.messages[0]["content"][0]["source"]["type"] == "url"


roles = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
texts = st.text("ab \n", max_size=3)


@given(st.lists(st.tuples(roles, texts), min_size=1, max_size=12), st.booleans(), st.booleans())
def test_turns_alternate_and_hold_every_word(given_messages: list[tuple[str, str]], prefill: bool, mid: bool) -> None:
    messages = [{"role": role, "content": text, "tool_call_id": "1"} for role, text in given_messages]
    made = Turns(Capabilities(prefill=prefill, mid_system=mid), Dropped())
    try:
        made.add_all(messages)
    except InvalidRequest:
        assert not any(
            text.strip() or role == "tool" for role, text in given_messages if role not in ("system", "developer")
        )
        return
    order = [turn["role"] for turn in made.messages]
    assert all(before != after for before, after in pairwise(order))
    assert order[0] != "system"
    assert prefill or order[-1] != "assistant"
    kept = str(made.system) + str(made.messages)
    assert all(repr(text.strip())[1:-1] in kept for _, text in given_messages)

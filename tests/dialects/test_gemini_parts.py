"""Messages and deltas → parts."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects import gemini_thoughts
from gateway.dialects.dropped import Dropped
from gateway.dialects.gemini_history import History
from gateway.dialects.gemini_parts import CandidateWriter, logprobs_from_chat


def parts(message: Any, thoughts: bool = False) -> list[dict[str, Any]]:
    writer = CandidateWriter(0, thoughts)
    return [*writer.parts(message), *writer.rest()]


def ours(**fields: Any) -> dict[str, Any]:
    return {"format": gemini_thoughts.FORMAT, **fields}


CLAUDE = [{"type": "reasoning.text", "text": "Hm.", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("message", [{"content": "Hi"}, {"content": None, "tool_calls": [CALL]}])
def test_what_others_signed_goes_to_the_client_and_comes_back(message: dict[str, Any]) -> None:
    made = parts({**message, "reasoning_content": "Hm.", "reasoning_details": CLAUDE})
    assert not any(part.get("thought") for part in made)
    history = History(Dropped())
    history.read([{"role": "user", "parts": [{"text": "?"}]}, {"role": "model", "parts": made}])
    assert history.messages[1]["reasoning_details"] == CLAUDE
    assert history.messages[1].get("tool_calls", []) == message.get("tool_calls", [])


def test_what_nobody_signed_need_not_come_back() -> None:
    message = {"content": "Hi", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]}
    assert parts(message) == [{"text": "Hi"}]


def test_signed_thoughts_are_shown_to_everybody() -> None:
    details = [ours(type="reasoning.text", text="Hm.", signature="1"), ours(type="reasoning.encrypted", data="2")]
    assert parts({"content": "Hi", "reasoning_content": "Hm.", "reasoning_details": details}) == [
        {"text": "Hm.", "thought": True, "thoughtSignature": "1"}, {"text": "Hi", "thoughtSignature": "2"},
    ]  # fmt: skip


def test_a_signature_without_text_gets_an_empty_one() -> None:
    details = [ours(type="reasoning.encrypted", data="2")]
    assert parts({"reasoning_details": details}) == [{"text": "", "thoughtSignature": "2"}]


@pytest.mark.parametrize(
    ("url", "part"),
    [("data:image/png;base64,aGk=", {"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
     ("https://example.com/a.png", {"fileData": {"fileUri": "https://example.com/a.png"}})],
)  # fmt: skip
def test_pictures(url: str, part: Any) -> None:
    assert parts({"images": [{"type": "image_url", "image_url": {"url": url}}]}) == [part]


def test_content_in_parts_and_arguments_that_are_no_object() -> None:
    call = {"id": "", "function": {"name": "f", "arguments": "[1]"}}
    assert parts({"content": [{"type": "text", "text": "a"}], "tool_calls": [call]}) == [
        {"text": "a"}, {"functionCall": {"name": "f", "args": {"value": [1]}}},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "native", "expected"),
    [("stop", None, "STOP"), ("tool_calls", "tool_use", "STOP"), ("length", None, "MAX_TOKENS"),
     ("content_filter", None, "SAFETY"), ("content_filter", "SPII", "SPII"), ("stop", ["x"], "STOP")],
)  # fmt: skip
def test_reasons(reason: str, native: Any, expected: str) -> None:
    assert CandidateWriter(0, False).candidate([], reason, native)["finishReason"] == expected


def test_logprobs() -> None:
    assert logprobs_from_chat(None) is None
    made = logprobs_from_chat({"content": [{"token": "a", "logprob": -1.0, "top_logprobs": []}]})
    assert made == {
        "logprobsResult": {"chosenCandidates": [{"token": "a", "logProbability": -1.0}]}, "avgLogprobs": -1.0,
    }  # fmt: skip

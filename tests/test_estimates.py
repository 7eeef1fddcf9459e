"""What exchanges used, however they ended: the provider's word first, then an estimate that says it is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway import Exchange, Reply, Surface, Target, Usage
from gateway.body import parse_small
from gateway.estimates import is_metered, used
from gateway.sample import Sample
from gateway.testing import chat_body, chat_events
from gateway.testing.wire import json_bytes
from tests.support.exchanges import make_exchange

CHAT = Surface("chat", "openai_chat", "/chat/completions", chat=True)
EMBED = Surface("embeddings", "openai_chat", "/embeddings", embeds=True)
COMPLETE = Surface("completions", "openai_chat", "/completions")
MESSAGES = Surface("messages", "anthropic_messages", "/messages", chat=True)
GEMINI = Surface("generate_content", "gemini", "/models/{tail}", chat=True)
FILES = Surface("files", "openai_chat", "/files", body="any")
COUNT = Surface("count_tokens", "anthropic_messages", "/messages/count_tokens", counts=True)
ASKED = {"model": "m", "messages": [{"role": "user", "content": "x" * 35}]}  # 35 bytes, and 4 for the message
TARGET = Target("up")
WORDS = 30


def exchange(outcome: str = "client_gone", body: Any = ASKED, **more: Any) -> Exchange:
    """An exchange that has come to the first event of its answer."""
    facts: dict[str, Any] = {"surface": CHAT, "target": TARGET, "payload": parse_small(json_bytes(body))}
    facts |= {"sent": True, "committed": True}
    return make_exchange(outcome=outcome, **facts | more)


def whole(text: str = "y" * 70, usage: Usage | None = None) -> Reply:
    return Reply(200, body=chat_body(text, usage=None), usage=usage)


def streamed(ended: Exchange, usage: Usage | None = None, counted: bool = False) -> Reply:
    """A reply of which ``WORDS`` words were sent in ``ended``."""
    reply = Reply(200, stream=None)
    reply.events = SimpleNamespace(usage=usage, counted=counted)
    reply.sample = Sample()
    opening, *words = chat_events(WORDS)[: WORDS + 1]
    for block in (opening + words[0], *words[1:]):
        reply.sample.take(block)
        ended.reply_bytes += len(block)
    return reply


@pytest.mark.parametrize("outcome", ["ok", "client_gone", "upstream_failed", "failed"])
def test_what_the_provider_said_of_all_of_it_is_taken_as_it_is(outcome: str) -> None:
    said = Usage(3, 4, cached_tokens=1)
    ended = exchange(outcome)
    assert used(ended, streamed(ended, said, counted=True)) is said
    if outcome == "ok":
        assert used(ended, streamed(ended, said)) is said
        assert used(ended, whole(usage=said)) is said
        broken = Usage(None, 4, provenance="partial")  # Ollama leaves out the count of a prompt in its cache
        assert used(ended, whole(usage=broken)) is broken


@pytest.mark.parametrize("outcome", ["client_gone", "upstream_failed", "failed"])
def test_r35_a_stream_that_broke_off_is_what_was_delivered(outcome: str) -> None:
    ended = exchange(outcome)
    assert used(ended, streamed(ended)) == Usage(14, WORDS, provenance="estimated")


def test_r35_what_the_provider_had_said_of_it_is_kept() -> None:
    ended = exchange()
    begun = Usage(100, 1, cached_tokens=50, provenance="partial")  # Anthropic's message_start
    assert used(ended, streamed(ended, begun)) == Usage(100, WORDS, cached_tokens=50, provenance="partial")
    assert begun == Usage(100, 1, cached_tokens=50, provenance="partial"), "the reader's own is not changed"
    ended = exchange()
    growing = Usage(100, 27, reasoning_tokens=5)  # Gemini's
    assert used(ended, streamed(ended, growing)) == Usage(100, 27, reasoning_tokens=5, provenance="partial")
    ended = exchange()
    assert used(ended, streamed(ended, Usage(100, 0))) == Usage(100, WORDS, provenance="partial")
    ended = exchange()
    assert used(ended, streamed(ended, Usage(None, 27))) == Usage(14, 27, provenance="partial")


def test_r35_who_leaves_before_the_head_has_had_the_request_read() -> None:
    for outcome in ("client_gone", "failed"):  # a stop ends it
        assert used(exchange(outcome, committed=False), None) == Usage(14, 0, provenance="estimated")
        assert used(exchange(outcome, committed=False, sent=False), None) is None, "nobody has read it"
        assert used(exchange(outcome, committed=False, target=None, sent=False), None) is None


def test_r35_what_was_refused_costs_nothing() -> None:
    told = Reply(503, body=b'{"error":{"message":"busy"}}')
    for sent in (True, False):  # an answer that did not come is one, too
        assert used(exchange("upstream_failed", sent=sent, committed=False), told) is None
    assert used(exchange("refused", target=None, sent=False, committed=False), told) is None
    assert used(exchange("ok"), told) is None, "a plugin's answer"


def test_r35_an_answer_without_a_report_is_counted_by_its_text() -> None:
    assert used(exchange("ok"), whole()) == Usage(14, 20, provenance="estimated")
    assert used(exchange("client_gone"), whole()) == Usage(14, 20, provenance="estimated")
    ended = exchange("ok", sent=False, committed=False)  # a provider that needs no network
    assert used(ended, streamed(ended)) == Usage(14, WORDS, provenance="estimated")
    vectors = Reply(200, body=json_bytes({"data": [{"embedding": [0.5] * 100}]}))
    asked = exchange("ok", {"model": "m", "input": "x" * 100}, surface=EMBED)
    assert used(asked, vectors) == Usage(31, 0, provenance="estimated")
    text = Reply(200, body=json_bytes({"choices": [{"text": "y" * 35}]}))
    asked = exchange("ok", {"model": "m", "prompt": "x" * 100}, surface=COMPLETE)
    assert used(asked, text) == Usage(31, 10, provenance="estimated")


@pytest.mark.parametrize("body", [b"not JSON", b"", b"[" * 9000, b'"' + b"y" * (9 << 20) + b'"'])
def test_an_answer_that_cannot_be_read_is_counted_by_its_request(body: bytes) -> None:
    assert used(exchange("ok"), Reply(200, body=body)) == Usage(14, 0, provenance="estimated")


def test_others_answers_and_what_has_no_tokens_are_not_estimated() -> None:
    follower = exchange("ok", target=None, sent=False, committed=False)
    assert used(follower, whole()) is None
    assert used(follower, whole(usage=Usage(1, 2))) == Usage(1, 2)
    gone = exchange(target=None, sent=False, committed=False)
    assert used(gone, streamed(gone, Usage(5, 1, provenance="partial"))) == Usage(5, 1, provenance="partial")
    for surface in (FILES, COUNT):
        assert not is_metered(surface)
        assert used(exchange("ok", surface=surface), whole()) is None


def test_the_request_is_read_in_its_own_dialect() -> None:
    text = "x" * 35
    asked = {"max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
    assert used(exchange(body=asked, surface=MESSAGES), None) == Usage(14, 0, provenance="estimated")
    asked = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    assert used(exchange(body=asked, surface=GEMINI), None) == Usage(14, 0, provenance="estimated")
    # What its own provider takes need not be what we would.
    asked = {"messages": 7, "more": "x" * 100}
    told = used(exchange(body=asked, surface=MESSAGES), None)
    assert told is not None and told.provenance == "estimated" and told.input_tokens == 31

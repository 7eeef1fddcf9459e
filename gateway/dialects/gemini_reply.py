"""Whole answers of Gemini's ``generateContent`` ⇄ chat completions, and what an answer used.

Counting: ``promptTokenCount`` includes what was cached, ``toolUsePromptTokenCount`` comes on top of it;
``candidatesTokenCount`` leaves ``thoughtsTokenCount`` out; counts of zero are not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from time import time
from typing import Any
from uuid import uuid4

from gateway.dialects.counts import count, tier
from gateway.dialects.gemini_candidate import Candidate, malformed
from gateway.dialects.gemini_client import asks_for_thoughts
from gateway.dialects.gemini_error import stream_error
from gateway.dialects.gemini_parts import CandidateWriter, logprobs_from_chat
from gateway.errors import UpstreamProtocolError
from gateway.exchange import Usage

NOT_A_CHAT = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading an answer of OpenAI's shape raises where it has another one: every field of it comes from a provider."""


def reply_to_chat(body: dict[str, Any]) -> dict[str, Any]:
    """A whole answer as a chat completion.

    Raises ``UpstreamProtocolError`` for what is no answer, ``StreamError`` for an error in it or a generation that
    came to nothing. A blocked prompt is an answer: one empty choice, ``content_filter``.
    """
    head = head_of(checked(body))
    candidates = candidates_of(body)
    reason = block_reason(body)
    if not candidates and reason is None:
        raise malformed()
    choices = [_choice(candidate, index, head["id"]) for index, candidate in enumerate(candidates)]
    if not choices:
        message = {"role": "assistant", "content": None, "refusal": blocked_text(body)}
        choices = [{"index": 0, "message": message, "logprobs": None, **blocked_finish(reason)}]
    chat = {**head, "object": "chat.completion", "choices": choices}
    if (used := usage_to_chat(body)) is not None:
        chat["usage"] = used
    return chat


def reply_from_chat(chat: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion for our client, whose ``generateContent`` body ``request`` is.

    Thoughts are shown where it asks for them, as Gemini does; signed ones always, because they have to come back.
    Raises ``UpstreamProtocolError`` for what is no chat completion, and for arguments of a call that are not JSON.
    """
    try:
        return _answer(chat, asks_for_thoughts(request))
    except NOT_A_CHAT as error:
        raise UpstreamProtocolError("The provider's answer is not a chat completion.") from error


def _answer(chat: Mapping[str, Any], thoughts: bool) -> dict[str, Any]:
    candidates = []
    for choice in chat.get("choices") or ():
        message = choice.get("message") or {}
        writer = CandidateWriter(choice.get("index") or 0, thoughts)
        parts = [*writer.parts(message), *writer.rest()]
        reason, native = choice.get("finish_reason"), choice.get("native_finish_reason")
        candidate = writer.candidate(parts, reason or "stop", native)
        if (logprobs := logprobs_from_chat(choice.get("logprobs"))) is not None:
            candidate |= logprobs
        candidates.append(candidate)
    body = {"candidates": candidates, "modelVersion": chat.get("model") or "", "responseId": chat.get("id") or ""}
    if (used := usage_from_chat(chat.get("usage"))) is not None:
        body["usageMetadata"] = used
    return body


def checked(body: Any) -> dict[str, Any]:
    """An answer or a stream's piece, if it is one. Raises ``StreamError`` for an error."""
    if not isinstance(body, dict):
        raise malformed()
    if body.get("error"):
        raise stream_error(body)
    return body


def head_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """``id``, ``created`` and ``model`` of an answer or a stream's piece."""
    answer_id, model = body.get("responseId"), body.get("modelVersion")
    return {
        "id": answer_id if isinstance(answer_id, str) and answer_id else uuid4().hex,
        "created": _seconds(body.get("createTime")),
        "model": model if isinstance(model, str) else "",
    }


def candidates_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The candidates of an answer or a piece. Raises ``UpstreamProtocolError`` if they are none."""
    candidates = body.get("candidates") or []
    if not isinstance(candidates, list) or not all(isinstance(each, dict) for each in candidates):
        raise malformed()
    return candidates


def index_of(candidate: Mapping[str, Any], position: int) -> int:
    """0 is not written, and some servers write no index at all."""
    index = candidate.get("index")
    return index if type(index) is int and index >= 0 else position


def block_reason(body: Mapping[str, Any]) -> str | None:
    """Why the prompt was blocked; ``None`` if it was not."""
    feedback = body.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    return reason if isinstance(reason, str) and reason else None


def blocked_text(body: Mapping[str, Any]) -> str:
    message = body["promptFeedback"].get("blockReasonMessage")
    return message if isinstance(message, str) and message else f"The prompt was blocked: {block_reason(body)}."


def blocked_finish(reason: str | None) -> dict[str, Any]:
    return {"finish_reason": "content_filter", "native_finish_reason": reason}


def logprobs_to_chat(candidate: Mapping[str, Any]) -> dict[str, Any] | None:
    """``logprobsResult`` in OpenAI's shape."""
    result = candidate.get("logprobsResult")
    chosen = result.get("chosenCandidates") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(chosen, list):
        return None
    tops = result.get("topCandidates")
    tops = tops if isinstance(tops, list) else []
    content = []
    for index, each in enumerate(chosen):
        top = tops[index].get("candidates") if index < len(tops) and isinstance(tops[index], dict) else None
        content.append({**_logprob(each), "top_logprobs": [_logprob(one) for one in top or ()]})
    return {"content": content, "refusal": None}


def usage_of(body: Any) -> Usage | None:
    """Usage of a whole answer or a stream's piece; ``None`` if it says nothing."""
    used = body.get("usageMetadata") if isinstance(body, dict) else None
    if not isinstance(used, dict):
        return None
    prompt, answer, thoughts, tools, total, cached = (
        count(used.get(name)) for name in (
            "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount",
            "totalTokenCount", "cachedContentTokenCount",
        )
    )  # fmt: skip
    if prompt is None and answer is None and total is None:
        return None
    known = prompt if prompt is None else prompt + (tools or 0)
    if answer is None and total is not None:
        answer = max(0, total - (known or 0) - (thoughts or 0))
    output = answer if answer is None else answer + (thoughts or 0)
    heard, seen = _by_kind(used, "promptTokensDetails", "toolUsePromptTokensDetails")
    spoken, drawn = _by_kind(used, "candidatesTokensDetails")
    return Usage(
        known,
        output,
        cached,
        None,
        thoughts,
        "partial" if known is None or output is None else "reported",
        audio_input_tokens=heard,
        audio_output_tokens=spoken,
        image_input_tokens=seen,
        image_output_tokens=drawn,
        service_tier=_tier(used),
    )


def usage_to_chat(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Usage in OpenAI's shape."""
    usage = usage_of(body)
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens or 0,
        "completion_tokens": usage.output_tokens or 0,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0, "audio_tokens": usage.audio_input_tokens or 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens or 0, "audio_tokens": usage.audio_output_tokens or 0,
        },
    }  # fmt: skip


def usage_from_chat(usage: Any) -> dict[str, Any] | None:
    """OpenAI's usage as ``usageMetadata``."""
    if not isinstance(usage, dict):
        return None
    inside, outside = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    prompt, answer = count(usage.get("prompt_tokens")) or 0, count(usage.get("completion_tokens")) or 0
    thoughts = min(answer, count(outside.get("reasoning_tokens")) or 0)
    made = {
        "promptTokenCount": prompt, "candidatesTokenCount": answer - thoughts, "totalTokenCount": prompt + answer,
    }  # fmt: skip
    if cached := count(inside.get("cached_tokens")):
        made["cachedContentTokenCount"] = cached
    if thoughts:
        made["thoughtsTokenCount"] = thoughts
    return made


def _choice(body: Mapping[str, Any], position: int, answer_id: str) -> dict[str, Any]:
    candidate = Candidate(index_of(body, position), answer_id)
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    for delta in candidate.read(body):
        for name, value in delta.items():
            if name == "tool_calls":
                _add_call(message, value[0])
            elif isinstance(value, dict):
                message.setdefault(name, value)
            else:
                message[name] = message[name] + value if message.get(name) else value
    reason, message["refusal"] = candidate.finish()
    if message["content"] is None and "tool_calls" not in message and message["refusal"] is None:
        message["content"] = ""
    return {"index": candidate.index, "message": message, "logprobs": logprobs_to_chat(body),
            "finish_reason": reason, "native_finish_reason": candidate.finish_reason}  # fmt: skip


def _add_call(message: dict[str, Any], call: dict[str, Any]) -> None:
    calls = message.setdefault("tool_calls", [])
    if "id" in call:
        calls.append({name: value for name, value in call.items() if name != "index"})  # whole calls have no index
    else:
        calls[-1]["function"]["arguments"] += call["function"]["arguments"]


def _logprob(each: Any) -> dict[str, Any]:
    token, value = (each.get("token"), each.get("logProbability")) if isinstance(each, dict) else (None, None)
    token = token if isinstance(token, str) else ""
    return {"token": token, "logprob": value if isinstance(value, int | float) else 0.0, "bytes": list(token.encode())}


def is_told(used: Any) -> bool:
    """Whether ``usageMetadata`` says anything ``usage_of`` could read."""
    return isinstance(used, dict) and any(
        count(used.get(name)) is not None for name in ("totalTokenCount", "promptTokenCount", "candidatesTokenCount")
    )


def _tier(used: Mapping[str, Any]) -> str | None:
    """Gemini's own word, or Vertex AI's: ``ON_DEMAND_FLEX`` is ``flex``."""
    if (named := tier(used.get("serviceTier"))) is not None:
        return named
    traffic = tier(used.get("trafficType"))
    return traffic if traffic is None else traffic.lower().removeprefix("on_demand_")


def _by_kind(used: Mapping[str, Any], *names: str) -> tuple[int | None, int | None]:
    """Tokens of sound and of pictures in these lists of ``usageMetadata``; ``None`` where there is no list."""
    found: dict[str, int] = {}
    told = False
    for name in names:
        details = used.get(name)
        for one in details if isinstance(details, list) else ():
            if isinstance(one, dict) and isinstance(kind := one.get("modality"), str):
                told = True
                found[kind] = found.get(kind, 0) + (count(one.get("tokenCount")) or 0)
    return (found.get("AUDIO", 0), found.get("IMAGE", 0)) if told else (None, None)


def _seconds(moment: Any) -> int:
    try:
        return int(datetime.fromisoformat(moment).timestamp())
    except (TypeError, ValueError, OverflowError):
        return int(time())

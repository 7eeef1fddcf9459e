"""Requests by which ``docs.dialects`` finds out what translations carry: a feature, as each client asks for it."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = "JVBERi0xLjQKJUVPRg=="
WAV = "UklGRiQAAABXQVZFZm10IA=="
SCHEMA: Body = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SIGNATURE = "RXJRQ0NrZ0lDQkFDR0FJaVFB"

# What each client's plainest request is; a probe's fields come on top.
PLAIN: dict[str, Body] = {
    "openai_chat": {"messages": [{"role": "user", "content": "hi"}]},
    "openai_responses": {"input": "hi", "store": False},
    "anthropic_messages": {"max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}]},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
}


def _chat(*messages: Body) -> Body:
    return {"messages": list(messages)}


def _user(*parts: Body) -> Body:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, *parts]}]}


def _contents(*parts: Body) -> Body:
    return {"contents": [{"role": "user", "parts": [{"text": "hi"}, *parts]}]}


def _input(*parts: Body) -> Body:
    return {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}, *parts]}]}


def _config(**fields: Any) -> Body:
    return {"generationConfig": fields}


_HI = {"role": "user", "content": "hi"}
_CHAT_TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}
_RESPONSES_TOOL = {"type": "function", "name": "weather", "description": "d", "parameters": SCHEMA}
_MESSAGES_TOOL = {"name": "weather", "description": "d", "input_schema": SCHEMA}
_GEMINI_TOOL = {"functionDeclarations": [{"name": "weather", "description": "d", "parametersJsonSchema": SCHEMA}]}
_CHAT_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}

# Where more is asked for than the feature itself: what to leave out to see only its share.
ONLY: dict[str, frozenset[str]] = {
    "Anthropic's signed reasoning in the history": frozenset({"signature", "reasoning_details"}),
    "Gemini's signed tool calls in the history": frozenset({"extra_content", "thoughtSignature"}),
    "OpenAI's encrypted reasoning in the history": frozenset({"encrypted_content"}),
    "cache marks": frozenset({"cache_control"}),
    "any tool must be called": frozenset({"tool_choice", "toolConfig"}),
    "one tool must be called": frozenset({"tool_choice", "toolConfig"}),
    "no parallel tool calls": frozenset({"parallel_tool_calls", "disable_parallel_tool_use"}),
    "reasoning by tokens": frozenset({"reasoning", "thinking", "thinkingConfig"}),
}
# Feature → client dialect → fields. A dialect that is missing has no way to ask for it.
PROBES: dict[str, dict[str, Body]] = {
    "system prompt": {
        "openai_chat": _chat({"role": "system", "content": "Be short."}, _HI),
        "openai_responses": {"instructions": "Be short."},
        "anthropic_messages": {"system": "Be short."},
        "gemini": {"systemInstruction": {"parts": [{"text": "Be short."}]}},
    },
    "system message in mid-conversation": {
        "openai_chat": _chat(
            _HI, {"role": "assistant", "content": "Hello."}, {"role": "system", "content": "Be short."}, _HI
        ),
        "openai_responses": {
            "input": [
                _HI,
                {"role": "assistant", "content": "Hello."},
                {"role": "developer", "content": "Be short."},
                _HI,
            ]
        },
        "anthropic_messages": _chat(
            _HI, {"role": "assistant", "content": "Hello."}, {"role": "system", "content": "Be short."}, _HI
        ),
    },
    "prefill: the assistant's last message is continued": {
        "openai_chat": _chat(_HI, {"role": "assistant", "content": "Dear"}),
        "anthropic_messages": _chat(_HI, {"role": "assistant", "content": "Dear"}),
        "gemini": {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}, {"role": "model", "parts": [{"text": "Dear"}]}]
        },
    },
    "image in the request": {
        "openai_chat": _user({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}),
        "openai_responses": _input({"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}),
        "anthropic_messages": _user(
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        ),
        "gemini": _contents({"inlineData": {"mimeType": "image/png", "data": PNG}}),
    },
    "image by address": {
        "openai_chat": _user({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
        "openai_responses": _input({"type": "input_image", "image_url": "https://example.com/a.png"}),
        "anthropic_messages": _user({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}),
        "gemini": _contents({"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/a.png"}}),
    },
    "document (PDF)": {
        "openai_chat": _user(
            {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}}
        ),
        "openai_responses": _input(
            {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}
        ),
        "anthropic_messages": _user(
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}}
        ),
        "gemini": _contents({"inlineData": {"mimeType": "application/pdf", "data": PDF}}),
    },
    "audio": {
        "openai_chat": _user({"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}),
        "gemini": _contents({"inlineData": {"mimeType": "audio/wav", "data": WAV}}),
    },
    "tools": {
        "openai_chat": {"tools": [_CHAT_TOOL]},
        "openai_responses": {"tools": [_RESPONSES_TOOL]},
        "anthropic_messages": {"tools": [_MESSAGES_TOOL]},
        "gemini": {"tools": [_GEMINI_TOOL]},
    },
    "any tool must be called": {
        "openai_chat": {"tools": [_CHAT_TOOL], "tool_choice": "required"},
        "openai_responses": {"tools": [_RESPONSES_TOOL], "tool_choice": "required"},
        "anthropic_messages": {"tools": [_MESSAGES_TOOL], "tool_choice": {"type": "any"}},
        "gemini": {"tools": [_GEMINI_TOOL], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
    },
    "one tool must be called": {
        "openai_chat": {"tools": [_CHAT_TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
        "openai_responses": {"tools": [_RESPONSES_TOOL], "tool_choice": {"type": "function", "name": "weather"}},
        "anthropic_messages": {"tools": [_MESSAGES_TOOL], "tool_choice": {"type": "tool", "name": "weather"}},
        "gemini": {
            "tools": [_GEMINI_TOOL],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
        },
    },
    "no parallel tool calls": {
        "openai_chat": {"tools": [_CHAT_TOOL], "parallel_tool_calls": False},
        "openai_responses": {"tools": [_RESPONSES_TOOL], "parallel_tool_calls": False},
        "anthropic_messages": {
            "tools": [_MESSAGES_TOOL],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        },
    },
    "tool calls and results in the history": {
        "openai_chat": {
            "tools": [_CHAT_TOOL],
            **_chat(
                _HI,
                {"role": "assistant", "content": None, "tool_calls": [_CHAT_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            ),
        },
        "openai_responses": {
            "tools": [_RESPONSES_TOOL],
            "input": [
                _HI,
                {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'},
                {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
            ],
        },
        "anthropic_messages": {
            "tools": [_MESSAGES_TOOL],
            **_chat(
                _HI,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}]},
            ),
        },
        "gemini": {
            "tools": [_GEMINI_TOOL],
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {
                    "role": "model",
                    "parts": [{"functionCall": {"id": "call_1", "name": "weather", "args": {"city": "Rome"}}}],
                },
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"id": "call_1", "name": "weather", "response": {"output": "sunny"}}}
                    ],
                },
            ],
        },
    },
    "search tool of the provider": {
        "openai_chat": {"web_search_options": {"search_context_size": "low"}},
        "openai_responses": {"tools": [{"type": "web_search"}]},
        "anthropic_messages": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "gemini": {"tools": [{"googleSearch": {}}]},
    },
    "JSON by a schema": {
        "openai_chat": {
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SCHEMA}}
        },
        "openai_responses": {
            "text": {"format": {"type": "json_schema", "name": "a", "strict": True, "schema": SCHEMA}}
        },
        "anthropic_messages": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        "gemini": _config(responseMimeType="application/json", responseJsonSchema=SCHEMA),
    },
    "JSON of any form": {
        "openai_chat": {"response_format": {"type": "json_object"}},
        "openai_responses": {"text": {"format": {"type": "json_object"}}},
        "gemini": _config(responseMimeType="application/json"),
    },
    "temperature": {
        "openai_chat": {"temperature": 0.5},
        "openai_responses": {"temperature": 0.5},
        "anthropic_messages": {"temperature": 0.5},
        "gemini": _config(temperature=0.5),
    },
    "top_p": {
        "openai_chat": {"top_p": 0.5},
        "openai_responses": {"top_p": 0.5},
        "anthropic_messages": {"top_p": 0.5},
        "gemini": _config(topP=0.5),
    },
    "top_k": {
        "openai_chat": {"top_k": 5},
        "anthropic_messages": {"top_k": 5},
        "gemini": _config(topK=5),
    },
    "seed": {"openai_chat": {"seed": 7}, "gemini": _config(seed=7)},
    "penalties": {
        "openai_chat": {"presence_penalty": 0.5, "frequency_penalty": 0.5},
        "gemini": _config(presencePenalty=0.5, frequencyPenalty=0.5),
    },
    "logit_bias": {"openai_chat": {"logit_bias": {"50256": -100}}},
    "most tokens of the answer": {
        "openai_chat": {"max_completion_tokens": 100},
        "openai_responses": {"max_output_tokens": 100},
        "anthropic_messages": {"max_tokens": 100},
        "gemini": _config(maxOutputTokens=100),
    },
    "stop sequences": {
        "openai_chat": {"stop": ["END"]},
        "anthropic_messages": {"stop_sequences": ["END"]},
        "gemini": _config(stopSequences=["END"]),
    },
    "several answers (n)": {"openai_chat": {"n": 2}, "gemini": _config(candidateCount=2)},
    "logprobs": {
        "openai_chat": {"logprobs": True, "top_logprobs": 2},
        "openai_responses": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        "gemini": _config(responseLogprobs=True, logprobs=2),
    },
    "reasoning by effort": {
        "openai_chat": {"reasoning_effort": "high"},
        "openai_responses": {"reasoning": {"effort": "high"}},
        "anthropic_messages": {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        "gemini": _config(thinkingConfig={"thinkingLevel": "HIGH"}),
    },
    "reasoning by tokens": {
        "openai_chat": {"reasoning": {"max_tokens": 1500}, "max_completion_tokens": 4000},
        "anthropic_messages": {"thinking": {"type": "enabled", "budget_tokens": 1500}},
        "gemini": _config(thinkingConfig={"thinkingBudget": 1500}),
    },
    "Anthropic's signed reasoning in the history": {
        "openai_chat": _chat(
            _HI,
            {
                "role": "assistant",
                "content": "Hello.",
                "reasoning_details": [
                    {
                        "type": "reasoning.text",
                        "text": "Well.",
                        "signature": SIGNATURE,
                        "format": "anthropic-claude-v1",
                        "index": 0,
                    }
                ],
            },
            _HI,
        ),
        "anthropic_messages": _chat(
            _HI,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Well.", "signature": SIGNATURE},
                    {"type": "text", "text": "Hello."},
                ],
            },
            _HI,
        ),
    },
    "Gemini's signed tool calls in the history": {
        "openai_chat": {
            "tools": [_CHAT_TOOL],
            **_chat(
                _HI,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{**_CHAT_CALL, "extra_content": {"google": {"thought_signature": SIGNATURE}}}],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            ),
        },
        "gemini": {
            "tools": [_GEMINI_TOOL],
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {
                    "role": "model",
                    "parts": [
                        {
                            "functionCall": {"id": "call_1", "name": "weather", "args": {"city": "Rome"}},
                            "thoughtSignature": SIGNATURE,
                        }
                    ],
                },
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"id": "call_1", "name": "weather", "response": {"output": "sunny"}}}
                    ],
                },
            ],
        },
    },
    "OpenAI's encrypted reasoning in the history": {
        "openai_responses": {
            "include": ["reasoning.encrypted_content"],
            "input": [
                _HI,
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SIGNATURE},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
                _HI,
            ],
        },
    },
    "cache marks": {
        "openai_chat": _user({"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}),
        "anthropic_messages": _user({"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}),
    },
    "the end user's id": {
        "openai_chat": {"user": "u-1"},
        "openai_responses": {"safety_identifier": "u-1"},
        "anthropic_messages": {"metadata": {"user_id": "u-1"}},
    },
    "service tier": {
        "openai_chat": {"service_tier": "flex"},
        "openai_responses": {"service_tier": "flex"},
        "anthropic_messages": {"service_tier": "standard_only"},
    },
    "verbosity": {"openai_chat": {"verbosity": "low"}, "openai_responses": {"text": {"verbosity": "low"}}},
    "audio in the answer": {
        "openai_chat": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
        "gemini": _config(responseModalities=["AUDIO"]),
    },
    "an earlier response of the provider": {"openai_responses": {"previous_response_id": "resp_1"}},
    "what is cached at the provider": {"gemini": {"cachedContent": "cachedContents/1"}},
    "safety settings": {
        "gemini": {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]},
    },
    "an unknown field": {
        "openai_chat": {"brand_new": 1},
        "openai_responses": {"brand_new": 1},
        "anthropic_messages": {"brand_new": 1},
        "gemini": {"brandNew": 1},
    },
}

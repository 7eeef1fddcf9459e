"""A JSON request body: read for routing, forwarded as the bytes that came.

Bodies up to ``SMALL`` are parsed whole by orjson. Longer ones are only scanned, in steps that let other exchanges run.
Both refuse the same: what is not strict JSON in UTF-8, what is hostile by size, and what two readers could read
differently where it decides routing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import orjson

from gateway.errors import InvalidRequest
from gateway.jsonscan import (
    MAX_DEPTH,
    MAX_FIELDS,
    MAX_KEYS,
    Field,
    Scan,
    check_outside,
    may_hold_long_number,
    outside_strings,
)

SMALL = 1 << 18
"""Bytes up to which one call of orjson is short enough for the event loop: 20 ms for the worst body."""
MAX_VALUES = 250_000
"""Values of a longer body that ``Payload.json`` still builds: about 25 ms, and 1 ms for each MB of text."""
MAX_MODEL = 256
"""Characters of a model name."""

ROUTING = ("model", "stream", "stream_options")
"""Fields the gateway acts on; each may occur once, and in no other spelling."""
STEERING = frozenset(
    "api_base api_key api_type api_version aws_access_key_id aws_bedrock_runtime_endpoint aws_profile_name "
    "aws_role_name aws_secret_access_key aws_session_name aws_session_token aws_sts_endpoint aws_web_identity_token "
    "azure_ad_token azure_endpoint base_url custom_llm_provider default_headers deployment_url endpoint_url "
    "extra_headers extra_query headers litellm_credential_name organization s3_endpoint_url sagemaker_base_url "
    "user_config vertex_credentials".split()
)
"""Fields by which other gateways let a caller choose host, credential or headers (LiteLLM's names; CVE-2024-6587).

Refused at the top level, where a gateway behind this one would obey them. Deeper they mean something else: a tool may
have a parameter ``api_key``.
"""

# Names that need no second look; most bodies hold no others.
_ORDINARY = frozenset(
    "model stream stream_options messages input prompt temperature top_p max_tokens max_completion_tokens tools "
    "tool_choice response_format system stop seed n user metadata store instructions reasoning options".split()
)
_SLICE = 0.002  # seconds of scanning between two turns of the event loop
# A routing field's letter or underscore spelt \u00xx, as only a disguise does.
_ESCAPED_LETTER = re.compile(rb"\\u00(?:6[1-9a-fA-F]|7[0-9aA]|5[fF])")
_space = re.compile(rb"[ \t\n\r]*+")
_colon = re.compile(rb"[ \t\n\r]*+:[ \t\n\r]*+")
# A string, a number or literal, an object one level deep; in valid JSON.
_simple_value = re.compile(rb'"(?:[^"\\]|\\.)*+"|[-+.\w]++|\{[^"{}]*+(?:"[^"\\]*+"[^"{}]*+)*+\}')
_QUOTED = tuple((name, b'"%b"' % name.encode()) for name in ROUTING)
_PREFIXES = 4  # occurrences of a name worth a look before the whole body is scanned
_BYTES_PER_KEY = 5  # "":1,
_LONG_TEXT = 1 << 13
_MISSING = object()


class Payload:
    """A request body that was understood. Made by ``parse``."""

    __slots__ = ("_fields", "_tree", "_values", "model", "raw", "stream")

    def __init__(self, raw: bytes, tree: dict[str, Any] | None, fields: list[Field] | None, values: int) -> None:
        self.raw = raw
        """The body as it came."""
        self._tree = tree
        self._fields = fields
        self._values = values
        self.model = checked_model(self.get("model", _MISSING))
        """``None`` where the body names none."""
        stream = self.get("stream")
        if stream is not None and stream is not True and stream is not False:
            raise InvalidRequest("The field 'stream' must be true or false.")
        self.stream: bool = stream is True

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a top-level field; of a long body parsed anew by each call.

        Integers beyond 64 bits come as ``float``; ``raw`` has them whole.
        """
        if self._tree is not None:
            return self._tree.get(name, default)
        spans = self._spans(name)
        if not spans:
            return default
        start, end = spans[-1]
        self._check_values(end - start)
        return orjson.loads(self.raw[start:end])

    def json(self) -> dict[str, Any]:
        """The whole body, parsed once. Treat it as read-only.

        Raises ``InvalidRequest`` for a body of more than ``SMALL`` bytes and ``MAX_VALUES`` values, which would stop
        every other exchange while it is built: such a body only passes between equal dialects.
        """
        if self._tree is None:
            self._check_values(len(self.raw))
            self._tree = orjson.loads(self.raw)
        return self._tree

    def fold(self) -> None:
        """Let go of what was made of ``raw``; who asks for it has it made again. Long streams hold many bodies."""
        if self._tree is not None and not self._fields:
            self._tree = None

    def edited(self, **fields: bytes | None) -> bytes:
        """``raw`` with top-level fields replaced, added in front, or (``None``) taken out with their comma; every other
        byte as it was. Values are JSON."""
        return b"".join(self.pieces(**fields))

    def pieces(self, **fields: bytes | None) -> list[bytes | memoryview]:
        """What ``edited`` joins: a long body that is sent piece by piece is not copied (0.4 ms for each MB)."""
        edits: list[tuple[int, int, bytes]] = []
        added = b""
        removed: list[tuple[int, int]] = []
        for name, value in fields.items():
            spans = self._spans(name)
            if value is None:
                removed += spans
                continue
            edits += [(start, end, value) for start, end in spans]
            if not spans:
                added += b'"%b":%b,' % (name.encode(), value)
        if removed:
            edits += [(start, end, b"") for start, end in _members(self.raw, sorted(removed))]
        if added:
            start = self.raw.index(b"{") + 1
            is_empty = len(removed) == len(self._tree if self._fields is None else self._fields)  # type: ignore[arg-type]
            edits.append((start, start, added[:-1] if is_empty else added))
        raw = memoryview(self.raw)
        pieces: list[bytes | memoryview] = []
        position = 0
        for start, end, value in sorted(edits):
            pieces += (raw[position:start], value)
            position = end
        return [*pieces, raw[position:]]

    def _spans(self, name: str) -> list[tuple[int, int]]:
        """Where the values of a top-level field are."""
        if self._fields is None:
            tree = self.json()
            if name not in tree:
                return []
            if name in ROUTING and (span := _find_span(self.raw, name)):
                return [span]
            self._fields = _scan_now(self.raw)
        return [(start, end) for found, start, end in self._fields if found == name]

    def _check_values(self, size: int) -> None:
        if self._values > MAX_VALUES and size > SMALL:
            raise InvalidRequest(
                f"The body holds more than {MAX_VALUES} values. It can pass unchanged to a provider of the same API, "
                "but is too large to be translated."
            )


def checked_model(model: Any) -> str | None:
    """The name a request gives, if it is fit for headers, logs and labels. Raises ``InvalidRequest``."""
    if isinstance(model, str) and 0 < len(model) <= MAX_MODEL and model.isprintable():
        return model
    if model is _MISSING:
        return None
    # Names reach headers, logs and metric labels: nothing that could break a line or turn the text around.
    raise InvalidRequest(f"The field 'model' must be a string of 1 to {MAX_MODEL} printable characters.")


async def parse(raw: bytes, small: int = SMALL) -> Payload:
    """Read a body of any length without blocking the event loop. Raises ``InvalidRequest``."""
    if len(raw) <= small:
        return parse_small(raw)
    scan = Scan(raw)
    pause = perf_counter() + _SLICE
    while scan.step():
        if perf_counter() > pause:
            await asyncio.sleep(0)
            pause = perf_counter() + _SLICE
    _check_names(dict.fromkeys(name for name, _, _ in scan.fields))
    _check_repeats(scan.fields)
    return Payload(raw, None, scan.fields, scan.values)


def parse_small(raw: bytes) -> Payload:
    """``parse`` for a body of at most ``SMALL`` bytes, without a coroutine. Raises ``InvalidRequest``."""
    try:
        tree = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error
    if not isinstance(tree, dict):
        raise InvalidRequest("The body must be a JSON object.")
    _check_size(raw, tree)
    _check_names(tree)
    fields = None
    if _may_repeat(raw, tree):
        fields = _scan_now(raw)
        _check_repeats(fields)
    return Payload(raw, tree, fields, 0)


def _check_size(raw: bytes, tree: dict[str, Any]) -> None:
    if len(tree) > MAX_FIELDS:
        raise InvalidRequest(f"The body has more than {MAX_FIELDS} fields.")
    if may_hold_long_number(raw) or (len(raw) > _BYTES_PER_KEY * MAX_KEYS and raw.count(b":") > MAX_KEYS):
        check_outside(outside_strings(raw))
    # Counting reads every byte, the exact walk every value: the one is cheap for few bytes, the other for long texts.
    if len(raw) > _LONG_TEXT or raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        _check_depth(tree)


def _check_depth(tree: dict[str, Any]) -> None:
    level: list[Any] = [tree]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for node in level
            for value in (node.values() if type(node) is dict else node)
            if type(value) is dict or type(value) is list
        ]
        if not level:
            return
    raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _check_names(names: Mapping[str, Any]) -> None:
    if _ORDINARY.issuperset(names):
        return
    for name in names:
        # Go's JSON reader, and so Ollama, takes "Model" for "model"; casefold knows its two letters beyond ASCII too.
        known = name.casefold()
        if known in STEERING:
            raise InvalidRequest(f"The field '{known}' cannot be set by a request.")
        if known in ROUTING and known != name:
            raise InvalidRequest(f"The field '{known}' must be spelt in lower case.")


def _check_repeats(fields: list[Field]) -> None:
    seen = set()
    for name, _, _ in fields:
        if name in seen:
            raise InvalidRequest(f"The field '{name}' is given twice.")
        if name in ROUTING:
            seen.add(name)


def _may_repeat(raw: bytes, tree: dict[str, Any]) -> bool:
    """Whether a routing field may stand in the body twice; orjson keeps the last only."""
    if b"\\u00" in raw and _ESCAPED_LETTER.search(raw):
        return True
    for name, quoted in _QUOTED:
        # More than one is mostly a tool's parameter or a value. Written anew, the body has each name once.
        if name in tree and raw.count(quoted) > 1 and raw.count(quoted) != orjson.dumps(tree).count(quoted):
            return True
    return False


def _scan_now(raw: bytes) -> list[Field]:
    scan = Scan(raw)
    while scan.step():
        pass
    return scan.fields


def _find_span(raw: bytes, name: str) -> tuple[int, int] | None:
    """Where the value of a field is that stands in the body once and unescaped; ``None`` if that takes a scan."""
    quoted = b'"%b"' % name.encode()
    position = -1
    for _ in range(_PREFIXES):
        position = raw.find(quoted, position + 1)
        if position < 0:
            break
        if _is_top_level(raw[:position]):
            colon = _colon.match(raw, position + len(quoted))
            value = _simple_value.match(raw, colon.end()) if colon else None
            return value.span() if value else None
    return None


def _members(raw: bytes, values: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The whole members, each with one comma, whose values are at ``values``, in this order.

    Of valid JSON, and of names without a quote in them.
    """
    cuts: list[tuple[int, int]] = []
    for value, end in values:
        # Back over the colon to the name, which ends and begins with a quote.
        start = raw.rindex(b'"', 0, raw.rindex(b'"', 0, value))
        follows = _space.match(raw, end).end()  # type: ignore[union-attr]
        if raw[follows : follows + 1] == b",":
            cuts.append((start, follows + 1))
            continue
        # The last member takes the comma before it along: that of the last one which stays.
        before = len(raw[:start].rstrip(b" \t\n\r"))
        while cuts and cuts[-1][1] == before:
            start = cuts.pop()[0]
            before = len(raw[:start].rstrip(b" \t\n\r"))
        cuts.append((before - 1 if raw[before - 1 : before] == b"," else start, end))
    return cuts


def _is_top_level(prefix: bytes) -> bool:
    """Whether a top-level name may follow: then a closing brace makes the prefix a whole object."""
    try:
        orjson.loads(prefix.rstrip(b" \t\n\r").removesuffix(b",") + b"}")
    except orjson.JSONDecodeError:
        return False
    return True

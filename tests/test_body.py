"""Request bodies: what is refused, what routing reads, which bytes an edit touches."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway import body
from gateway.body import MAX_MODEL, MAX_VALUES, ROUTING, SMALL, STEERING, Payload, parse, parse_small
from gateway.errors import InvalidRequest
from gateway.jsonscan import MAX_DEPTH, MAX_KEYS

SCANNED = 0  # as the bound between short and long bodies: every body is long


def with_scan(raw: bytes) -> Payload:
    return asyncio.run(parse(raw, small=SCANNED))


BOTH = pytest.mark.parametrize("read", [parse_small, with_scan])

_CHAT = b'"messages":[{"role":"user","content":"hi"}]'
HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "array": b"[]",
    "array of a body": b'[{"model":"a"}]',
    "string": b'"model"',
    "number": b"1",
    "null": b"null",
    "word": b"model",
    "UTF-8 BOM": b'\xef\xbb\xbf{"model":"a"}',
    "UTF-16": '{"model":"a"}'.encode("utf-16"),
    "UTF-16 little endian": '{"model":"a"}'.encode("utf-16-le"),
    "UTF-16 big endian": '{"model":"a"}'.encode("utf-16-be"),
    "UTF-32": '{"model":"a"}'.encode("utf-32"),
    "Latin-1": '{"model":"é"}'.encode("latin-1"),
    "overlong UTF-8": b'{"model":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"model":"\xed\xa0\x80"}',
    "cut UTF-8": b'{"model":"\xf0\x9f\x98"}',
    "invalid UTF-8 in a name": b'{"\xff":1}',
    "invalid UTF-8 deep inside": b'{"model":"a","messages":[{"content":"\x80"}]}',
    "lone high surrogate": b'{"a":"\\ud83d"}',
    "lone low surrogate": b'{"a":"\\ude00"}',
    "surrogates in the wrong order": b'{"a":"\\ude00\\ud83d"}',
    "lone surrogate in a name": b'{"\\ud83d":1}',
    "NaN": b'{"temperature":NaN}',
    "Infinity": b'{"temperature":Infinity}',
    "minus Infinity": b'{"a":[-Infinity]}',
    "number beyond double": b'{"a":1e999}',
    "5,000-digit integer": b'{"a":' + b"9" * 5_000 + b"}",
    "5,000-digit fraction": b'{"a":0.' + b"9" * 5_000 + b"}",
    "5,000-digit exponent": b'{"a":[1e' + b"0" * 5_000 + b"1]}",
    "leading zero": b'{"a":01}',
    "leading plus": b'{"a":+1}',
    "no digit before the point": b'{"a":.5}',
    "no digit after the point": b'{"a":1.}',
    "no exponent": b'{"a":1e}',
    "hexadecimal": b'{"a":0x10}',
    "Python literal": b'{"stream":True}',
    "undefined": b'{"a":undefined}',
    "single quotes": b"{'model':'a'}",
    "unquoted name": b'{model:"a"}',
    "number as a name": b'{1:"a"}',
    "comment": b'{"a":1/* */}',
    "line comment": b'{"a":1}//',
    "trailing comma": b'{"a":1,}',
    "trailing comma in an array": b'{"a":[1,]}',
    "two commas": b'{"a":[1,,2]}',
    "no comma": b'{"a":[1 2]}',
    "no colon": b'{"a" 1}',
    "no value": b'{"a":}',
    "wrong bracket": b'{"a":[1}',
    "not closed": b'{"a":1',
    "string not closed": b'{"model":"a',
    "closed twice": b'{"a":1}}',
    "trailing data": b'{"model":"a"} x',
    "trailing NUL": b'{"model":"a"}\x00',
    "two bodies": b'{"model":"a"}{"model":"b"}',
    "two bodies in lines": b'{"model":"a"}\n{"model":"b"}',
    "control character in a string": b'{"a":"\n"}',
    "NUL in a string": b'{"a":"\x00"}',
    "vertical tab as white space": b'{\x0b"a":1}',
    "no-break space as white space": b'{\xc2\xa0"a":1}',
    "unknown escape": b'{"a":"\\x41"}',
    "cut escape": b'{"a":"\\u00e"}',
    "depth 101": b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    "depth 101 of objects": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "depth 101 beside much else": b'{"m":"' + b"x" * 20_000 + b'","a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    "depth 1,000": b'{"a":' + b"[" * 1_000 + b"]" * 1_000 + b"}",
    "depth 100,000": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "depth without end": b'{"a":' * 50_000,
    "100,001 names": b'{"a":[' + b'{"b":1},' * MAX_KEYS + b"1]}",
    "100,001 names in one object": b'{"a":{' + b",".join(b'"%d":0' % number for number in range(MAX_KEYS)) + b"}}",
    "100,001 fields": b"{" + b",".join(b'"%d":0' % number for number in range(MAX_KEYS + 1)) + b"}",
    "250,000 messages": b'{"messages":[' + b",".join([b'{"role":"user","content":"hi"}'] * 250_000) + b"]}",
    "model twice": b'{"model":"a",' + _CHAT + b',"model":"b"}',
    "model twice, the same": b'{"model":"a","model":"a"}',
    "model twice, escaped": b'{"model":"a",' + _CHAT + b',"mod\\u0065l":"b"}',
    "model twice, escaped first": b'{"\\u006D\\u006f\\u0064\\u0065\\u006C":"a","model":"b"}',
    "model twice, both escaped": b'{"mode\\u006c":"a","\\u006dodel":"b"}',
    "model twice and in a tool": b'{"model":"a","tools":[{"model":1}],"model":"b"}',
    "stream twice": b'{"stream":false,"model":"a","stream":true}',
    "stream_options twice": b'{"stream_options":{},"stream\\u005foptions":{"include_usage":false}}',
    "Model": b'{"model":"a","Model":"b"}',
    "MODEL alone": b'{"MODEL":"a"}',
    "Stream": b'{"model":"a","Stream":true}',
    "stream with long s": '{"model":"a","\u017ftream":true}'.encode(),
    "stream with long s, escaped": b'{"model":"a","\\u017ftream":true}',
    "Stream_Options": b'{"Stream_Options":{}}',
    "model null": b'{"model":null}',
    "model a number": b'{"model":1}',
    "model a list": b'{"model":["a"]}',
    "model an object": b'{"model":{"id":"a"}}',
    "model empty": b'{"model":""}',
    "model of 257 characters": b'{"model":"' + b"a" * (MAX_MODEL + 1) + b'"}',
    "stream a string": b'{"stream":"true"}',
    "stream a number": b'{"stream":1}',
    "stream zero": b'{"stream":0}',
}


@BOTH
@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_r37_hostile_bodies_are_refused(read: Any, raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(raw)
    assert caught.value.http_status == 400
    assert len(caught.value.message) < 200


@BOTH
@pytest.mark.parametrize("character", [*map(chr, range(0x20)), "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\ufeff"])
def test_r08_a_model_name_cannot_carry_control_characters(read: Any, character: str) -> None:
    with pytest.raises(InvalidRequest, match="printable"):
        read(json.dumps({"model": f"gpt{character}4"}).encode())


@BOTH
@pytest.mark.parametrize("name", [*sorted(STEERING), "API_BASE", "api_\\u006bey"])
def test_r17_a_request_cannot_steer(read: Any, name: str) -> None:
    with pytest.raises(InvalidRequest, match=name.lower().replace("\\u006b", "k")):
        read(b'{"model":"a","%b":"http://127.0.0.1:9"}' % name.encode())


@BOTH
def test_r17_deeper_the_same_names_mean_something_else(read: Any) -> None:
    names = {name: {"type": "string"} for name in (*STEERING, *ROUTING, "Model")}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": names}}}
    sent = {"model": "a", "tools": [tool], "metadata": {"api_key": "x", "model": "model"}, "messages": ["model"]}
    assert read(json.dumps(sent).encode()).json() == sent


@BOTH
@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a","tools":[{"model":"b"}]}',
        b'{"tools":[{"model":"b"}],"model":"a"}',
        b'{"user":"model","model":"a"}',
        b'{"user":"\\"model\\":\\"b\\"","model":"a"}',
        b'{"model":"a","x":{"Model":1,"mod\\u0065l":2,"model":3,"stream":4}}',
        b'{"mod\\u0065l":"a"}',
        b'{"x":[[[["model"]]],{"model":["model","model"]},"model","model"],"model":"a","y":"model"}',
        b'\r\n{ "model"\t:\n"a" , "x":"model" }\n',
    ],
)
def test_r16_the_one_model_is_found_and_replaced(read: Any, raw: bytes) -> None:
    payload = read(raw)
    assert payload.model == "a"
    edited = payload.edited(model=b'"\xc3\xa9"')
    assert json.loads(edited) == {**json.loads(raw), "model": "é"}
    assert edited == raw.replace(b'"a"', b'"\xc3\xa9"')


@BOTH
def test_a_body_without_model_and_stream(read: Any) -> None:
    payload = read(b"{}")
    assert (payload.model, payload.stream, payload.json()) == (None, False, {})
    assert payload.get("model") is None
    assert payload.edited() == b"{}"
    assert payload.edited(model=b'"a"', stream=b"true") == b'{"model":"a","stream":true}'


@BOTH
@pytest.mark.parametrize(("stream", "expected"), [(b"true", True), (b"false", False), (b"null", False)])
def test_stream(read: Any, stream: bytes, expected: bool) -> None:
    assert read(b'{"stream":%b}' % stream).stream is expected


@BOTH
def test_repeated_names_that_do_not_route_pass_and_are_edited_alike(read: Any) -> None:
    payload = read(b'{"n":1,"model":"a","n":2}')
    assert payload.get("n") == 2
    assert payload.edited(n=b"3") == b'{"n":3,"model":"a","n":3}'


@BOTH
def test_limits_are_inclusive(read: Any) -> None:
    deep = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    names = b'{"a":[' + b'{"b":1},' * (MAX_KEYS - 1) + b"1]}"
    for raw in (deep, names, b'{"model":"%b"}' % (b"m" * MAX_MODEL)):
        assert read(raw).raw == raw


texts = st.text(max_size=20) | st.sampled_from(['"model"', "model", "\\", "{", "}]", "stream", "é\u2028\U0001f600"])
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.sampled_from(ROUTING), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """What a client may send, in one of the ways programs write it."""
    fields = draw(st.dictionaries(texts, values, max_size=4))
    extra = draw(st.fixed_dictionaries({}, optional={"stream": st.booleans(), "stream_options": values}))
    model = draw(st.sampled_from([{}, {"model": "gpt-4o"}, {"model": "模型"}]))
    parts = draw(st.permutations(list({**fields, **extra, **model}.items())))
    written = json.dumps(
        dict(parts),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 1])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\t:")])),
    )
    return draw(st.sampled_from([b"", b" \n"])) + written.encode(errors="surrogatepass")


def read_both(raw: bytes) -> tuple[Payload, Payload]:
    try:
        small = parse_small(raw)
    except InvalidRequest:
        with pytest.raises(InvalidRequest):
            with_scan(raw)
        assume(False)
    return small, with_scan(raw)


@given(bodies())
def test_both_ways_of_reading_agree_with_json(raw: bytes) -> None:
    expected = json.loads(raw)
    for payload in read_both(raw):
        assert payload.raw is raw
        assert payload.model == expected.get("model")
        assert payload.stream is (expected.get("stream") is True)
        assert payload.json() == expected
        assert all(payload.get(name) == value for name, value in expected.items())
        assert payload.get("no such field") is None


def by_hand(raw: bytes, changes: dict[str, bytes]) -> bytes:
    """The body as text, the values of ``changes`` exchanged where the standard library's decoder says they are."""
    text, out, decoder = raw.decode(), "", json.JSONDecoder()
    at = text.index("{") + 1
    added = ",".join(f'"{name}":{value.decode()}' for name, value in changes.items() if name not in json.loads(raw))
    out = text[:at] + added + ("," if added and json.loads(raw) else "")
    while True:
        start = len(text) - len(text[at:].lstrip(" \t\r\n,"))
        if text[start] == "}":
            return (out + text[at:]).encode()
        name, end = decoder.raw_decode(text, start)
        start = len(text) - len(text[end:].lstrip(" \t\r\n:"))
        _, end = decoder.raw_decode(text, start)
        out += text[at:start] + (changes[name].decode() if name in changes else text[start:end])
        at = end


@given(bodies(), st.dictionaries(st.sampled_from([*ROUTING, "temperature", "n"]), values, max_size=3))
@example(b'{"model":"a","stream_options":{"x":"}"}}', {"stream_options": {"include_usage": True}})
@example(b'{"model":"a","stream_options":{"x":{"y":[1,"\\"}"]}},"n":1}', {"stream_options": None, "n": 2})
@example(b'{"n":"\\u00e9\\/","stream":false}', {"stream": True})
def test_r16_an_edit_changes_nothing_else(raw: bytes, changes: dict[str, Any]) -> None:
    written = {name: json.dumps(value).encode() for name, value in changes.items()}
    for payload in read_both(raw):
        edited = payload.edited(**written)
        assert json.loads(edited) == {**json.loads(raw), **changes}
        assert edited == b"".join(payload.pieces(**written)) == by_hand(raw, written)


@BOTH
def test_one_edit_keeps_prefix_and_suffix(read: Any) -> None:
    before = b' {\t"seed" : 123456789012345678901234567890, "x":1.0E+2,"x":-0, "t":"\\u00e9\\/\xc3\xa9", "model" :\n'
    after = b' , "logit_bias":{"a":1,"a":2}, "model_":"model" }\r\n'
    payload = read(before + b'"old"' + after)
    assert payload.edited(model=b'"new"') == before + b'"new"' + after


@given(bodies(), st.data())
def test_r37_both_ways_refuse_the_same(raw: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(raw)))
    noise = data.draw(
        st.sampled_from([b"", b",", b":", b"]", b"}", b'"', b"\\", b"0", b"\x80", b'"model":1,', b'"Model":1,'])
    )
    damaged = raw[:at] + noise + raw[at + data.draw(st.integers(0, 1)) :]
    small, scanned = read_both(damaged)
    assert (small.model, small.stream) == (scanned.model, scanned.stream)


def test_a_long_body_of_many_values_is_forwarded_but_not_built() -> None:
    raw = b'{"model":"a","input":[' + b"10," * (MAX_VALUES + 1_000) + b'1],"dimensions":3}'
    assert len(raw) > SMALL
    payload = asyncio.run(parse(raw))
    assert (payload.model, payload.get("dimensions")) == ("a", 3)
    assert payload.edited(model=b'"b"') == raw.replace(b'"a"', b'"b"', 1)
    for refused in (payload.json, lambda: payload.get("input")):
        with pytest.raises(InvalidRequest, match="translated"):
            refused()


def test_a_long_body_of_few_values_is_built_once() -> None:
    raw = b'{"model":"a","image":"' + b"QUJD" * SMALL + b'"}'
    payload = asyncio.run(parse(raw))
    assert payload.json() is payload.json()
    assert payload.get("image") == "QUJD" * SMALL


async def test_r38_a_long_body_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_SLICE", 0.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    raw = b'{"model":"a","input":[' + b"12345," * 300_000 + b'1],"image":"' + b"x" * 2_000_000 + b'"}'
    payload = await parse(raw)
    task.cancel()
    assert payload.model == "a"
    assert turns > len(raw) / 200_000


def test_a_folded_body_is_what_it_was() -> None:
    raw = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2}'
    payload = parse_small(raw)
    payload.fold()
    assert (payload.raw, payload.model, payload.stream) == (raw, "m", False)
    assert payload.get("n") == 2
    assert payload.edited(model=b'"x"') == raw.replace(b'"m"', b'"x"')
    assert payload.json()["messages"][0]["content"] == "hi"


_SPACES = st.sampled_from([b"", b" ", b"\n\t "])
_MEMBERS = {
    "model": b'"m"', "stream": b"true", "a": b'{"model":[1,2,","]}', "messages": b'[{"stream":"\\",\\""}]', "b": b"1",
}  # fmt: skip


@BOTH
@given(names=st.lists(st.sampled_from(sorted(_MEMBERS)), unique=True), data=st.data(), adds=st.booleans())
@example(names=["model"], data=None, adds=True)
@example(names=["a", "model", "stream"], data=None, adds=False)
def test_a_field_that_is_taken_out_takes_one_comma_along(read: Any, names: list[str], data: Any, adds: bool) -> None:
    def space() -> bytes:
        return data.draw(_SPACES) if data else b""

    members = [
        space() + b'"%b"' % name.encode() + space() + b":" + space() + _MEMBERS[name] + space() for name in names
    ]
    raw = b"{" + b",".join(members) + space() + b"}"
    out = data.draw(st.sets(st.sampled_from(sorted(_MEMBERS)))) if data else {"model", "stream"}
    edited = read(raw).edited(**dict.fromkeys(out), **({"new": b"2"} if adds else {}))
    kept = {name: json.loads(_MEMBERS[name]) for name in names if name not in out}
    assert json.loads(edited) == ({"new": 2} if adds else {}) | kept
    assert list(json.loads(edited)) == ["new"] * adds + [name for name in names if name not in out]

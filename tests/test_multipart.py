"""Forms are read the one way every server reads them, however their bytes are cut, or refused."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.multipart import MAX_HEAD, MAX_PARTS, Form

TYPE = "multipart/form-data; boundary=cut"
Part = tuple[str, bytes]


def part(disposition: str, content: bytes, *more: str) -> bytes:
    head = "\r\n".join([f"Content-Disposition: {disposition}", *more]).encode("utf-8", "surrogateescape")
    return b"--cut\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def field(name: str, content: bytes) -> bytes:
    return part(f'form-data; name="{name}"', content)


MODEL = field("model", b"whisper-1")
FILE = part('form-data; name="file"; filename="a.wav"', b"\0\r\n--cu\xff" * 50, "Content-Type: audio/wav")
END = b"--cut--\r\n"


def read(body: bytes, size: int = 1 << 20, content_type: str = TYPE) -> Form:
    form = Form(content_type)
    for at in range(0, len(body), size):
        form.feed(body[at : at + size])
    form.finish()
    return form


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("before", [b"", field("language", b"de"), FILE], ids=["first", "second", "behind the file"])
def test_the_model_is_found_with_its_place(before: bytes, size: int) -> None:
    body = before + MODEL + FILE + END
    form = read(body, size)
    assert form.model == "whisper-1"
    assert body[slice(*form.span)] == b"whisper-1"


@given(st.lists(st.tuples(st.sampled_from(["a", "file", "models"]), st.binary(max_size=60)), max_size=5), st.data())
def test_any_cut_of_any_form_reads_the_same(parts: list[Part], data: st.DataObject) -> None:
    parts = [(name, content) for name, content in parts if b"--cut" not in content]
    at = data.draw(st.integers(0, len(parts)))
    pieces = [field(name, content) for name, content in parts]
    body = b"".join([*pieces[:at], MODEL, *pieces[at:], END])
    size = data.draw(st.integers(1, len(body)))
    form = read(body, size)
    assert (form.model, body[slice(*form.span)]) == ("whisper-1", b"whisper-1")


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_read_or_refused(body: bytes, size: int) -> None:
    with pytest.raises(InvalidRequest):
        read(body, size)


@given(
    st.lists(st.sampled_from([b"--cut", b"\r\n", b"\n", b"--", MODEL, FILE, END, b"x"]), max_size=8), st.integers(1, 99)
)
def test_how_the_bytes_are_cut_decides_nothing(pieces: list[bytes], size: int) -> None:
    def outcome(step: int) -> str | None:
        try:
            return str(read(b"".join(pieces), step).model)
        except InvalidRequest:
            return None

    assert outcome(size) == outcome(1 << 20)


def test_a_form_without_a_model_names_none() -> None:
    assert read(field("purpose", b"batch") + FILE + END).model is None


@pytest.mark.parametrize(
    "disposition",
    [
        "form-data; name=model", 'Form-Data; Name="model"', 'form-data ; name="model"', 'form-data;name="model"',
    ],
)  # fmt: skip
def test_usual_spellings_are_read(disposition: str) -> None:
    assert read(part(disposition, b"m") + END).model == "m"


@pytest.mark.parametrize("content_type", ["Content-Type: text/plain", "Content-Type: text/plain; charset=utf-8"])
def test_a_model_that_says_it_is_text_is_read(content_type: str) -> None:
    assert read(part('form-data; name="model"', "mödel".encode(), content_type) + END).model == "mödel"


@pytest.mark.parametrize(
    "filename", ['"a\\"b.wav"', '"ü.wav"', "\"x\"; filename*=utf-8''%e2%82%ac.wav", '"\udcff.wav"', "plain.wav"]
)
def test_files_may_have_any_name(filename: str) -> None:
    assert read(part(f'form-data; name="file"; filename={filename}', b"x") + MODEL + END).model == "whisper-1"


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="cut"', "Multipart/Form-Data;boundary=cut",
        "multipart/form-data; charset=utf-8; boundary=cut", "multipart/form-data; boundary=cut; charset=UTF-8",
    ],
)  # fmt: skip
def test_usual_types_are_read(content_type: str) -> None:
    assert read(MODEL + END, content_type=content_type).model == "whisper-1"


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=cut; boundary=other", "multipart/form-data; boundary=a b",
        "multipart/mixed; boundary=cut", f"multipart/form-data; boundary={'x' * 71}",
        "multipart/form-data; boundary*=utf-8''cut", 'multipart/form-data; boundary="cut ', "",
    ],
)  # fmt: skip
def test_r16_types_that_could_be_read_twice_are_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        Form(content_type)


@pytest.mark.parametrize(
    "body",
    [
        MODEL + field("model", b"other") + END,
        MODEL + FILE + field("model", b"other") + END,
        field("Model", b"m") + END,
        field("\u017ftream", b"true") + END,
        field("api_base", b"http://evil.test") + END,
        field("API_KEY", b"x") + END,
        part('form-data; name="model"; filename="m"', b"m") + END,
        part("form-data; name*=utf-8''model", b"m") + END,
        part('form-data; name="a"; name="model"', b"m") + END,
        part('form-data; name="mod\\el"', b"m") + END,
        part('form-data; name="model', b"m") + END,
        part('form-data; filename="x"', b"m") + END,
        part('form-data; name=""', b"m") + END,
        part('attachment; name="model"', b"m") + END,
        part('form-data; name="model"', b"m", 'Content-Disposition: form-data; name="x"') + END,
        part('form-data; name="a"', b"m", " ; name=model") + END,
        part('form-data; name="model"', b"bQ==", "Content-Transfer-Encoding: base64") + END,
        part('form-data; name="model"', b"m", "Content-Type: text/plain; charset=utf-16") + END,
        part('form-data; name="model"', b"m", "Content-Type: application/json") + END,
        b"--cut\r\n\r\nm\r\n" + END,
        field("model", b"") + END,
        field("model", b"a\nb") + END,
        field("model", b"\xff\xfe") + END,
        field("model", b"m" * 257) + END,
        field("model", b"m" * 5000) + END,
        b"preamble\r\n" + MODEL + END,
        b"\r\n" + MODEL + END,
        MODEL + END + MODEL + END,
        MODEL + b"--cut--epilogue",
        MODEL.replace(b"\r\n", b"\n") + END,
        field("file", b"x\n" + field("model", b"other")) + END,
        field("file", b"x\r" + field("model", b"other")) + END,
        field("file", b"x" + field("model", b"other")) + END,
        MODEL.replace(b"--cut", b"--cut ") + END,
        MODEL,
        MODEL[:20],
        b"",
        part('form-data; name="a"', b"", "X: " + "x" * MAX_HEAD) + END,
        field("a", b"") * (MAX_PARTS + 1) + END,
    ],
    ids=map(str, count()),
)
@pytest.mark.parametrize("size", [3, 1 << 20])
def test_r16_what_two_servers_could_read_differently_is_refused(body: bytes, size: int) -> None:
    with pytest.raises(InvalidRequest):
        read(body, size)


def test_r16_once_the_way_is_chosen_no_model_is_taken() -> None:
    form = Form(TYPE)
    form.feed(FILE)
    form.seal()
    with pytest.raises(InvalidRequest, match="before the file"):
        form.feed(MODEL + END)


def test_a_long_file_is_not_held() -> None:
    form = Form(TYPE)
    form.feed(FILE[:-2])
    for _ in range(100):
        form.feed(b"\r\n--cu" * 10_000)
        assert len(form._buffer) < 100

"""Parts of messages → Converse's blocks."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.bedrock_blocks import blocks_of, cache_point, tool_result
from gateway.dialects.capabilities import Capabilities
from gateway.dialects.dropped import Dropped
from gateway.errors import InvalidRequest


def blocks(*parts: Any, **caps: Any) -> list[dict[str, Any]]:
    return blocks_of(list(parts), "m", Capabilities(**caps), Dropped())


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def file(data: Any, name: Any = None) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, "filename": name}}


SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}


@pytest.mark.parametrize("content", [None, "", []])
def test_there_are_no_empty_texts(content: Any) -> None:
    assert blocks_of(content, "m", Capabilities(), Dropped()) == []
    assert blocks({"type": "text", "text": ""}) == []


@pytest.mark.parametrize(
    ("media", "ours"),
    [("image/png", "png"), ("image/JPEG", "jpeg"), ("image/jpg", "jpeg"), ("image/gif", "gif"), ("image/webp", "webp")],
)
def test_images(media: str, ours: str) -> None:
    expected = [{"image": {"format": ours, "source": {"bytes": "aGk="}}}]
    assert blocks(image(f"data:{media};base64,aGk=")) == expected
    assert blocks({"type": "image_url", "image_url": f"DATA:{media};charset=x;BASE64,aGk="}) == expected


@pytest.mark.parametrize("url", ["http://127.0.0.1/x.png", "https://example.com/x.png", "file:///etc/passwd", "", None])
def test_r23_no_address_is_fetched(url: Any) -> None:
    for part in (image(url), file(url)):
        with pytest.raises(InvalidRequest, match="must be a data: URL"):
            blocks(part)


@pytest.mark.parametrize(
    ("part", "match"),
    [
        (image("data:image/tiff;base64,aGk="), "must be one of image/png"),
        (image("data:image/png,hi"), "encoded in base64"),
        (file("data:application/zip;base64,aGk="), "must be one of application/pdf"),
        ({"type": "file", "file": {"file_id": "f"}}, "must be a data: URL"),
        ({"type": "video_url", "video_url": {}}, "takes text, image_url, file, input_audio parts"),
        ({"type": "text", "text": 1}, "takes text"),
        ("x", "takes text"),
    ],
)
def test_what_cannot_be_shown_to_the_model_is_refused(part: Any, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        blocks(part)


def test_a_model_is_not_shown_what_it_cannot_take() -> None:
    for part, cap in ((image("data:image/png;base64,aGk="), "images"), (file("data:text/csv;base64,aGk="), "documents"),
                      (SOUND, "audio")):  # fmt: skip
        assert len(blocks(part)) == 1
        with pytest.raises(InvalidRequest, match="this model takes text"):
            blocks(part, **{cap: False})


@pytest.mark.parametrize(
    ("given", "name"),
    [("a.pdf", "a pdf"), ("Élan_2  (v1) [x].md", "lan 2 (v1) [x] md"), (None, "document"), ("漢", "document"),
     ("x" * 300, "x" * 200)],
)  # fmt: skip
def test_a_document_s_name_has_only_what_the_service_allows(given: Any, name: str) -> None:
    (block,) = blocks(file("data:text/plain;base64,aGk=", given))
    assert block["document"] == {"format": "txt", "name": name, "source": {"bytes": "aGk="}}


def test_cache_marks() -> None:
    assert cache_point({}) == {}
    assert cache_point({"cache_control": {"type": "ephemeral", "ttl": "30m"}}) == {"cachePoint": {"type": "default"}}
    marked = {"cache_control": {"type": "ephemeral", "ttl": "5m"}}
    assert cache_point(marked) == {"cachePoint": {"type": "default", "ttl": "5m"}}
    assert blocks({"type": "text", "text": "", **marked}) == [], "there is nothing to mark"


def test_a_tool_s_result() -> None:
    dropped = Dropped()
    content = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    message = {"content": content, "is_error": True}
    made = tool_result(message, "1", "m", Capabilities(), dropped)
    assert made == {"toolResult": {"toolUseId": "1", "content": [{"text": "x"}], "status": "error"}}
    assert dropped.names == ["messages.content.cache_control"]
    with pytest.raises(InvalidRequest, match="holds no sound"):
        tool_result({"content": [SOUND]}, "1", "m", Capabilities(), dropped)

"""OpenAI's own JavaScript client in front of the gateway: one script, whose findings the tests look at."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import GatewayFactory
from tests.support.programs import needs_program

PACKAGE = "openai@6"  # the last one that runs on Node 20
KEY = "hg-sdk-js"
CONFIG = f"""
[providers.echo]
type = "echo"
[keys.js]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
models = ["echo", "nobody"]
"""
SCRIPT = """
import OpenAI from "openai";
const connect = (apiKey) => new OpenAI({ baseURL: process.env.BASE_URL, apiKey, maxRetries: 0 });
const client = connect(process.env.KEY);
const messages = [{ role: "user", content: "Hello, dear gateway" }];
const found = {};

found.chat = await client.chat.completions.create({ model: "echo", messages });

let text = "", usage = [];
const asked = { model: "echo", messages, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(asked)) {
  text += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) usage.push(chunk.usage);
}
found.stream = { text, usage };

const tools = [{ type: "function", function: { name: "look_up", parameters: { type: "object", properties: {} } } }];
const forced = await client.chat.completions.create({ model: "echo", messages, tools, tool_choice: "required" });
found.tool = forced.choices[0].message.tool_calls[0].function;
const embedded = await client.embeddings.create({ model: "echo", input: ["a", "b"] });
found.embeddings = embedded.data.map((item) => item.embedding);
found.models = [];
for await (const model of client.models.list()) found.models.push(model.id);

const failure = async (call) => {
  try { await call; } catch (error) {
    return { kind: error.constructor.name, status: error.status, code: error.code, id: error.requestID };
  }
};
const ask = (client, model) => client.chat.completions.create({ model, messages });
found.key = await failure(ask(connect("hg-nobody"), "echo"));
found.model = await failure(ask(client, "gpt-4o"));
found.missing = await failure(ask(client, "nobody"));
found.request = await failure(client.chat.completions.create({ model: "echo", messages: "not a list" }));
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def package(request: pytest.FixtureRequest) -> Path:
    """The folder the client is installed in, once per checkout; skips where the registry does not give it."""
    npm = needs_program("npm")
    assert request.config.cache is not None
    folder = request.config.cache.mkdir("openai-js")
    if not (folder / "node_modules/openai/package.json").is_file():
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm cannot install {PACKAGE}: {error}")
    return folder


@pytest.fixture(scope="module")
def found(package: Path, shared_gateway_server: GatewayFactory) -> Any:
    """What the script found out."""
    node = needs_program("node")
    (package / "script.mjs").write_text(SCRIPT)
    environment = {"BASE_URL": f"{shared_gateway_server(CONFIG).url}/v1", "KEY": KEY, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [node, "script.mjs"], cwd=package, env=environment, capture_output=True, timeout=60, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_chat(found: Any) -> None:
    assert found["chat"]["choices"][0]["message"]["content"] == "Hello, dear gateway"


def test_a_stream_ends_with_the_usage_that_was_asked_for(found: Any) -> None:
    assert found["stream"]["text"] == "Hello, dear gateway"
    assert [usage["total_tokens"] for usage in found["stream"]["usage"]] == [6]


def test_a_forced_tool_is_called(found: Any) -> None:
    assert found["tool"] == {"name": "look_up", "arguments": '{"text":"Hello, dear gateway"}'}


def test_embeddings_arrive_as_numbers(found: Any) -> None:
    assert [len(vector) for vector in found["embeddings"]] == [8, 8]
    assert all(-1 <= number <= 1 for vector in found["embeddings"] for number in vector)


def test_models_are_listed(found: Any) -> None:
    assert found["models"] == ["echo"]


@pytest.mark.parametrize(
    ("what", "kind", "status", "code"),
    [
        ("key", "AuthenticationError", 401, "invalid_api_key"),
        ("model", "PermissionDeniedError", 403, "forbidden"),
        ("missing", "NotFoundError", 404, "model_not_found"),
        ("request", "BadRequestError", 400, "invalid_request"),
    ],
)
def test_errors_have_their_type(found: Any, what: str, kind: str, status: int, code: str) -> None:
    failure = found[what]
    assert (failure["kind"], failure["status"], failure["code"]) == (kind, status, code)
    assert failure["id"]

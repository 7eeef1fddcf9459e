// Anthropic's JavaScript client.
import assert from "node:assert";
import Anthropic from "@anthropic-ai/sdk";
import { description, key, question, report, schema, url, weather } from "./report.mjs";

const connect = (apiKey) => new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });
const client = connect(key);
const tool = { name: "weather", description, input_schema: schema };

const ask = async (streamed, request) =>
  streamed ? client.messages.stream(request).finalMessage() : client.messages.create(request);

const whole = async (model, streamed, tools) => {
  const messages = [{ role: "user", content: question }];
  const calls = [];
  for (;;) {
    const { content, stop_reason, usage } = await ask(streamed, {
      model,
      messages,
      tools,
      max_tokens: 100,
      system: "Be brief.",
    });
    const called = content.filter((block) => block.type === "tool_use");
    if (!called.length) {
      assert.equal(stop_reason, "end_turn");
      const text = content.map((block) => block.text ?? "").join("");
      return { text, usage: [usage.input_tokens, usage.output_tokens], calls };
    }
    assert.equal(stop_reason, "tool_use");
    messages.push({ role: "assistant", content });
    const results = called.map(({ id, input }) => ({ type: "tool_result", tool_use_id: id, content: weather(input) }));
    calls.push(...called.map(({ name, input }) => [name, input]));
    messages.push({ role: "user", content: results });
  }
};

await report(
  {
    whole: (model) => whole(model, false),
    stream: (model) => whole(model, true),
    tools: (model) => whole(model, false, [tool]),
    "tools stream": (model) => whole(model, true, [tool]),
  },
  (key, model) =>
    connect(key).messages.create({ model, max_tokens: 100, messages: [{ role: "user", content: question }] }),
);

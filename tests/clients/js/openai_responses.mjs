// OpenAI's JavaScript client, responses.
import assert from "node:assert";
import OpenAI from "openai";
import { description, key, question, report, schema, url, weather } from "./report.mjs";

const connect = (apiKey) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const client = connect(key);
const tool = { type: "function", name: "weather", description, parameters: schema, strict: false };

const respond = async (streamed, request) =>
  streamed ? client.responses.stream(request).finalResponse() : client.responses.create(request);

const whole = async (model, streamed, tools) => {
  const input = [{ role: "user", content: question }];
  const calls = [];
  for (;;) {
    const answer = await respond(streamed, { model, input, tools, instructions: "Be brief.", store: false });
    assert.equal(answer.status, "completed");
    const called = answer.output.filter((item) => item.type === "function_call");
    if (!called.length)
      return { text: answer.output_text, usage: [answer.usage.input_tokens, answer.usage.output_tokens], calls };
    input.push(...answer.output);
    for (const call of called) {
      calls.push([call.name, call.arguments]);
      input.push({ type: "function_call_output", call_id: call.call_id, output: weather(JSON.parse(call.arguments)) });
    }
  }
};

await report(
  {
    whole: (model) => whole(model, false),
    stream: (model) => whole(model, true),
    tools: (model) => whole(model, false, [tool]),
    "tools stream": (model) => whole(model, true, [tool]),
  },
  (key, model) => connect(key).responses.create({ model, input: question, store: false }),
);

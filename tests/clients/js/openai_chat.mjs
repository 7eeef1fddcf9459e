// OpenAI's JavaScript client, chat completions.
import assert from "node:assert";
import OpenAI from "openai";
import { description, key, question, report, schema, url, weather } from "./report.mjs";

const connect = (apiKey) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const client = connect(key);
const tool = { type: "function", function: { name: "weather", description, parameters: schema } };
const user = { role: "user", content: question };

const complete = async (streamed, request) => {
  if (!streamed) return client.chat.completions.create(request);
  return client.chat.completions.stream({ ...request, stream_options: { include_usage: true } }).finalChatCompletion();
};

const whole = async (model, streamed, tools) => {
  const messages = [{ role: "system", content: "Be brief." }, user];
  const calls = [];
  for (;;) {
    const { choices, usage } = await complete(streamed, { model, messages, tools });
    const [{ message, finish_reason }] = choices;
    if (!message.tool_calls?.length) {
      assert.equal(finish_reason, "stop");
      return { text: message.content, usage: [usage.prompt_tokens, usage.completion_tokens], calls };
    }
    assert.equal(finish_reason, "tool_calls");
    messages.push(message);
    for (const call of message.tool_calls) {
      calls.push([call.function.name, call.function.arguments]);
      messages.push({ role: "tool", tool_call_id: call.id, content: weather(JSON.parse(call.function.arguments)) });
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
  (key, model) => connect(key).chat.completions.create({ model, messages: [user] }),
);

// Vercel's AI SDK, on the provider named on the command line.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { description, key, question, report, schema, url, weather } from "./report.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false; // they go to the standard output

const KINDS = {
  chat: (apiKey, model) => createOpenAI({ baseURL: `${url}/v1`, apiKey }).chat(model),
  responses: (apiKey, model) => createOpenAI({ baseURL: `${url}/v1`, apiKey })(model),
  anthropic: (apiKey, model) => createAnthropic({ baseURL: `${url}/v1`, apiKey })(model),
  google: (apiKey, model) => createGoogleGenerativeAI({ baseURL: `${url}/v1beta`, apiKey })(`models/${model}`),
};
const make = KINDS[process.argv[2]];

const loop = async (model, streamed, offered) => {
  const calls = [];
  const execute = async (given) => {
    calls.push(["weather", given]);
    return weather(given);
  };
  const tools = offered ? { weather: tool({ description, inputSchema: jsonSchema(schema), execute }) } : undefined;
  const request = {
    model: make(key, model),
    system: "Be brief.",
    prompt: question,
    tools,
    stopWhen: stepCountIs(5),
    maxRetries: 0,
  };
  if (!streamed) {
    const { text, usage } = await generateText(request);
    return { text, usage: [usage.inputTokens, usage.outputTokens], calls };
  }
  const failures = [];
  const result = streamText({ ...request, onError: ({ error }) => failures.push(error) });
  await result.consumeStream();
  if (failures.length) throw failures[0];
  const usage = await result.usage;
  return { text: await result.text, usage: [usage.inputTokens, usage.outputTokens], calls };
};

await report(
  {
    whole: (model) => loop(model, false, false),
    stream: (model) => loop(model, true, false),
    tools: (model) => loop(model, false, true),
    "tools stream": (model) => loop(model, true, true),
  },
  (key, model) => generateText({ model: make(key, model), prompt: question, maxRetries: 0 }),
);

// The package `ai` with `@ai-sdk/openai`, whose default is Responses.
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { KEY, MODEL, V1, expect, feature, main } from "./probe.mjs";

const made = (apiKey) => createOpenAI({ baseURL: V1, apiKey });
const client = made(KEY);
const by = (model) => ({ model, maxRetries: 0, prompt: "Hello" });

const stream = async (model) => {
  let text = "";
  let failure;
  const { textStream } = streamText({ ...by(model), onError: ({ error }) => (failure = error) });
  for await (const piece of textStream) text += piece;
  if (failure) throw failure;
  expect(text.startsWith("Simulated"), text);
};
const useTool = async (model) => {
  const asked = [];
  const get_weather = tool({
    description: "Tells the weather",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => asked.push(city) && `sunny in ${city}`,
  });
  const reply = await generateText({ ...by(model), tools: { get_weather }, stopWhen: stepCountIs(4) });
  expect(asked.length === 1 && reply.text.includes("Simulated"), reply.text);
};
const parse = async (model) => {
  const reply = await generateObject({ ...by(model), schema: z.object({ verdict: z.string() }) });
  expect(typeof reply.object.verdict === "string", reply.object);
};

feature("chat", async () => expect((await generateText(by(client.chat(MODEL)))).text, "no"));
feature("chat stream", () => stream(client.chat(MODEL)));
feature("chat tools", () => useTool(client.chat(MODEL)));
feature("chat JSON schema", () => parse(client.chat(MODEL)));
feature("responses", async () => expect((await generateText(by(client(MODEL)))).text, "no"));
feature("responses stream", () => stream(client(MODEL)));
feature("responses tools", () => useTool(client(MODEL)));
feature("responses JSON schema", () => parse(client(MODEL)));

await main(({ key, model, text, maxTokens }) =>
  generateText({
    model: made(key).chat(model ?? MODEL),
    maxRetries: 0,
    maxOutputTokens: maxTokens,
    prompt: text,
  }),
);

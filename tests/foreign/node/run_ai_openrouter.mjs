// The package `ai` with `@openrouter/ai-sdk-provider`.
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { embed, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { EMBEDDINGS, KEY, MODEL, OPENROUTER_BASE, PIXEL, expect, feature, main } from "./probe.mjs";

const made = (apiKey) => createOpenRouter({ baseURL: OPENROUTER_BASE, apiKey });
const client = made(KEY);
const options = { model: client.chat(MODEL), maxRetries: 0 };

feature("chat", async () => {
  const reply = await generateText({ ...options, prompt: "Hello" });
  expect(reply.text.includes("Simulated") && reply.usage.totalTokens, reply.text);
});
feature("chat stream", async () => {
  let text = "";
  let failure;
  const onError = ({ error }) => (failure = error);
  const { textStream } = streamText({ ...options, prompt: "Hello", onError });
  for await (const piece of textStream) text += piece;
  if (failure) throw failure;
  expect(text.startsWith("Simulated"), text);
});
feature("chat tools", async () => {
  const asked = [];
  const get_weather = tool({
    description: "Tells the weather",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => asked.push(city) && `sunny in ${city}`,
  });
  const reply = await generateText({
    ...options,
    prompt: "Hello",
    tools: { get_weather },
    stopWhen: stepCountIs(4),
  });
  expect(asked.length === 1 && reply.text.includes("Simulated"), reply.text);
});
feature("chat JSON schema", async () => {
  const schema = z.object({ verdict: z.string() });
  const reply = await generateObject({ ...options, prompt: "Hello", schema });
  expect(typeof reply.object.verdict === "string", reply.object);
});
feature("chat with image", async () => {
  const content = [{ type: "image", image: PIXEL }];
  const reply = await generateText({ ...options, messages: [{ role: "user", content }] });
  expect(reply.text, reply);
});
feature("embeddings", async () => {
  const model = client.textEmbeddingModel(EMBEDDINGS);
  expect((await embed({ model, value: "Hello", maxRetries: 0 })).embedding.length > 0, "no");
});

await main(({ key, model, text, maxTokens }) =>
  generateText({
    model: made(key).chat(model ?? MODEL),
    maxRetries: 0,
    maxOutputTokens: maxTokens,
    prompt: text,
  }),
);

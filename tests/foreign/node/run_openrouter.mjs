// The package `@openrouter/sdk`, which validates every answer strictly.
import { OpenRouter } from "@openrouter/sdk";
import { EMBEDDINGS, KEY, MODEL, OPENROUTER_BASE, expect, feature, main } from "./probe.mjs";

const made = (apiKey) =>
  new OpenRouter({ serverURL: OPENROUTER_BASE, apiKey, retryConfig: { strategy: "none" } });
const client = made(KEY);
const messages = [{ role: "user", content: "Hello" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const send = (asked, from = client) => from.chat.send({ chatRequest: { model: MODEL, messages, ...asked } });

feature("chat", async () => {
  const reply = await send({});
  expect(reply.choices[0].message.content.includes("Simulated") && reply.usage, reply);
});
feature("chat stream", async () => {
  let text = "";
  for await (const chunk of await send({ stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
  expect(text.startsWith("Simulated"), text);
});
feature("chat tools", async () => {
  const tool = { type: "function", function: { name: "get_weather", parameters } };
  const reply = await send({ tools: [tool] });
  expect(reply.choices[0].message.toolCalls[0].function.name === "get_weather", reply);
});
feature("embeddings", async () => {
  const reply = await client.embeddings.generate({ requestBody: { model: EMBEDDINGS, input: "Hello" } });
  expect(reply.data.length === 1, reply);
});
feature("models", async () => {
  const reply = await client.models.list();
  expect((reply.data ?? reply.result?.data).some((model) => model.id === MODEL), "no");
});
feature("credits", async () => {
  expect((await client.credits.getCredits()).data.totalCredits > 0, "no");
});
feature("key", async () => {
  expect((await client.apiKeys.getCurrentKeyMetadata()).data, "no");
});
feature("rerank", async () => {
  const requestBody = { model: "cohere/rerank-v3.5", query: "toll", documents: ["a toll", "a road"] };
  expect((await client.rerank.rerank({ requestBody })).results.length === 2, "no");
});
feature("generation", async () => {
  const { id } = await send({});
  for (let n = 0; n < 100; n++) {
    // Known as soon as it is settled.
    try {
      const reply = await client.generations.getGeneration({ id });
      return expect(reply.data.id === id && reply.data.totalCost > 0, reply);
    } catch (error) {
      if (error.statusCode !== 404 || n === 99) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
});
feature("responses", async () => {
  const reply = await client.beta.responses.send({ responsesRequest: { model: MODEL, input: "Hello" } });
  expect(reply.output.length > 0, reply);
});

await main(({ key, model, text, maxTokens }) =>
  send(
    { model: model ?? MODEL, messages: [{ role: "user", content: text }], maxTokens },
    made(key),
  ),
);

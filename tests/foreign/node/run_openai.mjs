// The package `openai`.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { EMBEDDINGS, KEY, MODEL, PIXEL, V1, expect, feature, main } from "./probe.mjs";

const client = new OpenAI({ baseURL: V1, apiKey: KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

feature("chat", async () => {
  const reply = await client.chat.completions.create({ model: MODEL, messages });
  expect(reply.choices[0].message.content.includes("Simulated") && reply.usage, reply);
});
feature("chat stream", async () => {
  let text = "";
  const stream = await client.chat.completions.create({ model: MODEL, messages, stream: true });
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  expect(text.startsWith("Simulated"), text);
});
feature("chat tools", async () => {
  const runner = client.chat.completions.runTools({
    model: MODEL,
    messages,
    tools: [
      {
        type: "function",
        function: {
          name: "get_weather",
          parameters,
          parse: JSON.parse,
          function: ({ city }) => `sunny in ${city}`,
        },
      },
    ],
  });
  expect((await runner.finalContent()).includes("Simulated"), "no");
});
feature("chat JSON schema", async () => {
  const format = zodResponseFormat(z.object({ verdict: z.string() }), "answer");
  const reply = await client.chat.completions.parse({ model: MODEL, messages, response_format: format });
  expect(typeof reply.choices[0].message.parsed.verdict === "string", reply);
});
feature("chat with image", async () => {
  const content = [{ type: "image_url", image_url: { url: PIXEL } }];
  const reply = await client.chat.completions.create({
    model: MODEL,
    messages: [{ role: "user", content }],
  });
  expect(reply.choices[0].message.content, reply);
});
feature("embeddings", async () => {
  const reply = await client.embeddings.create({ model: EMBEDDINGS, input: "Hello" });
  expect(reply.data[0].embedding.length > 0, reply.usage);
});
feature("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  expect(ids.includes(MODEL), ids.length);
});
feature("responses", async () => {
  const reply = await client.responses.create({ model: MODEL, input: "Hello" });
  expect(reply.output_text.includes("Simulated") && reply.usage, reply);
});
feature("responses stream", async () => {
  const stream = client.responses.stream({ model: MODEL, input: "Hello" });
  const reply = await stream.finalResponse();
  expect(reply.output_text.includes("Simulated"), reply);
});
feature("responses tools", async () => {
  const tool = { type: "function", name: "get_weather", parameters, strict: false };
  const reply = await client.responses.create({ model: MODEL, input: "Hello", tools: [tool] });
  expect(reply.output.some((item) => item.type === "function_call"), reply);
});

await main(({ key, model, text, maxTokens }) =>
  client.withOptions({ apiKey: key }).chat.completions.create({
    model: model ?? MODEL,
    messages: [{ role: "user", content: text }],
    max_tokens: maxTokens,
  }),
);

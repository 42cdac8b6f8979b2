// The package `@anthropic-ai/sdk`.
import Anthropic from "@anthropic-ai/sdk";
import { CLAUDE, GATEWAY, KEY, PIXEL_BASE64, expect, feature, main } from "./probe.mjs";

const client = new Anthropic({ baseURL: GATEWAY, apiKey: KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];
const short = { model: CLAUDE, max_tokens: 99, messages };
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

feature("messages", async () => {
  const reply = await client.messages.create(short);
  expect(reply.content[0].text.includes("Simulated") && reply.usage.output_tokens, reply);
});
feature("messages stream", async () => {
  const reply = await client.messages.stream(short).finalMessage();
  expect(reply.content[0].text.includes("Simulated"), reply);
});
feature("messages tools", async () => {
  const reply = await client.messages.create({
    ...short,
    tools: [{ name: "get_weather", description: "Tells the weather", input_schema: schema }],
  });
  expect(reply.content.some((part) => part.type === "tool_use"), reply);
});
feature("messages with image", async () => {
  const source = { type: "base64", media_type: "image/png", data: PIXEL_BASE64 };
  const content = [{ type: "image", source }, { type: "text", text: "What is this?" }];
  const reply = await client.messages.create({ ...short, messages: [{ role: "user", content }] });
  expect(reply.content.length > 0, reply);
});
feature("count tokens", async () => {
  expect((await client.messages.countTokens({ model: CLAUDE, messages })).input_tokens > 0, "no");
});

await main(({ key, model, text, maxTokens }) =>
  client.withOptions({ apiKey: key }).messages.create({
    model: model ?? CLAUDE,
    max_tokens: maxTokens,
    messages: [{ role: "user", content: text }],
  }),
);

// What OpenRouter's own client reads of a gateway, as one object of JSON. It validates every answer.
import { OpenRouter } from "@openrouter/sdk";

const { TK_BASE: serverURL, TK_KEY: apiKey, TK_MODEL: model } = process.env;
const made = (key) => new OpenRouter({ serverURL, apiKey: key, retryConfig: { strategy: "none" } });
const client = made(apiKey);
const [author, slug] = model.split("/");
const chatRequest = { model, maxTokens: 20, messages: [{ role: "user", content: "Hello" }] };

async function refusal(asking) {
  try {
    await asking();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.statusCode };
  }
}

async function settled(id) {
  for (;;) {
    try {
      return (await client.generations.getGeneration({ id })).data;
    } catch (error) {
      if (error.statusCode !== 404) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

const chat = await client.chat.send({ chatRequest });
let streamed = "";
let usage = null;
let streamId = null;
for await (const chunk of await client.chat.send({ chatRequest: { ...chatRequest, stream: true } })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
  streamId = chunk.id;
}
const listed = [];
for await (const page of await client.models.list({ limit: 100 })) {
  listed.push(...page.result.data.map((one) => one.id));
}
const told = {
  chat,
  streamed,
  usage,
  listed,
  count: (await client.models.count({})).data.count,
  model: (await client.models.get({ author, slug })).data,
  key: (await client.apiKeys.getCurrentKeyMetadata()).data,
  credits: (await client.credits.getCredits()).data,
  generations: [await settled(chat.id), await settled(streamId)],
  refusals: {
    key: await refusal(() => made("tk-nobody-0123456789").chat.send({ chatRequest })),
    model: await refusal(() => client.chat.send({ chatRequest: { ...chatRequest, model: `${model}x` } })),
    generation: await refusal(() => client.generations.getGeneration({ id: "gen-1764500000-none" })),
    keyOfOthers: await refusal(() => made("tk-nobody-0123456789").apiKeys.getCurrentKeyMetadata()),
  },
};
process.stdout.write(JSON.stringify(told));
process.exit(0);

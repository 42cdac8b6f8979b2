// Runs the features of one client and prints one line of JSON for each, as ../python/probe.py does.
const env = process.env;
export const GATEWAY = env.FOREIGN_GATEWAY;
export const V1 = `${GATEWAY}/v1`;
export const OPENROUTER_BASE = `${GATEWAY}/api/v1`;
export const KEY = env.FOREIGN_KEY;
export const MODEL = "openai/gpt-4o-mini";
export const CLAUDE = "anthropic/claude-sonnet-4.5";
export const EMBEDDINGS = "openai/text-embedding-3-small";
export const PIXEL_BASE64 =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const PIXEL = `data:image/png;base64,${PIXEL_BASE64}`;
const OVERSIZED_CHARS = 13 * 2 ** 20;
const BUSY_ATTEMPTS = 9;
const ERRORS = {
  400: { maxTokens: -1 },
  401: { key: "tk-nobody-0123456789" },
  402: { key: env.FOREIGN_POOR_KEY },
  403: { key: env.FOREIGN_BARRED_KEY },
  404: { model: "openai/gpt-4o-minni" },
  413: { text: "a ".repeat(OVERSIZED_CHARS / 2) },
  429: { key: env.FOREIGN_LIMITED_KEY },
  503: { model: env.FOREIGN_REFUSING_MODEL },
};

const features = [];

/** Register a function as the use of one feature. */
export function feature(name, use) {
  features.push([name, use]);
}

/** Fail the feature where the client gave something else than its users expect. */
export function expect(condition, found) {
  if (!condition) throw new Error(`unexpected: ${JSON.stringify(found)}`.slice(0, 300));
}

/** Use every feature, then provoke every error; a program's last statement. */
export async function main(ask) {
  const wanted = new Set(process.argv.slice(2));
  for (const [name, use] of features) {
    if (!wanted.size || wanted.has(name)) tell({ feature: name, ...(await attempt(use)) });
  }
  for (const [status, changed] of ask ? Object.entries(ERRORS) : []) {
    if (wanted.size && !wanted.has(status)) continue;
    const asked = { key: KEY, model: undefined, text: "Hello", maxTokens: 9, ...changed };
    if (status === "429") await attempt(() => ask(asked)); // the first of a minute is let through
    let told = await attempt(() => ask(asked));
    for (let n = 0; n < BUSY_ATTEMPTS && status === "413" && told.error_status === 503; n++) {
      // A body that large is read apart, and not in time on a busy machine.
      told = await attempt(() => ask(asked));
    }
    tell({ status: Number(status), ...told });
  }
  process.exit(0);
}

async function attempt(use) {
  try {
    await use();
    return {};
  } catch (error) {
    const status = error?.status ?? error?.statusCode ?? null;
    return {
      error: error?.constructor?.name ?? typeof error,
      error_status: typeof status === "number" ? status : null,
      message: String(error?.message ?? error).slice(0, 600),
    };
  }
}

function tell(told) {
  process.stdout.write(`${JSON.stringify(told)}\n`);
}

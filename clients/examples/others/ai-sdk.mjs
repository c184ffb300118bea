// Vercel's AI SDK streams an answer that heals: node ai-sdk.mjs [URL]; needs ai and @ai-sdk/openai-compatible.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const url = process.argv[2] ?? "http://127.0.0.1:8000";
const e3rl = createOpenAICompatible({ name: "e3rl", baseURL: `${url}/v1`, includeUsage: true });
const { textStream } = streamText({
  model: e3rl("smollm2-135m-instruct"),
  prompt: "Why is the sky blue? Answer in three sentences.",
  maxOutputTokens: 100,
  temperature: 1,
  seed: 1,
  providerOptions: { e3rl: { healing: { threshold: { k: 1.0 } } } },
});
for await (const piece of textStream) process.stdout.write(piece);
console.log();

import { readFileSync } from "node:fs";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";

const asked = JSON.parse(process.argv[2]);
const { max_tokens: maxOutputTokens, model, ...sampling } = asked.sampling;
const settings = (baseURL) => ({
  model: createOpenAICompatible({
    name: "e3rl",
    baseURL,
    apiKey: "none",
    includeUsage: true,
    supportsStructuredOutputs: true,
  })(model),
  prompt: asked.question,
  maxOutputTokens,
  ...sampling,
});
const schema = jsonSchema(asked.schema);

const whole = await generateText(settings(asked.url));
const stream = streamText(settings(asked.url));
const pieces = [];
for await (const piece of stream.textStream) pieces.push(piece);
const called = await generateText({
  ...settings(asked.url),
  tools: { Place: tool({ inputSchema: schema }) },
  toolChoice: { type: "tool", toolName: "Place" },
});
const [call] = called.toolCalls;
const installed = new URL("node_modules/ai/package.json", import.meta.url);
console.log(
  JSON.stringify({
    version: JSON.parse(readFileSync(installed)).version,
    answer: whole.text,
    usage: whole.usage.outputTokens,
    streamed: pieces,
    streamed_usage: (await stream.usage).outputTokens,
    tool: [call.toolName, call.input],
    object: (await generateObject({ ...settings(asked.url), schema })).object,
    retried: (await generateText(settings(asked.busy_url))).text,
  }),
);

import { readFileSync } from "node:fs";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";

const asked = JSON.parse(process.argv[2]);
const { max_tokens: maxOutputTokens, model, ...sampling } = asked.sampling;
const settings = (baseURL, more = {}) => ({
  model: createOpenAICompatible({
    name: "e3rl",
    baseURL,
    apiKey: "none",
    includeUsage: true,
    supportsStructuredOutputs: true,
  })(model),
  prompt: asked.question,
  maxOutputTokens,
  providerOptions: { e3rl: more },
  ...sampling,
});
const streamed = async (stream, kind = "text-delta") => {
  const pieces = [];
  for await (const part of stream.fullStream) if (part.type === kind) pieces.push(part.text);
  return pieces;
};
const schema = jsonSchema(asked.schema);

const whole = await generateText(settings(asked.url));
const stream = streamText(settings(asked.url));
const pieces = await streamed(stream);
const called = await generateText({
  ...settings(asked.url),
  tools: { Place: tool({ inputSchema: schema }) },
  toolChoice: { type: "tool", toolName: "Place" },
});
const [call] = called.toolCalls;
const thought = await generateText(settings(asked.url, asked.thinking));
const thoughts = streamText(settings(asked.url, asked.thinking));
const thoughtPieces = await streamed(thoughts);
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
    thought: {
      answer: thought.text,
      reasoning: thought.reasoningText ?? null,
      streamed: thoughtPieces,
      streamed_reasoning: await streamed(thoughts, "reasoning-delta"),
    },
    retried: (await generateText(settings(asked.busy_url))).text,
    streamed_retried: await streamed(streamText(settings(asked.busy_url))),
  }),
);

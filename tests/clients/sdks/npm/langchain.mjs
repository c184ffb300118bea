import { readFileSync } from "node:fs";
import { ChatOpenAI } from "@langchain/openai";

const asked = JSON.parse(process.argv[2]);
const { max_tokens: maxTokens, seed, ...sampling } = asked.sampling;
const model = (baseURL, more = {}) =>
  new ChatOpenAI({
    ...sampling,
    maxTokens,
    modelKwargs: { seed, ...more },
    apiKey: "none",
    configuration: { baseURL },
  });
const streamed = async (llm) => {
  const chunks = [];
  for await (const chunk of await llm.stream(asked.question)) chunks.push(chunk);
  return chunks;
};

const llm = model(asked.url);
const whole = await llm.invoke(asked.question);
const chunks = await streamed(llm);
const tool = { type: "function", function: { name: "Place", parameters: asked.schema } };
const forced = llm.bindTools([tool], { tool_choice: { type: "function", function: { name: "Place" } } });
const [call] = (await forced.invoke(asked.question)).tool_calls;
const thinker = model(asked.url, asked.thinking);
const thought = await thinker.invoke(asked.question);
const thoughts = await streamed(thinker);
const installed = new URL("node_modules/@langchain/openai/package.json", import.meta.url);
console.log(
  JSON.stringify({
    version: JSON.parse(readFileSync(installed)).version,
    answer: whole.content,
    usage: whole.usage_metadata.output_tokens,
    streamed: chunks.map((chunk) => chunk.content),
    streamed_usage: chunks.reduce((sum, chunk) => sum.concat(chunk)).usage_metadata.output_tokens,
    tool: [call.name, call.args],
    object: await llm
      .withStructuredOutput(asked.schema, { name: "Place", method: "jsonSchema" })
      .invoke(asked.question),
    thought: {
      answer: thought.content,
      reasoning: thought.additional_kwargs.reasoning_content ?? null,
      streamed: thoughts.map((chunk) => chunk.content),
      streamed_reasoning: thoughts.map((chunk) => chunk.additional_kwargs.reasoning_content ?? ""),
    },
    retried: (await model(asked.busy_url).invoke(asked.question)).content,
    streamed_retried: (await streamed(model(asked.busy_url))).map((chunk) => chunk.content),
  }),
);

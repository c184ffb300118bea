import { readFileSync } from "node:fs";
import { ChatOpenAI } from "@langchain/openai";

const asked = JSON.parse(process.argv[2]);
const { max_tokens: maxTokens, seed, ...sampling } = asked.sampling;
const model = (baseURL) =>
  new ChatOpenAI({ ...sampling, maxTokens, modelKwargs: { seed }, apiKey: "none", configuration: { baseURL } });

const llm = model(asked.url);
const whole = await llm.invoke(asked.question);
const chunks = [];
for await (const chunk of await llm.stream(asked.question)) chunks.push(chunk);
const tool = { type: "function", function: { name: "Place", parameters: asked.schema } };
const forced = llm.bindTools([tool], { tool_choice: { type: "function", function: { name: "Place" } } });
const [call] = (await forced.invoke(asked.question)).tool_calls;
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
    retried: (await model(asked.busy_url).invoke(asked.question)).content,
  }),
);

import OpenAI from "openai";
import { VERSION } from "openai/version";

const asked = JSON.parse(process.argv[2]);
const question = { ...asked.sampling, messages: [{ role: "user", content: asked.question }] };
const client = (baseURL) => new OpenAI({ baseURL, apiKey: "none" });
const ask = (url, more = {}) => client(url).chat.completions.create({ ...question, ...more });

const streamed = async (url, more = {}) => {
  const chunks = [];
  for await (const chunk of await ask(url, { stream: true, ...more })) chunks.push(chunk);
  return chunks;
};
const texts = (chunks, field = "content") => chunks.map((chunk) => chunk.choices[0]?.delta[field] ?? "");

const whole = await ask(asked.url);
const chunks = await streamed(asked.url, { stream_options: { include_usage: true } });
const called = await ask(asked.url, {
  tools: [{ type: "function", function: { name: "Place", parameters: asked.schema } }],
  tool_choice: { type: "function", function: { name: "Place" } },
});
const { name, arguments: given } = called.choices[0].message.tool_calls[0].function;
const structured = await ask(asked.url, {
  response_format: { type: "json_schema", json_schema: { name: "Place", schema: asked.schema } },
});
const thought = (await ask(asked.url, asked.thinking)).choices[0].message;
const thoughts = await streamed(asked.url, asked.thinking);
console.log(
  JSON.stringify({
    version: VERSION,
    answer: whole.choices[0].message.content,
    usage: whole.usage.completion_tokens,
    streamed: texts(chunks),
    streamed_usage: chunks.at(-1).usage.completion_tokens,
    tool: [name, JSON.parse(given)],
    object: JSON.parse(structured.choices[0].message.content),
    thought: {
      answer: thought.content,
      reasoning: thought.reasoning,
      streamed: texts(thoughts),
      streamed_reasoning: texts(thoughts, "reasoning"),
    },
    retried: (await ask(asked.busy_url)).choices[0].message.content,
    streamed_retried: texts(await streamed(asked.busy_url)),
  }),
);

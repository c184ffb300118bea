import OpenAI from "openai";
import { VERSION } from "openai/version";

const asked = JSON.parse(process.argv[2]);
const question = { ...asked.sampling, messages: [{ role: "user", content: asked.question }] };
const client = (baseURL) => new OpenAI({ baseURL, apiKey: "none" });
const ask = (url, more = {}) => client(url).chat.completions.create({ ...question, ...more });

const whole = await ask(asked.url);
const chunks = [];
for await (const chunk of await ask(asked.url, { stream: true, stream_options: { include_usage: true } }))
  chunks.push(chunk);
const called = await ask(asked.url, {
  tools: [{ type: "function", function: { name: "Place", parameters: asked.schema } }],
  tool_choice: { type: "function", function: { name: "Place" } },
});
const { name, arguments: given } = called.choices[0].message.tool_calls[0].function;
const structured = await ask(asked.url, {
  response_format: { type: "json_schema", json_schema: { name: "Place", schema: asked.schema } },
});
console.log(
  JSON.stringify({
    version: VERSION,
    answer: whole.choices[0].message.content,
    usage: whole.usage.completion_tokens,
    streamed: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? ""),
    streamed_usage: chunks.at(-1).usage.completion_tokens,
    tool: [name, JSON.parse(given)],
    object: JSON.parse(structured.choices[0].message.content),
    retried: (await ask(asked.busy_url)).choices[0].message.content,
  }),
);

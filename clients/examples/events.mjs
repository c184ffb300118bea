// Watch an answer heal, with the TypeScript client: node events.mjs [URL].
import { StreamDroppedError, streamEvents } from "e3rl-client";
import OpenAI from "openai";

const url = process.argv[2] ?? "http://127.0.0.1:8000";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const stream = streamEvents(client, {
  model: "smollm2-135m-instruct",
  messages: [{ role: "user", content: "Why is the sky blue? Answer in three sentences." }],
  max_tokens: 100,
  temperature: 1,
  seed: 1,
});
try {
  for await (const event of stream) {
    if (event.type === "segment.committed" && event.chars > 0) {
      console.log(`final:  ${JSON.stringify(stream.segments.at(-1)?.text)}`);
    } else if (event.type === "segment.erased") {
      const { tokens, uncertainty, threshold } = event;
      console.log(`erased: ${tokens} tokens, U ${uncertainty.u.toFixed(2)} > ${threshold.toFixed(2)}`);
    }
  }
  console.log(`${stream.transcript.summary?.erasures} erasures`);
} catch (error) {
  if (!(error instanceof StreamDroppedError)) throw error;
  console.log(`${error.message}; final until then: ${JSON.stringify(error.committed)}`);
}

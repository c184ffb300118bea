/** A server in a variable: recorded or written SSE messages behind the real `openai` client. */
import { readFileSync } from "node:fs";

import OpenAI from "openai";

export const CHAT: OpenAI.ChatCompletionCreateParamsStreaming = {
  model: "smollm2-135m-instruct",
  messages: [{ role: "user", content: "Why is the sky blue? Answer in three sentences." }],
  stream: true,
};

/**
 * The messages of a recorded stream. `live.sse` is what `e3rl serve --healing on` sent for `CHAT` with temperature 0.9,
 * seed 1, max_tokens 140, usage in the stream, and healing {"stream": "live", "threshold": {"k": 1}}.
 */
export function recorded(name: string): string[] {
  const file = readFileSync(new URL(`./fixtures/${name}`, import.meta.url), "utf8");
  return file.split("\n\n").filter((message) => message !== "");
}

/** The JSON of an SSE message; undefined for `[DONE]`. */
export function dataOf(message: string): Record<string, any> | undefined {
  const text = message.replace(/^data: /, "");
  return text === "[DONE]" ? undefined : JSON.parse(text);
}

export function message(data: Record<string, unknown>): string {
  return `data: ${JSON.stringify(data)}`;
}

/** A chunk of a stock stream, or one that carries an event. */
export function chunk(delta: Record<string, unknown>, healing?: unknown, finish: string | null = null, index = 0): string {
  const choices = [{ index, delta, logprobs: null, finish_reason: finish }];
  const envelope = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 0, model: "tiny", choices };
  return message(healing === undefined ? envelope : { ...envelope, healing });
}

export interface Answer {
  messages?: string[];
  /** Break the connection after the last message, instead of closing it. */
  breaks?: boolean;
  status?: number;
  body?: unknown;
}

/** A client of a server that gives this answer to every request; `requests` are the bodies it got. */
export function clientOf(answer: Answer, requests: unknown[] = []): OpenAI {
  const fetch = async (_: unknown, init?: RequestInit): Promise<Response> => {
    requests.push(JSON.parse(String(init?.body)));
    if (answer.status !== undefined) {
      return Response.json(answer.body, { status: answer.status });
    }
    return new Response(stream(answer), { headers: { "content-type": "text/event-stream" } });
  };
  return new OpenAI({ baseURL: "http://127.0.0.1:1/v1", apiKey: "none", maxRetries: 0, fetch });
}

function stream({ messages = [], breaks = false }: Answer): ReadableStream<Uint8Array> {
  const left = [...messages];
  return new ReadableStream({
    pull(controller) {
      const next = left.shift();
      if (next !== undefined) controller.enqueue(new TextEncoder().encode(`${next}\n\n`));
      else if (breaks) controller.error(new TypeError("terminated"));
      else controller.close();
    },
  });
}

const PLACE = { v: 1, choice: 0, channel: "content", segment: 0, attempt: 0, start_char: 0 };
export const SCORE = { u: 2.5, mean: 1.5, max: 4, slope: 0 };

/** Events as a server sends them, numbered from 0. */
export function events(...fields: Record<string, unknown>[]): Record<string, unknown>[] {
  return fields.map((event, seq) => ({ ...PLACE, seq, ...event }));
}

export const started = { type: "segment.started" };
export const delta = (text: string, more: object = {}) => ({ type: "segment.delta", text, ...more });
export const erased = (more: object = {}) => ({
  type: "segment.erased",
  tokens: 3,
  uncertainty: SCORE,
  threshold: 2,
  reason: "uncertainty",
  retry: { attempt: 1, temperature: 0.9 },
  ...more,
});
export const committed = (chars: number, more: object = {}) => ({
  type: "segment.committed",
  chars,
  tokens: 3,
  uncertainty: SCORE,
  threshold: 3,
  attempts: 1,
  ...more,
});
export const summary = {
  type: "summary",
  mode: "on",
  segments: 1,
  erasures: 0,
  erased_tokens: 0,
  committed_tokens: 3,
  mean_uncertainty: null,
};

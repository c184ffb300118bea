import { streamEvents } from "e3rl-client";
import OpenAI from "openai";

import type { Session } from "./session";
import { chatOf, healedChatOf } from "./settings";

/** A client of the server that this page comes from. */
export function connect(key: string): OpenAI {
  const baseURL = new URL("../v1", location.href).href;
  // The warning that this flag silences is about keys in shipped pages; here the reader types their own.
  return new OpenAI({ baseURL, apiKey: key || "none", dangerouslyAllowBrowser: true });
}

/** The names of the models it serves. */
export async function modelsOf(client: OpenAI): Promise<string[]> {
  return (await client.models.list()).data.map((model) => model.id);
}

/** Draw the answers that a session asks for; they are drawn at the same time. */
export async function draw(session: Session, client: OpenAI, signal: AbortSignal): Promise<void> {
  const ended = new AbortController();
  const either = AbortSignal.any([signal, ended.signal]);
  try {
    await Promise.all([
      session.heals && drawHealed(session, client, either),
      session.hasPlain && drawPlain(session, client, either),
    ]);
    session.end(signal.aborted ? "stopped" : "done");
  } catch (error) {
    if (signal.aborted) session.end("stopped");
    else session.end("failed", sentenceOf(error));
  } finally {
    ended.abort(); // where one has failed, the other stops
  }
}

async function drawHealed(session: Session, client: OpenAI, signal: AbortSignal): Promise<void> {
  const mode = session.settings.mode === "shadow" ? "shadow" : "on";
  for await (const event of streamEvents(client, healedChatOf(session.settings, mode), { signal })) session.heal(event);
}

async function drawPlain(session: Session, client: OpenAI, signal: AbortSignal): Promise<void> {
  const body: OpenAI.ChatCompletionCreateParamsStreaming = { ...chatOf(session.settings), stream: true };
  const chunks = await client.chat.completions.create(Object.assign(body, { healing: "off" }), { signal });
  for await (const chunk of chunks) {
    const text = chunk.choices[0]?.delta.content;
    if (text) session.say(text);
  }
}

/** What went wrong, for the reader. */
export function sentenceOf(error: unknown): string {
  if (error instanceof OpenAI.AuthenticationError) return "The server wants an API key: enter yours above";
  if (error instanceof OpenAI.APIConnectionError) return "The server does not answer: is it still running?";
  return error instanceof Error ? error.message : String(error);
}

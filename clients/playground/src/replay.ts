import { Transcript } from "e3rl-client";
import type { HealingEvent } from "e3rl-client";

import type { Recording, Session } from "./session";
import { settingsFrom } from "./settings";

const FORMAT = "e3rl-replay-1";

/** The replay file of a run. It holds prompt and texts, and never the API key. */
export function fileOf(recording: Recording): string {
  return JSON.stringify({ format: FORMAT, ...recording });
}

/**
 * The run that a replay file holds.
 *
 * @throws Error that tells why the text is no replay file.
 */
export function recordingFrom(text: string): Recording {
  const file = parsed(text);
  if (file?.["format"] !== FORMAT) throw new Error(`This is no replay file: "format" is not "${FORMAT}"`);
  const settings = settingsFrom(file["settings"]);
  if (settings === undefined) throw new Error('This replay file is damaged: its "settings" are not whole');
  const { events, plain } = file;
  if (!isTimed(events)) throw new Error('This replay file is damaged: its "events" are not pairs of a time and an event');
  if (!isTimed(plain) || !plain.every(([, said]) => typeof said === "string")) {
    throw new Error('This replay file is damaged: its "plain" are not pairs of a time and a text');
  }
  try {
    Transcript.replay(events.map(([, event]) => event));
  } catch (error) {
    throw new Error(`This replay file is damaged: ${error instanceof Error ? error.message : error}`);
  }
  return { settings, events: events as [number, HealingEvent][], plain: plain as [number, string][] };
}

/** Show a recorded run at its own pace, or all at once. */
export async function play(session: Session, recording: Recording, paced: boolean, signal: AbortSignal): Promise<void> {
  const steps: [number, () => void][] = [
    ...recording.events.map(([at, event]): [number, () => void] => [at, () => session.heal(event)]),
    ...recording.plain.map(([at, text]): [number, () => void] => [at, () => session.say(text)]),
  ];
  steps.sort(([a], [b]) => a - b); // stable: what came together stays in order
  const began = performance.now();
  for (const [at, step] of steps) {
    const wait = at - (performance.now() - began);
    if (paced && wait > 0 && !signal.aborted) await pause(wait, signal);
    if (signal.aborted) break;
    step();
  }
  // The recorded times stay; those of the replay are no one's.
  session.recording.events = recording.events;
  session.recording.plain = recording.plain;
  session.end(signal.aborted ? "stopped" : "done");
}

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function isTimed(list: unknown): list is [number, unknown][] {
  return Array.isArray(list) && list.every((pair) => Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "number");
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}

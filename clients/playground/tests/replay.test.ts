import { readFileSync } from "node:fs";

import { Transcript } from "e3rl-client";
import type { HealingEvent } from "e3rl-client";
import { expect, test } from "vitest";

import { drawsOf } from "../src/draws";
import { fileOf, play, recordingFrom } from "../src/replay";
import { Session } from "../src/session";
import type { Recording } from "../src/session";
import { chatOf, FIRST, healedChatOf } from "../src/settings";

const recorded = readFileSync(new URL("../../typescript/tests/fixtures/live.sse", import.meta.url), "utf8");
const EVENTS: HealingEvent[] = recorded
  .split("\n\n")
  .filter((message) => message.startsWith("data: {"))
  .flatMap((message) => JSON.parse(message.slice("data: ".length)).healing ?? []);
const RECORDING: Recording = {
  settings: { ...FIRST, model: "tiny", compare: true },
  events: EVENTS.map((event, i) => [i, event]),
  plain: [
    [0, "Without "],
    [EVENTS.length / 2, "healing."],
  ],
};

async function played(recording: Recording, paced: boolean, signal = new AbortController().signal): Promise<Session> {
  const session = new Session(recording.settings, () => {});
  await play(session, recording, paced, signal);
  return session;
}

test("a replay file holds the run, all of it", () => {
  expect(recordingFrom(fileOf(RECORDING))).toEqual(RECORDING);
});

test("a replay shows what the run showed, and can be saved again", async () => {
  const session = await played(RECORDING, false);
  expect(session.transcript).toEqual(Transcript.replay(EVENTS));
  expect([session.plain, session.status]).toEqual(["Without healing.", "done"]);
  expect(session.news).toMatch(/^Done: \d+ tokens kept, \d+ erased in \d+ erasures?$/);
  expect(fileOf(session.recording)).toBe(fileOf(RECORDING));
});

test("a paced replay takes its time", async () => {
  const began = performance.now();
  await played({ ...RECORDING, events: EVENTS.map((event) => [120, event]), plain: [] }, true);
  expect(performance.now() - began).toBeGreaterThan(100);
});

test("a stopped replay shows no open draw as done", async () => {
  const session = await played(RECORDING, true, AbortSignal.abort());
  expect(session.status).toBe("stopped");
  expect(session.transcript.committed).toBe("");
});

const broken = (changes: object) => JSON.stringify({ ...JSON.parse(fileOf(RECORDING)), ...changes });

test.each([
  ["not JSON", '"format" is not "e3rl-replay-1"'],
  ["null", '"format" is not'],
  [broken({ format: "other" }), '"format" is not'],
  [broken({ settings: { ...RECORDING.settings, k: "1" } }), '"settings" are not whole'],
  [broken({ events: [1] }), '"events" are not pairs'],
  [broken({ events: RECORDING.events.toSpliced(2, 1) }), "seq 3, expected 2"],
  [broken({ plain: [[0, 1]] }), '"plain" are not pairs'],
])("what is no replay file is refused", (text, says) => {
  expect(() => recordingFrom(text)).toThrow(says);
});

test("every scored draw is charted, in order", () => {
  const transcript = Transcript.replay(EVENTS);
  const draws = drawsOf(transcript);
  expect(draws.filter((draw) => !draw.kept)).toHaveLength(transcript.summary!.erasures);
  expect(draws.filter((draw) => draw.kept)).toHaveLength(transcript.summary!.segments);
  expect(draws.filter((draw) => !draw.kept).every((draw) => draw.u > draw.threshold!)).toBe(true);
  const erasing = EVENTS.findIndex((event) => event.type === "segment.erased");
  expect(drawsOf(Transcript.replay(EVENTS.slice(0, erasing + 1))).at(-1)).toMatchObject({ kept: false });
});

test("empty numbers are the server's to choose", () => {
  const empty = { ...FIRST, model: "m", prompt: "p", k: null, temperature: null, maxTokens: null, seed: null };
  expect(chatOf(empty)).toEqual({ model: "m", messages: [{ role: "user", content: "p" }] });
  expect(healedChatOf(empty, "on").healing).toEqual({ mode: "on" });
  expect(healedChatOf({ ...empty, k: 0, segmentTokens: 8, maxErasures: 0, retryTemperature: 0 }, "shadow").healing).toEqual({
    mode: "shadow",
    threshold: { k: 0 },
    segment: { tokens: 8 },
    max_erasures: 0,
    retry: { temperature: 0 },
  });
});

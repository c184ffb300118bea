import OpenAI from "openai";
import { describe, expect, test } from "vitest";

import { EventError, EventStream, NoHealingError, ProtocolVersionError, SequenceError, StreamDroppedError, streamEvents, Transcript } from "../src/index.js";
import { CHAT, chunk, clientOf, committed, dataOf, delta, events, recorded, started } from "./world.js";
import type { Answer } from "./world.js";

const LIVE = recorded("live.sse");

async function follow(answer: Answer): Promise<{ stream: EventStream; types: string[]; error: unknown }> {
  const stream = streamEvents(clientOf(answer), CHAT);
  const types: string[] = [];
  try {
    for await (const event of stream) types.push(event.type);
    return { stream, types, error: undefined };
  } catch (error) {
    return { stream, types, error };
  }
}

describe("a stream recorded from a real server", () => {
  test("is followed to its end", async () => {
    const { stream, types, error } = await follow({ messages: LIVE });
    expect(error).toBeUndefined();
    expect(types.at(0)).toBe("segment.started");
    expect(types.at(-1)).toBe("summary");
    expect(types).toContain("segment.erased");
    expect(stream.finishReason).toBe("length");
    expect(stream.usage?.completion_tokens).toBe(stream.transcript.summary?.committed_tokens);
  });

  test("rebuilds the answer, by segments and without what was erased", async () => {
    const { stream } = await follow({ messages: LIVE });
    const answer = LIVE.map((message) => dataOf(message)?.["choices"][0]?.delta.content ?? "").join("");
    expect(answer.length).toBeGreaterThan(100);
    expect(stream.committed).toBe(answer);
    expect(stream.content).toBe(answer);
    expect(stream.segments.map((segment) => segment.text).join("")).toBe(answer);
    const draws = stream.segments.flatMap((segment) => segment.erased);
    expect(draws).toHaveLength(stream.transcript.summary!.erasures);
    for (const draw of draws) {
      expect(draw.uncertainty.u).toBeGreaterThan(draw.threshold);
      expect(answer).not.toContain(draw.text);
    }
  });

  test("shows at every event final text only as committed", async () => {
    const { stream: whole } = await follow({ messages: LIVE });
    const stream = streamEvents(clientOf({ messages: LIVE }), CHAT);
    for await (const _ of stream) expect(whole.content.startsWith(stream.committed)).toBe(true);
  });

  test("is the same from its log", async () => {
    const { stream } = await follow({ messages: LIVE });
    const log = LIVE.flatMap((message) => dataOf(message)?.["healing"] ?? []);
    const replayed = Transcript.replay(log);
    expect([replayed.committed, replayed.segments, replayed.summary]).toEqual([stream.committed, stream.segments, stream.transcript.summary]);
  });

  test.each(["breaks", "closes"])("that %s keeps what was final", async (how) => {
    const cut = LIVE.findIndex((message) => dataOf(message)?.["healing"]?.type === "segment.erased") - 1;
    const { stream, error } = await follow({ messages: LIVE.slice(0, cut), breaks: how === "breaks" });
    expect(error).toBeInstanceOf(StreamDroppedError);
    expect(stream.live).not.toBe("");
    expect((error as StreamDroppedError).committed).toBe(stream.content);
    expect((error as Error).message).toMatch(how === "breaks" ? /terminated$/ : /the stream ended before the answer did$/);
  });

  test("that loses an event says so", async () => {
    const lost = LIVE.findIndex((message) => dataOf(message)?.["healing"]?.type === "segment.committed") + 2;
    const { stream, error } = await follow({ messages: LIVE.toSpliced(lost, 1) });
    expect(error).toBeInstanceOf(SequenceError);
    expect((error as SequenceError).committed).toBe(stream.content);
    expect(stream.content).not.toBe("");
  });
});

test("the request asks for live events, with the caller's settings", async () => {
  const requests: unknown[] = [];
  const stream = streamEvents(clientOf({ messages: LIVE }, requests), { ...CHAT, healing: { threshold: { k: 1 } } });
  for await (const _ of stream) break;
  expect(requests).toEqual([{ ...CHAT, stream: true, healing: { threshold: { k: 1 }, stream: "live" } }]);
});

test("a stock server is told apart, and its answer is whole", async () => {
  const stock = [chunk({ role: "assistant", content: "" }), chunk({ content: "Hel" }), chunk({ content: "lo" }, undefined, "stop"), "data: [DONE]"];
  const { error } = await follow({ messages: stock });
  expect(error).toBeInstanceOf(NoHealingError);
  expect((error as NoHealingError).committed).toBe("Hello");
});

test.each([[[]], [[chunk({ content: "B" }, undefined, null, 1), chunk({}, undefined, "stop")]]])(
  "a stock server's dropped stream is a dropped stream",
  async (more) => {
    const { error } = await follow({ messages: [chunk({ content: "Hel" }), ...more] });
    expect(error).toBeInstanceOf(StreamDroppedError);
    expect((error as StreamDroppedError).committed).toBe("Hel");
  },
);

test("choices are kept apart", async () => {
  const { stream } = await follow({ messages: [chunk({ content: "A" }), chunk({ content: "B" }, undefined, null, 1)] });
  expect([stream.content, stream.transcript.choice(1).content]).toEqual(["A", "B"]);
});

test("text in a chunk is final, whatever is wrong with its event", async () => {
  const [first, second, third] = events(started, delta("One."), committed(9));
  const { error } = await follow({ messages: [chunk({}, first), chunk({}, second), chunk({ content: "One." }, third)] });
  expect(error).toBeInstanceOf(EventError);
  expect((error as EventError).committed).toBe("One.");
});

test("a server started without healing refuses, and that is said", async () => {
  const body = { error: { message: "this server runs without healing", param: "healing", code: 400 } };
  const { error } = await follow({ status: 400, body });
  expect(error).toBeInstanceOf(NoHealingError);
  expect((error as Error).cause).toBeInstanceOf(OpenAI.BadRequestError);
});

test.each([
  ["healing.keep", "healing.keep: .."],
  ["healing", "healing: is 'maybe', use 'off', 'shadow', 'on' or an object"],
])("a wrong %s stays the SDK's own error", async (param, message) => {
  const { error } = await follow({ status: 400, body: { error: { message, param, code: 400 } } });
  expect(error).toBeInstanceOf(OpenAI.BadRequestError);
  expect(error).toMatchObject({ param });
});

test("another protocol version ends the stream with what was final", async () => {
  const [first, second, third] = events(started, delta("One."), committed(4));
  const newer = { ...started, v: 2, seq: 3 };
  const messages = [chunk({}, first), chunk({}, second), chunk({ content: "One." }, third), chunk({}, newer)];
  const { error } = await follow({ messages });
  expect(error).toBeInstanceOf(ProtocolVersionError);
  expect(error).toMatchObject({ version: 2, committed: "One." });
});

test("an error that the server reports in the stream is its cause", async () => {
  const messages = [chunk({}, events(started)[0]), 'data: {"error": {"message": "engine dead", "code": 500}}'];
  const { error } = await follow({ messages });
  expect(error).toBeInstanceOf(StreamDroppedError);
  expect((error as Error).message).toContain("engine dead");
});

test("whoever aborts gets a quiet end", async () => {
  const controller = new AbortController();
  const types: string[] = [];
  for await (const event of streamEvents(clientOf({ messages: LIVE }), CHAT, { signal: controller.signal })) {
    types.push(event.type);
    if (types.length === 3) controller.abort();
  }
  expect(types.length).toBeLessThan(LIVE.length - 1);
});

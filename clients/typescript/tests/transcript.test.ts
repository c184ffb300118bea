import { expect, test } from "vitest";

import { E3RLError, EventError, ProtocolVersionError, SequenceError, Transcript } from "../src/index.js";
import { committed, delta, erased, events, started, summary } from "./world.js";

test("an erased draw is kept beside its segment and not in its text", () => {
  const transcript = Transcript.replay(
    events(started, delta("wro"), delta("ng"), erased(), delta("right", { attempt: 1 }), committed(5, { attempt: 1 })),
  );
  expect([transcript.committed, transcript.live]).toEqual(["right", ""]);
  expect(transcript.segments).toMatchObject([
    { attempt: 1, text: "right", threshold: 3, erased: [{ attempt: 0, text: "wrong", threshold: 2 }] },
  ]);
});

test("the open draw is live until it is erased", () => {
  const transcript = new Transcript();
  const [first, second, third] = events(started, delta("maybe"), erased());
  transcript.feed(first);
  transcript.feed(second);
  expect([transcript.committed, transcript.live]).toEqual(["", "maybe"]);
  transcript.feed(third);
  expect([transcript.committed, transcript.live]).toEqual(["", ""]);
  expect(transcript.choice(0).erased.map((draw) => draw.text)).toEqual(["maybe"]);
});

test("what a commit leaves comes again with the next segment", () => {
  const next = { segment: 1, start_char: 3 };
  const transcript = Transcript.replay(events(started, delta("right"), committed(3), { ...started, ...next }, delta("ht", next)));
  expect([transcript.committed, transcript.live]).toEqual(["rig", "ht"]);
});

test("characters are counted as the server counts them", () => {
  const next = { segment: 1, start_char: 2 };
  const transcript = Transcript.replay(events(started, delta("🙂🦀🌊"), committed(2), { ...started, ...next }, delta("🌊", next)));
  expect([transcript.committed, transcript.live]).toEqual(["🙂🦀", "🌊"]);
});

test("a draw put back in brings its text", () => {
  const transcript = Transcript.replay(events(started, delta("last"), committed(4, { text: "best" })));
  expect(transcript.committed).toBe("best");
});

test("choices are kept apart", () => {
  const transcript = Transcript.replay(events(delta("a"), delta("b", { choice: 1 }), delta("c")));
  expect([transcript.choice(0).live, transcript.choice(1).live]).toEqual(["ac", "b"]);
});

test("the summary ends it", () => {
  const transcript = Transcript.replay(events(started, delta("one"), committed(3), summary));
  expect(transcript.summary).toMatchObject({ mode: "on", committed_tokens: 3 });
});

test.each([undefined, null])("an unknown reason, a new field and %j for a threshold are let through", (threshold) => {
  const older = committed(1, { threshold, text: threshold, news: true });
  const transcript = Transcript.replay(events(started, delta("a"), erased({ reason: "boredom" }), delta("b"), older));
  expect(transcript.segments[0]).toMatchObject({ threshold: undefined, erased: [{ reason: "boredom" }] });
});

test("an event of a type that is newer changes no text, and counts", () => {
  const praised = { type: "segment.praised", by: "nobody", segment: "none" };
  const log = events(started, delta("a"), praised, { type: "toString" }, committed(1));
  const transcript = new Transcript();
  const told = log.map((event) => transcript.feed(event));
  expect(told.map((event) => event.type)).toEqual(["segment.started", "segment.delta", "unknown", "unknown", "segment.committed"]);
  expect(told[2]).toMatchObject({ seq: 2, data: praised });
  expect(transcript.committed).toBe("a");
  expect(Transcript.replay(told).committed).toBe("a");
});

function failure(...fields: Record<string, unknown>[]): unknown {
  const good = events(started, delta("kept"), committed(4));
  const bad = fields.map((event, i) => ({ ...good[0], segment: 1, start_char: 4, seq: 3 + i, ...event }));
  try {
    Transcript.replay([...good, ...bad]);
  } catch (error) {
    expect((error as E3RLError).committed).toBe("kept");
    return error;
  }
  throw new Error("nothing was wrong");
}

test.each([0, 2, 4])("seq %i where 3 is due is refused", (seq) => {
  const error = failure({ ...started, seq });
  expect(error).toBeInstanceOf(SequenceError);
  expect(error).toMatchObject({ expected: 3, found: seq });
});

test.each([2, "1", null, undefined])("protocol version %j is refused", (v) => {
  const error = failure({ ...started, v });
  expect(error).toBeInstanceOf(ProtocolVersionError);
  expect(error).toMatchObject({ version: v });
});

test.each([
  [{ type: 7 }, "wrong or missing 'type'"],
  [{ type: "segment.praised", seq: "3" }, "wrong or missing 'seq'"],
  [{ ...delta("a"), text: 1 }, "wrong or missing 'text'"],
  [{ ...erased(), uncertainty: {} }, "wrong or missing 'uncertainty'"],
  [{ ...started, start_char: 5 }, "starts at character 5, 4 are committed"],
  [committed(3), "commits 3 characters of a draw of 0"],
])("%j is refused", (event, says) => {
  const error = failure(event);
  expect(error).toBeInstanceOf(EventError);
  expect((error as Error).message).toContain(says);
});

test.each([null, 3, "text"])("%j is no event", (data) => {
  expect(() => new Transcript().feed(data)).toThrow(EventError);
});

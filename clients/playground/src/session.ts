import { Transcript } from "e3rl-client";
import type { HealingEvent } from "e3rl-client";

import type { Settings } from "./settings";

/** What came, and how many milliseconds after the start: what a replay file holds. */
export interface Recording {
  settings: Settings;
  events: [number, HealingEvent][];
  plain: [number, string][];
}

export type Status = "running" | "done" | "stopped" | "failed";

/** One run, live or replayed: what has come of it so far. `changed` is called whenever that is more. */
export class Session {
  readonly transcript = new Transcript();
  readonly recording: Recording;
  /** The answer without healing, where one was asked for. */
  plain = "";
  status: Status = "running";
  /** What a screen reader is told. */
  news = "Generating";
  readonly #changed: () => void;
  readonly #began = performance.now();

  constructor(settings: Settings, changed: () => void) {
    this.recording = { settings, events: [], plain: [] };
    this.#changed = changed;
  }

  get settings(): Settings {
    return this.recording.settings;
  }

  get heals(): boolean {
    return this.settings.mode !== "off";
  }

  get hasPlain(): boolean {
    return this.settings.compare || !this.heals;
  }

  heal(data: unknown): void {
    const event = this.transcript.feed(data);
    this.recording.events.push([this.#elapsed(), event]);
    if (event.type === "segment.erased") this.news = erasureNews(event);
    this.#changed();
  }

  say(text: string): void {
    this.plain += text;
    this.recording.plain.push([this.#elapsed(), text]);
    this.#changed();
  }

  end(status: Exclude<Status, "running">, message = ""): void {
    this.status = status;
    const ends = { done: () => doneNews(this), stopped: () => "Stopped: what is shown was final", failed: () => message };
    this.news = ends[status]();
    this.#changed();
  }

  #elapsed(): number {
    return Math.round(performance.now() - this.#began);
  }
}

function erasureNews(event: Extract<HealingEvent, { type: "segment.erased" }>): string {
  const { segment, uncertainty, threshold, tokens } = event;
  const why = event.reason === "uncertainty" ? `uncertainty ${uncertainty.u.toFixed(2)} above ${threshold.toFixed(2)}` : event.reason;
  return `Segment ${segment + 1}: ${tokens} tokens erased, ${why}; drawing again`;
}

function doneNews({ transcript: { summary } }: Session): string {
  if (summary === undefined) return "Done";
  const { committed_tokens: kept, erased_tokens: erased, erasures, would_erase } = summary;
  if (would_erase !== undefined) return `Done: ${kept} tokens; ${would_erase} segments would have been erased`;
  return `Done: ${kept} tokens kept, ${erased} erased in ${erasures} ${erasures === 1 ? "erasure" : "erasures"}`;
}

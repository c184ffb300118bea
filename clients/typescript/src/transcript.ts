import { EventError, SequenceError } from "./errors.js";
import { eventFrom } from "./events.js";
import type { HealingEvent, SegmentCommitted, SegmentDelta, SegmentErased, SegmentStarted, Summary, Uncertainty } from "./events.js";

/** A draw that was erased. */
export interface ErasedDraw {
  attempt: number;
  text: string;
  tokens: number;
  /** Nats. */
  uncertainty: Uncertainty;
  /** Nats. */
  threshold: number;
  reason: string;
}

/** A segment that is final. */
export interface Segment {
  segment: number;
  channel: string;
  /** Which draw was kept, from 0. */
  attempt: number;
  text: string;
  tokens: number;
  /** Nats. */
  uncertainty: Uncertainty;
  /** Nats; undefined where the server does not tell. */
  threshold: number | undefined;
  /** The draws that were erased before, in order. */
  erased: readonly ErasedDraw[];
}

/** One choice of a response, as far as it is known. */
export class Choice {
  /** Final text by the events: before reasoning and tool parsers. */
  committed = "";
  /** The open draw's text: provisional. */
  live = "";
  readonly segments: Segment[] = [];
  /** Erased draws of the open segment. */
  erased: readonly ErasedDraw[] = [];
  /** Length of `committed` in Unicode characters, which is what the protocol counts. */
  chars = 0;
  /** The answer's text so far, as any OpenAI client gets it in `delta`. Empty in a replay: events do not tell. */
  content = "";

  /** All that is known to be final: in shadow mode text is, before its segment is scored. */
  get final(): string {
    return this.content.length > this.committed.length ? this.content : this.committed;
  }

  erase(event: SegmentErased): void {
    const { attempt, tokens, uncertainty, threshold, reason } = event;
    this.erased = [...this.erased, { attempt, text: this.live, tokens, uncertainty, threshold, reason }];
    this.live = "";
  }

  /** What is left of the draw behind its first `chars` characters comes again with the next segment. */
  commit(event: SegmentCommitted, text: string): void {
    const { segment, channel, attempt, tokens, uncertainty } = event;
    const threshold = event.threshold ?? undefined;
    this.segments.push({ segment, channel, attempt, text, tokens, uncertainty, threshold, erased: this.erased });
    this.committed += text;
    this.chars += event.chars;
    this.live = "";
    this.erased = [];
  }
}

/** Rebuilds a response from its events. */
export class Transcript {
  readonly choices = new Map<number, Choice>();
  summary: Summary | undefined;
  #next = 0;

  /** The transcript of recorded events. */
  static replay(events: Iterable<unknown>): Transcript {
    const transcript = new Transcript();
    for (const event of events) transcript.feed(event);
    return transcript;
  }

  get committed(): string {
    return this.choice(0).committed;
  }

  get live(): string {
    return this.choice(0).live;
  }

  get segments(): readonly Segment[] {
    return this.choice(0).segments;
  }

  /** A choice, which is empty before its first event. */
  choice(index: number): Choice {
    let choice = this.choices.get(index);
    if (choice === undefined) this.choices.set(index, (choice = new Choice()));
    return choice;
  }

  /**
   * Take the next event, a `healing` object as it came.
   *
   * @throws ProtocolVersionError, SequenceError or EventError, and is then as it was before.
   */
  feed(data: unknown): HealingEvent {
    const event = eventFrom(data, this.#final);
    if (event.seq !== this.#next) throw new SequenceError(this.#next, event.seq, this.#final);
    if (event.type === "summary") {
      this.summary = event;
    } else if (event.type !== "budget.exhausted" && event.type !== "unknown") {
      this.#tell(event);
    }
    this.#next += 1;
    return event;
  }

  get #final(): string {
    return this.choice(0).final;
  }

  #tell(event: SegmentStarted | SegmentDelta | SegmentErased | SegmentCommitted): void {
    const choice = this.choice(event.choice);
    if (event.start_char !== choice.chars) {
      const message = `a healing event starts at character ${event.start_char}, ${choice.chars} are committed`;
      throw new EventError(message, this.#final);
    }
    switch (event.type) {
      case "segment.started":
        choice.live = "";
        break;
      case "segment.delta":
        choice.live += event.text;
        break;
      case "segment.erased":
        choice.erase(event);
        break;
      case "segment.committed":
        choice.commit(event, this.#kept(event, choice));
        break;
    }
  }

  #kept(event: SegmentCommitted, choice: Choice): string {
    const drawn = [...(event.text ?? choice.live)]; // by character: a string's own length counts emoji twice
    if (event.chars > drawn.length) {
      const message = `a healing event commits ${event.chars} characters of a draw of ${drawn.length}`;
      throw new EventError(message, this.#final);
    }
    return drawn.slice(0, event.chars).join("");
  }
}

import type OpenAI from "openai";

import { E3RLError, NoHealingError, StreamDroppedError } from "./errors.js";
import type { HealingEvent } from "./events.js";
import type { HealingSettings } from "./settings.js";
import { Transcript } from "./transcript.js";
import type { Segment } from "./transcript.js";

type Chunk = OpenAI.ChatCompletionChunk;

/** A chat completion request with healing's settings; it is always streamed, with live events. */
export type HealedChat = Omit<OpenAI.ChatCompletionCreateParamsStreaming, "stream"> & { healing?: HealingSettings };

/**
 * Ask for a chat completion and follow how it heals. The request is made when iteration begins.
 *
 * @param options as of `client.chat.completions.create`; its `signal` ends the stream quietly.
 */
export function streamEvents(client: OpenAI, chat: HealedChat, options?: OpenAI.RequestOptions): EventStream {
  const healing = { ...chat.healing, stream: "live" };
  // The SDK sends fields that its types do not know.
  const body: OpenAI.ChatCompletionCreateParamsStreaming = Object.assign({}, chat, { healing, stream: true as const });
  return new EventStream(() => client.chat.completions.create(body, options), options?.signal);
}

/**
 * The events of one response, and what is known of it so far. Iterate it once.
 *
 * Iteration throws an `E3RLError` for what is wrong with the stream, which keeps the committed text, and the `openai`
 * package's errors for what is wrong with the request.
 */
export class EventStream implements AsyncIterable<HealingEvent> {
  readonly transcript = new Transcript();
  /** Choice 0's; null while it goes on. */
  finishReason: string | null = null;
  /** Where `stream_options` asked for it. */
  usage: OpenAI.CompletionUsage | undefined;
  readonly #open: () => PromiseLike<AsyncIterable<Chunk>>;
  readonly #signal: AbortSignal | null | undefined;
  readonly #unfinished = new Set<number>();

  constructor(open: () => PromiseLike<AsyncIterable<Chunk>>, signal?: AbortSignal | null) {
    this.#open = open;
    this.#signal = signal;
  }

  /** The answer so far as any OpenAI client sees it: final, and after reasoning and tool parsers. Choice 0's. */
  get content(): string {
    return this.transcript.choice(0).content;
  }

  /** Final text of choice 0, as the events tell it: before reasoning and tool parsers. */
  get committed(): string {
    return this.transcript.committed;
  }

  /** Choice 0's open draw: it may yet be erased. */
  get live(): string {
    return this.transcript.live;
  }

  /** Choice 0's final segments. */
  get segments(): readonly Segment[] {
    return this.transcript.segments;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<HealingEvent, void> {
    let chunks: AsyncIterable<Chunk>;
    try {
      chunks = await this.#open();
    } catch (error) {
      throw isWithoutHealing(error) ? new NoHealingError("", { cause: error }) : error;
    }
    let healed = false;
    try {
      for await (const chunk of chunks) {
        this.#take(chunk);
        const data = (chunk as { healing?: unknown }).healing;
        if (data === undefined || data === null) continue;
        healed = true;
        yield this.transcript.feed(data);
      }
    } catch (error) {
      throw error instanceof E3RLError ? error : new StreamDroppedError(this.#final, { cause: error });
    }
    if (this.transcript.summary !== undefined || this.#signal?.aborted) return;
    // A stock server's stream is whole without a summary; one that healed is not.
    if (!healed && this.finishReason !== null && this.#unfinished.size === 0) throw new NoHealingError(this.content);
    throw new StreamDroppedError(this.#final);
  }

  get #final(): string {
    return this.transcript.choice(0).final;
  }

  #take(chunk: Chunk): void {
    if (chunk.usage) this.usage = chunk.usage;
    for (const { index, delta, finish_reason: finished } of chunk.choices) {
      this.transcript.choice(index).content += delta.content ?? "";
      if (finished) this.#unfinished.delete(index);
      else this.#unfinished.add(index);
      if (index === 0) this.finishReason = finished ?? this.finishReason;
    }
  }
}

/** A server that was started without healing refuses the field as a whole; a wrong one is refused by that name, too. */
function isWithoutHealing(error: unknown): boolean {
  if (!(error instanceof Error && "status" in error && "param" in error)) return false;
  return error.status === 400 && error.param === "healing" && error.message.includes("without healing");
}

/**
 * What can go wrong between a client and a healing server.
 *
 *     E3RLError
 *     ├── NoHealingError         the server does not heal
 *     ├── ProtocolVersionError   it speaks another version of the protocol
 *     ├── SequenceError          an event is missing, or came twice
 *     ├── EventError             an event is malformed, or does not continue the text it claims to
 *     └── StreamDroppedError     the stream ended before its end
 *
 * What the server refuses, and what never reaches it, stays an error of the `openai` package.
 */
export class E3RLError extends Error {
  /** The text that was final when it happened; nothing that was erased or could still be. */
  readonly committed: string;

  constructor(message: string, committed: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.committed = committed;
  }
}

/** The server answers without healing: `committed` is its whole answer, if it gave one. */
export class NoHealingError extends E3RLError {
  constructor(committed: string, options?: ErrorOptions) {
    super("the server answers without healing: start it as `e3rl serve --healing on`", committed, options);
  }
}

/** The server's events have a version that this package does not know. */
export class ProtocolVersionError extends E3RLError {
  readonly version: unknown;

  constructor(version: unknown, known: number, committed: string) {
    const found = JSON.stringify(version) ?? "none";
    super(`the server's healing events have protocol version ${found}, this client knows ${known}`, committed);
    this.version = version;
  }
}

/** `seq` has a gap or a repeat. */
export class SequenceError extends E3RLError {
  readonly expected: number;
  readonly found: number;

  constructor(expected: number, found: number, committed: string) {
    super(`a healing event has seq ${found}, expected ${expected}: events were lost or repeated`, committed);
    this.expected = expected;
    this.found = found;
  }
}

/** An event is malformed, or contradicts the ones before. */
export class EventError extends E3RLError {}

/** The stream broke off, or the server reported an error in it: `cause` tells, where something is known. */
export class StreamDroppedError extends E3RLError {
  constructor(committed: string, options?: ErrorOptions) {
    const cause = options?.cause instanceof Error ? `: ${options.cause.message}` : "";
    super(`the stream ended before the answer did${cause}`, committed, options);
  }
}

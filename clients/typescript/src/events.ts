/** The wire events of protocol version 1, named as they are on the wire. Uncertainties and thresholds are in nats. */
import { EventError, ProtocolVersionError } from "./errors.js";

export const PROTOCOL_VERSION = 1;

export interface Uncertainty {
  /** The score that is held against the threshold. */
  u: number;
  mean: number;
  max: number;
  slope: number;
}

interface Place {
  v: typeof PROTOCOL_VERSION;
  /** Counts all events of a response, from 0, without gaps. */
  seq: number;
  choice: number;
  channel: string;
  segment: number;
  attempt: number;
  /** Where the segment starts in the choice's raw text, in Unicode characters. */
  start_char: number;
}

export interface SegmentStarted extends Place {
  type: "segment.started";
}

/** Provisional text: it may yet be erased. */
export interface SegmentDelta extends Place {
  type: "segment.delta";
  text: string;
}

export interface SegmentErased extends Place {
  type: "segment.erased";
  tokens: number;
  uncertainty: Uncertainty;
  threshold: number;
  /** `uncertainty` or `schedule`; there will be more. */
  reason: string;
  retry: { attempt: number; temperature?: number };
}

/** The first `chars` characters of the attempt are final. */
export interface SegmentCommitted extends Place {
  type: "segment.committed";
  chars: number;
  /** Where the kept draw is not the one last shown. */
  text?: string;
  tokens: number;
  uncertainty: Uncertainty;
  /** What the kept draw was held against; older servers do not say. */
  threshold?: number;
  attempts: number;
}

export interface BudgetExhausted extends Place {
  type: "budget.exhausted";
  budget: string;
}

/** What healing did to the response, over all its choices. */
export interface Summary {
  v: typeof PROTOCOL_VERSION;
  type: "summary";
  seq: number;
  mode: string;
  segments: number;
  erasures: number;
  /** Shadow mode: the erasures there would have been. */
  would_erase?: number;
  erased_tokens: number;
  committed_tokens: number;
  mean_uncertainty: number | null;
  /** Every segment's record, where `return_erased` asked for them. */
  records?: Record<string, unknown>[];
}

/** An event whose type is newer than this package; it changes no text. */
export interface UnknownEvent {
  v: typeof PROTOCOL_VERSION;
  seq: number;
  /** Not the type on the wire, so that TypeScript can still tell the others apart by theirs. */
  type: "unknown";
  /** The event as it came. */
  data: Readonly<Record<string, unknown>>;
}

type KnownEvent = SegmentStarted | SegmentDelta | SegmentErased | SegmentCommitted | BudgetExhausted | Summary;

export type HealingEvent = KnownEvent | UnknownEvent;

type Check = (value: unknown) => boolean;
type Shape = Record<string, Check>;

const isText: Check = (value) => typeof value === "string";
const isNumber: Check = (value) => typeof value === "number";
const isCount: Check = (value) => Number.isInteger(value) && (value as number) >= 0;
const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;
const isScore: Check = (value) => isObject(value) && ["u", "mean", "max", "slope"].every((key) => isNumber(value[key]));
const orAbsent =
  (check: Check): Check =>
  (value) =>
    value === undefined || value === null || check(value);

const PLACE: Shape = {
  seq: isCount,
  choice: isCount,
  channel: isText,
  segment: isCount,
  attempt: isCount,
  start_char: isCount,
};

const SHAPES: Record<KnownEvent["type"], Shape> = {
  "segment.started": PLACE,
  "segment.delta": { ...PLACE, text: isText },
  "segment.erased": {
    ...PLACE,
    tokens: isCount,
    uncertainty: isScore,
    threshold: isNumber,
    reason: isText,
    retry: (value) => isObject(value) && isCount(value["attempt"]),
  },
  "segment.committed": {
    ...PLACE,
    chars: isCount,
    text: orAbsent(isText),
    tokens: isCount,
    uncertainty: isScore,
    threshold: orAbsent(isNumber),
    attempts: isCount,
  },
  "budget.exhausted": { ...PLACE, budget: isText },
  summary: {
    seq: isCount,
    mode: isText,
    segments: isCount,
    erasures: isCount,
    erased_tokens: isCount,
    committed_tokens: isCount,
    mean_uncertainty: (value) => value === null || isNumber(value),
  },
};

const UNKNOWN: Shape = { seq: isCount, type: isText };

/**
 * An event from its JSON object. Fields and types that are new to us are let through.
 *
 * @param committed the text that is final, for the error.
 * @throws ProtocolVersionError or EventError.
 */
export function eventFrom(data: unknown, committed: string): HealingEvent {
  if (!isObject(data)) throw new EventError("a healing event is not an object", committed);
  const { v, seq, type } = data;
  if (v !== PROTOCOL_VERSION) throw new ProtocolVersionError(v, PROTOCOL_VERSION, committed);
  const isKnown = typeof type === "string" && Object.hasOwn(SHAPES, type);
  const shape = isKnown ? SHAPES[type as KnownEvent["type"]] : UNKNOWN;
  const wrong = Object.keys(shape).find((key) => !shape[key]?.(data[key]));
  if (wrong !== undefined) throw new EventError(`a healing event of type '${type}' has a wrong or missing '${wrong}'`, committed);
  return isKnown ? (data as unknown as KnownEvent) : { v, seq: seq as number, type: "unknown", data };
}

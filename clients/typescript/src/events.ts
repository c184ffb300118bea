/** The wire events of protocol version 1, named as they are on the wire. Uncertainties and thresholds are in nats. */
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

export type HealingEvent =
  | SegmentStarted
  | SegmentDelta
  | SegmentErased
  | SegmentCommitted
  | BudgetExhausted
  | Summary;

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
    value === undefined || check(value);

const PLACE: Shape = {
  seq: isCount,
  choice: isCount,
  channel: isText,
  segment: isCount,
  attempt: isCount,
  start_char: isCount,
};

const SHAPES: Record<HealingEvent["type"], Shape> = {
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

/** The protocol version that a `healing` object claims; undefined if it claims none. */
export function versionOf(data: unknown): unknown {
  return isObject(data) ? data["v"] : undefined;
}

/** What is wrong with an event of the known version; undefined: nothing. Fields that are new to us are let through. */
export function flawOf(data: unknown): string | undefined {
  if (!isObject(data)) return "is not an object";
  const type = String(data["type"]);
  if (!Object.hasOwn(SHAPES, type)) return `has the unknown type '${type}'`;
  const shape = SHAPES[type as HealingEvent["type"]];
  const wrong = Object.keys(shape).find((key) => !shape[key]?.(data[key]));
  return wrong === undefined ? undefined : `of type '${type}' has a wrong or missing '${wrong}'`;
}

export { E3RLError, EventError, NoHealingError, ProtocolVersionError, SequenceError, StreamDroppedError } from "./errors.js";
export { PROTOCOL_VERSION } from "./events.js";
export type {
  BudgetExhausted,
  HealingEvent,
  SegmentCommitted,
  SegmentDelta,
  SegmentErased,
  SegmentStarted,
  Summary,
  Uncertainty,
  UnknownEvent,
} from "./events.js";
export type { HealingSettings } from "./settings.js";
export { EventStream, streamEvents } from "./stream.js";
export type { HealedChat } from "./stream.js";
export { Choice, Transcript } from "./transcript.js";
export type { ErasedDraw, Segment } from "./transcript.js";

/** The `healing` field of a request that streams live; the server's docs/configuration.md has bounds and defaults. */
export interface HealingSettings {
  /** shadow: score, erase nothing. */
  mode?: "on" | "shadow";
  preset?: "paper" | "responsive";
  /** `tokens` is a fixed length, and stands alone. */
  segment?: { tokens: number } | { unit?: "tokens" | "sentence" | "line"; min_tokens?: number; max_tokens?: number };
  uncertainty?: { signal?: "surprisal" | "entropy"; smoothing?: number; mean?: number; max?: number; rise?: number };
  threshold?: {
    /** Standard deviations above normal; lower erases more. */
    k?: number;
    gamma?: number;
    eta?: number;
    floor?: number;
    group_weight?: number;
    decay?: number;
    prior_segments?: number;
  };
  /** At one checkpoint. */
  max_erasures?: number;
  budget?: { erased_tokens?: number | null; erased_fraction?: number | null; deadline_ms?: number | null };
  retry?: { temperature?: number | null };
  /** Of a segment: all of it, or from where it gets unsure. */
  erase_from?: "segment" | "onset";
  /** Which draw stays when the cap is reached. */
  keep?: "last" | "best";
  scope?: "all" | "reasoning";
  /** The summary also holds records with the erased draws' token ids and logprobs. */
  return_erased?: boolean;
  schedule?: number[] | null;
}

import type OpenAI from "openai";
import type { HealedChat, HealingSettings } from "e3rl-client";

/** What the form holds. An empty number leaves the choice to the server. */
export interface Settings {
  model: string;
  prompt: string;
  mode: "on" | "shadow" | "off";
  k: number | null;
  segmentTokens: number | null;
  maxErasures: number | null;
  temperature: number | null;
  retryTemperature: number | null;
  maxTokens: number | null;
  seed: number | null;
  compare: boolean;
}

/** A first run that heals on the embedded model. */
export const FIRST: Settings = {
  model: "",
  prompt: "Why is the sky blue? Answer in three sentences.",
  mode: "on",
  k: 1,
  segmentTokens: null,
  maxErasures: null,
  temperature: 0.9,
  retryTemperature: null,
  maxTokens: 140,
  seed: 1,
  compare: false,
};

type NumberKey = { [K in keyof Settings]: Settings[K] extends number | null ? K : never }[keyof Settings];

export interface NumberField {
  key: NumberKey;
  label: string;
  hint: string;
  min: number;
  max: number;
  step: number | "any";
  /** Settings of healing, and so without effect where it is off. */
  heals?: true;
}

export const NUMBER_FIELDS: readonly NumberField[] = [
  { key: "k", label: "Threshold k", hint: "standard deviations above normal; lower erases more", min: -10, max: 100, step: "any", heals: true },
  { key: "segmentTokens", label: "Segment length", hint: "tokens; empty: whole sentences", min: 1, max: 8192, step: 1, heals: true },
  { key: "maxErasures", label: "Max erasures", hint: "per segment", min: 0, max: 64, step: 1, heals: true },
  { key: "temperature", label: "Temperature", hint: "of first draws", min: 0, max: 2, step: "any" },
  { key: "retryTemperature", label: "Retry temperature", hint: "of redraws; empty: the same, or 0.7 at 0", min: 0, max: 2, step: "any", heals: true },
  { key: "maxTokens", label: "Max tokens", hint: "kept ones", min: 1, max: 100_000, step: 1 },
  { key: "seed", label: "Seed", hint: "the same seed, the same answer", min: 0, max: 2 ** 31 - 1, step: 1 },
];

/** The OpenAI part of the request. */
export function chatOf(settings: Settings): Omit<OpenAI.ChatCompletionCreateParamsStreaming, "stream"> {
  const { model, prompt, temperature, maxTokens, seed } = settings;
  return {
    model,
    messages: [{ role: "user", content: prompt }],
    ...(temperature !== null && { temperature }),
    ...(maxTokens !== null && { max_tokens: maxTokens }),
    ...(seed !== null && { seed }),
  };
}

/** The request that heals. */
export function healedChatOf(settings: Settings, mode: "on" | "shadow"): HealedChat {
  const { k, segmentTokens, maxErasures, retryTemperature } = settings;
  const healing: HealingSettings = {
    mode,
    ...(k !== null && { threshold: { k } }),
    ...(segmentTokens !== null && { segment: { tokens: segmentTokens } }),
    ...(maxErasures !== null && { max_erasures: maxErasures }),
    ...(retryTemperature !== null && { retry: { temperature: retryTemperature } }),
  };
  return { ...chatOf(settings), healing };
}

/** The settings that a value spells out, or undefined where it is none. */
export function settingsFrom(value: unknown): Settings | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const given = value as Record<string, unknown>;
  const texts = ["model", "prompt"].every((key) => typeof given[key] === "string");
  const numbers = NUMBER_FIELDS.every(({ key }) => given[key] === null || typeof given[key] === "number");
  const mode = ["on", "shadow", "off"].includes(given["mode"] as string);
  if (!texts || !numbers || !mode || typeof given["compare"] !== "boolean") return undefined;
  return Object.fromEntries(Object.keys(FIRST).map((key) => [key, given[key]])) as unknown as Settings;
}

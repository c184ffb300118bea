import type { Transcript } from "e3rl-client";

/** One draw of the answer, in the order in which draws were made. */
export interface Draw {
  /** Segment and draw, both from 1. */
  label: string;
  tokens: number;
  /** Nats. */
  u: number;
  /** Nats. */
  threshold: number | undefined;
  kept: boolean;
}

/** Every draw of choice 0 that was scored. */
export function drawsOf(transcript: Transcript): Draw[] {
  const { segments, erased } = transcript.choice(0);
  const checkpoints = [...segments, { segment: segments.length, erased, uncertainty: undefined, tokens: 0, threshold: undefined }];
  return checkpoints.flatMap((at) => {
    const name = (draw: number) => `${at.segment + 1}.${draw + 1}`;
    const draws: Draw[] = at.erased.map(({ attempt, tokens, uncertainty, threshold }) => {
      return { label: name(attempt), tokens, u: uncertainty.u, threshold, kept: false };
    });
    if (at.uncertainty !== undefined) {
      draws.push({ label: name(at.erased.length), tokens: at.tokens, u: at.uncertainty.u, threshold: at.threshold, kept: true });
    }
    return draws;
  });
}

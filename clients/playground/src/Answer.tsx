import type { ErasedDraw, Segment } from "e3rl-client";
import { useState } from "preact/hooks";

import type { Session } from "./session";

/** The answer as it heals: final text, the open draw, and what was erased. */
export function Answer({ session }: { session: Session | undefined }) {
  const [all, showAll] = useState(false);
  const { segments, erased, live } = session?.transcript.choice(0) ?? { segments: [], erased: [], live: "" };
  const running = session?.status === "running";
  const mode = session?.settings.mode ?? "on";
  return (
    <section class="answer" aria-label={`Answer, healing ${mode}`} aria-busy={running}>
      <h2>
        Healing {mode}
        <label class="check">
          <input type="checkbox" name="erased" checked={all} onChange={(event) => showAll(event.currentTarget.checked)} />
          Show what was erased
        </label>
      </h2>
      <p class="text">
        {/* A screen reader gets each segment when it is final; drafts would be noise, erasures are told in the status. */}
        <span aria-live="polite" aria-relevant="additions" data-committed>
          {segments.map((segment) => (
            <Final key={segment.segment} segment={segment} all={all} />
          ))}
        </span>
        {running && (
          <span aria-hidden="true">
            {erased.map((draw) => (
              <del key={`${segments.length}.${draw.attempt}`} class="erasing">
                {draw.text}
              </del>
            ))}
            <span class={mode === "shadow" ? "open" : "open draft"}>{live}</span>
          </span>
        )}
      </p>
    </section>
  );
}

function Final({ segment, all }: { segment: Segment; all: boolean }) {
  const redrawn = segment.erased.length > 0 ? " redrawn" : "";
  const limit = segment.threshold === undefined ? "" : `, threshold ${segment.threshold.toFixed(2)}`;
  const title = `Segment ${segment.segment + 1}: uncertainty ${segment.uncertainty.u.toFixed(2)}${limit}, ${segment.tokens} tokens`;
  return (
    <>
      {segment.erased.map((draw) => (
        <Erased key={draw.attempt} draw={draw} all={all} />
      ))}
      <span class={`final ${segment.channel}${redrawn}`} title={title}>
        {segment.text}
      </span>
    </>
  );
}

/** A mark where something was erased; it opens to what it was. */
function Erased({ draw, all }: { draw: ErasedDraw; all: boolean }) {
  const [open, setOpen] = useState(false);
  const scores = `uncertainty ${draw.uncertainty.u.toFixed(2)}, threshold ${draw.threshold.toFixed(2)}`;
  const shown = open || all;
  return (
    <>
      <button
        type="button"
        class="mark"
        aria-expanded={shown}
        aria-label={`${draw.tokens} erased tokens, ${scores}`}
        title={`${draw.tokens} tokens erased: ${scores}`}
        onClick={() => setOpen(!open)}
      >
        −{draw.tokens}
      </button>
      {shown && <del>{draw.text}</del>}
    </>
  );
}

/** The answer of the model alone. */
export function PlainAnswer({ session }: { session: Session }) {
  return (
    <section class="answer" aria-label="Answer, healing off" aria-busy={session.status === "running"}>
      <h2>Healing off</h2>
      <p class="text" data-plain>
        {session.plain}
      </p>
    </section>
  );
}

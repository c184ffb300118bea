import { useId, useLayoutEffect, useRef } from "preact/hooks";
import type { TargetedKeyboardEvent } from "preact";

import { NUMBER_FIELDS } from "./settings";
import type { NumberField, Settings } from "./settings";

interface Props {
  settings: Settings;
  change: (changes: Partial<Settings>) => void;
  models: string[];
  apiKey: string;
  changeKey: (key: string) => void;
  running: boolean;
  start: () => void;
  stop: () => void;
}

const MODES = [
  ["on", "on: erase and redraw"],
  ["shadow", "shadow: score, erase nothing"],
  ["off", "off: the model alone"],
] as const;

export function Form({ settings, change, models, apiKey, changeKey, running, start, stop }: Props) {
  const form = useRef<HTMLFormElement>(null);
  const submitted = (event: Event) => {
    event.preventDefault();
    start();
  };
  const pressed = (event: TargetedKeyboardEvent<HTMLTextAreaElement>) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.current?.requestSubmit();
  };
  const known = models.includes(settings.model) || settings.model === "" ? models : [...models, settings.model];
  const heals = settings.mode !== "off";
  return (
    <form ref={form} onSubmit={submitted}>
      <label>
        Prompt <small>Ctrl+Enter generates, Escape stops</small>
        <textarea
          name="prompt"
          rows={3}
          required
          value={settings.prompt}
          onInput={(event) => change({ prompt: event.currentTarget.value })}
          onKeyDown={pressed}
        />
      </label>
      <div class="buttons">
        <button type="submit" class="primary">
          {running ? "Start anew" : "Generate"}
        </button>
        <button type="button" onClick={stop} disabled={!running}>
          Stop
        </button>
      </div>
      <label class="check">
        <input
          name="compare"
          type="checkbox"
          checked={settings.compare}
          disabled={!heals}
          onChange={(event) => change({ compare: event.currentTarget.checked })}
        />
        Beside it, the same with healing off
      </label>
      <label>
        Healing
        <select
          name="mode"
          value={settings.mode}
          onChange={(event) => change({ mode: event.currentTarget.value as Settings["mode"] })}
        >
          {MODES.map(([mode, label]) => (
            <option key={mode} value={mode}>
              {label}
            </option>
          ))}
        </select>
      </label>
      <fieldset>
        <legend>Settings</legend>
        <p class="hint">Empty: the server's own.</p>
        {NUMBER_FIELDS.map((field) => (
          <NumberInput
            key={field.key}
            field={field}
            value={settings[field.key]}
            disabled={field.heals === true && !heals}
            change={(value) => change({ [field.key]: value })}
          />
        ))}
      </fieldset>
      <label>
        Model
        <select name="model" required value={settings.model} onChange={(event) => change({ model: event.currentTarget.value })}>
          {known.map((model) => (
            <option key={model}>{model}</option>
          ))}
        </select>
      </label>
      <label>
        API key <small>if the server wants one; forgotten with this tab</small>
        <input
          name="key"
          type="password"
          autocomplete="off"
          value={apiKey}
          onChange={(event) => changeKey(event.currentTarget.value)}
        />
      </label>
    </form>
  );
}

interface NumberProps {
  field: NumberField;
  value: number | null;
  disabled: boolean;
  change: (value: number | null) => void;
}

function NumberInput({ field: { key, label, hint, min, max, step }, value, disabled, change }: NumberProps) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => {
    // Not while "0." is on its way to "0.9": it says nothing yet, and writing that down would take it away.
    if (input.current && numberIn(input.current) !== value) input.current.value = value === null ? "" : String(value);
  }, [value]);
  return (
    <div class="number">
      <label for={id}>{label}</label>
      <input
        ref={input}
        id={id}
        name={key}
        type="number"
        min={min}
        max={max}
        step={step}
        disabled={disabled}
        aria-describedby={`${id}-hint`}
        onInput={(event) => change(numberIn(event.currentTarget))}
      />
      <small id={`${id}-hint`}>{hint}</small>
    </div>
  );
}

/** The number typed; null: none, or not yet one. */
function numberIn(input: HTMLInputElement): number | null {
  return Number.isNaN(input.valueAsNumber) ? null : input.valueAsNumber;
}

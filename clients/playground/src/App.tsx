import { useEffect, useReducer, useRef, useState } from "preact/hooks";

import { Answer, PlainAnswer } from "./Answer";
import { Chart } from "./Chart";
import { Form } from "./Form";
import { fileOf, play, recordingFrom } from "./replay";
import { connect, draw, modelsOf, sentenceOf } from "./server";
import { Session } from "./session";
import { FIRST } from "./settings";
import type { Settings } from "./settings";

const KEY = "e3rl-api-key";

/** The API key that was entered; it lives as long as the tab. */
const apiKey = () => sessionStorage.getItem(KEY) ?? "";

export function App() {
  const [settings, setSettings] = useState<Settings>(FIRST);
  const [key, setKey] = useState(apiKey);
  const [session, setSession] = useState<Session>();
  const [problem, setProblem] = useState("");
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  const models = useModels(key, setProblem, (model) => setSettings((now) => ({ ...now, model: now.model || model })));
  const stopper = useRef(new AbortController());

  const begin = (settings: Settings, run: (session: Session, signal: AbortSignal) => Promise<void>) => {
    stopper.current.abort();
    stopper.current = new AbortController();
    setProblem("");
    const session = new Session(settings, () => redraw(undefined));
    setSession(session);
    void run(session, stopper.current.signal);
  };
  const changeKey = (key: string) => {
    sessionStorage.setItem(KEY, key);
    setKey(key);
  };
  const openReplay = async (file: File) => {
    try {
      const recording = recordingFrom(await file.text());
      const paced = !matchMedia("(prefers-reduced-motion: reduce)").matches;
      setSettings(recording.settings);
      begin(recording.settings, (session, signal) => play(session, recording, paced, signal));
    } catch (error) {
      setProblem(sentenceOf(error));
    }
  };
  useDrop(openReplay);
  useEscape(() => stopper.current.abort());

  const running = session?.status === "running";
  return (
    <>
      <header>
        <h1>e3rl playground</h1>
        <p>The model scores each segment of its answer by its own surprisal; one that is too uncertain is erased and drawn again.</p>
      </header>
      <main>
        <Form
          settings={settings}
          change={(changes) => setSettings((now) => ({ ...now, ...changes }))}
          models={models}
          apiKey={key}
          changeKey={changeKey}
          running={running}
          start={() => begin(settings, (session, signal) => draw(session, connect(apiKey()), signal))}
          stop={() => stopper.current.abort()}
        />
        <div class="outcome">
          <div class="status">
            <p role="status">{problem || session?.news || "Ready"}</p>
            <ReplayButtons session={running ? undefined : session} open={openReplay} />
          </div>
          <div class="answers">
            {(session === undefined || session.heals) && <Answer session={session} />}
            {session?.hasPlain && <PlainAnswer session={session} />}
          </div>
          {session?.heals && <Chart transcript={session.transcript} />}
        </div>
      </main>
    </>
  );
}

function ReplayButtons({ session, open }: { session: Session | undefined; open: (file: File) => void }) {
  const picker = useRef<HTMLInputElement>(null);
  const save = () => {
    if (session === undefined) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([fileOf(session.recording)], { type: "application/json" }));
    link.download = "e3rl-replay.json";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const picked = () => {
    const input = picker.current;
    const file = input?.files?.[0];
    if (input && file) {
      open(file);
      input.value = ""; // the same file can be opened again
    }
  };
  return (
    <div class="buttons">
      <button type="button" onClick={save} disabled={session === undefined}>
        Save replay
      </button>
      <button type="button" onClick={() => picker.current?.click()} title="or drop a replay file on this page">
        Open replay
      </button>
      <input ref={picker} type="file" accept="application/json,.json" hidden onChange={picked} aria-label="Replay file" />
    </div>
  );
}

/** The server's models; asked for again whenever the key changes. */
function useModels(key: string, setProblem: (problem: string) => void, first: (model: string) => void): string[] {
  const [models, setModels] = useState<string[]>([]);
  useEffect(() => {
    let current = true;
    modelsOf(connect(key)).then(
      (names) => {
        if (!current) return;
        setModels(names);
        setProblem("");
        if (names[0] !== undefined) first(names[0]);
      },
      (error: unknown) => current && setProblem(sentenceOf(error)),
    );
    return () => void (current = false);
  }, [key]);
  return models;
}

function useDrop(open: (file: File) => void) {
  useEffect(() => {
    const over = (event: DragEvent) => event.preventDefault();
    const drop = (event: DragEvent) => {
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file) open(file);
    };
    document.addEventListener("dragover", over);
    document.addEventListener("drop", drop);
    return () => {
      document.removeEventListener("dragover", over);
      document.removeEventListener("drop", drop);
    };
  }, []);
}

function useEscape(stop: () => void) {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => event.key === "Escape" && stop();
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
}

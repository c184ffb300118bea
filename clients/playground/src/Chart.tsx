import type { Transcript } from "e3rl-client";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { drawsOf } from "./draws";
import type { Draw } from "./draws";

const HEIGHT = 220;

/** Uncertainty of every draw against its threshold, as a picture and as a table. */
export function Chart({ transcript }: { transcript: Transcript }) {
  const draws = drawsOf(transcript);
  const erased = draws.filter((draw) => !draw.kept).length;
  return (
    <section class="chart" aria-label="Uncertainty">
      <h2>Uncertainty of each draw against its threshold, in nats</h2>
      <p class="legend">
        <span class="kept">kept</span> <span class="erased">erased</span> <span class="threshold">threshold</span>
      </p>
      <Plot draws={draws} label={`${draws.length} draws, ${erased} of them erased; the table below tells each`} />
      <details>
        <summary>As a table</summary>
        <Table draws={draws} />
      </details>
    </section>
  );
}

function Plot({ draws, label }: { draws: Draw[]; label: string }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const shown = useRef(draws);
  const scheme = useScheme();
  shown.current = draws;
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const made = new uPlot(optionsOf(element, () => shown.current), dataOf(shown.current), element);
    plot.current = made;
    const fit = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    fit.observe(element);
    return () => {
      fit.disconnect();
      made.destroy();
    };
  }, [scheme]);
  useEffect(() => plot.current?.setData(dataOf(draws)), [draws.length, scheme]);
  return <div ref={place} class="plot" role="img" aria-label={label} />;
}

function optionsOf(element: HTMLElement, draws: () => Draw[]): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(`--${name}`);
  const axis = { stroke: colour("faint"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  const bars = { paths: uPlot.paths.bars!({ size: [0.6, 48] }), points: { show: false } };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false, range: () => [0.4, Math.max(draws().length, 6) + 0.6] }, y: { range: (_, __, max) => [0, (max || 1) * 1.1] } },
    axes: [
      { ...axis, grid: { show: false }, splits: () => draws().map((_, i) => i + 1), values: (_, at) => labelsOf(draws(), at.length) },
      { ...axis, size: 44 },
    ],
    series: [
      {},
      { ...bars, label: "kept", fill: colour("kept"), stroke: colour("kept") },
      { ...bars, label: "erased", fill: colour("erased"), stroke: colour("erased") },
      { label: "threshold", stroke: colour("ink"), width: 2, dash: [6, 4], points: { show: true, size: 6, fill: colour("ink") } },
    ],
  };
}

/** Segment and draw below each bar, while there is room. */
function labelsOf(draws: Draw[], room: number): string[] {
  const every = Math.ceil(room / 20);
  return draws.map((draw, i) => (i % every === 0 ? draw.label : ""));
}

function dataOf(draws: Draw[]): uPlot.AlignedData {
  return [
    draws.map((_, i) => i + 1),
    draws.map((draw) => (draw.kept ? draw.u : null)),
    draws.map((draw) => (draw.kept ? null : draw.u)),
    draws.map((draw) => draw.threshold ?? null),
  ];
}

function Table({ draws }: { draws: Draw[] }) {
  return (
    <table>
      <thead>
        <tr>
          {["Segment.draw", "Tokens", "Uncertainty", "Threshold", ""].map((name) => (
            <th key={name} scope="col">
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {draws.map((draw) => (
          <tr key={draw.label}>
            <th scope="row">{draw.label}</th>
            <td>{draw.tokens}</td>
            <td>{draw.u.toFixed(2)}</td>
            <td>{draw.threshold?.toFixed(2) ?? "not told"}</td>
            <td>{draw.kept ? "kept" : "erased"}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Whether the reader's system is dark; the canvas has to be painted anew when that changes. */
function useScheme(): boolean {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const changed = () => setDark(query.matches);
    query.addEventListener("change", changed);
    return () => query.removeEventListener("change", changed);
  }, []);
  return dark;
}

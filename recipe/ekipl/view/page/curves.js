// Curves by uPlot. Okabe-Ito colours and dashes, as in report.html and the figures.
"use strict";
const DASHES = [[], [8, 4], [8, 3, 2, 3], [2, 3], [12, 3], [5, 2, 2, 2, 2, 2], [2, 2]];
const LEGEND_DASHES = ["solid", "dashed", "dashed", "dotted", "dashed", "dashed", "dotted"];
const SMOOTH_FROM = 30; // steps from which a moving mean is drawn over the faint raw line
const WINDOW = 10;

function movingMean(values) {
  return values.map((value, i) => {
    const seen = values.slice(Math.max(0, i - WINDOW + 1), i + 1).filter((v) => v !== null);
    return value === null || !seen.length ? null : seen.reduce((a, b) => a + b) / seen.length;
  });
}

const lastOf = (values) => values.findLastIndex((value) => value !== null);

function colors(element) {
  const style = getComputedStyle(element);
  const read = (name) => style.getPropertyValue(name).trim();
  return { lines: [0, 1, 2, 3, 4, 5, 6].map((i) => read(`--s${i}`)), ink: read("--muted"), grid: read("--line") };
}

function series(chart, smooth, palette) {
  const drawn = [];
  chart.names.forEach((name, i) => {
    const stroke = palette.lines[i % 7];
    if (smooth) drawn.push({ label: name, stroke: stroke + "40", width: 1, class: "raw", points: { show: false } });
    drawn.push({
      label: name,
      stroke,
      width: 2,
      dash: DASHES[i % DASHES.length],
      spanGaps: true,
      points: { show: chart.x.length < SMOOTH_FROM, size: 5, fill: stroke },
      value: (_, value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3))),
    });
  });
  return drawn;
}

function options(chart, smooth, element) {
  const palette = colors(element);
  const axis = { stroke: palette.ink, grid: { stroke: palette.grid, width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const all = chart.values.flat().filter((value) => value !== null);
  const share = all.every((value) => value >= 0 && value <= 1);
  return {
    width: element.clientWidth,
    height: 210,
    cursor: { sync: { key: "steps" }, points: { size: 6 }, drag: { x: true, y: false } },
    scales: { x: { time: false }, y: share ? { range: [-0.03, 1.03] } : {} },
    axes: [
      { ...axis, size: 26, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000] },
      { ...axis, size: 46 },
    ],
    series: [{ label: "step", value: (_, value) => value ?? "–" }, ...series(chart, smooth, palette)],
    legend: { markers: { width: 2, dash: (_, i) => LEGEND_DASHES[Math.max(0, smooth ? (i >> 1) - 1 : i - 1) % 7] } },
    hooks: { setCursor: [(plot) => plot.cursor.idx === null && plot.setLegend({ idx: plot.data[0].length - 1 })] },
  };
}

function Chart({ chart, theme }) {
  const place = useRef();
  useEffect(() => {
    const smooth = chart.x.length >= SMOOTH_FROM;
    const lines = smooth ? chart.values.flatMap((values) => [values, movingMean(values)]) : chart.values;
    const plot = new uPlot(options(chart, smooth, place.current), [chart.x, ...lines], place.current);
    plot.setLegend({ idx: chart.x.length - 1 });
    const resized = new ResizeObserver(([entry]) => plot.setSize({ width: entry.contentRect.width, height: 210 }));
    resized.observe(place.current);
    return () => (resized.disconnect(), plot.destroy());
  }, [chart, theme]);
  const said = chart.names.map((name, i) => `${name} ${fixed(chart.values[i][lastOf(chart.values[i])], 3)}`).join(", ");
  return html`<figure>
    <figcaption>${chart.title} <span class="muted">${chart.label}</span></figcaption>
    <div ref=${place} class="plot" role="img" aria-label=${`${chart.title}; last values: ${said}`}></div>
  </figure>`;
}

function Curves({ place, run }) {
  const theme = useTheme();
  const { value, error } = useAnswer(`runs/${place}/curves`, run.last_step);
  if (error) return html`<${Problem} text=${error} />`;
  if (!value) return html`<${Waiting} />`;
  if (!value.length) return html`<p class="muted pad">This run has not finished a step yet.</p>`;
  return html`<section aria-label="curves">
    <div class="charts">${value.map((chart) => html`<${Chart} key=${chart.title} chart=${chart} theme=${theme} />`)}</div>
    <p class="muted note">Faint: each step; strong: mean of the last ten steps. Drag to look closer, double-click to go back.</p>
  </section>`;
}

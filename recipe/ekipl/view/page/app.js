// The frame: start page, a run with its two tabs, the difference of two evaluations.
"use strict";
const LOOK_AGAIN_MS = 5000;

// The overview of a run, fresh while it is open: it may still be writing.
function useRun(place, atFirst) {
  const [ticks, tick] = useState(0);
  useEffect(() => {
    if (answers) return;
    const timer = setInterval(() => document.hidden || tick((now) => now + 1), LOOK_AGAIN_MS);
    return () => clearInterval(timer);
  }, [place]);
  const { value, error } = useAnswer(ticks ? `runs/${place}` : null, ticks);
  return { run: value || atFirst, error };
}

const setup = ({ plan, advantage }) =>
  [
    plan.num_answers && `${plan.num_answers} answers of each, the best ${plan.num_kept} of ${plan.candidates_per_row} kept`,
    advantage && `advantage: mean over ${advantage.baseline}, std over ${advantage.std}${advantage.papers ? " (the paper's)" : ""}`,
  ].filter(Boolean).join("; ");

function Runs({ runs }) {
  return html`<section aria-label="runs"><h2>Runs</h2><div class="scroll"><table>
    <thead><tr><th>run</th><th>steps</th><th>sources</th><th>setting</th><th /></tr></thead>
    <tbody>${runs.map((run, i) => html`<tr key=${run.folder}>
      <td><a href=${address(["run", i])}>${run.name}</a></td>
      <td class="number">${run.last_step}${run.plan.steps ? ` of ${run.plan.steps}` : ""}</td>
      <td>${run.sources.map((name) => html`<${Source} key=${name} name=${name} sources=${run.sources} />${" "}`)}</td>
      <td class="muted">${setup(run)}</td>
      <td>${run.running && html`<span class="badge live">writing</span>`}</td></tr>`)}</tbody>
  </table></div></section>`;
}

function Evaluations({ all }) {
  const splits = [...new Set(all.flatMap((one) => Object.keys(one.splits)))];
  const pairs = (i) => all.findIndex((other, j) => j > i && comparable(all[i], other)?.length);
  return html`<section aria-label="evaluations"><h2>Evaluations</h2><div class="scroll"><table>
    <thead><tr><th>evaluation</th><th>step</th>${splits.map((name) => html`<th key=${name} class="number">${inWords(name)}</th>`)}<th /></tr></thead>
    <tbody>${all.map((one, i) => {
      const next = pairs(i);
      return html`<tr key=${one.folder + one.rules}><td>${named(one)}</td><td class="number">${one.step ?? "–"}</td>
        ${splits.map((name) => html`<td key=${name} class="number">${percent(one.splits[name])}</td>`)}
        <td>${next > 0 && html`<a href=${address(["diff", i, next, comparable(one, all[next])[0]])}>compare</a>`}</td></tr>`;
    })}</tbody>
  </table></div></section>`;
}

function RunPage({ place, atFirst, rest, query, outcomes }) {
  const { run, error } = useRun(place, atFirst);
  const tab = rest[0] || (run.has_metrics || !run.groups.length ? "curves" : "groups");
  const link = (name) => html`<a href=${address(["run", place, name])} aria-current=${tab === name ? "page" : undefined}>${name}</a>`;
  return html`
    <div class="head"><h1>${run.name}</h1>
      <p class="muted">${[`step ${run.last_step}${run.plan.steps ? ` of ${run.plan.steps}` : ""}`, setup(run)].filter(Boolean).join("; ")}${" "}
        ${run.running && html`<span class="badge live">writing</span>`}</p>
      ${run.export && html`<p class="muted">${run.export}</p>`}
      <nav class="tabs" aria-label="parts of the run">${link("curves")}${link("groups")}</nav></div>
    ${error && html`<${Problem} text=${error} />`}
    ${tab === "curves"
      ? html`<${Curves} place=${place} run=${run} />`
      : html`<${Groups} key=${place} place=${place} run=${run} open=${rest.slice(1)} query=${query} outcomes=${outcomes} />`}`;
}

function Page({ start, parts, query }) {
  const [head, ...rest] = parts;
  const { runs, evaluations, outcomes } = start;
  if (head === "run" && runs[rest[0]])
    return html`<${RunPage} key=${rest[0]} place=${Number(rest[0])} atFirst=${runs[rest[0]]} rest=${rest.slice(1)} query=${query} outcomes=${outcomes} />`;
  if (head === "diff" && evaluations[rest[0]] && evaluations[rest[1]])
    return html`<div class="head"><h1>Difference</h1></div>
      <${Difference} all=${evaluations} first=${Number(rest[0])} second=${Number(rest[1])} split=${rest[2] || ""} row=${rest[3]} query=${query} />`;
  return html`${head && html`<${Problem} text="There is no such page here." />`}
    ${runs.length > 0 && html`<${Runs} runs=${runs} />`}
    ${evaluations.length > 0 && html`<${Evaluations} all=${evaluations} />`}`;
}

function App() {
  const { value: start, error } = useAnswer("start");
  const { parts, query } = useAddress();
  useEffect(() => {
    const run = start && parts[0] === "run" && start.runs[parts[1]];
    document.title = run ? `${run.name} – EKIPL viewer` : "EKIPL viewer";
  }, [start, parts.join("/")]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), document.getElementById("main").focus())}>Skip to the content</a>
    <header><a href="#/" class="brand">EKIPL viewer</a>
      ${start && html`<nav aria-label="runs">${start.runs.map((run, i) => html`<a key=${run.folder} href=${address(["run", i])}
        aria-current=${parts[0] === "run" && Number(parts[1]) === i ? "page" : undefined}>${run.name}</a>`)}</nav>`}
    </header>
    <main id="main" tabindex="-1">
      ${error ? html`<${Problem} text=${error} />` : start ? html`<${Page} start=${start} parts=${parts} query=${query} />` : html`<${Waiting} />`}
    </main>
    <footer class="muted">Texts of policies and experts are shown as they are, and are never executed. In lists, <kbd>j</kbd> and <kbd>k</kbd> go to the next and the previous one.</footer>`;
}

const app = document.getElementById("app");
app.textContent = "";
render(html`<${App} />`, app);

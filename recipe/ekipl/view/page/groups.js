// The list of groups beside the group that is open.
"use strict";
function Choice({ label, value, choices, any, onChange }) {
  return html`<label><span>${label}</span>
    <select value=${value || ""} onChange=${(event) => onChange(event.currentTarget.value)}>
      ${any && html`<option value="">${any}</option>`}
      ${Object.entries(choices).map(([key, text]) => html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`)}
    </select></label>`;
}

const asChoices = (names) => Object.fromEntries(names.map((name) => [name, name]));

function Filters({ filter, run, tasks, outcomes, onChange }) {
  const set = (key) => (value) => onChange({ ...filter, [key]: value });
  const typed = (key) => (event) => set(key)(event.currentTarget.value.trim());
  // not value=: the list is drawn anew while it loads, and would take back what is being typed
  const given = (key) => ({ key: key + (filter[key] || ""), defaultValue: filter[key] || "", onChange: typed(key) });
  const all = asChoices([...new Set([...tasks, ...(filter.task ? [filter.task] : [])])]);
  return html`<form class="filters" aria-label="filter groups" onSubmit=${(event) => event.preventDefault()}>
    <${Choice} label="Task" any="every task" value=${filter.task} choices=${all} onChange=${set("task")} />
    <${Choice} label="Outcome" any="every outcome" value=${filter.outcome} choices=${outcomes} onChange=${set("outcome")} />
    <${Choice} label="Source" any="any source" value=${filter.source} choices=${asChoices(run.sources)} onChange=${set("source")} />
    <${Choice} label="whose answer" value=${filter.fate || "any"} choices=${FATES} onChange=${(fate) => set("fate")(fate === "any" ? "" : fate)} />
    <label><span>Row</span><input type="search" placeholder="part of its id" ...${given("row")} /></label>
    <label><span>Step</span><input class="narrow" type="number" min="0" placeholder="all" ...${given("step")} /></label>
    <${Choice} label="Order" value=${filter.order || "newest"} choices=${{ newest: "newest first", oldest: "oldest first" }}
      onChange=${(order) => set("order")(order === "newest" ? "" : order)} />
  </form>`;
}

// One bar an answer: its height is the reward, filled when it was kept.
function Bars({ group, sources, most }) {
  const named = [...new Set([...sources, ...group.answers.map((answer) => answer[0])])];
  const told = named.map((name) => {
    const own = group.answers.filter((answer) => answer[0] === name);
    const count = (place) => own.filter((answer) => answer[place]).length;
    return own.length ? `${name}: ${count(3)} of ${own.length} right, ${count(2)} kept` : `${name}: no answer`;
  });
  return html`<span class="bars" role="img" aria-label=${told.join("; ")} title=${told.join("\n")}>
    ${named.map(
      (name, i) => html`<span key=${name} class=${"of s" + (i % 7)}>
        ${group.answers
          .filter((answer) => answer[0] === name)
          .map(([, reward, kept]) => html`<i class=${kept ? "kept" : ""} style=${{ height: `${3 + 15 * Math.max(0, Math.min(1, reward / most))}px` }} />`)}
      </span>`,
    )}
  </span>`;
}

function Line({ group, run, query, place, open, most }) {
  const here = useRef();
  useEffect(() => open && here.current.scrollIntoView({ block: "nearest" }), [open]);
  const to = address(["run", place, "groups", group.step, group.uid], query);
  const notable = group.outcomes.filter((name) => ["rescued", "nobody", "silent", "short"].includes(name));
  return html`<li><a ref=${here} href=${to} aria-current=${open ? "true" : undefined}>
    <span class="where"><b>step ${group.step}</b> <span class="muted">${group.data_source}</span></span>
    <${Bars} group=${group} sources=${run.sources} most=${most} />
    <span class="row muted">${group.row}</span>
    <span class="badges">${notable.map((name) => html`<span key=${name} class=${"badge " + name}>${NOTABLE[name]}</span>`)}</span>
  </a></li>`;
}

const NOTABLE = { rescued: "expert saved it", nobody: "nobody right", silent: "no gradient", short: "short" };

// Keys j and k: the next and the previous group of the list.
function useKeys(found, openUid, go) {
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      const by = { j: 1, k: -1 }[event.key];
      if (!by || !found.length) return;
      const now = found.findIndex((group) => group.uid === openUid);
      go(found[Math.max(0, Math.min(found.length - 1, now < 0 ? 0 : now + by))]);
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [found, openUid]);
}

function Groups({ place, run, open, query, outcomes }) {
  const [steps, setSteps] = useState(run.groups);
  const filter = query;
  const { found, looked, of, tasks, done, error, more } = useSearch(place, steps, filter);
  const fresh = run.groups.filter((step) => step > (steps.at(-1) ?? -1)).length;
  const [step, uid] = open;
  const go = (group) => (location.hash = address(["run", place, "groups", group.step, group.uid], query));
  const change = (next) => (location.hash = address(["run", place, "groups", ...open], next));
  const shown = uid === undefined ? found[0] : undefined; // wide screens show the first one, narrow ones the list
  useKeys(found, uid ?? shown?.uid, go);
  const most = Math.max(1, ...found.flatMap((group) => group.answers.map((answer) => answer[1])));
  return html`<section aria-label="groups" class=${"groups" + (uid === undefined ? " listed" : "")}>
    <${Filters} filter=${filter} run=${run} tasks=${tasks || []} outcomes=${outcomes} onChange=${change} />
    ${error && html`<${Problem} text=${error} />`}
    <div class="panes">
      <div class="list">
        <p class="muted note" role="status">
          ${plural(found.length, "group")}${done ? "" : " so far"}; looked at ${looked} of ${plural(of, "step")}.${" "}
          ${fresh > 0 && html`<button onClick=${() => setSteps(run.groups)}>Show ${plural(fresh, "new step")}</button>`}
        </p>
        <p class="legend">
          ${run.sources.map((name) => html`<${Source} key=${name} name=${name} sources=${run.sources} />`)}
          <span><i class="kept" /> kept</span><span><i /> dropped</span><span class="muted">height: reward</span>
        </p>
        <ol>${found.map((group) => html`<${Line} key=${group.step + group.uid} ...${{ group, run, query, place, most }}
          open=${group.uid === (uid ?? shown?.uid)} />`)}</ol>
        ${done && !found.length && html`<p class="pad">${of ? "No group matches." : "No groups are kept yet (ekipl.keep_groups)."}</p>`}
        ${!done && html`<button class="more" onClick=${more}>Look further</button>`}
      </div>
      <div class="open">
        ${uid !== undefined && html`<p class="back"><a href=${address(["run", place, "groups"], query)}>Back to the list</a></p>`}
        ${uid !== undefined && html`<${Group} key=${uid} place=${place} run=${run} step=${step} uid=${uid} outcomes=${outcomes} />`}
        ${shown && html`<${Group} key=${shown.uid} place=${place} run=${run} step=${shown.step} uid=${shown.uid} outcomes=${outcomes} />`}
      </div>
    </div>
  </section>`;
}

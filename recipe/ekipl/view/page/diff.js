// Two evaluations on the same rows.
"use strict";
const CHANGES = { any: "all rows", better: "better", worse: "worse", changed: "changed", same: "same" };
const ROWS_SHOWN = 200;

const HAS_CHANGE = {
  any: () => true,
  better: ([, , a, b]) => b > a,
  worse: ([, , a, b]) => b < a,
  changed: ([, , a, b]) => a !== b,
  same: ([, , a, b]) => a === b,
};

const named = (one) => (one.rules === "paper" ? one.name : `${one.name} (${one.rules})`);
const comparable = (one, other) => one.rules === other.rules && Object.keys(one.splits).filter((name) => name in other.splits);

function Pickers({ all, first, second, split, query }) {
  const go = (a, b, name) => (location.hash = address(["diff", a, b, name], { change: query.change }));
  const choices = Object.fromEntries(all.map((one, i) => [i, named(one)]));
  const splits = (a, b) => comparable(all[a], all[b]) || [];
  const pick = (a, b) => go(a, b, splits(a, b).includes(split) ? split : splits(a, b)[0] || "");
  return html`<form class="filters" aria-label="what is compared" onSubmit=${(event) => event.preventDefault()}>
    <${Choice} label="From" value=${String(first)} choices=${choices} onChange=${(a) => pick(Number(a), second)} />
    <${Choice} label="to" value=${String(second)} choices=${choices} onChange=${(b) => pick(first, Number(b))} />
    <${Choice} label="Split" value=${split} choices=${asChoices(splits(first, second))} onChange=${(name) => go(first, second, name)} />
    <${Choice} label="Rows" value=${query.change || "any"} choices=${CHANGES}
      onChange=${(change) => (location.hash = address(["diff", first, second, split], { change: change === "any" ? "" : change }))} />
  </form>`;
}

function Verdict({ found }) {
  const c = found.comparison;
  return html`<p>${signed(100 * c.difference, 1)} points (95 %: ${signed(100 * c.low, 1)} to ${signed(100 * c.high, 1)},
    p ${c.p < 0.001 ? "< 0.001" : "= " + fixed(c.p, 3)}) on ${plural(c.rows, "row")}: <b>${c.better} better</b>, <b>${c.worse} worse</b>.
    ${found.left_out > 0 && html` <span class="muted">${plural(found.left_out, "row")} that only one of them has: left out.</span>`}
    ${found.export && html` <span class="muted">${found.export}</span>`}</p>`;
}

function Side({ title, answers }) {
  return html`<section aria-label=${title}>
    <h3>${title}</h3>
    <ol>${answers.map(
      (answer) => html`<li key=${answer.sample} class="card">
        <p class="fate"><b>${fixed(answer.score)}</b> <span class="muted">format ${fixed(answer.format, 0)}${answer.pieces && html`, ${plural(answer.tokens ?? 0, "token")}, ${inWords(answer.status || "")}`}</span></p>
        ${answer.pieces
          ? html`<div class="said" dir="auto" tabindex="0">${answer.pieces.map(([text, only]) => html`<span class=${only}>${text}</span>`)}</div>`
          : html`<p class="muted note">Only its score is kept here, not its text.</p>`}
      </li>`,
    )}</ol>
  </section>`;
}

function BothSides({ path, names }) {
  const { value, error } = useAnswer(path);
  if (error) return html`<${Problem} text=${error} />`;
  if (!value) return html`<${Waiting} />`;
  return html`<article aria-label="both answers">
    <h2><span class="code">${value.row}</span> <span class="muted">${value.data_source}</span></h2>
    <${Question} row=${value} />
    <div class="columns two">${value.sides.map((side, i) => html`<${Side} key=${i} title=${names[i]} answers=${side} />`)}</div>
    ${value.sides.every((side) => side.every((answer) => answer.pieces)) && html`<p class="muted note">Marked: what only this side says.</p>`}
  </article>`;
}

function Difference({ all, first, second, split, row, query }) {
  const splits = comparable(all[first], all[second]) || [];
  const valid = splits.includes(split);
  const { value, error } = useAnswer(valid ? "diff/" + inPath(first, second, split) : null);
  const rows = useMemo(() => (value ? value.rows.filter(HAS_CHANGE[query.change] || HAS_CHANGE.any) : []), [value, query.change]);
  const open = row ?? rows[0]?.[0];
  const go = (group) => (location.hash = address(["diff", first, second, split, group.uid], query));
  useKeys(useMemo(() => rows.map(([uid]) => ({ uid })), [rows]), open, go);
  return html`<section class=${"groups" + (row === undefined ? " listed" : "")} aria-label="difference">
    <${Pickers} ...${{ all, first, second, split, query }} />
    ${!valid && html`<p class="pad">These two share no split under the same rules.</p>`}
    ${error && html`<${Problem} text=${error} />`}
    ${valid && !value && !error && html`<${Waiting} />`}
    ${value && html`<${Verdict} found=${value} />
      <div class="panes">
        <div class="list"><ol>${rows.slice(0, ROWS_SHOWN).map(([id, truth, a, b]) => html`<li key=${id}>
            <a href=${address(["diff", first, second, split, id], query)} aria-current=${id === open ? "true" : undefined}>
              <span class="where"><span class=${b > a ? "right" : b < a ? "wrong" : "muted"}>${fixed(a)} ${b > a ? "↗" : b < a ? "↘" : "→"} ${fixed(b)}</span></span>
              <span class="row muted">${id}</span></a></li>`)}</ol>
          ${rows.length > ROWS_SHOWN && html`<p class="muted note">${rows.length - ROWS_SHOWN} more: filter, or give a row in the address.</p>`}
          ${!rows.length && html`<p class="pad">No such row.</p>`}</div>
        <div class="open">
          ${row !== undefined && html`<p class="back"><a href=${address(["diff", first, second, split], query)}>Back to the list</a></p>`}
          ${open !== undefined && html`<${BothSides} key=${open} path=${"diff/" + inPath(first, second, split, open)} names=${[named(all[first]), named(all[second])]} />`}
        </div>
      </div>`}
  </section>`;
}

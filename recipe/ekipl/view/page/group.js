// One group: the question with its pictures, and all answers side by side, a column a source.
"use strict";
const PLAIN_PARTS = ["score", "reason", "task", "acc", "parsed"]; // said elsewhere on the card

// Tags of the answer format stand out; every piece stays text.
function Said({ text }) {
  const pieces = text.split(/(<\/?(?:think|answer)>)/);
  let inside = "";
  return html`<div class="said" dir="auto" tabindex="0">${pieces.map((piece) => {
    const tag = /^<(\/?)(think|answer)>$/.exec(piece);
    if (tag) inside = tag[1] ? "" : tag[2];
    return html`<span class=${tag ? "tag" : inside}>${piece}</span>`;
  })}</div>`;
}

function Parts({ parts }) {
  const shown = Object.entries(parts).filter(([name, value]) => !PLAIN_PARTS.includes(name) && value !== "");
  const why = parts.reason;
  return html`<dl class="parts">
    ${shown.map(([name, value]) => html`<div key=${name}><dt>${inWords(name)}</dt><dd>${typeof value === "number" ? fixed(value) : value}</dd></div>`)}
    ${parts.parsed !== undefined && parts.parsed !== "" && html`<div><dt>read as</dt><dd class="code">${parts.parsed}</dd></div>`}
    ${why && html`<div><dt>why not full</dt><dd>${inWords(String(why))}</dd></div>`}
  </dl>`;
}

function Card({ answer, weights }) {
  const fate = answer.kept ? "kept" : `dropped: ${inWords(answer.dropped || "no reason given")}`;
  return html`<li class=${"card " + (answer.kept ? "kept" : "dropped")}>
    <p class="fate"><b>${fate}</b> <span class=${answer.right ? "right" : "wrong"}>${answer.right ? "✓ right" : "✗ not right"}</span></p>
    <dl class="numbers">
      <div><dt>reward</dt><dd>${fixed(answer.score)}</dd></div>
      <div title="what the policy gradient multiplies this answer's tokens with"><dt>advantage</dt><dd>${answer.kept ? signed(answer.advantage) : "–"}</dd></div>
      <div title=${`importance weight; ekipl.weights.mode: ${weights}`}><dt>weight</dt><dd>${answer.kept ? fixed(answer.weight) : "–"}</dd></div>
      <div><dt>tokens</dt><dd>${answer.length}</dd></div>
    </dl>
    <${Parts} parts=${answer.parts} />
    <${Said} text=${answer.text} />
  </li>`;
}

// Never judged: cut off, refused, empty, too long, or with a token that no text may hold.
function Unusable({ answer }) {
  return html`<li class="card dropped">
    <p class="fate"><b>not judged: ${inWords(answer.reason)}</b></p>
    <${Said} text=${answer.text} />
  </li>`;
}

function Question({ row }) {
  return html`<div class="question">
    <div class="pictures">${(row.pictures || []).map((url, i) => html`<img key=${i} src=${url} alt=${`picture ${i + 1} of the question`} />`)}</div>
    <div>
      ${row.missing && html`<p class="muted">No picture: ${row.missing}.</p>`}
      <div class="said" dir="auto">${row.question}</div>
      <p class="truth">Right is <b class="code">${String(row.truth)}</b></p>
    </div>
  </div>`;
}

function Rule({ group, run }) {
  const rule = run.advantage;
  const learned = group.learned && " Advantages and weights are those of the update.";
  if (!rule) return html`<p class="muted">${learned || "Advantages are not shown: nothing here says how they were made."}</p>`;
  const over = { selected: "the kept answers", all: "all answers", policy_only: "the policy's answers" };
  const mean = fixed(group.statistics[rule.baseline][0], 3);
  const std = rule.std === "none" ? null : fixed(group.statistics[rule.std][1], 3);
  return html`<p class="muted">Advantage = (reward − ${mean})${std && ` / ${std}`}: mean over ${over[rule.baseline]}
    ${std && `, standard deviation over ${over[rule.std]}`}${rule.papers && " (the paper's, Eq. 1)"}.${learned}</p>`;
}

function Group({ place, run, step, uid, outcomes }) {
  const { value: group, error } = useAnswer("runs/" + inPath(place, "groups", step, uid));
  if (error) return html`<${Problem} text=${error} />`;
  if (!group) return html`<${Waiting} />`;
  const unusable = group.unusable || [];
  const sources = [...new Set([...run.sources, ...[...group.answers, ...unusable].map((answer) => answer.source)])];
  const kept = group.answers.filter((answer) => answer.kept).length;
  return html`<article aria-label=${`group of step ${group.step}`}>
    <h2>Step ${group.step} <span class="muted">${group.data_source}</span></h2>
    <p class="muted"><span class="code">${String(group.row)}</span>; ${kept} of ${plural(group.answers.length, "answer")} kept;${" "}
      <a href=${address(["run", place, "groups"], { row: group.row })}>this row at other steps</a></p>
    <${Question} row=${group} />
    <${Rule} group=${group} run=${run} />
    <div class="columns">${sources.map((name) => {
      const own = group.answers.filter((answer) => answer.source === name);
      const right = own.filter((answer) => answer.right).length;
      return html`<section key=${name} aria-label=${name}>
        <h3><${Source} name=${name} sources=${sources} /> <span class="muted">${own.length ? `${right} of ${own.length} right` : "no answer"}</span></h3>
        <ol>${own.map((answer, i) => html`<${Card} key=${i} answer=${answer} weights=${run.weights} />`)}
          ${unusable.filter((answer) => answer.source === name).map((answer, i) => html`<${Unusable} key=${i} answer=${answer} />`)}</ol>
      </section>`;
    })}</div>
  </article>`;
}

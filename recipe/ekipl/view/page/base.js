// What every part of the page uses: templates, questions to the server, addresses.
// A string in a template becomes a text node, whatever is in it; nothing here makes HTML from text.
"use strict";
const { h, render } = preact;
const { useState, useEffect, useRef, useMemo, useCallback } = preactHooks;
const html = htm.bind(h);

const exported = document.getElementById("exported");
const answers = exported && JSON.parse(exported.textContent); // path -> answer; an export has no server

async function ask(path) {
  if (answers) {
    if (!(path in answers)) throw new Error("this export does not hold it");
    return answers[path];
  }
  let reply;
  try {
    reply = await fetch("api/" + path);
  } catch {
    throw new Error("the viewer does not answer any more; start it again and reload this page");
  }
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

const inPath = (...words) => words.map((word) => encodeURIComponent(word)).join("/");

// {value, error} of a question; `again` (any number) asks once more and keeps the old value on the way
function useAnswer(path, again = 0) {
  const [state, set] = useState({});
  useEffect(() => {
    let wanted = true;
    if (path !== null)
      ask(path).then(
        (value) => wanted && set({ path, value }),
        (error) => wanted && set({ path, error: error.message }),
      );
    return () => (wanted = false);
  }, [path, again]);
  return state.path === path ? state : {};
}

// Addresses: #/run/0/groups/12/<uid>?task=trance. {parts, query}
function readAddress() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return word;
  }
}

function address(parts, query = {}) {
  const said = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
  return "#/" + inPath(...parts) + (said.length ? "?" + new URLSearchParams(said) : "");
}

function useAddress() {
  const [now, set] = useState(readAddress());
  useEffect(() => {
    const look = () => set(readAddress());
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  }, []);
  return now;
}

// Changes with the theme: what is drawn on a canvas must be drawn again.
function useTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const [now, set] = useState(dark.matches);
  useEffect(() => {
    const look = () => set(dark.matches);
    dark.addEventListener("change", look);
    return () => dark.removeEventListener("change", look);
  }, []);
  return now ? "dark" : "light";
}

const fixed = (value, digits = 2) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));
const signed = (value, digits = 2) =>
  value === null || value === undefined ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const percent = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1) + " %");
const plural = (count, one, many = one + "s") => `${count} ${count === 1 ? one : many}`;
const inWords = (name) => name.replaceAll("_", " ");

const Problem = ({ text }) => html`<p class="problem" role="alert">${text}</p>`;
const Waiting = () => html`<p class="muted pad" role="status">reading …</p>`;

// Each source has a colour and a mark of its own: colour alone says nothing to some, and nothing in print.
const MARKS = ["●", "▲", "■", "◆", "▼", "✚", "★"];
function Source({ name, sources }) {
  const place = Math.max(sources.indexOf(name), 0);
  return html`<span class=${"source s" + (place % 7)}><span aria-hidden="true">${MARKS[place % 7]}</span> ${name}</span>`;
}

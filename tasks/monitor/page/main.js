"use strict";
// The page: which dashboard, which time, how often anew; all of it stands in the address.

const SETUP = JSON.parse(document.getElementById("setup").textContent);
const RANGES = {"5m": 300, "15m": 900, "1h": 3600, "6h": 21600, "1d": 86400, "7d": 604800};
const PAUSES = {off: 0, "5s": 5, "10s": 10, "30s": 30, "1m": 60};
const DRAW = {timeseries: drawLines, stat: drawFigure, bargauge: drawBars};

const page = (name) => document.getElementById(name);
let state = {}, cards = [], pending = new AbortController(), timer = 0;

function readAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const board = SETUP.boards.find((each) => each.uid === given.board) || SETUP.boards[0];
  const chosen = {};
  for (const each of board.choices) chosen[each.label] = given[each.label] || "";
  const pick = (options, name, otherwise) => (Object.hasOwn(options, given[name]) ? given[name] : otherwise);
  state = {board, range: pick(RANGES, "range", "1h"), pause: pick(PAUSES, "refresh", "30s"), chosen};
}

function writeAddress(changes) {
  const all = {board: state.board.uid, range: state.range, refresh: state.pause, ...state.chosen, ...changes};
  const kept = Object.entries(all).filter(([, value]) => value);
  location.hash = new URLSearchParams(kept).toString();
}

function spanNow() {
  const lengthS = RANGES[state.range];
  const step = Math.max(5, Math.ceil(lengthS / 240 / 5) * 5);
  const to = Math.floor(Date.now() / 1000 / step) * step;
  return {from: to - lengthS, to, step};
}

// --- the frame

function buttons(place, names, current, kind) {
  place.replaceChildren(...names.map(([name, text]) => {
    const found = html("button", "", text);
    found.type = "button";
    found.setAttribute("aria-pressed", String(name === current));
    found.addEventListener("click", () => writeAddress(kind(name)));
    return found;
  }));
}

function build() {
  const {board} = state;
  document.body.dataset.state = "loading";
  document.title = board.title;
  page("about").textContent = board.description;
  const names = SETUP.boards.map((each) => [each.uid, each.title.replace("Gaia / ", "")]);
  // The choices of one dashboard mean nothing to another.
  buttons(page("boards"), names, board.uid, (uid) => ({...Object.fromEntries(board.choices.map((each) => [each.label, ""])), board: uid}));
  buttons(page("ranges"), Object.keys(RANGES).map((each) => [each, each]), state.range, (range) => ({range}));
  options(page("refresh"), Object.keys(PAUSES).map((each) => [each, each === "off" ? "no refresh" : `every ${each}`]), state.pause);
  page("choices").replaceChildren(...board.choices.map(choiceOf));
  cards = board.panels.map(cardOf);
  page("panels").replaceChildren(...cards.map((each) => each.element));
}

function options(select, entries, current) {
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, value === current)));
}

function choiceOf(choice) {
  const select = html("select");
  const current = state.chosen[choice.label];
  options(select, [["", "all"], ...(current ? [[current, current]] : [])], current);
  select.addEventListener("change", () => writeAddress({[choice.label]: select.value}));
  select.id = `choice-${choice.label}`;
  return html("label", "", choice.title, select);
}

async function fillChoice(choice) {
  const {signal} = pending, current = state.chosen[choice.label];
  try {
    const found = new Set([...await valuesOf(choice, spanNow(), signal), ...(current ? [current] : [])]);
    options(page(`choice-${choice.label}`), [["", "all"], ...[...found].map((each) => [each, each])], current);
  } catch {
    // The panels say what is wrong.
  }
}

function cardOf(panel) {
  if (panel.type === "row") return {panel, element: html("h2", "", panel.title)};
  const about = html("span", "about", "i");
  about.title = panel.description;
  const place = html("div", `place ${panel.type}`, html("p", "state", "loading"));
  const below = html("div", "below");
  const element = html("section", `panel ${panel.type}`, html("h3", "", panel.title, about), place, below);
  element.dataset.state = "loading";
  element.style.gridColumn = `span ${panel.width}`;
  return {panel, element, place, below};
}

// --- the figures

async function refresh() {
  pending.abort();
  pending = new AbortController();
  const {signal} = pending, span = spanNow();
  clearTimeout(timer);
  const chosen = Object.fromEntries(Object.entries(state.chosen).map(([name, value]) => [name, value ? literal(value) : ".+"]));
  const failures = [];
  await Promise.all(cards.filter((each) => each.place).map(async (card) => {
    try {
      card.series = await seriesOf(card.panel, span, chosen, signal);
      card.span = span;
      show(card);
    } catch (failure) {
      if (signal.aborted) return;
      failures.push(failure);
      say(card, "failed", failure.message);
    }
  }));
  if (signal.aborted) return;
  tell(failures.find((each) => each instanceof Refused) || failures[0]);
  if (PAUSES[state.pause]) timer = setTimeout(() => (document.hidden ? waitForEyes() : refresh()), PAUSES[state.pause] * 1000);
}

function waitForEyes() {
  document.addEventListener("visibilitychange", refresh, {once: true});
}

function show(card) {
  if (!card.series.length) {
    say(card, "empty", "no data in this time");
    return;
  }
  card.below.replaceChildren(...(card.panel.type === "timeseries" ? [legendOf(card.panel, card.series)] : []));
  DRAW[card.panel.type](card.place, card.panel, card.series, card.span);
  card.element.dataset.state = "drawn";
}

function say(card, state_, text) {
  card.element.dataset.state = state_;
  card.series = [];
  card.place.replaceChildren(html("p", "state", text));
  card.below.replaceChildren();
}

function tell(failure) {
  const place = page("said");
  page("login").hidden = !(failure instanceof Refused);
  document.body.dataset.state = failure ? "failed" : "shown";
  place.textContent = failure ? failure.message : `as of ${new Date().toLocaleTimeString()}, from ${SETUP.asked}`;
}

function start() {
  readAddress();
  build();
  refresh();
  state.board.choices.forEach(fillChoice);
}

let redraw = 0;
addEventListener("resize", () => {
  cancelAnimationFrame(redraw);
  redraw = requestAnimationFrame(() => cards.filter((each) => each.series && each.series.length).forEach(show));
});
addEventListener("hashchange", start);
page("refresh").addEventListener("change", (event) => writeAddress({refresh: event.target.value}));
page("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = page("token").value;
  try {
    sessionStorage.setItem("token", token);
  } catch {
    // Without storage it is asked for again when the page is loaded anew.
  }
  start();
});
try {
  token = sessionStorage.getItem("token") || "";
} catch {
  token = ""; // a page from a file may have no storage
}
start();

"use strict";
// Asking Prometheus: a few questions at once, with the token if one is needed.

const AT_ONCE = 4;
const BOUND_MS = 20000;
const SCRAPE_S = 15;

let token = "";
let asking = 0;
const waiting = [];

class Refused extends Error {}

async function ask(path, fields, signal) {
  if (asking >= AT_ONCE) await new Promise((go) => waiting.push(go));
  asking += 1;
  try {
    return await answer(`${SETUP.prometheus}/api/v1/${path}?${new URLSearchParams(fields)}`, signal);
  } finally {
    asking -= 1;
    if (waiting.length) waiting.shift()();
  }
}

async function answer(address, signal) {
  const bound = AbortSignal.any([signal, AbortSignal.timeout(BOUND_MS)]);
  const headers = token ? {Authorization: `Bearer ${token}`} : {};
  let reply;
  try {
    reply = await fetch(address, {headers, signal: bound, credentials: "omit", redirect: "error"});
  } catch (failure) {
    if (signal.aborted) throw failure;
    const late = failure.name === "TimeoutError";
    throw new Error(late ? `no answer within ${BOUND_MS / 1000} s` : `${SETUP.asked} cannot be reached`);
  }
  if (reply.status === 401) throw new Refused("a token is needed");
  let said;
  try {
    said = await reply.json();
  } catch {
    throw new Error(`${SETUP.asked} answered what no Prometheus says (status ${reply.status})`);
  }
  if (!said || said.status !== "success" || !said.data || !Array.isArray(said.data.result)) {
    throw new Error(String((said && said.error) || `${SETUP.asked} answered what no Prometheus says`).slice(0, 300));
  }
  return said.data.result;
}

// --- expressions

function filled(expr, span, chosen) {
  const rateS = Math.max(4 * SCRAPE_S, span.step + SCRAPE_S);
  const known = {__rate_interval: `${rateS}s`, __range: `${Math.round(span.to - span.from)}s`, ...chosen};
  return expr.replace(/\$(\w+)/g, (whole, name) => (name in known ? known[name] : whole));
}

function literal(text) {
  // For a regular expression within a string of PromQL.
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&").replace(/\\/g, "\\\\").replace(/"/g, '\\"');
}

function named(legend, labels) {
  const found = legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] || "").trim();
  return found || (legend ? "none" : Object.values(labels).join(" ") || "value");
}

async function seriesOf(panel, span, chosen, signal) {
  const answers = await Promise.all(panel.targets.map((target) => {
    const query = filled(target.expr, span, chosen);
    const fields = target.instant ? {query, time: span.to} : {query, start: span.from, end: span.to, step: span.step};
    return ask(target.instant ? "query" : "query_range", fields, signal);
  }));
  const found = answers.flatMap((result, number) => result.map((each) => ({
    name: named(panel.targets[number].legend, each.metric || {}),
    points: (each.values || [each.value]).map(([at, value]) => [at, Number(value)]).filter((point) => Number.isFinite(point[1])),
  })));
  const some = found.filter((each) => each.points.length);
  return some.map((each, number) => ({...each, colour: COLOURS[number % COLOURS.length]}));
}

async function valuesOf(choice, span, signal) {
  const result = await ask("query", {query: `group by (${choice.label}) (${choice.metric})`, time: span.to}, signal);
  return result.map((each) => each.metric[choice.label] || "").filter(Boolean).sort();
}

"use strict";
// Numbers as people read them, by Grafana's names of units.

const DECIMAL = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"]];
const BINARY = [[2 ** 40, "Ti"], [2 ** 30, "Gi"], [2 ** 20, "Mi"], [2 ** 10, "Ki"], [1, ""]];
const TIMES = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"], [1e-6, "µs"]];

const UNITS = {
  s: (value) => (value === 0 ? "0 s" : scaled(value, TIMES, "")),
  bytes: (value) => scaled(value, BINARY, "B"),
  Bps: (value) => scaled(value, DECIMAL.slice(0, 5), "B/s"),
  percentunit: (value) => `${digits(value * 100)} %`,
  ops: (value) => scaled(value, DECIMAL.slice(0, 5), "/s"),
  reqps: (value) => scaled(value, DECIMAL.slice(0, 5), "/s"),
  short: (value) => scaled(value, DECIMAL.slice(0, 5), ""),
  x: (value) => `${digits(value)} ×`,
};

function formatted(value, unit) {
  if (!Number.isFinite(value)) return "–";
  return (UNITS[unit] || UNITS.short)(value);
}

function scaled(value, scale, ending) {
  if (value === 0) return ending ? `0 ${ending}` : "0";
  const [factor, prefix] = scale.find(([each]) => Math.abs(value) >= each) || scale[scale.length - 1];
  const unit = prefix + ending;
  return unit ? `${digits(value / factor)} ${unit}` : digits(value / factor);
}

function digits(value) {
  const size = Math.abs(value);
  const places = size === 0 || size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.01 ? 3 : 5;
  return String(Number(value.toFixed(places)));
}

function clock(seconds, spanS) {
  const at = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
  if (spanS > 2 * 86400) return `${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
  return spanS <= 900 ? `${time}:${two(at.getSeconds())}` : time;
}

// --- ticks

function niceStep(span, most, bases) {
  const raw = span / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const base = bases.find((each) => each * power >= raw) || 10;
  return base * power;
}

function ticksOf(top, unit, whole) {
  if (unit === "bytes" && top >= 1024) {
    const power = 1024 ** Math.floor(Math.log(top) / Math.log(1024));
    return steps(niceStep(top / power, 4, [1, 2, 2.5, 5, 10]) * power, top);
  }
  const step = niceStep(top, 4, [1, 2, 2.5, 5, 10]);
  return steps(whole ? Math.max(1, Math.ceil(step)) : step, top);
}

function steps(step, top) {
  return Array.from({length: Math.floor(top / step + 1e-9) + 1}, (_, number) => number * step);
}

const TIME_STEPS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800];

function timeTicks(from, to, most) {
  const step = TIME_STEPS.find((each) => (to - from) / each <= most) || 604800;
  const shift = new Date(from * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= to; at += step) found.push(at);
  return found;
}

"use strict";
// Charts as SVG. Every text comes in as text, never as markup.

const COLOURS = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#06b6d4", "#ec4899", "#84cc16", "#f97316", "#14b8a6",
  "#a855f7", "#64748b"];
const STATES = {green: "#16a34a", orange: "#ea8a0b", red: "#dc2626"};
const LEGEND_MOST = 12;

function svg(name, attributes, ...children) {
  const found = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  found.append(...children);
  return found;
}

function html(name, kind, ...children) {
  const found = document.createElement(name);
  if (kind) found.className = kind;
  found.append(...children);
  return found;
}

function colourOf(value, steps) {
  const passed = steps.filter((each) => each.value === null || value >= each.value);
  return STATES[passed.length ? passed[passed.length - 1].color : "green"] || STATES.green;
}

// --- lines

function drawLines(place, panel, series, span) {
  const width = Math.max(place.clientWidth, 160), height = Math.max(place.clientHeight, 90);
  const stacked = panel.stacked ? stack(series, span) : series;
  const top = topOf(panel, stacked);
  const whole = panel.unit === "short" && series.every((each) => each.points.every((point) => Number.isInteger(point[1])));
  const ticks = ticksOf(top, panel.unit, whole);
  const left = 12 + 6.2 * Math.max(...ticks.map((each) => formatted(each, panel.unit).length));
  const box = {left, top: 8, right: width - 10, bottom: height - 20};
  const x = (at) => box.left + ((at - span.from) / (span.to - span.from)) * (box.right - box.left);
  const y = (value) => box.bottom - (Math.max(0, value) / top) * (box.bottom - box.top);
  const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": panel.title});
  for (const each of ticks) {
    picture.append(svg("line", {x1: box.left, x2: box.right, y1: y(each), y2: y(each), class: "grid"}));
    picture.append(svg("text", {x: box.left - 6, y: y(each) + 3.5, class: "tick end"}, formatted(each, panel.unit)));
  }
  for (const at of timeTicks(span.from, span.to, Math.max(2, Math.floor(width / 90)))) {
    if (x(at) < 30 || x(at) > width - 30) continue; // its text would be cut off
    picture.append(svg("text", {x: x(at), y: height - 5, class: "tick middle"}, clock(at, span.to - span.from)));
  }
  // Lines that are no parts of a whole and lie over each other would only mix the colours of their areas.
  const opacity = panel.stacked ? 0.28 : series.length === 1 ? 0.08 : 0;
  for (const each of [...stacked].reverse()) picture.append(...lineOf(each, opacity, x, y, span));
  for (const each of panel.steps.filter((step) => step.value !== null && step.value > 0 && step.value <= top)) {
    const line = {x1: box.left, x2: box.right, y1: y(each.value), y2: y(each.value), class: "threshold"};
    picture.append(svg("line", {...line, stroke: STATES[each.color]}));
  }
  place.replaceChildren(picture);
  hover(place, picture, panel, series, span, box, x);
}

function topOf(panel, stacked) {
  const highest = Math.max(0, ...stacked.flatMap((each) => each.points.map((point) => point[1])));
  const wanted = panel.most === null ? highest : Math.min(panel.most, highest);
  const bound = panel.steps.map((each) => each.value).find((value) => value > 0);
  return (wanted || bound || 1) * 1.08;
}

function stack(series, span) {
  const below = new Map();
  return series.map((each) => {
    const points = each.points.map(([at, value]) => {
      const key = Math.round((at - span.from) / span.step), base = below.get(key) || 0;
      below.set(key, base + value);
      return [at, base + value, base];
    });
    return {...each, points};
  });
}

function lineOf(series, opacity, x, y, span) {
  const pieces = [];
  for (const point of series.points) {
    const last = pieces.length && pieces[pieces.length - 1];
    if (last && point[0] - last[last.length - 1][0] < span.step * 1.5) last.push(point);
    else pieces.push([point]);
  }
  const text = (points, at) => points.map((each) => `${x(each[0]).toFixed(1)},${y(at(each)).toFixed(1)}`).join(" ");
  return pieces.flatMap((points) => {
    if (points.length === 1) {
      return [svg("circle", {cx: x(points[0][0]), cy: y(points[0][1]), r: 1.8, fill: series.colour})];
    }
    const line = text(points, (each) => each[1]);
    const base = text([...points].reverse(), (each) => each[2] || 0);
    const drawn = svg("polyline", {points: line, class: "line", stroke: series.colour});
    const area = {points: `${line} ${base}`, fill: series.colour, "fill-opacity": opacity};
    return opacity ? [svg("polygon", area), drawn] : [drawn];
  });
}

function hover(place, picture, panel, series, span, box, x) {
  const rule = svg("line", {y1: box.top, y2: box.bottom, class: "rule", visibility: "hidden"});
  const note = html("div", "note");
  note.hidden = true;
  picture.append(rule);
  place.append(note);
  picture.addEventListener("pointermove", (event) => {
    const share = (event.offsetX - box.left) / (box.right - box.left);
    const at = span.from + Math.round((share * (span.to - span.from)) / span.step) * span.step;
    const near = series.map((each) => [each, each.points.find((point) => Math.abs(point[0] - at) < span.step / 2)]);
    const found = near.filter(([, point]) => point).sort((a, b) => b[1][1] - a[1][1]);
    rule.setAttribute("visibility", found.length ? "visible" : "hidden");
    note.hidden = !found.length;
    if (!found.length) return;
    for (const end of ["x1", "x2"]) rule.setAttribute(end, x(at));
    const rows = found.slice(0, LEGEND_MOST).map(([each, point]) => entry(each, formatted(point[1], panel.unit)));
    note.replaceChildren(html("b", "", new Date(at * 1000).toLocaleString()), ...rows);
    note.style.left = `${Math.min(Math.max(event.offsetX + 14, 0), Math.max(0, place.clientWidth - note.offsetWidth - 4))}px`;
    note.style.top = `${box.top}px`;
  });
  picture.addEventListener("pointerleave", () => {
    rule.setAttribute("visibility", "hidden");
    note.hidden = true;
  });
}

function entry(series, value) {
  const mark = html("i", "mark");
  mark.style.background = series.colour;
  return html("span", "entry", mark, html("span", "name", series.name), html("span", "value", value));
}

function legendOf(panel, series) {
  const found = html("div", "legend");
  for (const each of series.slice(0, LEGEND_MOST)) found.append(entry(each, formatted(lastOf(each), panel.unit)));
  if (series.length > LEGEND_MOST) found.append(html("span", "entry", `and ${series.length - LEGEND_MOST} more`));
  return found;
}

function lastOf(series) {
  return series.points.length ? series.points[series.points.length - 1][1] : NaN;
}

// --- one number, and bars

function drawFigure(place, panel, series, span) {
  const value = lastOf(series[0]);
  const big = html("div", "figure", formatted(value, panel.unit));
  const colour = colourOf(value, panel.steps);
  big.style.color = colour;
  const points = series[0].points, width = 200, height = 36;
  const top = Math.max(...points.map((each) => Math.abs(each[1]))) || 1;
  const x = (at) => ((at - span.from) / (span.to - span.from)) * width;
  const y = (given) => height - 2 - (Math.max(0, given) / top) * (height - 6);
  const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "spark"});
  picture.append(...lineOf({points, colour}, 0.28, x, y, span));
  place.replaceChildren(big, picture);
}

function drawBars(place, panel, series) {
  const top = panel.most || Math.max(...series.map(lastOf).filter(Number.isFinite), 0) || 1;
  const sorted = [...series].sort((a, b) => lastOf(b) - lastOf(a));
  const rows = sorted.slice(0, 10).map((each) => {
    const value = lastOf(each), bar = html("i", "bar");
    bar.style.width = `${Math.max(0.5, Math.min(100, (value / top) * 100))}%`;
    bar.style.background = panel.steps.length > 1 ? colourOf(value, panel.steps) : COLOURS[0];
    const track = html("span", "track", bar);
    return html("div", "row", html("span", "name", each.name), track, html("span", "value", formatted(value, panel.unit)));
  });
  if (sorted.length > 10) rows.push(html("div", "more", `and ${sorted.length - 10} more`));
  place.replaceChildren(html("div", "bars", ...rows));
}

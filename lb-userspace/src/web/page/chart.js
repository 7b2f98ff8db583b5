// Charts as SVG: lines over time, each with its own dash, and the ring as a band.

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 3", "2 2 6 2", "1 4", "6 6", "3 1"];
const HEIGHT = 180;
const LEFT = 46;
const BOTTOM = 20;
const NOBODY = 65535;

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function figure(title, note, ...content) {
  const small = document.createElement("small");
  small.textContent = note;
  const caption = document.createElement("figcaption");
  caption.append(title, " ", small);
  const figure = document.createElement("figure");
  figure.append(caption, ...content);
  return figure;
}

const colour = (n) => n % 10;

/** As wide as there is room for, so that letters keep their size. */
const room = () => Math.max(280, Math.min(560, document.documentElement.clientWidth - 56));

/** How a backend's line looks. */
export function key(n) {
  const line = draw("line", { x1: 0, y1: 4, x2: 30, y2: 4, class: `line s${colour(n)}`, "stroke-dasharray": DASHES[n % 10] });
  return draw("svg", { class: "key", viewBox: "0 0 30 8", "aria-hidden": "true" }, line);
}

/** The next number of the kind 1, 2, 5 times a power of ten. */
function round(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value * 0.999);
}

/** A path through what is known; gaps stay gaps. */
function path(at, values, x, y, gap) {
  let d = "";
  let before = null;
  values.forEach((value, n) => {
    if (value === null || value === undefined) return;
    const joins = before !== null && at[n] - before <= gap;
    d += `${joins ? "L" : "M"}${x(at[n]).toFixed(1)} ${y(value).toFixed(1)}`;
    // A point by itself is a short stroke, or nobody would see it.
    if (!joins) d += "h.1";
    before = at[n];
  });
  return d;
}

/** Lines over time. */
export function chart({ title, unit, at, names, values, intent, from, until, events, gap, scale = 1 }) {
  const inside = (n) => at[n] >= from - gap && at[n] <= until;
  const seen = [...values, ...(intent ?? [])].flatMap((line) => line.filter((value, n) => value !== null && inside(n)));
  const width = room();
  const top = round(scale * Math.max(0, ...seen));
  const x = (ms) => LEFT + ((width - LEFT - 4) * (ms - from)) / (until - from);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - 8) * scale * value) / top;
  const parts = [];
  for (const part of [0, 0.5, 1]) {
    const level = y((part * top) / scale);
    parts.push(draw("line", { x1: LEFT, x2: width - 4, y1: level, y2: level, class: "grid" }));
    parts.push(draw("text", { x: LEFT - 5, y: level + 4, "text-anchor": "end" }, `${Number((part * top).toPrecision(3))} ${part === 1 ? unit : ""}`.trim()));
  }
  const [begin, end] = until - from > 2 * 86400e3 ? [5, 10] : until - from < 600e3 ? [11, 19] : [11, 16];
  for (const part of width < 400 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]) {
    const time = new Date(from + part * (until - from)).toISOString();
    const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
    parts.push(draw("text", { x: x(from + part * (until - from)), y: HEIGHT - 4, "text-anchor": anchor }, time.slice(begin, end)));
  }
  for (const event of events) {
    if (event.at_ms < from || event.at_ms > until) continue;
    const words = draw("title", {}, `${new Date(event.at_ms).toISOString().slice(11, 19)} ${event.message}`);
    parts.push(draw("line", { x1: x(event.at_ms), x2: x(event.at_ms), y1: 4, y2: HEIGHT - BOTTOM, class: `event ${event.level}` }, words));
  }
  const clip = `c${title.replace(/\W/g, "")}`;
  const frame = draw("clipPath", { id: clip }, draw("rect", { x: LEFT, y: 0, width: width - LEFT, height: HEIGHT }));
  const lines = draw("g", { "clip-path": `url(#${clip})` });
  (intent ?? []).forEach((line, n) => lines.append(draw("path", { d: path(at, line, x, y, gap), class: `intent s${colour(n)}`, "stroke-dasharray": "1 3" })));
  values.forEach((line, n) => {
    const words = draw("title", {}, names[n]);
    lines.append(draw("path", { d: path(at, line, x, y, gap), class: `line s${colour(n)}`, "stroke-dasharray": DASHES[n % 10] }, words));
  });
  const now = values.map((line, n) => {
    const last = line.findLast((value) => value !== null && value !== undefined);
    return `${names[n]} ${last === undefined ? "unknown" : `${(scale * last).toFixed(1)} ${unit}`}`;
  });
  const words = `${title} over time; at the end: ${now.join(", ")}`;
  const note = intent ? "observed, and thin as intended" : "by backend";
  return figure(title, note, draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": words }, frame, ...parts, lines));
}

/** The ring: whose each slot is, all in one band, and each backend's in a row of its own; below, where new
 * connections fall. */
export function band(service, owners) {
  const names = service.backends.map((backend) => backend.name);
  const width = room();
  const row = Math.max(4, Math.min(14, 130 / Math.max(1, names.length)));
  const heat = service.heat ?? [];
  const below = 46 + row * names.length;
  const height = below + (heat.length ? 34 : 0);
  const left = 70;
  const cell = (width - left - 4) / Math.max(1, owners.length);
  const parts = [];
  // Neighbours of one owner are one rectangle.
  for (let n = 0, next; n < owners.length; n = next) {
    next = n + 1;
    while (next < owners.length && owners[next] === owners[n]) next += 1;
    const of = { x: (left + n * cell).toFixed(2), width: Math.max(0.6, (next - n) * cell).toFixed(2) };
    const fill = owners[n] === NOBODY ? "nobody" : `f${colour(owners[n])}`;
    parts.push(draw("rect", { ...of, y: 4, height: 30, class: fill }));
    if (owners[n] !== NOBODY) parts.push(draw("rect", { ...of, y: 42 + owners[n] * row, height: row - 1, class: fill }));
  }
  parts.push(draw("text", { x: 0, y: 23 }, "all slots"));
  if (row > 8) names.forEach((name, n) => parts.push(draw("text", { x: 0, y: 42 + n * row + row - 3 }, name.slice(0, 11))));
  const hottest = Math.max(0, ...heat);
  heat.forEach((part, n) => {
    const wide = (width - left - 4) / heat.length;
    const high = (26 * part) / (hottest || 1);
    parts.push(draw("rect", { x: (left + n * wide).toFixed(2), width: Math.max(0.6, wide - 1).toFixed(2), y: (below + 30 - high).toFixed(2), height: high.toFixed(2), class: "heat" },
      draw("title", {}, `${(100 * part).toFixed(2)} % of new connections`)));
  });
  if (heat.length) parts.push(draw("text", { x: 0, y: below + 24 }, "new flows"));
  const shares = service.backends.map((backend) => `${backend.name} ${backend.slots}`).join(", ");
  const spread = heat.length ? `; the hottest of ${heat.length} parts gets ${(hottest * heat.length).toFixed(1)} times an even part of new connections` : "";
  const words = `The ring of ${service.ring_slots} slots, by owner: ${shares}${spread}`;
  const size = owners.length < service.ring_slots ? `${owners.length} of ${service.ring_slots} slots` : `${service.ring_slots} slots`;
  const note = `${size}${spread}`;
  const content = owners.length
    ? draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words }, ...parts)
    : "Nobody serves: there is no ring.";
  return figure("Ring", note, content);
}

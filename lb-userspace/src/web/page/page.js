// The page: an overview of the services, and each service over time. It only ever asks, and puts what it
// is answered into text nodes, so that no name or message can be markup.

import { band, chart, key } from "/chart.js";
import { whatIf } from "/plan.js";

const EVERY = 2000; // From one look at the state to the next, in milliseconds.
const HISTORY_EVERY = 10000; // The same for history, which is written as often.
const RANGES = [[600, "10 minutes"], [3600, "hour"], [21600, "6 hours"], [86400, "day"], [604800, "week"], [2592000, "30 days"]];
const VERDICTS = { even: "✓ even", skewed: "✗ skewed", "cannot-tell": "? cannot tell" };

const $ = (id) => document.getElementById(id);

/** An element with attributes and children; text stays text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const percent = (share) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)} %`);
const rate = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1));
const clock = (ms) => new Date(ms).toISOString().replace("T", " ").slice(0, 19);
const since = (ms, now) => {
  const s = Math.max(0, Math.round((now - ms) / 1000));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
};

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

export function table(caption, heads, rows) {
  const head = heads.map(([text, kind]) => make("th", { scope: "col", class: kind }, text));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows)));
}

export const cell = (content, kind) => make("td", { class: kind }, content);

function alerts(all, now) {
  const on = all.filter((alert) => alert.state !== "waiting");
  if (on.length === 0) return make("p", {}, "No alert is on.");
  return make("ul", { class: "alerts" }, on.map((alert) => make("li", { class: alert.severity },
    make("span", {}, make("strong", {}, `${alert.severity}: ${alert.name}`), ` for ${since(alert.since_ms, now)}: ${alert.summary}`,
      alert.inhibited_by ? ` (explained by ${alert.inhibited_by})` : null, make("br"), alert.remedy))));
}

function overview(said) {
  const rows = said.services.map((service) => make("tr", {},
    make("th", { scope: "row" }, make("a", { href: `#/service/${encodeURIComponent(service.name)}` }, service.name)),
    cell(VERDICTS[service.verdict], `verdict ${service.verdict}`),
    cell(`${service.serving} of ${service.backends}`, "n"),
    cell(rate(service.new_flow_rate), "n"),
    cell(service.key, "wide"),
    cell(service.message, "wide why")));
  const heads = [["service"], ["load"], ["serving", "n"], ["new connections/s", "n"], ["address", "wide"], ["why", "wide"]];
  return [
    make("h1", {}, "Services"),
    said.as_intended ? null : make("p", { class: "error" }, "The kernel's tables are not the intended ones."),
    table(`${said.services.length === 1 ? "One service" : `${said.services.length} services`}, as of ${clock(said.now_ms)} UTC`, heads, rows),
    make("h2", {}, "Alerts"),
    alerts(said.alerts, said.now_ms),
  ];
}

/** What is shown of a service, kept from one look to the next. */
const view = { name: null, range: 600, history: null, events: [], live: [], asked: 0 };

function backends(service) {
  const rows = service.backends.map((backend, n) => make("tr", {},
    make("th", { scope: "row" }, key(n), backend.name),
    cell(backend.health, backend.health),
    cell(percent(backend.intended_share), "n"),
    cell(percent(backend.observed_share), "n"),
    cell(rate(backend.new_flow_rate), "n"),
    cell(`${Number((backend.weight_in_force ?? backend.weight).toFixed(2))} of ${backend.weight}`, "n"),
    cell(backend.last_probe?.passed ? `${backend.last_probe.took_ms.toFixed(1)} ms` : "–", "n"),
    cell(backend.response ? `${backend.response.median_ms.toFixed(1)} / ${backend.response.p99_ms.toFixed(1)} ms` : "–", "n"),
    cell(backend.out_of_ring ?? backend.performance?.reason ?? backend.last_probe?.detail ?? "", "wide why")));
  const heads = [["backend"], ["health"], ["intended", "n"], ["observed", "n"], ["new/s", "n"], ["weight", "n"], ["probe", "n"], ["response, half / 99 %", "n"], ["what there is to say", "wide"]];
  return table("Backends: their part of new connections, intended (thin below) and observed over the last minute", heads, rows);
}

/** History and what came since, as one row of times and the values of each backend. */
function timeline(service) {
  const past = view.history ?? { at_ms: [], backends: [], step_s: 1 };
  const last = past.at_ms.length ? past.at_ms.at(-1) + past.step_s * 1000 : 0;
  const live = view.live.filter((point) => point.at >= last);
  const at = [...past.at_ms, ...live.map((point) => point.at)];
  const of = (name, pick, now) => {
    const line = past.backends.find((backend) => backend.name === name);
    return [...(line ? pick(line) : past.at_ms.map(() => null)), ...live.map((point) => now(point.backends[name]) ?? null)];
  };
  const names = service.backends.map((backend) => backend.name);
  const step = past.step_s;
  return {
    at, names,
    gap: Math.max(3 * EVERY, 2.5 * step * 1000),
    observed: names.map((name) => of(name, (line) => line.observed_share, (now) => now?.part)),
    intended: names.map((name) => of(name, (line) => line.intended_share, (now) => now?.intended_share)),
    flows: names.map((name) => of(name, (line) => line.new_flows.map((n) => (n === null ? null : n / step)), (now) => now?.new_flow_rate)),
    latency: names.map((name) => of(name, (line) => line.latency_ms, (now) => (now?.last_probe?.passed ? now.last_probe.took_ms : null))),
    response: names.map((name) => of(name, (line) => line.response_ms, (now) => now?.response?.median_ms)),
    slowest: names.map((name) => of(name, (line) => line.response_p99_ms, (now) => now?.response?.p99_ms)),
  };
}

function service(said) {
  const { service } = said;
  const until = said.now_ms;
  const line = timeline(service);
  // A controller that has just begun has no past to leave room for.
  const first = Math.min(line.at[0] ?? until, until - 60000);
  const axis = { from: Math.max(first, until - view.range * 1000), until, events: view.events };
  const plot = (title, unit, values, more = {}) => chart({ title, unit, ...line, values, ...axis, ...more });
  const events = view.events.slice().reverse().map((event) => make("tr", {},
    cell(clock(event.at_ms)), cell(event.level, event.level), cell(event.kind, "wide"), cell(event.message, "why")));
  const evenness = service.evenness;
  return [
    make("h1", {}, service.name, " ", make("span", { class: `verdict ${evenness.verdict}` }, VERDICTS[evenness.verdict])),
    make("p", { class: "why" }, evenness.message, evenness.cause ? `. Cause: ${evenness.cause.message}` : ""),
    make("p", {}, `${service.key}, mode ${service.mode}, ${service.serving} of ${service.backends.length} backends serve; as of ${clock(said.now_ms)} UTC`),
    [service.panic, service.fleet_degraded].filter(Boolean).map((why) => make("p", { class: "error" }, why)),
    backends(service),
    make("h2", {}, "Over time"),
    make("p", {}, "Times are UTC. Upright lines are events, which are listed below."),
    make("div", { class: "charts" },
      plot("Share of new connections", "%", line.observed, { scale: 100, intent: line.intended }),
      plot("New connections", "/s", line.flows),
      plot("Latency of probes", "ms", line.latency),
      // Where flows are measured there is something to see.
      line.response.flat().some((ms) => ms !== null) ? [
        plot("Half of the responses within", "ms", line.response),
        plot("99 of 100 responses within", "ms", line.slowest),
      ] : [],
      band(service, said.band)),
    make("h2", {}, "Events"),
    view.events.length ? table("The latest first, UTC", [["at"], ["level"], ["kind", "wide"], ["what"]], events) : make("p", {}, "Nothing happened in this time."),
  ];
}

/** How long a service is looked back at. */
function ranges() {
  const select = make("select", { id: "range" }, RANGES.map(([seconds, words]) =>
    make("option", { value: seconds, ...(seconds === view.range ? { selected: "" } : {}) }, `the last ${words}`)));
  select.addEventListener("change", () => {
    view.range = Number(select.value);
    view.asked = 0;
    look();
  });
  return [make("label", { for: "range" }, "Show"), select];
}

/** Puts content in place. What is being read out of, chosen from or copied stays as it is. */
function show(content, name) {
  const main = $("content");
  if (main.dataset.name !== (name ?? "")) {
    main.dataset.name = name ?? "";
    const home = make("a", { href: "#/", ...(name ? {} : { "aria-current": "page" }) }, "Services");
    $("where").replaceChildren(home, ...(name ? [` / ${name}`] : []));
    $("tools").replaceChildren(...(name ? ranges() : [make("a", { href: "#/plan" }, "What if …")]));
  } else if (getSelection().type === "Range") {
    return;
  }
  const places = () => [...main.querySelectorAll("a, [tabindex]")];
  const focused = places().indexOf(document.activeElement);
  const scrolled = [...main.querySelectorAll(".scroll")].map((element) => element.scrollLeft);
  main.replaceChildren(...content.flat().filter(Boolean));
  main.querySelectorAll(".scroll").forEach((element, n) => { element.scrollLeft = scrolled[n] ?? 0; });
  if (focused >= 0) places()[focused]?.focus({ preventScroll: true });
}

async function lookAtService(name) {
  if (view.name !== name) Object.assign(view, { name, history: null, events: [], live: [], asked: 0 });
  const path = `/api/services/${encodeURIComponent(name)}`;
  const said = await ask(path);
  if (Date.now() - view.asked >= HISTORY_EVERY) {
    const back = `since_s=${view.range}`;
    const range = view.range;
    const [history, events] = await Promise.all([ask(`${path}/history?${back}`), ask(`${path}/events?${back}`)]);
    if (view.name !== name || view.range !== range) return;
    Object.assign(view, { history, events, asked: Date.now() });
  }
  const all = said.service.backends.reduce((sum, backend) => sum + backend.new_flow_rate, 0);
  // Of this second, as history has it; the table says what the last minute was.
  const part = (backend) => (all > 0 ? backend.new_flow_rate / all : null);
  const by = Object.fromEntries(said.service.backends.map((backend) => [backend.name, { ...backend, part: part(backend) }]));
  if (view.live.at(-1)?.at !== said.now_ms) view.live.push({ at: said.now_ms, backends: by });
  view.live.splice(0, view.live.length - 60);
  $("balancer").textContent = "";
  document.title = `${name}: ${said.service.evenness.verdict} – Evenkeel`;
  show(service(said), name);
}

async function lookAtAll() {
  view.name = null;
  const said = await ask("/api/overview");
  $("balancer").textContent = `${said.version}, generation ${said.generation}`;
  document.title = "Evenkeel";
  show(overview(said));
}

/** A configuration to be, which stays what it is while somebody writes. */
function lookAhead() {
  const main = $("content");
  if (main.dataset.name === "/plan") return;
  main.dataset.name = "/plan";
  view.name = null;
  document.title = "What if – Evenkeel";
  $("where").replaceChildren(make("a", { href: "#/" }, "Services"), " / What if");
  $("tools").replaceChildren();
  main.replaceChildren(...whatIf());
}

let looking = false;

async function look() {
  if (looking) return;
  looking = true;
  const link = $("link");
  const where = location.hash.match(/^#\/service\/(.+)$/);
  try {
    if (location.hash === "#/plan") lookAhead();
    else await (where ? lookAtService(decodeURIComponent(where[1])) : lookAtAll());
    if (link.className || link.textContent !== "live") link.textContent = "live";
    link.className = "";
  } catch (error) {
    if (link.className !== "lost") link.textContent = `not live since ${clock(Date.now())}: ${error.message}`;
    link.className = "lost";
  }
  looking = false;
}

addEventListener("hashchange", () => look().then(() => { scrollTo(0, 0); $("content").focus({ preventScroll: true }); }));
setInterval(() => { if (!document.hidden) look(); }, EVERY);
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();

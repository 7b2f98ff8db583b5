// What a configuration would change, before anything is changed.

import { cell, make, percent, table } from "/page.js";

const FATES = { added: "is added", removed: "is removed", changed: "changes", same: "stays" };

/** Before and after, where these differ. */
const both = (before, after) => (before === after ? `${after ?? "–"}` : `${before ?? "–"} → ${after ?? "–"}`);

function service(plan) {
  const foreseen = plan.backends.some((backend) => backend.forecast !== undefined);
  const heads = [["backend"], ["", ""], ["weight", "n"], ["intended share", "n"], ["slots", "n"]];
  if (foreseen) heads.push(["would have got", "n"]);
  const rows = plan.backends.map((backend) => make("tr", {},
    make("th", { scope: "row" }, backend.name),
    cell(FATES[backend.fate]),
    cell(both(backend.weight_before, backend.weight), "n"),
    cell(both(percent(backend.share_before), percent(backend.share)), "n"),
    cell(both(backend.slots_before, backend.slots), "n"),
    foreseen ? cell(percent(backend.forecast), "n") : null));
  const slots = Math.max(plan.ring_slots, plan.ring_slots_before);
  const words = [`${plan.slots_moved} of ${slots} slots move`];
  if (plan.slots_in_transition) words.push(`${plan.slots_in_transition} are in transition: their flows are remembered, and stay`);
  if (foreseen) words.push(`by ${plan.forecast_from} samples of the last minute's new connections`);
  const what = plan.what.length ? ` (${plan.what.join(", ")})` : "";
  return [
    make("h2", {}, `${plan.name} ${FATES[plan.fate]}${what}`),
    table(words.join("; "), heads, rows),
  ];
}

function findings(all) {
  if (all.length === 0) return [];
  const place = (finding) => [finding.service, finding.backend].filter(Boolean).join("/");
  const rows = all.map((finding) => make("tr", {},
    make("th", { scope: "row" }, finding.rule),
    cell(`${finding.level}${finding.added ? ", new" : ""}`, finding.level === "critical" ? "error" : finding.level),
    cell(place(finding)),
    cell(`${finding.what}. ${finding.remedy}`, "why")));
  return [make("h2", {}, "What an audit finds"), table("Of the configuration as it would be", [["rule"], ["level"], ["where"], ["what"]], rows)];
}

function answer(plan) {
  const some = plan.services.length === 1 ? "One service changes" : `${plan.services.length} services change`;
  const words = plan.changes ? `${some}, ${plan.unchanged} as before; ${plan.slots_moved} slots move.` : "Nothing would change.";
  const fixed = plan.fixed.map((key) => make("p", { class: "error" }, `Refused while the controller runs: ${key.key} differs. ${key.remedy}`));
  const settings = plan.settings.length ? [make("p", {}, `Settings of all services: ${plan.settings.join(", ")}.`)] : [];
  return [make("p", { role: "status" }, make("strong", {}, words)), ...settings, ...fixed, ...plan.services.flatMap(service), ...findings(plan.findings)];
}

/** A place for a configuration, and for what it would change. */
export function whatIf() {
  const text = make("textarea", { id: "toml", rows: 16, spellcheck: "false", autocomplete: "off" });
  const button = make("button", { type: "button" }, "What would change?");
  const said = make("div", { id: "said", "aria-live": "polite" });
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const answered = await fetch("/api/plan", { method: "POST", headers: { "Content-Type": "application/toml" }, body: text.value });
      const plan = await answered.json();
      if (!answered.ok) throw new Error(plan.error);
      said.replaceChildren(...answer(plan));
    } catch (error) {
      // What is wrong with a file is shown line by line, with marks below.
      said.replaceChildren(make("pre", { class: "error", role: "alert" }, error.message));
    }
    button.disabled = false;
  });
  return [
    make("h1", {}, "What if"),
    make("p", {}, "Paste a whole configuration. Nothing is changed by asking."),
    make("p", {}, make("label", { for: "toml" }, "Configuration (TOML)")),
    text,
    make("p", {}, button),
    said,
  ];
}

// The trail of a job, oldest first: who did what and when, and what each line changed, before and after.

import { h } from "./dom.js";
import { changes } from "./moves.js";
import { coded, isReason, moment, plain, said, time, told, words } from "./words.js";

/** Of a job as the API shows it. */
export function history(job) {
  const lines = job.history.toSorted((a, b) => a.id - b.id);
  const isWhole = ["created", "adopted"].includes(lines[0]?.kind);
  const known = {};
  const rows = lines.map(line => {
    const metadata = Object.entries(line.metadata_changed ?? {}).map(([key, value]) => {
      const before = known[key] ?? (isWhole ? "not set" : "not known");
      known[key] = value;
      return change(h("code", key), before, value);
    });
    // The times of a run are in the timeline.
    const { reason, error, from, to, was, status, dispatched_at, started_at, ...rest } = line.detail ?? {};
    return h(
      "tr",
      { id: line.id, test: "event-row", "data-kind": line.kind },
      h("td", { "data-label": "When" }, time(line.at, moment)),
      h("td", { "data-label": "What" }, words(line.kind)),
      h("td", { "data-label": "Who" }, line.actor),
      h("td", { "data-label": "Stage" }, line.stage ?? ""),
      h(
        "td.wrap",
        { "data-label": "Detail" },
        reason && h("span", isReason(reason) ? coded(reason) : reason, ". "),
        error && h("span", said(error), " "),
        detail(rest),
        changes(line).map(([what, before, after]) => change(what, before ?? "not known", after)),
        metadata,
      ),
    );
  });
  return h(
    "details.section",
    { open: true },
    h("summary", h("h2", "Everything that happened")),
    lines.length >= 200 && h("p.note", "The newest 200 lines; the API’s history has all."),
    h(
      "table.cards.dense",
      h(
        "thead",
        h(
          "tr",
          ["When", "What", "Who", "Stage", "Detail, and what changed"].map(text => h("th", text)),
        ),
      ),
      h("tbody", rows),
    ),
  );
}

const change = (what, before, after) =>
  h("div.change", { test: "change" }, what, " ", h("del", told(before)), " → ", h("ins", told(after)));

function detail(rest) {
  const given = Object.entries(rest).filter(([name, value]) => value !== "none" && value !== null && !(name === "forgiven" && value === 0));
  // An event may have fields, which are for programs.
  const shown = (name, value) => (name === "event" ? String(value).replace(/ \{.*\}$/, "") : plain(told(value)));
  return given.length > 0 && h("small", given.map(([name, value]) => `${words(name)} ${shown(name, value)}`).join(", "));
}

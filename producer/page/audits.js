// What audits found when they compared the ledger with the vendors' own lists.

import { get } from "./api.js";
import { h } from "./dom.js";
import { count, plural, time, vendorName, words } from "./words.js";

export function audits({ query }) {
  return {
    title: "Audits",
    load: () => get("/v1/audits", { cursor: query.cursor }),
    draw: ({ audits, next_cursor: next }) => [
      h("h1", { tabindex: "-1" }, "Audits"),
      h(
        "p.note",
        "An audit compares every work that a vendor shows with the ledger. The producers do it by themselves; ",
        h("code", "producer audit"),
        " does it now.",
      ),
      audits.length === 0
        ? h("p.empty", "There was no audit yet.")
        : h(
            "table.cards",
            h(
              "thead",
              h(
                "tr",
                ["Audit", "Began", "Back to", "Who and why", "Found", "To be repaired"].map(text => h("th", text)),
              ),
            ),
            h(
              "tbody",
              audits.map(one =>
                h(
                  "tr",
                  { test: "audit-row", id: one.id },
                  h("th", { scope: "row" }, h("a", { href: `#/audits/${one.id}` }, `no. ${one.id}`)),
                  h("td", { "data-label": "Began" }, time(one.started_at)),
                  h("td", { "data-label": "Back to" }, time(one.since)),
                  h("td.wrap", { "data-label": "Who" }, one.actor, h("small", " ", one.reason)),
                  h("td", { "data-label": "Found" }, one.error ?? (one.finished_at ? count(one.findings) : "not finished")),
                  h("td", { "data-label": "To be repaired" }, count(one.open)),
                ),
              ),
            ),
          ),
      next &&
        h(
          "nav.pager",
          { "aria-label": "Pages" },
          h("a.button", { test: "older", href: `#/audits?cursor=${encodeURIComponent(next)}` }, "Older"),
        ),
    ],
  };
}

export function audit({ id }) {
  return {
    title: `Audit ${id}`,
    load: async () => ({ one: await get(`/v1/audits/${encodeURIComponent(id)}`) }),
    draw: ({ one }) => [
      h("p.crumbs", h("a", { href: "#/audits" }, "Audits"), ` / ${one.id}`),
      h("h1", { tabindex: "-1" }, `Audit ${one.id}`),
      h(
        "p.why",
        one.error
          ? `It was not finished: ${one.error}`
          : !one.finished_at
            ? "It has not ended."
            : one.findings === 0
              ? "The ledger and the vendors agree."
              : `${plural(one.findings, "work differs", "works differ")}; ${one.open ? `${count(one.open)} can be repaired: producer audit --repair.` : "nothing is left to be repaired."}`,
      ),
      h(
        "dl.facts.card",
        [
          ["Began", time(one.started_at)],
          ["Ended", time(one.finished_at)],
          ["Back to", time(one.since)],
          ["Who", one.actor],
          ["Why", one.reason],
          ["Repaired", one.repair ? "yes" : "no, only looked"],
        ].map(([name, value]) => h("div", { id: name }, h("dt", name), h("dd", value))),
      ),
      [one.comparisons].flat().map((comparison, index) => h("section.card", { id: index }, tree(comparison))),
    ],
  };
}

/** Any JSON as nested lists. */
function tree(value) {
  if (Array.isArray(value))
    return value.length === 0
      ? "none"
      : h(
          "ul",
          value.map((one, index) => h("li", { id: index }, tree(one))),
        );
  if (value === null || typeof value !== "object") return value === null ? "–" : String(value);
  return h(
    "dl.facts",
    Object.entries(value).map(([name, inner]) =>
      h("div", { id: name }, h("dt", words(name)), h("dd", name === "vendor" ? vendorName(inner) : tree(inner))),
    ),
  );
}

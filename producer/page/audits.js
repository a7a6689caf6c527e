// What audits found when they compared the ledger with the vendors' own lists.

import { get } from "./api.js";
import { definitions, h } from "./dom.js";
import { count, plural, time, vendorName, words } from "./words.js";

/** What a finding is. */
const FINDINGS = {
  orphan: "paid for and forgotten",
  denied: "the vendor has a work that it refused, or that was not sent",
  unsettled: "the vendor has it, the ledger does not say so",
  second_work: "paid twice: a second work",
  second_submission: "paid twice: a second submission",
  vanished: "the vendor does not show it",
};

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
      definitions("dl.facts.card", [
        ["Began", time(one.started_at)],
        ["Ended", time(one.finished_at)],
        ["Back to", time(one.since)],
        ["Who", one.actor],
        ["Why", one.reason],
        ["Repaired", one.repair ? "yes" : "no, only looked"],
      ]),
      one.comparisons.map(comparison => card(comparison)),
    ],
  };
}

/** What the comparison with one vendor came to. */
function card({ vendor, listed, booked, foreign, unproved, findings }) {
  const facts = [
    ["It listed", plural(listed, "work")],
    ["In the ledger", count(booked)],
    ["Of others", foreign > 0 && `${count(foreign)}: other users of the account`],
    ["Not shown", unproved > 0 && `${count(unproved)} of the ledger, which its list does not have to show`],
  ];
  return h(
    "section.card",
    { id: vendor },
    h("h2", vendorName(vendor)),
    definitions("dl.facts", facts),
    findings.length === 0 ? h("p.note", "Nothing differs.") : table(findings),
  );
}

function table(findings) {
  return h(
    "table.cards",
    h(
      "thead",
      h(
        "tr",
        ["What", "Work", "Job", "Taken", "How it differs", "Repair"].map(text => h("th", text)),
      ),
    ),
    h(
      "tbody",
      findings.map(one =>
        h(
          "tr",
          { id: `${one.kind} ${one.token} ${one.task_id}` },
          h("th", { scope: "row" }, FINDINGS[one.kind] ?? words(one.kind)),
          h("td", { "data-label": "Work" }, one.task_id ?? "–"),
          h("td", { "data-label": "Job" }, h("a.id", { href: `#/jobs/${one.job}` }, one.job)),
          h("td", { "data-label": "Taken" }, time(one.at)),
          h("td.wrap", { "data-label": "Differs" }, one.detail),
          h("td.wrap", { "data-label": "Repair" }, one.repaired ? "✓ repaired " : "", one.repair ?? (one.repaired ? "" : "–")),
        ),
      ),
    ),
  );
}

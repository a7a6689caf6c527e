// What audits found when they compared the ledger with the vendors' own lists.

import { action, ask, roleNote, sends } from "./act.js";
import { call, get, now } from "./api.js";
import { definitions, h } from "./dom.js";
import { badge, count, findingMeaning, isRepairable, plural, time, vendorName } from "./words.js";

export function audits({ query }) {
  return {
    title: "Audits",
    load: () => get("/v1/audits", { cursor: query.cursor }),
    draw: ({ audits, next_cursor: next }) => [
      h("h1", { tabindex: "-1" }, "Audits"),
      h(
        "p.note",
        "An audit compares every work that a vendor shows with the ledger. The producers do it by themselves.",
      ),
      h("div.buttons.left", action("audit-now", "Audit now…", () => begin()), roleNote()),
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
                  h("td.wrap", { "data-label": "Found" }, found(one)),
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

/** What it came to, in short. */
function found(one) {
  if (one.error) return [badge("failed"), " ", one.error];
  return one.finished_at ? count(one.findings) : "not finished";
}

/** Asks for an audit, which looks back so many hours, and goes to it. */
function begin({ hours = 24, repair = false } = {}) {
  ask({
    title: repair ? "Repair the ledger?" : "Audit now?",
    text: [
      "It asks both vendors for all works of that time and compares them with the ledger. It pays for nothing; a work that is paid for, not in the ledger and not repaired stops all paid sends.",
      "A repair books the works that the vendors show and the ledger does not know, and their jobs go on. What is booked is never taken away.",
    ],
    fields: [
      { name: "hours", label: "Hours back", type: "number", value: hours, min: 1, required: true },
      { name: "repair", label: "Repair what differs", type: "checkbox", value: repair },
    ],
    confirm: repair ? "Repair" : "Audit",
    run: ({ hours: back, ...body }) =>
      call("POST", "/v1/audits", { ...body, since: new Date(now() - back * 3_600_000).toISOString() }),
    done: begun => {
      location.hash = `#/audits/${begun.id}`;
    },
  });
}

function differs({ findings, open, comparisons }) {
  const all = comparisons.flatMap(comparison => comparison.findings);
  const lasting = all.filter(one => !isRepairable(one.kind) && !one.acknowledged).length;
  const parts = [
    `${plural(findings, "work differs", "works differ")}`,
    open ? `${count(open)} can be repaired` : "nothing is left to be repaired",
    lasting > 0 && `${count(lasting)} of them wait until somebody has dealt with them`,
  ];
  return `${parts.filter(Boolean).join("; ")}.`;
}

/** As far back as that audit. */
const hoursBack = one => Math.ceil((now() - Date.parse(one.since)) / 3_600_000);

export function audit({ id, page }) {
  return {
    title: `Audit ${id}`,
    load: async () => ({ one: await get(`/v1/audits/${encodeURIComponent(id)}`) }),
    draw: ({ one }) => [
      h("p.crumbs", h("a", { href: "#/audits" }, "Audits"), ` / ${one.id}`),
      h("h1", { tabindex: "-1" }, `Audit ${one.id}`),
      h(
        one.error ? "p.problem" : "p.why",
        one.error
          ? `It proves nothing, because it was not finished: ${one.error}`
          : !one.finished_at
            ? "It is being made, after those that were asked for before. One that is cut off counts as failed after an hour."
            : one.findings === 0
              ? "The ledger and the vendors agree."
              : differs(one),
      ),
      h(
        "div.buttons.left",
        one.open > 0 && action("repair", "Repair…", () => begin({ hours: hoursBack(one), repair: true })),
        action("audit-again", "Audit again…", () => begin({ hours: hoursBack(one) })),
        roleNote(),
      ),
      definitions("dl.facts.card", [
        ["Began", time(one.started_at)],
        ["Ended", time(one.finished_at)],
        ["Back to", time(one.since)],
        ["Who", one.actor],
        ["Why", one.reason],
        ["Repaired", one.repair ? "yes" : "no, only looked"],
      ]),
      one.comparisons.map(comparison => card(comparison, page)),
    ],
  };
}

/** What the comparison with one vendor came to. */
function card({ vendor, listed, booked, foreign, unproved, findings }, page) {
  const facts = [
    ["It listed", plural(listed, "work")],
    ["Of submissions in the ledger", count(booked)],
    ["Of others", foreign > 0 && `${count(foreign)}: other users of the account`],
    ["Not shown", unproved > 0 && `${count(unproved)} of the ledger, which its list does not have to show`],
  ];
  return h(
    "section.card",
    { id: vendor },
    h("h2", vendorName(vendor)),
    definitions("dl.facts", facts),
    findings.length === 0 ? h("p.note", "Nothing differs.") : table(findings, page),
  );
}

function table(findings, page) {
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
          h("th", { scope: "row" }, findingMeaning(one.kind), one.twice && ", and paid twice"),
          h("td", { "data-label": "Work" }, one.task_id ?? "–"),
          h("td", { "data-label": "Job" }, h("a.id", { href: `#/jobs/${one.job}` }, one.job)),
          h("td", { "data-label": "Taken" }, time(one.at)),
          h("td.wrap", { "data-label": "Differs" }, one.detail),
          h("td.wrap", { "data-label": "Repair" }, end(one, page)),
        ),
      ),
    ),
  );
}

/** What became of a finding, or what can be done about it. */
function end(one, page) {
  if (one.repaired || one.repair) return [one.repaired ? "✓ repaired " : "", one.repair ?? ""];
  if (one.acknowledged) return `dealt with by ${one.acknowledged}`;
  if (isRepairable(one.kind)) return "can be repaired";
  return action("acknowledge", "Dealt with…", () => dealtWith(one.token, page));
}

/** Asks whether what was found about a submission is dealt with. */
export function dealtWith(token, page) {
  ask({
    title: "Is this dealt with?",
    text: [
      "No repair can end it: ask the vendor for the money, or what has become of the work.",
      "It stays in the books and is counted as open no longer; another work of the same submission counts again.",
    ],
    confirm: "It is dealt with",
    ...sends("POST", `/v1/findings/${token}/acknowledge`, page, "Noted: nobody is asked about it any more."),
  });
}

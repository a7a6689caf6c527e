// What operators asked for on many jobs or dead letters at once: it is done in the background, and its progress is kept by the API.

import { action, ask, roleNote, sends } from "./act.js";
import { get } from "./api.js";
import { definitions, h } from "./dom.js";
import { inWords } from "./selection.js";
import { badge, count, plain, plural, time, words } from "./words.js";

export function operations({ query }) {
  return {
    title: "Operations",
    load: () => get("/v1/operations", { limit: 50, cursor: query.cursor }),
    draw: ({ operations, next_cursor: next }) => [
      h("h1", { tabindex: "-1" }, "Operations"),
      h(
        "p.note",
        "What was asked for on many jobs or dead letters at once. It begins in ",
        h("a", { href: "#/jobs" }, "Jobs"),
        " or ",
        h("a", { href: "#/dead-letters" }, "Dead letters"),
        ".",
      ),
      operations.length === 0
        ? h("p.empty", "Nothing was asked for yet.")
        : h(
            "table.cards",
            h(
              "thead",
              h(
                "tr",
                ["Operation", "State", "Progress", "Who and why", "Begun"].map(text => h("th", text)),
              ),
            ),
            h(
              "tbody",
              operations.map(one =>
                h(
                  "tr",
                  { test: "operation-row", id: one.id },
                  h(
                    "th",
                    { scope: "row" },
                    h("a", { href: `#/operations/${one.id}` }, `${one.action} no. ${one.id}`),
                    h("small", " ", inWords(one.filter)),
                  ),
                  h("td", { "data-label": "State" }, badge(one.state)),
                  h("td", { "data-label": "Progress" }, bar(one)),
                  h("td.wrap", { "data-label": "Who" }, one.by, h("small", " ", one.reason)),
                  h("td", { "data-label": "Begun" }, time(one.created_at)),
                ),
              ),
            ),
          ),
      next &&
        h(
          "nav.pager",
          { "aria-label": "Pages" },
          h("a.button", { test: "older", href: `#/operations?cursor=${encodeURIComponent(next)}` }, "Older"),
        ),
    ],
  };
}

function bar(one) {
  return [
    h("progress", { max: Math.max(1, one.total), value: one.done, test: "progress", "aria-label": "Progress" }),
    ` ${count(one.done)} of ${one.capped ? "at least " : ""}${count(one.total)}`,
  ];
}

export function operation({ id, page }) {
  const path = `/v1/operations/${encodeURIComponent(id)}`;
  return {
    title: `Operation ${id}`,
    load: async () => ({ one: await get(path) }),
    draw: ({ one }) => {
      const isOpen = one.state === "running" || one.state === "awaiting";
      const refused = Object.entries(one.refused ?? {});
      return [
        h("p.crumbs", h("a", { href: "#/operations" }, "Operations"), ` / ${one.id}`),
        h(
          "h1",
          { tabindex: "-1" },
          `${words(one.action)} no. ${one.id} `,
          badge(one.state, { test: "operation", "data-state": one.state }),
        ),
        h("p.why", sentence(one)),
        h("p.big", bar(one)),
        h(
          "div.buttons.left",
          one.state === "awaiting" &&
            action("continue", "Go on with the others…", () =>
              ask({
                title: "Go on with the others?",
                text: "You have seen what became of the canaries. Groups whose canary is dead again are left alone.",
                confirm: "Go on",
                ...sends("POST", `${path}/continue`, page, "The operation goes on."),
              }),
            ),
          isOpen &&
            action(
              "stop",
              "Stop…",
              () =>
                ask({
                  title: "Stop this operation?",
                  text: "What is done stays done; the others are left as they are.",
                  confirm: "Stop",
                  danger: true,
                  ...sends("POST", `${path}/stop`, page, "The operation is stopped."),
                }),
              { danger: true },
            ),
          isOpen && roleNote(),
        ),
        one.canaries?.length > 0 && canaries(one.canaries),
        definitions("dl.facts.card", [
          ["Which", inWords(one.filter)],
          ["Who", one.by],
          ["Why", one.reason],
          ["Changed", count(one.changed)],
          ["What became of them", one.ends && one.changed > 0 && ends(one.ends)],
          [
            "Left as they were",
            refused.length > 0 && refused.map(([why, many]) => h("div", { id: why }, `${count(many)} ${words(why)}`)),
          ],
          ["Begun", time(one.created_at)],
          ["Ended", one.finished_at && time(one.finished_at)],
          ["Error", one.error],
        ]),
      ];
    },
  };
}

/** Jobs that were put back, by how they have ended. */
function ends({ completed, failed, canceled, unfinished }) {
  const told = [
    [completed, "completed"],
    [failed, "failed again"],
    [canceled, "canceled"],
    [unfinished, "on their way"],
  ];
  const parts = told.filter(([many]) => many > 0).map(([many, what]) => `${count(many)} ${what}`);
  return [
    h("span", { test: "ends" }, parts.join(", ") || "they are gone"),
    failed > 0 && [" ", h("a", { href: "#/dead-letters" }, "dead letters")],
  ];
}

function sentence(one) {
  const going = one.canaries?.filter(canary => canary.outcome === "going").length ?? 0;
  return {
    running: "It is being done, a piece at a time, also when you close this page.",
    awaiting: going
      ? `${going} of the canaries are on their way: wait until they have ended.`
      : "The canaries have ended. Look at what became of them, then go on or stop.",
    done:
      one.done < one.total
        ? `It is done. ${plural(one.total - one.done, "was", "were")} closed or gone before it came to them.`
        : "It is done.",
    stopped: "It was stopped; what was done stays done.",
    failed: `It failed: ${one.error}`,
  }[one.state];
}

function canaries(rows) {
  return h(
    "section",
    { "aria-label": "Canaries" },
    h("h2", "Canaries"),
    h(
      "table.cards",
      h(
        "thead",
        h(
          "tr",
          ["Group", "Letter", "Job", "What became of it"].map(text => h("th", text)),
        ),
      ),
      h(
        "tbody",
        rows.map(row =>
          h(
            "tr",
            { test: "canary-row", id: row.letter },
            h("th.wrap", { scope: "row", title: row.group }, plain(row.group)),
            h("td", { "data-label": "Letter" }, h("a", { href: `#/dead-letters/${row.letter}` }, `no. ${row.letter}`)),
            h("td", { "data-label": "Job" }, row.job_id ? h("a.id", { href: `#/jobs/${row.job_id}` }, row.job_id) : "–"),
            h("td", { "data-label": "Became" }, badge(row.outcome)),
          ),
        ),
      ),
    ),
  );
}

// What operators did, with name and reason, newest first.

import { get, query as queryOf } from "./api.js";
import { h } from "./dom.js";
import { inWords } from "./selection.js";
import { VENDORS, moment, time, told, words } from "./words.js";

const FILTERS = ["by", "action", "subject"];

export function trail({ query }) {
  const filter = Object.fromEntries(Object.entries(query).filter(([name]) => FILTERS.includes(name)));
  return {
    title: "Trail of operators",
    load: () => get("/v1/operator-events", { ...filter, limit: 50, cursor: query.cursor }),
    draw: ({ events, next_cursor: next }) => [
      h("h1", { tabindex: "-1" }, "Trail of operators"),
      h("p.note", "What operators did, with name and reason. Lines are never changed."),
      form(filter),
      events.length === 0 ? h("p.empty", Object.keys(filter).length ? "No line fits the filter: it compares whole words and names." : "Nothing was done.") : table(events),
      next &&
        h(
          "nav.pager",
          { "aria-label": "Pages" },
          h("a.button", { test: "older", href: `#/trail${queryOf({ ...filter, cursor: next })}` }, "Older"),
        ),
    ],
  };
}

function form(filter) {
  const submit = event => {
    event.preventDefault();
    const { by, action, subject } = Object.fromEntries(new FormData(event.currentTarget));
    // What is shown are the words of codes.
    location.hash = `#/trail${queryOf({ by, action: action.trim().replaceAll(" ", "_"), subject })}`;
  };
  return h(
    "form.filter.card",
    { id: JSON.stringify(filter), test: "filter", role: "search", onsubmit: submit },
    FILTERS.map(name =>
      h(
        "label",
        h("span", { by: "Who", action: "What was done", subject: "To what" }[name]),
        h("input", {
          name,
          test: `filter-${name}`,
          value: filter[name] ?? "",
          autocomplete: "off",
          "data-shortcut": name === "by" ? "/" : null,
        }),
      ),
    ),
    h(
      "div.buttons",
      h("a.button", { href: "#/trail", test: "filter-clear" }, "Clear"),
      h("button.primary", { type: "submit", test: "filter-apply" }, "Filter"),
    ),
  );
}

function table(events) {
  return h(
    "table.cards",
    h(
      "thead",
      h(
        "tr",
        ["When", "Who", "What", "To what", "Why", "Detail"].map(text => h("th", text)),
      ),
    ),
    h(
      "tbody",
      events.map(event =>
        h(
          "tr",
          { test: "trail-row", id: `${event.job_id ? "job" : "fleet"} ${event.id}` },
          h("td", { "data-label": "When" }, time(event.at, moment)),
          h("td", { "data-label": "Who" }, event.by),
          h("td", { "data-label": "What", title: event.action }, words(event.action)),
          h("td", { "data-label": "To what" }, subject(event)),
          h("td.wrap", { "data-label": "Why" }, event.reason),
          h("td.wrap", { "data-label": "Detail" }, detail(event.detail)),
        ),
      ),
    ),
  );
}

/** What it was done to, with a link to where it is shown. */
function subject({ job_id: job, subject }) {
  if (job) return h("a.id", { href: `#/jobs/${job}` }, job);
  if (subject.startsWith("operation/"))
    return h("a", { href: `#/operations/${subject.slice("operation/".length)}` }, words(subject));
  if (subject.startsWith("audit/")) return h("a", { href: `#/audits/${subject.slice("audit/".length)}` }, words(subject));
  if (/^[0-9a-f]{8}-/.test(subject)) return h("a.id", { href: `#/find?id=${subject}` }, subject);
  if (subject === "dead_letters") return h("a", { href: "#/dead-letters" }, words(subject));
  if (VENDORS.some(vendor => subject.startsWith(`${vendor}/`))) return h("a", { href: "#/vendors" }, subject);
  return words(subject);
}

function detail(detail) {
  // What is so of itself is not said.
  const isPlain = value => value === null || value === false || value === "infinity" || value?.length === 0;
  const given = Object.entries(detail ?? {}).filter(
    ([name, value]) => !isPlain(value) && name !== "reason" && !(name === "forgiven" && value === 0),
  );
  return given.length > 0
    ? h("small", given.map(([name, value]) => `${words(name)} ${told(name === "filter" ? inWords(value) : value)}`).join(", "))
    : "";
}

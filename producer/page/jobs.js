// The list of jobs: filters that are in the address, pages by cursor, and what can be done to all that a filter finds.

import { action, roleNote } from "./act.js";
import { get, query as queryOf } from "./api.js";
import { ANOTHER, begin } from "./bulk.js";
import { lead } from "./find.js";
import { h } from "./dom.js";
import { STAGES, STATES, STATUSES, VENDORS, badge, codeOf, coded, plain, reasonList, time, words } from "./words.js";

const TABS = [
  ["all", "All", {}],
  ["queued", "Queued", { status: "queued" }],
  ["running", "Processing", { status: "processing" }],
  ["parked", "Waiting for a person", { state: "parked" }],
  ["failed", "Failed", { status: "failed" }],
  ["completed", "Completed", { status: "completed" }],
  ["canceled", "Canceled", { status: "canceled" }],
];
const FILTERS = [
  "text",
  "status",
  "stage",
  "state",
  "reason",
  "vendor",
  "user_id",
  "error_code",
  "created_from",
  "created_before",
];

/** What can be done to all jobs of a filter. Those that it does not fit are left as they are, and counted with the reason. */
const ACTIONS = [
  {
    action: "cancel",
    verb: "Cancel",
    text: "They end at the next step. Nothing more is paid for; works already paid for are followed to their end and booked as wasted.",
    danger: true,
  },
  {
    action: "retry",
    verb: "Retry",
    text: "They go to where the ledger says: what is paid for is polled or stored, and only what is not there is paid for again.",
    fields: [ANOTHER],
  },
  { action: "resume", verb: "Resume", text: "Jobs that are parked, or wait for their time, become due now." },
];

export function jobs({ query, page }) {
  const filter = Object.fromEntries(Object.entries(query).filter(([name]) => FILTERS.includes(name)));
  const head = () => [tabs(filter), form(filter)];
  return {
    title: "Jobs",
    head,
    load: async () => ({ list: await get("/v1/jobs", { ...filter, cursor: query.cursor }) }),
    draw: ({ list }) => [
      h("h1", { tabindex: "-1" }, "Jobs"),
      head(),
      bulkBar(filter, page),
      table(list, filter),
      pager(filter, query.cursor, list.next_cursor),
    ],
  };
}

const address = filter => `#/jobs${queryOf(filter)}`;

function tabs(filter) {
  const shown = JSON.stringify(filter);
  return h(
    "nav.tabs",
    { "aria-label": "Often used filters" },
    TABS.map(([name, text, of]) =>
      h(
        "a",
        {
          id: name,
          test: `tab-${name}`,
          href: address(of),
          "aria-current": shown === JSON.stringify(of) ? "true" : null,
        },
        text,
      ),
    ),
  );
}

/** Renewed with the address, so that it shows what is in force. */
function form(filter) {
  const submit = async event => {
    event.preventDefault();
    const given = [...new FormData(event.currentTarget)]
      .map(([name, value]) => [name, value.trim()])
      .filter(([, value]) => value);
    const [[name, text] = []] = given;
    // One word alone may be an id.
    if (given.length === 1 && name === "text" && !/\s/.test(text) && (await lead(text))) return;
    location.hash = address(Object.fromEntries(given.map(([name, value]) => [name, asAsked(name, value)])));
  };
  const choice = (name, label, values) =>
    h(
      "label",
      h("span", label),
      h(
        "select",
        { name, test: `filter-${name}` },
        h("option", { value: "" }, "any"),
        values.map(value => h("option", { value, selected: filter[name] === value }, words(value))),
      ),
    );
  const text = (name, label, more = {}) =>
    h(
      "label",
      h("span", label),
      h("input", { name, test: `filter-${name}`, value: filter[name] ?? "", autocomplete: "off", ...more }),
    );
  // What is in the address may be anything; the API says what is wrong with it.
  const shown = at => (Number.isNaN(Date.parse(at)) ? "" : new Date(at).toISOString().slice(0, 16));
  const at = (name, label) => text(name, label, { type: "datetime-local", value: shown(filter[name]) });
  const isNarrow = ["vendor", "user_id", "error_code", "created_from", "created_before"].some(name => filter[name]);
  return h(
    "form.filter.card",
    { id: address(filter), test: "filter", role: "search", onsubmit: submit },
    text("text", "Text in name or error, or any id", { type: "search", "data-shortcut": "/", placeholder: "press /" }),
    choice("status", "Status", STATUSES),
    choice("stage", "Stage", STAGES),
    choice("state", "State of the stage", STATES),
    text("reason", "Reason it stands", { list: "reasons" }),
    h(
      "div.last",
      h(
        "details",
        { open: isNarrow },
        h("summary", "More filters"),
        h(
          "div.more",
          choice("vendor", "Sent to", VENDORS),
          text("user_id", "User id"),
          text("error_code", "Error code", { list: "reasons" }),
          at("created_from", "Created from (UTC)"),
          at("created_before", "Created before (UTC)"),
        ),
      ),
      h(
        "div.buttons",
        h("a.button", { href: "#/jobs", test: "filter-clear" }, "Clear"),
        h("button.primary", { type: "submit", test: "filter-apply" }, "Filter"),
      ),
    ),
    reasonList("reasons"),
  );
}

/** A value of the form as the API takes it. */
function asAsked(name, value) {
  if (name === "reason" || name === "error_code") return codeOf(value);
  return name.startsWith("created") ? new Date(`${value}Z`).toISOString() : value;
}

function bulkBar(filter, page) {
  const isAll = Object.keys(filter).length === 0;
  return h(
    "div.bulk",
    h("span", isAll ? "Choose a filter to act on all jobs that it finds:" : "All jobs of this filter:"),
    ACTIONS.map(one =>
      action(`bulk-${one.action}`, `${one.verb}…`, () => begin(page, { ...one, thing: "job", filter }), {
        danger: one.danger,
        disabled: isAll,
      }),
    ),
    roleNote(),
  );
}

export const jobName = job => job.display_name || job.original_filename;

function table({ jobs: rows, next_cursor: next }, filter) {
  if (rows.length === 0)
    return h(
      "p.empty",
      next ? "None of the jobs that were looked at fits; older ones may." : "No job fits the filter.",
      filter.text && h("small", " Ids of jobs, users and submissions are found by their first six or more characters, ids of vendors whole."),
    );
  return h(
    "table.cards",
    h(
      "thead",
      h(
        "tr",
        ["Job", "Status", "Where it is", "Why", "User", "Created"].map(text => h("th", text)),
      ),
    ),
    h(
      "tbody",
      rows.map(job =>
        h(
          "tr",
          { id: job.id, test: "job-row" },
          h("th", { scope: "row" }, h("a", { href: `#/jobs/${job.id}`, test: "job-link" }, jobName(job)), h("small.id", job.id)),
          h(
            "td",
            { "data-label": "Status" },
            badge(job.status),
            job.status === "processing" && h("progress", { max: 100, value: job.progress_percentage, "aria-label": "Progress" }),
          ),
          h(
            "td",
            { "data-label": "Where" },
            job.stage ? [job.stage.stage, " ", job.held ? badge("held") : h("small", job.stage.state)] : h("span.zero", "–"),
          ),
          h(
            "td.wrap",
            { "data-label": "Why" },
            reason(job),
          ),
          h(
            "td",
            { "data-label": "User" },
            h("a", { href: `#/jobs?user_id=${job.user_id}`, title: job.user_id }, shortUser(job.user_id)),
          ),
          h("td", { "data-label": "Created" }, time(job.created_at)),
        ),
      ),
    ),
  );
}

/** Why a job is where it is. */
function reason(job) {
  const wait = job.held ?? job.put_off;
  if (wait) return h("span", { test: job.held ? "held" : "put-off", title: wait.sentence }, plain(wait.sentence));
  const code = job.stage?.reason ?? job.error?.code;
  const message = job.error && h("small", { title: job.error.message }, " ", plain(job.error.message));
  if (code || message) return [code && coded(code), message];
  // Not put off by an answer: there was none.
  if (job.stage?.stage === "inpaint.reconcile") return "the answer to its paid request was lost; the work is searched for";
  return h("span.zero", "–");
}

/** The end of the id: ids that were counted up begin alike. */
const shortUser = id => `…${id.slice(-8)}`;

function pager(filter, cursor, next) {
  if (!cursor && !next) return null;
  return h(
    "nav.pager",
    { "aria-label": "Pages" },
    cursor ? h("a.button", { test: "newest", href: address(filter) }, "Newest") : null,
    next
      ? h("a.button", { test: "older", href: address({ ...filter, cursor: next }) }, "Older")
      : h("span.note", "These are the oldest."),
  );
}

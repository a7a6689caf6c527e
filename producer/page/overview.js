// What the fleet does now: stages, charts of the last hour, accounts, workers, and what waits for a person.

import { action, ask, roleNote, sends } from "./act.js";
import { get } from "./api.js";
import { bars, gauge, lines } from "./chart.js";
import { h } from "./dom.js";
import { STAGES, STATES, VENDORS, badge, count, money, plural, refusalMeaning, shortId, span, time, vendorName } from "./words.js";
import { sending, stopped } from "./why.js";

export function overview({ page }) {
  return {
    title: "Overview",
    async load() {
      const [series, workers, vendors, costs] = await Promise.all([
        get("/v1/series", { minutes: 60 }),
        get("/v1/workers"),
        get("/v1/vendors"),
        get("/v1/costs", { days: 1 }),
      ]);
      return { series: series.points, workers: workers.workers, vendors: vendors.vendors, costs: costs.days };
    },
    draw: data => [
      h("h1", { tabindex: "-1" }, "Overview"),
      tiles(data),
      h("div.two", charts(data.series)),
      stages(data.fleet.stages),
      accounts(data),
      workers(data.workers, page),
      paid(data.fleet.status, page),
    ],
  };
}

function tile(test, href, number, text, tone) {
  return h(`a.tile.${tone}`, { test, href }, h("b", number), h("span", text));
}

function tiles({ fleet, costs }) {
  const { status } = fleet;
  const unknown = status.unknown.reduce((sum, row) => sum + row.unknown, 0);
  const parked = status.standing.filter(row => row.state === "parked").reduce((sum, row) => sum + row.jobs, 0);
  const twice = fleet.duplicates_ever?.reduce((sum, row) => sum + row.submissions, 0);
  const today = vendor => costs.find(day => day.vendor === vendor) ?? { reserved: 0, charged: 0, wasted: 0 };
  const sum = key => VENDORS.map(vendor => money(vendor, today(vendor)[key])).join(" + ");
  const isOpen = VENDORS.some(vendor => today(vendor).reserved > 0);
  return h(
    "section.tiles",
    { "aria-label": "In short" },
    twice !== undefined && tile("duplicates", "#/audits", ...paidTwice(twice, status.last_audit)),
    tile(
      "count-dead-letters",
      "#/dead-letters",
      count(status.dead_letters),
      "dead letters",
      status.dead_letters ? "bad" : "calm",
    ),
    tile("count-unknowns", "#/unknowns", count(unknown), "unknown outcomes", unknown ? "warn" : "calm"),
    tile("count-parked", "#/jobs?state=parked", count(parked), "jobs wait for a decision", parked ? "warn" : "calm"),
    tile(
      "paid-today",
      "#/vendors",
      sum("charged"),
      `paid today (UTC)${isOpen ? `; works that have not ended, or of which nobody knows yet, may cost ${sum("reserved")} more` : ""}`,
      "calm",
    ),
  );
}

/** What the ledger has, and no more than that while an audit has found works that it does not have. */
function paidTwice(twice, audit) {
  if (twice) return [count(twice), `${plural(twice, "submission was", "submissions were")} paid twice`, "bad"];
  if (audit?.open) return ["None known", `the last audit found ${plural(audit.open, "work")} that the ledger does not have`, "warn"];
  const since = audit ? ["; the vendors’ lists agreed ", time(audit.finished_at)] : "; no audit has compared the vendors’ lists yet";
  return ["None", ["Nothing was ever paid twice", since], "good"];
}

function charts(points) {
  const sum = key => points.reduce((total, point) => total + point[key], 0);
  const sent = VENDORS.map(
    vendor => `${vendorName(vendor)} ${count(points.reduce((total, point) => total + point.submissions[vendor], 0))}`,
  );
  const flat = points.map(point => ({ ...point, p50: point.job_seconds.p50, p95: point.job_seconds.p95 }));
  const last = flat.findLast(point => point.p50 !== null);
  return [
    bars(
      "chart-throughput",
      "Jobs ended per minute",
      `In the last hour ${plural(sum("finished"), "job")} finished, ${count(sum("failed"))} failed, ${count(sum("canceled"))} were canceled. Sent: ${sent.join(", ")}.`,
      flat,
      [
        { key: "finished", name: "finished", tone: "good" },
        { key: "failed", name: "failed", tone: "bad" },
        { key: "canceled", name: "canceled", tone: "calm" },
      ],
    ),
    lines(
      "chart-latency",
      "From creation to end",
      last
        ? `Of those that finished last, half took ${span(last.p50)} or less and 95 % took ${span(last.p95)} or less.`
        : "No job finished in the last hour.",
      flat,
      [
        { key: "p50", name: "half", tone: "busy" },
        { key: "p95", name: "95 %", tone: "warn" },
      ],
      span,
    ),
  ];
}

function stages(rows) {
  const known = STAGES.map(stage => rows.find(row => row.stage === stage)).filter(Boolean);
  const link = (row, state) =>
    row[state] > 0 ? h("a", { href: `#/jobs?stage=${row.stage}&state=${state}` }, count(row[state])) : h("span.zero", "0");
  return h(
    "section",
    { "aria-label": "Jobs by stage" },
    h("h2", "Jobs by stage"),
    h(
      "table.stages",
      { test: "stages" },
      h(
        "thead",
        h(
          "tr",
          ["Stage", "Waiting", "Running", "Parked", "Dead", "Oldest due"].map((text, index) =>
            h(index ? "th.number" : "th", text),
          ),
        ),
      ),
      h(
        "tbody",
        known.map(row =>
          h(
            "tr",
            { id: row.stage, test: "stage-row" },
            h("th", { scope: "row" }, row.stage, held(row)),
            STATES.map(state => h("td.number", { id: state }, link(row, state))),
            h(
              "td.number",
              { title: "How long the job that is due for longest waits" },
              row.oldest_due_seconds > 0 ? span(row.oldest_due_seconds) : h("span.zero", "–"),
            ),
          ),
        ),
      ),
    ),
  );
}

/** How many due jobs of a stage stay where they are, and by what. */
function held({ due, held }) {
  return (
    held &&
    h("small.held", { test: "stage-held", title: `${held.sentence}.` }, `${count(due)} held: ${refusalMeaning(held.by)}`)
  );
}

function accounts({ vendors, costs, fleet }) {
  return h(
    "section",
    { "aria-label": "Vendors" },
    h("h2", h("a", { href: "#/vendors" }, "Vendors")),
    h(
      "div.grid",
      vendors.map(account => {
        const cost = costs.find(day => day.vendor === account.vendor);
        const cap = account.in_flight_cap;
        return h(
          "div.card",
          { id: `${account.vendor}/${account.account}`, test: "vendor-row" },
          h("h3", vendorName(account.vendor), h("small", account.account), badge(sending(account, fleet.status))),
          account.refusal && h("p.warn", `Nothing new is sent: ${stopped(account)}.`),
          gauge("In flight", account.in_flight, cap, cap ? `${account.in_flight} of ${cap}` : `${account.in_flight}, no cap`),
          gauge(
            "Spent today",
            account.spent_today,
            account.daily_budget,
            money(account.vendor, account.spent_today) +
              (account.daily_budget === null ? "" : ` of ${money(account.vendor, account.daily_budget)}`),
          ),
          gauge("Of that wasted", 0, 0, money(account.vendor, cost?.wasted ?? 0)),
          gauge("Rate", 0, 0, account.max_per_minute === null ? "no limit" : `${account.max_per_minute} a minute`),
          gauge("Balance", 0, 0, account.balance === null ? "not told by the vendor" : money(account.vendor, account.balance)),
        );
      }),
    ),
  );
}

function workers(rows, page) {
  return h(
    "section",
    { "aria-label": "Workers" },
    h("h2", "Workers"),
    rows.length === 0
      ? h("p.note", "No worker runs.")
      : h(
          "table.cards",
          { test: "workers" },
          h(
            "thead",
            h(
              "tr",
              ["Worker", "State", "In hand", "Stages", "Last delivery", "Started", "Version", ""].map(text => h("th", text)),
            ),
          ),
          h(
            "tbody",
            rows.map(row =>
              h(
                "tr",
                { id: row.id, test: "worker-row", "data-name": row.name, "data-state": row.state },
                h("th", { scope: "row", title: row.id }, row.name ?? shortId(row.id)),
                h(
                  "td",
                  { "data-label": "State" },
                  badge(row.state),
                  row.asked && h("small", { title: row.asked.at }, " ", asked(row.asked)),
                  !row.ready && row.why_not_ready && h("small", " ", row.why_not_ready),
                ),
                h("td", { "data-label": "In hand" }, inHand(row)),
                h(
                  "td",
                  { "data-label": "Stages", title: row.stages.join(", ") },
                  row.stages.length === STAGES.length ? "all" : row.stages.join(", "),
                ),
                h("td", { "data-label": "Last delivery" }, time(row.last_delivery_at)),
                h("td", { "data-label": "Started" }, time(row.started_at)),
                h("td", { "data-label": "Version" }, row.version),
                h("td", h("div.buttons.left", orders(row, page))),
              ),
            ),
          ),
        ),
  );
}

function asked({ what, by, reason }) {
  return `asked to ${what === "stop" ? "stop" : "be quiet"} by ${by}: ${reason}`;
}

/** What can be asked of a worker: one that is lost reads nothing, one that stops does not come back. */
function orders(row, page) {
  const reads = row.state !== "lost" && row.state !== "draining" && row.asked?.what !== "stop";
  const order = (what, title, text, confirm, said, danger = false) =>
    action(
      `worker-${what}`,
      `${confirm}…`,
      () =>
        ask({
          title: `${title} ${row.name}?`,
          text,
          confirm,
          danger,
          ...sends("POST", `/v1/workers/${row.id}/${what}`, page, `${row.name} ${said} with its next heartbeat.`),
        }),
      { danger, disabled: !reads },
    );
  return [
    row.asked?.what === "quiet"
      ? order("resume", "Resume", "It takes work again.", "Resume", "takes work again")
      : order(
          "quiet",
          "Quiet",
          [
            "It takes nothing new, and other workers get what it would have got. It finishes what it has in hand.",
            "So it stays until somebody resumes or stops it. A process that is started anew takes work.",
          ],
          "Quiet",
          "takes nothing new",
        ),
    order(
      "stop",
      "Stop",
      [
        "It finishes what it has in hand, gives back what is not finished within its grace period, and ends.",
        "This cannot be taken back. Whether it is started again is up to whatever started it.",
      ],
      "Stop",
      "stops",
      true,
    ),
  ];
}

function inHand(row) {
  const total = row.in_hand.reduce((sum, one) => sum + one.count, 0);
  const each = row.in_hand.map(one => `${one.count} ${one.stage}`).join(", ");
  return h("span", { title: `Up to ${row.concurrency} of each stage at once` }, String(total), each && h("small", ` ${each}`));
}

/** The global stop. */
export function paid(status, page) {
  const stop = status.paid_sends_stopped;
  return h(
    "section.card",
    { "aria-label": "Paid sends" },
    h("h2", "Paid sends"),
    h(
      "p",
      stop
        ? [
            "They are ",
            h("strong", "stopped"),
            ` by ${stop.by} since `,
            time(stop.at),
            `: ${stop.reason}.`,
            stop.audit_first && " The database forgot commits: an audit has to rebuild the ledger first.",
          ]
        : "They are allowed. Stopping them stops every paid request of the whole fleet; polling and storing go on, and nothing is lost.",
    ),
    h(
      "div.buttons.left",
      stop
        ? action("resume-paid", "Allow paid sends again…", () =>
            ask({
              title: "Allow paid sends again?",
              text: "Jobs that waited for it are sent at once, within the limits of the accounts.",
              fields: [
                {
                  name: "force",
                  type: "checkbox",
                  label: "Go without the audit",
                  hint: "Only if you know that the ledger is whole: otherwise works may be paid for twice.",
                },
              ],
              confirm: "Allow them",
              ...sends("POST", "/v1/paid-sends/resume", page, "Paid sends are allowed again."),
            }),
          )
        : action(
            "stop-paid",
            "Stop all paid sends…",
            () =>
              ask({
                title: "Stop all paid sends?",
                text: "Of the whole fleet, at both vendors, until somebody allows them again. A request already on its way is not called back.",
                confirm: "Stop them",
                danger: true,
                ...sends("POST", "/v1/paid-sends/stop", page, "Paid sends are stopped."),
              }),
            { danger: true },
          ),
    ),
    roleNote(),
  );
}

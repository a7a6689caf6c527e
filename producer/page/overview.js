// What the fleet does now: stages, charts of the last hour, accounts, workers, and what waits for a person.

import { roleNote } from "./act.js";
import { get } from "./api.js";
import { bars, fact, gauge, lines } from "./chart.js";
import { h } from "./dom.js";
import { headed, paidStop } from "./paid.js";
import { STAGES, STATES, VENDORS, badge, count, money, plural, refusalMeaning, span, time, vendorName } from "./words.js";
import { COSTS, balance, spentToday } from "./costs.js";
import { sending, standing } from "./why.js";
import { nobodyTakes, unservedBox, workers } from "./workers.js";

export function overview({ query, page }) {
  let shown = query.show;

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
    draw: data => {
      // Where a link leads to a part of it.
      if (shown) requestAnimationFrame(() => document.querySelector(`[data-test="${CSS.escape(shown)}"]`)?.scrollIntoView({ block: "center" }));
      shown = null;
      return [
      headed("Overview", data.fleet.status, page),
      paidStop(data.fleet.status),
      unservedBox(data.fleet.stages),
      roleNote(),
      tiles(data),
      h("div.two", charts(data.series)),
      stages(data.fleet.stages),
      accounts(data),
      workers(data.workers, data.fleet.stages, page),
      ];
    },
  };
}

function tile(test, href, number, text, tone) {
  return h(`a.tile.${tone}`, { test, href }, h("b", number), h("span", text));
}

function tiles({ fleet, costs }) {
  const { status } = fleet;
  const unknown = status.unknown.reduce((sum, row) => sum + row.unknown, 0);
  const parked = status.standing.filter(row => row.state === "parked").reduce((sum, row) => sum + row.jobs, 0);
  const ever = key => fleet.duplicates_ever?.reduce((sum, row) => sum + row[key], 0);
  const twice = ever("submissions");
  const today = vendor => costs.find(day => day.vendor === vendor) ?? { reserved: 0, charged: 0, wasted: 0 };
  const sum = key => VENDORS.map(vendor => money(vendor, today(vendor)[key])).join(" + ");
  const isOpen = VENDORS.some(vendor => today(vendor).reserved > 0);
  return h(
    "section.tiles",
    { "aria-label": "In short" },
    twice !== undefined && tile("duplicates", "#/audits", ...paidTwice(twice, ever("open"), fleet)),
    tile(
      "count-dead-letters",
      "#/dead-letters",
      count(status.dead_letters),
      status.dead_letters === 1 ? "dead letter" : "dead letters",
      status.dead_letters ? "bad" : "calm",
    ),
    tile("count-unknowns", "#/unknowns", count(unknown), unknown === 1 ? "unknown outcome" : "unknown outcomes", unknown ? "warn" : "calm"),
    tile("count-parked", "#/jobs?state=parked", count(parked), parked === 1 ? "job waits for a decision" : "jobs wait for a decision", parked ? "warn" : "calm"),
    tile(
      "paid-today",
      "#/vendors",
      sum("charged"),
      `charged today (UTC)${isOpen ? `; ${sum("reserved")} more reserved for works that have not ended, or of which nobody knows yet` : ""}`,
      "calm",
    ),
  );
}

/** What the ledger has and what audits found: none of it is hidden by the other. */
function paidTwice(twice, open, { status, audited_duplicates: audited, duplicates_dealt_with: dealtWith, open_findings: findings }) {
  const { last_audit: audit, failed_audit: failed } = status;
  if (open) return [count(open), `${open === 1 ? "submission was" : "submissions were"} paid twice`, "bad"];
  if (audited) return [count(audited), `${audited === 1 ? "work was" : "works were"} paid twice, by what an audit found`, "bad"];
  if (findings) return ["None known", `an audit found ${plural(findings, "work that differs", "works that differ")} from the ledger`, "warn"];
  if (failed) return ["None known", ["the audit of ", time(failed.started_at), " could not be made: ", failed.error], "warn"];
  const ever = Math.max(twice, dealtWith);
  if (ever) return [count(ever), `${ever === 1 ? "work was" : "works were"} paid twice, and dealt with`, "calm"];
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
          ["Stage", "Waiting", "Sent out", "Parked", "Dead", "Oldest due"].map((text, index) =>
            h(index ? "th.number" : "th", { title: text === "Sent out" && "With a worker, or on the way to one" }, text),
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
function held(row) {
  const { due, held } = row;
  return [
    row.unserved > 0 && h("small.held", { test: "stage-unserved", title: held && `${held.sentence}.` }, nobodyTakes(row)),
    row.failing > 0 &&
      h(
        "small.held",
        { test: "stage-failing" },
        h("a", { href: `#/jobs?stage=${row.stage}` }, `${count(row.failing)} tried again after errors`),
      ),
    held &&
      held.by !== "no_worker" &&
      h("small.held", { test: "stage-held", title: `${held.sentence}.` }, `${count(due)} held: ${refusalMeaning(held.by)}`),
  ];
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
          standing(account, fleet.status),
          gauge("In flight", account.in_flight, cap, cap ? `${account.in_flight} of ${cap}` : `${account.in_flight}, no cap`),
          spentToday(account),
          h("div", { title: COSTS.wasted }, fact("Of the charged, wasted", money(account.vendor, cost?.wasted ?? 0))),
          fact("Rate", account.max_per_minute === null ? "no limit" : `${account.max_per_minute} a minute`),
          fact("Balance", balance(account)),
        );
      }),
    ),
  );
}

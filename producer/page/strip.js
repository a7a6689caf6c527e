// The strip at the top: one sentence that says whether somebody has to act, with links to where. And the links between the views.

import { me } from "./act.js";
import { get } from "./api.js";
import { h, renew } from "./dom.js";
import { NEEDS_SOMEBODY, count, meaning, plural, vendorName } from "./words.js";
import { stopped } from "./why.js";
import { nobodyTakes, unserved } from "./workers.js";

const LINKS = [
  ["", "Overview"],
  ["jobs", "Jobs"],
  ["dead-letters", "Dead letters"],
  ["unknowns", "Unknown outcomes"],
  ["vendors", "Vendors"],
  ["operations", "Operations"],
  ["audits", "Audits"],
  ["trail", "Trail"],
];

let current = "";
let counts = {};

/** Draws the links; `name` is the view that is shown. */
export function navigation(name = current) {
  const nav = document.getElementById("nav");
  const isNew = current !== name || !nav.firstChild;
  current = name;
  renew(
    nav,
    LINKS.map(([view, text]) =>
      h(
        "a",
        {
          id: view || "overview",
          href: `#/${view}`,
          test: `nav-${view || "overview"}`,
          "aria-current": view === name ? "page" : null,
        },
        text,
        counts[view] > 0 && h("b.count", count(counts[view])),
      ),
    ),
  );
  if (isNew) nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
}

/** Reads what the fleet does, what stands still and the newest `operations`, and draws the strip; returns what it read. */
export async function strip() {
  // A role that sees no more than single jobs is not told about the fleet.
  if (me.role === "submit") return null;
  const [read, { operations }] = await Promise.all([get("/v1/overview"), get("/v1/operations", { limit: 20 })]);
  const fleet = { ...read, operations };
  // Somebody may have signed out meanwhile.
  if (!me.role) return null;
  const { status } = fleet;
  counts = { "dead-letters": status.dead_letters, unknowns: sum(status.unknown, row => row.unknown) };
  navigation();
  const parts = waiting(fleet);
  document.title = `${parts.length ? "(!) " : ""}${document.title.replace(/^\(!\) /, "")}`;
  renew(
    document.getElementById("strip"),
    h(
      `p.strip.${tone(fleet, parts)}`,
      { test: "strip", "data-act": String(parts.length > 0) },
      parts.length
        ? ["Somebody has to act: ", parts.map((part, index) => [index > 0 && "; ", part]), "."]
        : `Nothing is waiting for you${again(fleet)}.`,
    ),
  );
  return fleet;
}

/** What the fleet tries again by itself: mostly a vendor that does not answer. */
function again({ stages = [] }) {
  const jobs = sum(stages, row => row.failing);
  return jobs > 0 ? `; ${plural(jobs, "job is", "jobs are")} tried again after errors` : "";
}

const sum = (rows, of) => rows.reduce((total, row) => total + of(row), 0);
const link = (href, ...text) => h("a", { href }, ...text);

/** Red where nothing moves any more, or money was lost. */
function tone({ workers, duplicates_ever: duplicates = [], audited_duplicates: audited }, parts) {
  if (parts.length === 0) return "calm";
  const isBad = workers?.running === 0 || audited > 0 || duplicates.some(row => row.open > 0);
  return isBad ? "act.alarm" : "act";
}

/** What waits for a person, each with a link. */
function waiting(fleet) {
  const { status, stages = [], duplicates_ever: duplicates = [], workers, operations = [] } = fleet;
  const { audited_duplicates: audited = 0, open_findings: findings = 0 } = fleet;
  const parts = [];
  for (const { vendor, open, jobs = [] } of duplicates.filter(row => row.open > 0)) {
    const href = jobs.length === 1 ? `#/jobs/${jobs[0]}` : "#/audits";
    parts.push(link(href, `${vendorName(vendor)} was paid twice for ${plural(open, "work")}`));
  }
  if (audited) parts.push(link("#/audits", `an audit found ${plural(audited, "work")} paid twice`));
  else if (findings > (status.last_audit?.open ?? 0)) {
    parts.push(link("#/audits", `an audit found ${plural(findings, "work that differs", "works that differ")} from the ledger`));
  }
  const left = unserved(stages);
  if (workers?.running === 0) {
    const jobs = sum(left, row => row.unserved);
    const wait = jobs > 0 ? `: ${plural(jobs, "job waits", "jobs wait")}` : "";
    parts.push(link("#/?show=workers", `${workers.quiet ? "every worker is quiet" : "no worker runs"}${wait}`));
  } else for (const row of left) parts.push(link("#/?show=workers", nobodyTakes(row)));
  // Where others do their work, nobody has to act.
  if (workers?.lost && (left.length > 0 || workers.running === 0)) parts.push(link("#/?show=workers", `${plural(workers.lost, "worker")} went away without a word`));
  const stop = status.paid_sends_stopped;
  if (stop) parts.push(link("#/vendors", `all paid sends are stopped (${stop.by}: ${stop.reason})`));
  for (const account of status.accounts_stopped.filter(account => NEEDS_SOMEBODY.includes(account.refusal))) {
    parts.push(link("#/vendors", `nothing new is sent to ${vendorName(account.vendor)}: ${stopped(account)}`));
  }
  for (const row of status.standing.filter(row => row.state === "parked")) {
    const isUndecided = row.reason === "outcome_undecided";
    parts.push(
      link(
        isUndecided ? "#/unknowns" : `#/jobs?state=parked&reason=${encodeURIComponent(row.reason)}`,
        `${plural(row.jobs, "job waits", "jobs wait")} for a decision: ${meaning(row.reason)}`,
      ),
    );
  }
  for (const { id } of operations.filter(operation => operation.state === "awaiting")) {
    parts.push(link(`#/operations/${id}`, `operation ${id} waits for a look at its canaries`));
  }
  if (status.dead_letters) parts.push(link("#/dead-letters", plural(status.dead_letters, "dead letter")));
  if (status.last_audit?.open) {
    parts.push(
      link(`#/audits/${status.last_audit.id}`, `the last audit found ${plural(status.last_audit.open, "work")} to be repaired`),
    );
  }
  return parts;
}

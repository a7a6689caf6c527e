// One job: where it is and why, what happened when and by whom, what was paid for with the proof, and what can be done.

import { action, ask, ifStill, me, refused, roleNote, sends } from "./act.js";
import { get, now, post } from "./api.js";
import { definitions, h } from "./dom.js";
import { dealtWith } from "./audits.js";
import { ANOTHER, FIRST } from "./bulk.js";
import { submissions } from "./proof.js";
import { runs, timeline } from "./timeline.js";
import { jobName } from "./jobs.js";
import { badge, between, coded, meaning, money, said, time, vendorName, words } from "./words.js";
import { history } from "./history.js";
import { why } from "./why.js";

const OVER = ["completed", "failed", "canceled"];

export function job({ id, page }) {
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  return {
    title: `Job ${id.slice(0, 8)}`,
    stream: `${path}/events`,
    async load() {
      const [found, proof] = await Promise.all([get(path), me.role === "submit" ? null : get(`${path}/submissions`)]);
      return { job: found, proof: proof?.submissions };
    },
    draw: ({ job, proof }) => [
      h("p.crumbs", h("a", { href: "#/jobs" }, "Jobs"), " / ", h("span.id", job.id)),
      h("h1", { tabindex: "-1" }, jobName(job), " ", badge(job.status, { test: "job-status", "data-status": job.status })),
      h("p.why", { test: "why" }, why(job), " ", help(job, proof)),
      proof && paidTwice(proof, page),
      buttons(job, path, page),
      facts(job),
      way(job),
      timeline(job),
      proof && submissions(proof),
      history(job),
    ],
  };
}

/** Submissions that are one too many, with what can be done about them. */
function paidTwice(proof, page) {
  const open = proof.filter(one => one.paid_twice.some(work => !work.dealt_with));
  return open.map(one =>
    h(
      "div.problem",
      { test: "paid-twice", id: one.token },
      one.paid_twice
        .filter(work => !work.dealt_with)
        .map(work =>
          h("p", `${vendorName(one.vendor)} was paid twice: the work ${work.task_id ?? "without an id"} of attempt ${one.attempt} is one too many. Ask the vendor for the money back.`),
        ),
      action("acknowledge", "Dealt with…", () => dealtWith(one.token, page)),
    ),
  );
}

/** Leads to where a job that stands is decided about. */
function help(job, proof) {
  const open = proof?.find(one => one.undecided);
  if (open) return h("a", { href: `#/unknowns/${open.token}` }, "Look at the evidence");
  return job.stage?.state === "dead" && h("a", { href: `#/dead-letters?job=${job.id}` }, "Look at its dead letter");
}

function buttons(job, path, page) {
  const isOver = OVER.includes(job.status);
  return h(
    "div.buttons.left",
    action(
      "cancel",
      "Cancel…",
      () =>
        ask({
          title: "Cancel this job?",
          text: "Nothing more is paid for. A work that is paid for already is followed to its end and booked as wasted.",
          confirm: "Cancel the job",
          danger: true,
          ...sends("POST", `${path}/cancel`, page, "The job is canceled."),
        }),
      { danger: true, disabled: isOver },
    ),
    action("retry", "Retry…", () => retry(job, path, page), { disabled: job.status !== "failed" && job.status !== "canceled" }),
    action(
      "resume",
      "Resume…",
      () =>
        ask({
          title: "Resume this job?",
          text: job.stage.reason
            ? `It becomes due now in ${job.stage.stage}, where it stood because ${meaning(job.stage.reason)}.`
            : `It becomes due now in ${job.stage.stage} instead of waiting for its time.`,
          confirm: "Resume the job",
          ...sends("POST", `${path}/resume`, page, "The job is due.", job.stage.state === "parked" ? ifStill(job.version) : {}),
        }),
      { disabled: job.stage?.state !== "parked" && !(job.stage?.state === "waiting" && Date.parse(job.stage.due_at) > now()) },
    ),
    roleNote(),
  );
}

/** Says first where the job would go and whom that pays: without another paid attempt, or, where there is no other way, with one. */
async function retry(job, path, page) {
  const preview = more => post(`${path}/retry`, { reason: "preview", preview: true, ...more });
  let plan;
  let needsMore = false;
  try {
    plan = await preview();
  } catch (first) {
    try {
      plan = await preview({ another_attempt: true });
      needsMore = true;
    } catch {
      return refused("Retry this job", first);
    }
  }
  const pays = plan.pays
    ? `This pays ${vendorName(plan.pays)} again, about ${money(plan.pays, plan.last_cost)} by the last time.`
    : "This pays for nothing.";
  ask({
    title: "Retry this job?",
    text: [
      `It goes to ${plan.stage}, to ${FIRST[plan.first] ?? plan.first}.`,
      pays,
      needsMore && "It has used up its paid attempts: without one beyond the bound it stays failed.",
    ],
    fields: [{ ...ANOTHER, value: needsMore }],
    confirm: "Retry the job",
    // By what was seen: somebody else may have retried it, and paid, meanwhile.
    ...sends("POST", `${path}/retry`, page, "The job goes on.", ifStill(job.version)),
  });
}

function facts(job) {
  const rows = [
    ["User", h("a", { href: `#/jobs?user_id=${job.user_id}` }, job.user_id)],
    ["File", job.original_filename],
    ["Created", time(job.created_at)],
    [
      "Ended",
      job.completed_at ? [time(job.completed_at), h("small", ` after ${between(job.created_at, job.completed_at)}`)] : null,
    ],
    [
      "Progress",
      OVER.includes(job.status)
        ? null
        : [
            h("progress", { max: 100, value: job.progress_percentage, "aria-label": "Progress" }),
            ` ${job.progress_percentage} %`,
            h("small", " ", job.progress_message),
          ],
    ],
    ["Due", job.stage?.due_at && job.stage.state === "waiting" ? time(job.stage.due_at) : null],
    ["Result", job.result && h("a", { href: job.result }, "Open the result")],
    ["Error", job.error && [job.error.code && [coded(job.error.code), ": "], said(job.error.message)]],
  ];
  return definitions("dl.facts.card", rows);
}

/** The states of this job as a way: what is behind it, and where it is. */
function way(job) {
  const behind = runs(job)
    .map(run => run.stage)
    .filter((stage, index, all) => all.indexOf(stage) === index);
  const state = job.held ? "held" : job.stage?.state;
  const steps = behind.map(stage => [stage, stage === job.stage?.stage ? state : "done"]);
  const end = OVER.includes(job.status) ? job.status : "end";
  return h(
    "ol.path",
    { "aria-label": "The way of this job" },
    [["put in", "done"], ...steps, [end, OVER.includes(job.status) ? job.status : "waiting"]].map(([name, state]) =>
      h(
        "li",
        { id: name, "aria-current": name === job.stage?.stage ? "step" : null },
        badge(state, { title: words(state) }, name),
      ),
    ),
  );
}

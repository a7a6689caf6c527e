// The runs of a job through its stages, made from its trail, and drawn as bars over time.

import { now } from "./api.js";
import { h, svg } from "./dom.js";
import { badge, between, moment, span, time, words } from "./words.js";

const BEGINS = ["created", "adopted", "retried", "resumed", "replayed", "operator", "swept"];
const WITHIN = ["claimed", "retry"];
const ENDS = { advanced: "settled", parked: "parked", gave_up: "dead", failed: "failed", canceled: "canceled" };
/** Not every line moved the job: who came too late moved nothing. */
const hasMoved = line => (line.detail?.move ?? "moved") === "moved";
/** How a run ended; none where it goes on: what it came to is not always what became of the job. */
function endOf({ kind, detail }) {
  const state = detail?.to?.split(" ")[1];
  if (state === "parked" || state === "dead") return state;
  return state === "waiting" && kind !== "advanced" ? null : ENDS[kind];
}

/** Where a line put the job. What people and the fleet's sweeps do is written under the stage that polls, wherever the job went. */
const stageOf = ({ stage, detail }) => {
  const [to] = (detail?.to ?? "").split(" ");
  return to && to !== "none" ? to : stage;
};

/**
 * `{ stage, from, sent, started, claimed, to, by, tries, outcome, state }` of each run, oldest first; the last one of a job that goes on
 * has no end. It was due from `from` on; where it was sent out more than once, `sent` and `started` are of the last time.
 */
export function runs(job) {
  const all = [];
  let open = null;
  let last = job.created_at;
  for (const line of job.history.toSorted((a, b) => a.id - b.id)) {
    const isNew = BEGINS.includes(line.kind);
    const end = endOf(line);
    if (!line.stage || !(isNew || end || WITHIN.includes(line.kind)) || !hasMoved(line)) continue;
    // Somebody did not let it wait any longer.
    if (isNew && open) Object.assign(open, { to: line.at, state: "settled" });
    // What stood did so until somebody decided.
    if (isNew && all.at(-1)?.state === "parked") all.at(-1).to = line.at;
    const stage = isNew ? stageOf(line) : line.stage;
    if (isNew || open?.stage !== stage) {
      // Whatever moved it on without a line that ends the run.
      if (open && !open.to) Object.assign(open, { to: line.at, state: "settled" });
      open = { stage, from: isNew ? line.at : last, tries: 0 };
      all.push(open);
    }
    if (line.kind === "claimed") open.claimed = line.at;
    if (line.kind === "retry") open.tries += 1;
    if (line.detail?.started_at) Object.assign(open, { sent: line.detail.dispatched_at, started: line.detail.started_at });
    if (!end) continue;
    Object.assign(open, { to: line.at, by: line.actor, state: end, outcome: outcome(line) });
    last = line.at;
    open = null;
  }
  const { stage } = job;
  const current = all.at(-1);
  if (stage && current?.stage === stage.stage && (!current.to || stage.state === "dead" || stage.state === "parked")) {
    current.state = stage.state;
    if (stage.state === "parked") delete current.to;
  } else if (stage)
    all.push({ stage: stage.stage, from: stage.entered_at, tries: stage.tries, state: stage.state, due: stage.due_at });
  const newest = all.at(-1);
  if (stage?.dispatched_at) {
    Object.assign(newest, { sent: stage.dispatched_at, started: stage.started_at, state: stage.started_at ? "running" : "sent out" });
  }
  if (job.held && (newest?.state === "waiting" || newest?.state === "sent out")) newest.state = "held";
  // Nothing runs of a job that is over, nor before the run that it is in.
  for (const [index, run] of all.entries()) {
    if (run.to || (stage && run === newest)) continue;
    Object.assign(run, { to: all[index + 1]?.from ?? job.history.at(-1)?.at ?? run.from, state: run.state ?? "settled" });
  }
  return all;
}

/** `Stored { effects: true }` is what the trail says; its first word is for people. */
function outcome(line) {
  // The reason of a person is a sentence, not what came of it.
  const word = line.kind === "canceled" ? line.kind : (line.detail?.event ?? line.detail?.reason ?? line.kind);
  return words(
    String(word)
      .split(/[ ({]/)[0]
      .replace(/(?<=[a-z])(?=[A-Z])/g, " ")
      .toLowerCase(),
  );
}

/** How long after the step before it something happened. */
const after = (before, then) => (before && then ? `+${between(before, then)}` : "–");

/** A row for each run: a bar from when it was entered to when it was settled, with the paid claim marked. */
export function timeline(job) {
  const all = runs(job);
  if (all.length === 0) return null;
  const at = text => Date.parse(text);
  const begin = at(all[0].from);
  const end = Math.max(begin + 1, job.stage && job.stage.state !== "dead" ? now() : 0, ...all.map(run => at(run.to ?? run.from)));
  const x = text => ((at(text) - begin) / (end - begin)) * 100;
  const bar = run => {
    const from = x(run.from);
    const to = run.to ? x(run.to) : 100;
    return svg(
      "svg.bar",
      {
        viewBox: "0 0 100 10",
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": `from ${span((at(run.from) - begin) / 1000)} on`,
      },
      svg("rect.rest", { y: 4, width: 100, height: 2 }),
      // Waiting and on its way to a worker, then with one.
      run.started && svg("rect.calm", { x: from, y: 3, width: Math.max(0, x(run.started) - from), height: 4 }),
      svg(`rect.${{ settled: "good", dead: "bad", failed: "bad", parked: "warn" }[run.state] ?? "busy"}`, {
        x: Math.min(run.started ? x(run.started) : from, 99.4),
        y: 1,
        width: Math.max(0.6, to - (run.started ? x(run.started) : from)),
        height: 8,
        rx: 0.5,
      }),
      run.claimed &&
        svg("rect.mark", { x: x(run.claimed), y: 0, width: 0.5, height: 10 }, svg("title", "The paid request was claimed here")),
    );
  };
  return h(
    "section",
    { "aria-label": "Timeline" },
    h("h2", "Timeline"),
    h(
      "table.cards.timeline",
      { test: "timeline" },
      h(
        "thead",
        h(
          "tr",
          ["Stage", "Due", "", "Sent out", "Taken", "Took", "State", "Who", "What came of it"].map(text => h("th", text)),
        ),
      ),
      h(
        "tbody",
        all.map(run =>
          h(
            "tr",
            { test: "timeline-row", id: run.stage },
            h("th", { scope: "row" }, run.stage),
            h("td", { "data-label": "Due" }, time(run.from, moment)),
            h("td.plot", bar(run)),
            h("td.number", { "data-label": "Sent out", title: run.sent && moment(run.sent) }, after(run.from, run.sent)),
            h("td.number", { "data-label": "Taken", title: run.started && moment(run.started) }, after(run.sent, run.started)),
            h("td.number", { "data-label": "Took" }, run.to ? between(run.from, run.to) : span((now() - at(run.from)) / 1000)),
            h("td", { "data-label": "State" }, badge(run.state ?? "running")),
            h("td", { "data-label": "Who" }, run.by ?? "–"),
            h(
              "td",
              { "data-label": "Came of it" },
              [run.outcome, run.tries > 0 && `${run.tries} tries failed`].filter(Boolean).join(", ") || "–",
            ),
          ),
        ),
      ),
    ),
  );
}

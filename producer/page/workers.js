// The workers: who works, what they have in hand, and what can be asked of them.

import { action, ask, sends } from "./act.js";
import { h } from "./dom.js";
import { STAGES, badge, plural, shortId, time } from "./words.js";

/** Stages whose jobs wait while no worker takes them: `{ stage, unserved }` of each. */
export const unserved = stages => stages.filter(row => row.unserved > 0);

/** The same as a sentence without its end. */
export const nobodyTakes = ({ stage, unserved: jobs }) => `no worker takes ${stage}: ${plural(jobs, "job waits", "jobs wait")}`;

/** These stages, where nobody can miss them. */
export function unservedBox(stages) {
  const rows = unserved(stages);
  const lines = rows.map(row => h("div", { id: row.stage }, `N${nobodyTakes(row).slice(1)}.`));
  return rows.length > 0 && h("div.problem", { test: "unserved", role: "alert" }, lines);
}

export function workers(rows, stages, page) {
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
                  "td.wrap",
                  { "data-label": "State" },
                  badge(row.state),
                  row.stopped_at && h("small", " ", time(row.stopped_at)),
                  row.state === "lost" && h("small", " last seen ", time(row.seen_at)),
                  row.asked && h("small", { title: row.asked.at }, " ", asked(row.asked)),
                  row.state === "quiet" && !row.asked && h("small", " takes work again with its next heartbeat"),
                  !row.ready && !isGone(row) && row.why_not_ready && h("small", " ", row.why_not_ready),
                ),
                h("td", { "data-label": "In hand" }, inHand(row)),
                h("td.wrap", { "data-label": "Stages", title: row.stages.join(", ") }, some(row.stages)),
                h("td", { "data-label": "Last delivery" }, time(row.last_delivery_at)),
                h("td", { "data-label": "Started" }, time(row.started_at)),
                h("td", { "data-label": "Version" }, row.version),
                h("td", h("div.buttons.left", orders(row, { rows, stages, page }))),
              ),
            ),
          ),
        ),
  );
}

/** Which stages, the shorter way. */
function some(stages) {
  const others = STAGES.filter(stage => !stages.includes(stage));
  if (others.length === 0) return "all";
  return others.length < stages.length ? `all but ${others.join(", ")}` : stages.join(", ");
}

function asked({ what, by, reason }) {
  return `asked to ${what === "stop" ? "stop" : "be quiet"} by ${by}: ${reason}`;
}

const isGone = row => row.state === "lost" || row.state === "stopped";

/** What can be asked of a worker: one that is lost reads nothing, one that stops does not come back. */
function orders(row, { rows, stages, page }) {
  const reads = !isGone(row) && row.state !== "draining" && row.asked?.what !== "stop";
  const order = (what, title, text, confirm, said, danger = false) =>
    action(
      `worker-${what}`,
      `${confirm}…`,
      () =>
        ask({
          title: `${title} ${row.name}?`,
          text: [what !== "resume" && lastOne(row, rows, stages), text],
          confirm,
          danger,
          ...sends("POST", `/v1/workers/${row.id}/${what}`, page, `${row.name} ${said} with its next heartbeat.`),
        }),
      {
        danger,
        disabled: !reads,
        why:
          row.state === "draining"
            ? "It finishes what it has in hand, and ends"
            : "It reads nothing any more; whatever started it has to start it again",
      },
    );
  return [
    row.asked?.what === "quiet"
      ? order("resume", "Resume", [`It was ${asked(row.asked)}.`, "It takes work again."], "Resume", "takes work again")
      : order(
          "quiet",
          "Quiet",
          [
            "It takes nothing new, and finishes what it has in hand. Other workers, where there are some, get what it would have got.",
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

/** A warning where nobody else would take some of its stages. */
function lastOne(row, rows, stages) {
  const others = rows.filter(one => one.id !== row.id && one.state === "running" && !one.asked);
  const left = row.stages.filter(stage => !others.some(one => one.stages.includes(stage)));
  if (left.length === 0) return null;
  const jobs = stages.filter(one => left.includes(one.stage)).reduce((sum, one) => sum + one.waiting + one.dispatched, 0);
  const which = others.length === 0 ? "No other worker takes work" : `No other worker takes ${left.join(", ")}`;
  return h(
    "p.problem",
    { test: "last-worker" },
    `${which}: ${jobs > 0 ? plural(jobs, "job that is there waits", "jobs that are there wait") : "jobs wait"} until one does.`,
  );
}

function inHand(row) {
  const total = row.in_hand.reduce((sum, one) => sum + one.count, 0);
  const each = row.in_hand.map(one => `${one.count} ${one.stage}`).join(", ");
  return h("span", { title: `Up to ${row.concurrency} of each stage at once` }, String(total), each && h("small", ` ${each}`));
}


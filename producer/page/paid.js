// The global stop of paid sends: the button is in the first line of a view, so that it is reached at once.

import { action, ask, sends } from "./act.js";
import { h } from "./dom.js";
import { time } from "./words.js";

/** The title of a view with the button that stops all paid sends, and allows them again. */
export function headed(title, status, page) {
  return h(
    "div.head",
    h("h1", { tabindex: "-1" }, title),
    status.paid_sends_stopped
      ? action("resume-paid", "Allow paid sends again…", () => allow(page))
      : action("stop-paid", "Stop all paid sends…", () => stop(page), { danger: true }),
  );
}

/** Who stopped them and why, while they are. */
export function paidStop({ paid_sends_stopped: stop }) {
  return (
    stop &&
    h(
      "p.why.stopped",
      "All paid sends are ",
      h("strong", "stopped"),
      ` by ${stop.by} since `,
      time(stop.at),
      `: ${stop.reason}. Polling and storing go on.`,
      stop.audit_first && " The database forgot commits: an audit has to rebuild the ledger first.",
    )
  );
}

function stop(page) {
  ask({
    title: "Stop all paid sends?",
    text: "Of the whole fleet, at both vendors, until somebody allows them again. Polling and storing go on, and nothing is lost. A request already on its way is not called back.",
    confirm: "Stop them",
    danger: true,
    ...sends("POST", "/v1/paid-sends/stop", page, "Paid sends are stopped."),
  });
}

function allow(page) {
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
  });
}

// The proof of what was paid for: a submission with what was sent, answered, charged and called back.

import { definitions, h } from "./dom.js";
import { badge, moment, money, said, time, told, vendorName, words } from "./words.js";

/** All submissions of a job. */
export function submissions(all) {
  return h(
    "section",
    { "aria-label": "Submissions" },
    h("h2", "Submissions"),
    all.length === 0 && h("p.empty", "Nothing was sent to a vendor yet, so nothing was paid."),
    all.map(one =>
      h(
        "article.card",
        { test: "submission", id: one.token },
        h("h3", vendorName(one.vendor), h("small", ` attempt ${one.attempt}`), " ", badge(one.state)),
        proof(one),
      ),
    ),
  );
}

/** What is known about one. */
export function proof(one) {
  const { result_url: result, reason, ...answer } = one.answer ?? {};
  const rest = Object.entries(answer).filter(([, value]) => value !== null);
  const rows = [
    ["Token", h("code", one.token)],
    ["Account", `${vendorName(one.vendor)} / ${one.account}`],
    ["What was sent", [`${one.request_bytes} bytes, SHA-256 `, h("code", one.request_sha256)]],
    ["Claimed", time(one.claimed_at, moment)],
    ["Could be sent until", time(one.send_deadline, moment)],
    ["Last change", time(one.settled_at, moment)],
    ["Vendor’s id", one.task_id && h("code", one.task_id)],
    ["Name at the vendor", h("code", one.marker)],
    [
      "Answer",
      (reason || rest.length > 0) && [
        reason && said(reason),
        rest.length > 0 && h("small", ` ${rest.map(([name, value]) => `${words(name)}: ${told(value)}`).join(", ")}`),
      ],
    ],
    ["Result at the vendor", result && h("code", result)],
    [
      "Own source object",
      one.source_key && [h("code", one.source_key), one.source_deleted_at && [" deleted ", time(one.source_deleted_at)]],
    ],
    [
      "Searches without a find",
      one.searches > 0 && [String(one.searches), one.last_searched_at && [", the last ", time(one.last_searched_at)]],
    ],
    [
      "Cost",
      `expected ${money(one.vendor, one.cost_reserved)}, charged ${money(one.vendor, one.cost_charged)}, wasted ${money(one.vendor, one.cost_wasted ?? 0)}`,
    ],
    [
      "Paid twice",
      one.paid_twice.length > 0 &&
        one.paid_twice.map(work =>
          h("div", `work ${work.task_id ?? "without an id"}: ${work.dealt_with ? `dealt with by ${work.dealt_with}` : "nobody has dealt with it"}`),
        ),
    ],
    [
      "Callbacks",
      one.callbacks.length === 0
        ? "none"
        : one.callbacks.map((callback, index) =>
            h("div", { id: index }, time(callback.received_at, moment), ` ${words(callback.outcome ?? "not processed yet")}`),
          ),
    ],
  ];
  return definitions("dl.facts", rows);
}

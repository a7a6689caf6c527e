// Paid requests whose answer nobody saw: what is known about each, and the two things that only a person can say.

import { action, ask, roleNote, sends } from "./act.js";
import { get, query as queryOf } from "./api.js";
import { h } from "./dom.js";
import { proof } from "./proof.js";
import { VENDORS, badge, coded, money, time, vendorName, words } from "./words.js";

export function unknowns({ query }) {
  return {
    title: "Unknown outcomes",
    load: () => get("/v1/unknowns", { vendor: query.vendor, cursor: query.cursor }),
    draw: ({ unknowns, next_cursor: next }) => [
      h("h1", { tabindex: "-1" }, "Unknown outcomes"),
      h(
        "p.note",
        "Paid requests whose answer was lost. The fleet looks for each at its vendor and never sends one again blindly; those that are parked wait for you.",
      ),
      h(
        "nav.tabs",
        { "aria-label": "Vendors" },
        ["", ...VENDORS].map(vendor =>
          h(
            "a",
            {
              id: vendor || "all",
              href: `#/unknowns${queryOf({ vendor })}`,
              "aria-current": (query.vendor ?? "") === vendor ? "true" : null,
            },
            vendor ? vendorName(vendor) : "All",
          ),
        ),
      ),
      unknowns.length === 0
        ? h("p.empty", "Every request has its answer.")
        : h(
            "table.cards",
            h(
              "thead",
              h(
                "tr",
                ["Submission", "Vendor", "At stake", "Claimed", "Searched", "What is done now", "Job"].map(text => h("th", text)),
              ),
            ),
            h(
              "tbody",
              unknowns.map(one =>
                h(
                  "tr",
                  { test: "unknown-row", id: one.token },
                  h("th", { scope: "row" }, h("a.id", { href: `#/unknowns/${one.token}` }, one.token)),
                  h("td", { "data-label": "Vendor" }, vendorName(one.vendor)),
                  h("td", { "data-label": "At stake" }, money(one.vendor, one.cost_reserved)),
                  h("td", { "data-label": "Claimed" }, time(one.claimed_at)),
                  h(
                    "td",
                    { "data-label": "Searched" },
                    one.searches === 0 ? "not yet" : [`${one.searches} times, `, time(one.last_searched_at)],
                  ),
                  h("td.wrap", { "data-label": "Now" }, now(one)),
                  h("td.wrap", { "data-label": "Job" }, jobLink(one)),
                ),
              ),
            ),
          ),
      next &&
        h(
          "nav.pager",
          { "aria-label": "Pages" },
          h("a.button", { test: "older", href: `#/unknowns?${new URLSearchParams({ ...query, cursor: next })}` }, "Newer"),
        ),
    ],
  };
}

const jobLink = one => h("a", { href: `#/jobs/${one.job_id}` }, one.job_name, h("small.id", ` ${one.job_id}`));

function now(one) {
  if (one.stage_state === "parked") return [badge("parked"), " waits for you: ", coded(one.stage_reason)];
  if (!one.job_status) return "the job is gone; the work is searched for all the same";
  if (!one.stage) return `the job is ${one.job_status}; the work is searched for all the same`;
  return [badge("running"), ` ${one.stage} looks`, one.due_at && [" ", time(one.due_at)]];
}

export function unknown({ id, page }) {
  const path = `/v1/unknowns/${encodeURIComponent(id)}`;
  return {
    title: `Submission ${id.slice(0, 8)}`,
    load: async () => ({ one: await get(path) }),
    draw: ({ one }) => [
      h("p.crumbs", h("a", { href: "#/unknowns" }, "Unknown outcomes"), " / ", h("span.id", one.token)),
      h("h1", { tabindex: "-1" }, `Submission to ${vendorName(one.vendor)} `, badge(one.state)),
      h(
        "p.why",
        one.undecided
          ? [now(one), ". Look for the name or the source below at the vendor’s dashboard, then say what you found."]
          : `Its outcome is known: ${words(one.state)}.`,
      ),
      h(
        "p",
        "Job ",
        jobLink(one),
        one.user_id && [" of the user ", h("a.id", { href: `#/jobs?user_id=${one.user_id}` }, one.user_id)],
      ),
      one.undecided &&
        h(
          "div.two",
          h(
            "section.card",
            h("h2", "The vendor has the work"),
            h("p", "It is booked under its id and followed to its end, and the job goes on. Nothing is paid again."),
            action("adopt", "Adopt the work…", () => adopt(path, one, page)),
          ),
          h(
            "section.card",
            h("h2", "The vendor does not have it"),
            h(
              "p",
              "The submission counts as never accepted, and the job pays for a new attempt. If you are wrong, the work is paid for twice.",
            ),
            action("confirm-not-accepted", "Confirm that it is not there…", () => confirm(path, one, page), { danger: true }),
          ),
        ),
      one.undecided && roleNote(),
      h("section.card", { test: "evidence", "aria-label": "Evidence" }, h("h2", "Evidence"), proof(one)),
    ],
  };
}

function adopt(path, one, page) {
  ask({
    title: "Adopt a work",
    text: `The vendor is asked for the work first, and it has to show that it is this submission’s: by the name ${one.marker} or its own source.`,
    fields: [
      {
        name: "task_id",
        label: "The vendor’s id of the work",
        required: true,
        max: 200,
        hint: one.vendor === "sync" ? "The generation id" : "The work id",
      },
      { name: "force", type: "checkbox", label: "Force: although the vendor does not show that it is this submission’s" },
    ],
    confirm: "Adopt",
    ...sends("POST", `${path}/adopt`, page, answer => answer.outcome),
  });
}

function confirm(path, one, page) {
  ask({
    title: "Confirm that the vendor does not have it",
    text: [
      "You say that you have looked at the vendor and the work is not there. The job then pays for a new attempt.",
      "It is refused while a request could still be on its way, or where the vendor’s list does not prove it.",
    ],
    fields: [
      {
        name: "force",
        type: "checkbox",
        label: "Force: do not wait, and go without a list that proves it",
        hint: `If the work is there after all, it is paid for twice, with ${money(one.vendor, one.cost_reserved)} more.`,
      },
    ],
    confirm: "Confirm",
    danger: true,
    ...sends("POST", `${path}/confirm-not-accepted`, page, answer => answer.outcome),
  });
}

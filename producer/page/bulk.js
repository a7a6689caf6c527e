// Acting on everything that a filter finds: what it would come to, the question, and the operation that does it in the background.

import { ask, refused } from "./act.js";
import { post } from "./api.js";
import { h, toast } from "./dom.js";
import { count, money, plural, vendorName, words } from "./words.js";

/** Why some are not put back on their way. */
const REFUSED = {
  undecidable: "name no job: look at them, then discard them",
  job_gone: "are of jobs that were deleted: discard them",
  moved_on: "are of jobs that have moved on",
  canceled: "are of canceled jobs",
  completed: "are of completed jobs",
  goes_on: "are of jobs that are not over",
  attempts_exhausted: "have reached the bound on paid attempts",
  invalid_job: "have a row that cannot be read",
};

/** Leave to pay once more. */
export const ANOTHER = {
  name: "another_attempt",
  type: "checkbox",
  label: "Allow one paid attempt beyond the bound",
  hint: "A job may pay a vendor twice, or as often as the workers’ MAX_PAID_ATTEMPTS says",
};

/** What a stage does first with a job that is put back. */
export const FIRST = {
  import: "stream the input into the bucket",
  submit: "submit anew, which is paid for",
  search: "search for a request whose answer was lost",
  poll: "ask for the work that is paid for",
  store: "store a result that is there",
};

/** What an operation would come to; does nothing. */
export function preview(action, filter) {
  return post("/v1/operations/preview", { action, filter });
}

/** A preview in sentences. */
export function told({ capped, tally }) {
  if (!tally) return null;
  const paid = Object.entries(tally.paid).map(([vendor, cost]) => {
    const unknown = cost.unknown ? `, and ${count(cost.unknown)} of unknown cost` : "";
    return `${vendorName(vendor)} is paid ${plural(cost.submissions, "time")}, about ${money(vendor, cost.last_cost)} by the last time${unknown}`;
  });
  const first = Object.entries(tally.first).map(([how, many]) => `${count(many)} to ${FIRST[how] ?? how}`);
  const rest = Object.entries(tally.refused).map(([why, many]) =>
    h("li", { id: why }, `${count(many)} ${REFUSED[why] ?? words(why)}`),
  );
  return h(
    "div.preview",
    { test: "preview" },
    h(
      "p",
      h("strong", `${count(tally.replayable)} of ${count(tally.letters)}${capped ? " or more" : ""} can go on`),
      first.length > 0 && `: ${first.join(", ")}`,
      ".",
    ),
    h("p", paid.length ? `${paid.join("; ")}.` : tally.then_inpaint ? "Nothing is paid for at once." : "Nothing is paid for."),
    tally.then_inpaint > 0 &&
      h("p", `Later, when that is done, ${vendorName("ghostcut")} is paid ${plural(tally.then_inpaint, "time")}.`),
    rest.length > 0 && h("ul", rest),
  );
}

/**
 * Counts, asks, and begins the operation: what is confirmed is a number. `verb` is what is done to each `thing`, `text` what that
 * means; the others are those of `ask`.
 */
export async function begin(page, { action, filter, verb, thing, text, fields = [], danger = false }) {
  let found;
  try {
    found = await preview(action, filter);
  } catch (problem) {
    return refused(`${verb} ${thing}s`, problem);
  }
  if (found.count === 0 && !found.capped) {
    const others = action === "retry" ? " To retry canceled ones, filter by that status." : "";
    return toast(`There is no ${thing} to ${verb.toLowerCase()}.${others}`);
  }
  const many = `${found.capped ? "at least " : ""}${plural(found.count, thing)}`;
  ask({
    title: `${verb} ${many}?`,
    text: [text, told(found), "It is done in the background and can be stopped."],
    fields,
    confirm: verb,
    danger,
    run: body => post("/v1/operations", { action, filter, expect: found.capped ? undefined : found.count, ...body }),
    done: operation => {
      location.hash = `#/operations/${operation.id}`;
      return page.refresh();
    },
  });
}

// What the amounts count, in the words of `producer costs`, what was spent today, and what is left.

import { gauge } from "./chart.js";
import { h } from "./dom.js";
import { money, time } from "./words.js";

/** What each amount of a day counts. */
export const COSTS = {
  submissions: "Requests that were, or may have been, accepted, by the day of their claim",
  charged:
    "For works that have ended: what the vendor said. Sync.so says nothing, so there it is what was expected, and nothing for failures",
  reserved: "Expected of works that have not ended, or of which nobody knows yet",
  wasted: "The part of the charged that served nobody: works paid for twice, failures that were charged, results of ended jobs. Works that only a vendor’s list shows are in no amount",
};

/** What the daily budget limits: both of today. */
export function spentToday({ vendor, spent_today: spent, daily_budget: budget }) {
  const text = budget === null ? money(vendor, spent) : `${money(vendor, spent)} of ${money(vendor, budget)}`;
  const title = "Of requests claimed since midnight UTC: charged for works that have ended, reserved for the others";
  return h("div", { test: "spent-today", title }, gauge("Charged and reserved today (UTC)", spent, budget, text));
}

/** What is left, as it was last read: works may have been charged since. */
export function balance({ vendor, balance, balance_at: at }) {
  return balance === null ? "not told by the vendor" : [money(vendor, balance), " ", h("small", time(at))];
}

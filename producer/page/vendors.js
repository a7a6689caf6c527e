// The accounts: what is in flight and spent, their limits and pauses, what the last days cost, and the global stop.

import { action, ask, ifStill, roleNote, sends } from "./act.js";
import { call, get } from "./api.js";
import { fact, gauge } from "./chart.js";
import { h, toast } from "./dom.js";
import { COSTS, balance, spentToday } from "./costs.js";
import { headed, paidStop } from "./paid.js";
import { badge, count, money, vendorName } from "./words.js";
import { sending, standing, stopped } from "./why.js";

const PAUSES = [
  ["", "until somebody resumes it"],
  ["900", "15 minutes"],
  ["3600", "1 hour"],
  ["14400", "4 hours"],
  ["86400", "1 day"],
];

export function vendors({ page }) {
  return {
    title: "Vendors",
    async load() {
      const [accounts, costs] = await Promise.all([get("/v1/vendors"), get("/v1/costs", { days: 14 })]);
      return { accounts: accounts.vendors, days: costs.days };
    },
    draw: ({ accounts, days, fleet }) => [
      headed("Vendors", fleet.status, page),
      paidStop(fleet.status),
      h(
        "div.grid",
        accounts.map(account => card(account, fleet.status, page)),
      ),
      costTable(days),
    ],
  };
}

function card(account, status, page) {
  const limit = (value, text) => (value === null ? "no limit" : (text ?? String(value)));
  const pays = amount => money(account.vendor, amount);
  return h(
    "article.card",
    { test: "vendor", id: `${account.vendor}/${account.account}`, "data-refusal": account.refusal ?? "" },
    h("h2", vendorName(account.vendor), h("small", account.account), badge(sending(account, status))),
    standing(account, status),
    gauge(
      "In flight",
      account.in_flight,
      account.in_flight_cap,
      account.in_flight_cap ? `${account.in_flight} of ${account.in_flight_cap}` : `${account.in_flight}, no cap`,
    ),
    spentToday(account),
    fact("Cap set by operators", limit(account.max_in_flight)),
    fact("Paid sends a minute", limit(account.max_per_minute)),
    fact("Of them at once", limit(account.burst)),
    fact("Daily budget", limit(account.daily_budget, pays(account.daily_budget))),
    fact("Balance", balance(account)),
    fact("Lowest balance", limit(account.balance_floor, pays(account.balance_floor))),
    h(
      "div.buttons.left",
      action("pause", "Pause…", () => pause(account, page), { danger: true }),
      action("unpause", "Resume…", () => resume(account, page), { disabled: !account.refusal }),
      action("limits", "Change limits…", () => limits(account, page)),
    ),
    roleNote(),
  );
}

const path = account => `/v1/vendors/${account.vendor}/${encodeURIComponent(account.account)}`;

function pause(account, page) {
  ask({
    title: `Pause ${vendorName(account.vendor)}?`,
    text: "No paid request is sent to this account, replays and redos included. Polling and storing go on, and nothing is lost.",
    fields: [{ name: "seconds", label: "For how long", options: PAUSES, number: true }],
    confirm: "Pause",
    danger: true,
    ...sends("POST", `${path(account)}/pause`, page, `${vendorName(account.vendor)} is paused.`, ifStill(account.version)),
  });
}

function resume(account, page) {
  ask({
    title: `Resume ${vendorName(account.vendor)}?`,
    text: [
      `Nothing new is sent now: ${stopped(account)}.`,
      "This ends every pause, also those that the vendor’s answers made. Limits stay.",
    ],
    confirm: "Resume",
    ...sends("POST", `${path(account)}/resume`, page, `${vendorName(account.vendor)} is resumed.`, ifStill(account.version)),
  });
}

function limits(account, page) {
  const number = (name, label, hint, more = {}) => ({
    name,
    label,
    hint,
    type: "number",
    step: "any",
    value: account[name] ?? "",
    empty: null,
    ...more,
  });
  const unit = account.vendor === "sync" ? "US dollars" : "points";
  ask({
    title: `Limits of ${vendorName(account.vendor)}`,
    text: "They hold for the whole fleet at once. An empty field is no limit.",
    fields: [
      number("max_in_flight", "Works in flight", "From the paid request to the end of the work, unknown outcomes included", {
        min: 1,
        step: 1,
      }),
      number("max_per_minute", "Paid sends a minute", "Replays and redos included", { min: 0.001 }),
      number("burst", "Of them at once", "Empty: two seconds’ worth", { min: 1, step: 1 }),
      number("daily_budget", "Daily budget", `In ${unit}, of what is charged and reserved from midnight to midnight UTC`, { min: 0 }),
      ...(account.vendor === "ghostcut"
        ? [number("balance_floor", "Lowest balance", `In ${unit}; nothing new is paid for below it`, { min: 0 })]
        : []),
    ],
    confirm: "Set the limits",
    run: body => call("PATCH", path(account), body, ifStill(account.version)),
    done: () => {
      toast("The limits are set.");
      return page.refresh();
    },
  });
}

function costTable(days) {
  const amounts = ["charged", "reserved", "wasted"];
  const title = text => text[0].toUpperCase() + text.slice(1);
  return h(
    "section",
    { "aria-label": "Costs" },
    h("h2", "What was spent"),
    h(
      "dl.facts.note",
      { test: "costs-meaning" },
      amounts.map(name => h("div", { id: name }, h("dt", title(name)), h("dd", `${COSTS[name]}.`))),
    ),
    days.length === 0
      ? h("p.empty", "Nothing was paid in the last 14 days.")
      : h(
          "table.cards",
          h(
            "thead",
            h(
              "tr",
              ["Day of the claim (UTC)", "Vendor"].map(text => h("th", text)),
              ["submissions", ...amounts].map(name => h("th.number", { title: COSTS[name] }, title(name))),
            ),
          ),
          h(
            "tbody",
            days.map(day =>
              h(
                "tr",
                { test: "cost-row", id: `${day.day} ${day.vendor}` },
                h("th", { scope: "row" }, day.day),
                h("td", { "data-label": "Vendor" }, vendorName(day.vendor)),
                h("td.number", { "data-label": "Submissions", title: COSTS.submissions }, count(day.submissions)),
                amounts.map(name =>
                  h("td.number", { "data-label": title(name), title: COSTS[name] }, money(day.vendor, day[name])),
                ),
              ),
            ),
          ),
        ),
  );
}

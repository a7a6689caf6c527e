// How times, amounts and the words of the API are shown.

import { now } from "./api.js";
import { h } from "./dom.js";

/** The stages in the order of the pipeline. */
export const STAGES = [
  "source.import",
  "lipsync.submit",
  "lipsync.poll",
  "lipsync.store",
  "inpaint.submit",
  "inpaint.reconcile",
  "inpaint.poll",
  "inpaint.store",
];
export const STATUSES = ["queued", "uploading", "processing", "completed", "failed", "canceled"];
export const STATES = ["waiting", "dispatched", "parked", "dead"];
export const VENDORS = ["sync", "ghostcut"];

const VENDOR_NAMES = { sync: "Sync.so", ghostcut: "GhostCut" };
export const vendorName = vendor => VENDOR_NAMES[vendor] ?? vendor;

/** Why a job stands or failed: what that means, and what can be done. */
export const REASONS = {
  invalid_job: ["the stored job is not one that the fleet can run", "Put it in again."],
  rejected: ["the vendor refused the request", "Look at its answer below."],
  input_unreadable: ["an input could not be read", "Put the file where it can be read, then retry."],
  input_unsuitable: [
    "an input breaks a limit of the vendor, or is shorter than the times of the job",
    "Put it in again with another file.",
  ],
  vendor_failed: ["the work failed at the vendor for good", "A retry pays for a new attempt."],
  vendor_needs_operator: ["somebody has to act at the vendor", "Look at the vendor's dashboard, then resume."],
  out_of_points: ["the account ran out of points; the work waits at the vendor", "Add points, then resume."],
  outcome_undecided: [
    "nobody can tell whether the vendor has the work",
    "Look at the vendor's dashboard, then adopt the work or confirm that it is not there.",
  ],
  work_vanished: ["the vendor does not know an id that it gave us", "Look at the vendor's dashboard, then resume or cancel."],
  attempts_exhausted: ["the bound on paid attempts is reached", "A retry may allow another attempt."],
  tries_exhausted: ["the stage failed as often as it may", "Mend what the error says, then replay its dead letter."],
  kills_consumers: [
    "it was started again and again and never ended, so it seems to kill workers",
    "Look at the workers' logs before it is replayed.",
  ],
  invalid_result: ["the result is not a usable video", "A replay fetches it again and does not pay again."],
  task_id_conflict: ["a vendor id belongs to somebody else's submission", "Compare the submissions with the vendor's dashboard."],
  internal_error: ["of a fault of ours", "The producer's and workers' logs say more."],
};

/** Why nothing is sent to an account. */
export const REFUSALS = {
  stopped: "all paid sends are stopped",
  manual: "paused by an operator",
  misconfigured: "the vendor refuses our key, signature or plan",
  out_of_credit: "the account has no credit",
  throttled: "the vendor asked for fewer requests",
  circuit: "too many calls in a row went wrong",
  floor: "the balance is below its floor",
  budget: "the day's budget is used up",
  full: "as many works as allowed are in flight",
  rate: "as many requests as allowed were sent just now",
};

/** Those that do not pass by themselves. */
export const NEEDS_SOMEBODY = ["manual", "misconfigured", "out_of_credit", "floor", "circuit"];

export const words = text => String(text).replaceAll("_", " ");
export const count = n => Number(n).toLocaleString("en");
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const shortId = id => String(id).slice(0, 8);

/** In the vendor's unit. */
export function money(vendor, amount) {
  if (amount === null || amount === undefined) return "–";
  const digits = { maximumFractionDigits: vendor === "sync" ? 4 : 2 };
  if (vendor !== "sync") return `${Number(amount).toLocaleString("en", digits)} ${amount === 1 ? "point" : "points"}`;
  return `$${Number(amount).toLocaleString("en", { minimumFractionDigits: 2, ...digits })}`;
}

const UNITS = [
  [86400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

/** A length of time, of seconds, in its two largest units. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.max(0, seconds);
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  const first = UNITS.findIndex(([size]) => s >= size);
  const [[size, unit], next] = [UNITS[first], UNITS[first + 1]];
  const rest = Math.floor((s % size) / next[0]);
  return `${Math.floor(s / size)} ${unit}${rest ? ` ${rest} ${next[1]}` : ""}`;
}

export const between = (from, to) => span((Date.parse(to) - Date.parse(from)) / 1000);

/** How far a time is from now, in its largest unit: `3 min ago`, `in 20 s`. */
export function relative(at) {
  const seconds = Math.round((now() - Date.parse(at)) / 1000);
  if (seconds === 0) return "now";
  const [size, unit] = UNITS.find(([size]) => Math.abs(seconds) >= size);
  return seconds > 0 ? `${Math.floor(seconds / size)} ${unit} ago` : `in ${Math.ceil(-seconds / size)} ${unit}`;
}

const isToday = date => date.toDateString() === new Date(now()).toDateString();

/** A time of day to the millisecond, for what follows on each other. */
export const exact = at =>
  new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

/** A time of day, with the date when it is not today. */
export function clock(at) {
  const date = new Date(at);
  const time = date.toLocaleTimeString("en-GB");
  return isToday(date) ? time : `${date.toLocaleDateString("en-CA")} ${time}`;
}

/** A time that shows its UTC form when pointed at. */
export function time(at, text = relative) {
  return at ? h("time", { datetime: at, title: `${at} (UTC)` }, text(at)) : "–";
}

const TONES = {
  completed: "good",
  succeeded: "good",
  done: "good",
  running: "busy",
  sending: "good",
  settled: "good",
  processing: "busy",
  dispatched: "busy",
  accepted: "busy",
  redoing: "busy",
  claimed: "busy",
  going: "busy",
  failed: "bad",
  dead: "bad",
  rejected: "bad",
  duplicate: "bad",
  "dead again": "bad",
  lost: "bad",
  parked: "warn",
  paused: "warn",
  unknown: "warn",
  awaiting: "warn",
  draining: "warn",
  quiet: "warn",
};
const MARKS = { good: "✓", busy: "●", bad: "✕", warn: "!", calm: "○" };

/** A state as a word with a mark: never by its colour alone. */
export function badge(state, attributes = {}, text = words(state)) {
  const tone = TONES[state] ?? "calm";
  return h(`span.badge.${tone}`, attributes, h("span", { "aria-hidden": "true" }, MARKS[tone]), text);
}

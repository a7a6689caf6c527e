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

// What the words of the API mean, as it says itself.
let reasons = new Map();
let refusals = new Map();
let findings = new Map();

/** Takes in what `GET /v1/words` says. */
export function learn(told) {
  const byCode = list => new Map(list.map(word => [word.code, word]));
  reasons = byCode(told.reasons);
  refusals = byCode(told.refusals);
  findings = byCode(told.findings ?? []);
}

/** Why a job stands or failed: what that means, and what can be done. */
export const meaning = reason => reasons.get(reason)?.meaning ?? words(reason ?? "unknown");
export const remedy = reason => reasons.get(reason)?.remedy ?? "";
/** Why nothing is sent to an account. */
export const refusalMeaning = refusal => refusals.get(refusal)?.meaning ?? words(refusal);
/** How the ledger and a vendor's list differ. */
export const findingMeaning = kind => findings.get(kind)?.meaning ?? words(kind);
/** Whether a repair ends it: not money that has to be asked back, nor a work that the vendor has lost. */
export const isRepairable = kind => findings.get(kind)?.repairable ?? false;

/** Whether a text is the code of a reason. */
export const isReason = text => reasons.has(text);

/** A reason in words, with the code that filters take. */
export const coded = reason => [
  h("span", { title: remedy(reason) || null }, meaning(reason)),
  " ",
  h("code.code", { title: "The code that filters take" }, reason),
];

/** The code of a reason that somebody has in words; what is none stays as it is. */
export function codeOf(text) {
  const said = text.trim().toLowerCase();
  const is = ({ code, meaning }) => [code, words(code), meaning].some(word => word.toLowerCase() === said);
  return [...reasons.values()].find(is)?.code ?? text.trim();
}

/** What completes the codes of reasons in fields that name this list: found by the code, its words and their meaning. */
export function reasonList(id) {
  const options = [...reasons.values()].map(({ code, meaning }) => h("option", { value: code }, `${words(code)}: ${meaning}`));
  const list = h("datalist", options);
  list.setAttribute("id", id);
  return list;
}

/** Those that do not pass by themselves. */
export const NEEDS_SOMEBODY = ["manual", "misconfigured", "out_of_credit", "floor", "budget", "circuit"];

export const words = text => String(text).replaceAll("_", " ");

/** A value of the API in words, whatever is in it. */
export function told(value) {
  if (Array.isArray(value)) return value.length ? value.map(told).join(", ") : "none";
  if (value === null || value === undefined) return "none";
  if (typeof value === "object") {
    const given = Object.entries(value).filter(([, inner]) => inner !== null);
    return given.length ? given.map(([name, inner]) => `${words(name)} ${told(inner)}`).join(", ") : "none";
  }
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}

/** The words of a vendor without markup: an answer may be a whole page. What groups of errors have in place of ids and numbers stays. */
export function plain(text) {
  return String(text ?? "")
    .replace(/<(script|style|title)\b[\s\S]*?(<\/\1>|$)/gi, " ")
    .replace(/<!--[\s\S]*?(-->|$)/g, " ")
    .replace(/<(?!(?:url [^<>]*|id|hex|n)>)[/!]?[a-z][^<>]*(>|…?$)/gi, " ")
    .replaceAll("&nbsp;", " ")
    .replace(/\s+/g, " ")
    .replace(/:? ([,;.)])/g, "$1")
    .replace(/[\s:]+$/, "")
    .trim();
}

/** The same, with the whole text behind it where it is another one. */
export function said(text) {
  const short = plain(text);
  if (short === String(text).trim()) return short;
  return [short, " ", h("details.whole", { test: "whole" }, h("summary", "The whole text"), h("code", text))];
}
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

/** A moment, `2026-11-22 16:00:00 UTC`: the form of the command line, logs and days of costs, whatever the zone of who looks. */
export const moment = at => `${new Date(at).toISOString().slice(0, 19).replace("T", " ")} UTC`;

/** A time: how far it is from now, which shows the moment when pointed at; or the moment, where things follow on each other. */
export function time(at, text = relative) {
  if (!at) return "–";
  return h("time", { datetime: at, title: text === moment ? relative(at) : moment(at) }, text(at));
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
  "sent out": "busy",
  held: "warn",
  paused: "warn",
  unknown: "warn",
  awaiting: "warn",
  draining: "warn",
  quiet: "warn",
  stopped: "calm",
};
const MARKS = { good: "✓", busy: "●", bad: "✕", warn: "!", calm: "○" };

/** A state as a word with a mark: never by its colour alone. */
export function badge(state, attributes = {}, text = words(state)) {
  const tone = TONES[state] ?? "calm";
  return h(`span.badge.${tone}`, attributes, h("span", { "aria-hidden": "true" }, MARKS[tone]), text);
}

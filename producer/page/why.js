// Why a job does not move, in a sentence or two, and what stops an account.

import { now } from "./api.js";
import { h } from "./dom.js";
import { meaning, moment, plain, refusalMeaning, relative, remedy, said, vendorName } from "./words.js";

const POLLS = { "lipsync.poll": "sync", "inpaint.poll": "ghostcut" };
/** How long a poll may be due before that is worth a look. */
const POLL_GRACE_MS = 60_000;

/** Of a job as the API shows it. */
export function why(job) {
  if (!job.stage) return over(job);
  const { stage, state, reason, due_at: due, tries } = job.stage;
  if (state === "dead") {
    return `It was given up in ${stage} because ${meaning(reason)}. ${remedy(reason)} It waits as a dead letter.`;
  }
  if (state === "parked") return `It stands in ${stage} until somebody decides: ${meaning(reason)}. ${remedy(reason)}`;
  const tried = tries > 0 ? ` ${tries === 1 ? "One try has" : `${tries} tries have`} failed so far.` : "";
  if (job.held?.by === "no_worker") {
    return `It stands still: ${job.held.sentence}. It goes on as soon as one does: start one, or resume one that is quiet.${tried}`;
  }
  if (job.held) return `It is due in ${stage} and held back: ${plain(job.held.sentence)}.${overByNow(job.held.until)}${tried}`;
  if (job.put_off) {
    const shorter = job.put_off.answer ? " A resume does not wait." : "";
    return `In ${stage} ${plain(job.put_off.sentence)}.${overByNow(job.put_off.until)}${shorter}${tried}`;
  }
  if (stage === "inpaint.reconcile") {
    return `The answer to its paid request was lost. The work is searched for at GhostCut, next ${relative(due)}, and nothing is paid again before it is clear.${tried}`;
  }
  const vendor = POLLS[stage];
  // Between polls there is nothing to be done but to wait for the vendor; one that stays due for long is another matter.
  if (vendor && Date.parse(due) > now() - POLL_GRACE_MS) {
    const at = Date.parse(due) > now() && state === "waiting" ? relative(due) : "now";
    return `It is at ${vendorName(vendor)}, ${job.progress_percentage} % of the whole done; the vendor is asked again ${at}.${tried}`;
  }
  if (Date.parse(due) > now()) {
    if (job.stage.started_at) return `It runs: a worker took up ${stage} ${relative(job.stage.started_at)}.${tried}`;
    return state === "dispatched"
      ? `It moves: ${stage} is with a worker or in its queue. If nothing comes of that until ${moment(due)}, it is due again.`
      : `It waits for its time: ${stage} is due ${relative(due)}.${tried}`;
  }
  return `It is due in ${stage} and will be given to a worker at once. If it stays so, look whether a producer and a worker for this stage run.${tried}`;
}

function over(job) {
  if (job.status === "completed") return "It is done; nothing more is to happen.";
  if (job.status === "canceled")
    return "It was canceled. A retry puts it back on its way, and pays for nothing that is paid for.";
  if (job.status === "failed") {
    const code = job.error?.code;
    return `It failed because ${meaning(code)}. ${remedy(code)}`;
  }
  return "The fleet has not taken it in yet.";
}

const isPast = at => Boolean(at) && Date.parse(at) <= now();
/** What was waited for until then is about to happen. */
const overByNow = until => (isPast(until) ? " That time has passed: it is about to be tried again." : "");

/** Why nothing is sent to an account, and until when. */
export function stopped(account) {
  let until = account.refusal_until ? `until ${moment(account.refusal_until)}` : "until somebody resumes it";
  if (isPast(account.refusal_until)) until = "about to be tried again";
  const because = account.refusal_reason ? `: ${plain(account.refusal_reason)}` : "";
  // They end with any work, and with a reading of the balance, not at the time until which they are known.
  const passes = account.refusal === "full" || account.refusal === "floor";
  return `${refusalMeaning(account.refusal)}${because}${passes ? "" : `, ${until}`}`;
}

/** Whether work is sent to an account, as a word. */
export const sending = (account, status) => (status.paid_sends_stopped || account.refusal ? "paused" : "sending");

/** The same in full, on the card of an account, with the global stop, which keeps it from all. */
export function standing(account, { paid_sends_stopped: stop }) {
  const reason = account.refusal_reason;
  const whole = reason ? [said(reason)].flat().slice(1) : [];
  return [
    stop && h("p.warn", { test: "all-stopped" }, `All paid sends are stopped: ${plain(stop.reason)} (${stop.by}).`),
    account.refusal &&
      h("div.warn", { test: "refusal" }, `${stop ? "Besides, nothing" : "Nothing"} new is sent: ${stopped(account)}.`, whole),
  ];
}

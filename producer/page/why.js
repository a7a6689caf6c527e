// Why a job does not move, in a sentence or two.

import { now } from "./api.js";
import { REASONS, REFUSALS, clock, relative, vendorName, words } from "./words.js";

const PAYS = { "lipsync.submit": "sync", "inpaint.submit": "ghostcut" };

const meaning = reason => REASONS[reason]?.[0] ?? words(reason ?? "unknown");
const remedy = reason => REASONS[reason]?.[1] ?? "";

/** Of a job as the API shows it, and of what stops accounts and paid sends as `GET /v1/status` does; none where it cannot be read. */
export function why(job, status) {
  if (!job.stage) return over(job);
  const { stage, state, reason, due_at: due, tries } = job.stage;
  if (state === "dead") {
    return `It was given up in ${stage} because ${meaning(reason)}. ${remedy(reason)} It waits as a dead letter.`;
  }
  if (state === "parked") return `It stands in ${stage} until somebody decides: ${meaning(reason)}. ${remedy(reason)}`;
  if (state === "dispatched") {
    return `It moves: ${stage} is with a worker or in its queue. If nothing comes of that by ${clock(due)}, it is due again.`;
  }
  const tried = tries > 0 ? ` ${tries === 1 ? "One try has" : `${tries} tries have`} failed so far.` : "";
  if (Date.parse(due) > now()) return `It waits for its time: ${stage} is due ${relative(due)}.${tried}`;
  const held = holds(stage, status);
  if (held) return `It is due and held back: ${held}`;
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

/** What holds back paid sends of this stage. */
function holds(stage, status) {
  const vendor = PAYS[stage];
  if (!vendor || !status) return null;
  const stop = status.paid_sends_stopped;
  if (stop) return `all paid sends were stopped by ${stop.by} (${stop.reason}).`;
  const account = status.accounts_stopped.find(account => account.vendor === vendor);
  return account && `nothing new is sent to ${vendorName(vendor)}: ${stopped(account)}.`;
}

/** Why nothing is sent to an account, and until when. */
export function stopped(account) {
  const until = account.refusal_until ? `until ${clock(account.refusal_until)}` : "until somebody resumes it";
  const because = account.refusal_reason ? `: ${account.refusal_reason}` : "";
  const passes = account.refusal === "full" || account.refusal === "rate";
  return `${REFUSALS[account.refusal] ?? words(account.refusal)}${because}${passes ? "" : `, ${until}`}`;
}

/** Whether work is sent to an account, as a word. */
export const sending = (account, status) => (status.paid_sends_stopped || account.refusal ? "paused" : "sending");

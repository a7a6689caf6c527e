// What the lines of a job's trail changed: where the job stood, its stage and state, and its status, before and after.
//
// A line says where its actor found the job and what came of it. Which stage follows is read from the line after it, or from the
// job, so that the pipeline is written down in one place, and not here.

const BEGINS = ["created", "adopted"];
const RESTARTS = ["retried", "replayed"];
/** States that a line of this kind leaves the job's stage in. */
const LEAVES = { retry: "waiting", later: "waiting", parked: "parked", gave_up: "dead", resumed: "waiting" };
/** Kinds that end it. */
const ENDS = ["failed", "over", "discarded"];

/** By the number of each line that changed something: `[what, before, after]` for each change. */
export function moves(lines, job) {
  const all = new Map();
  let place = null;
  let status = null;
  lines.forEach((line, index) => {
    if (!hasMoved(line)) return;
    const before = { place: found(line, place), status: wasSaid(line) ?? status };
    place = left(line, lines.slice(index + 1), job, before.place);
    status = became(line, before.status, place, job);
    const changes = [
      ["stage", inWords(before.place), inWords(place)],
      ["status", before.status ?? (line.kind === "created" ? "none" : "not known"), status ?? "not known"],
    ];
    all.set(
      line.id,
      changes.filter(([, from, to]) => from !== to),
    );
  });
  return all;
}

const inWords = place => (place ? `${place.stage} ${place.state}` : "none");

/** The status that a line itself names as the one before. */
const wasSaid = ({ kind, detail }) => ["canceled", ...RESTARTS].includes(kind) ? detail?.was : null;

/** Lines that are not about a move say nothing of one; who came too late moved nothing. */
function hasMoved({ kind, detail }) {
  const alone = [...BEGINS, ...RESTARTS, "resumed", "canceled", "discarded"];
  return alone.includes(kind) || ["moved", "held"].includes(detail?.move);
}

/** Where the line's actor found the job. */
function found({ kind, stage, detail }, place) {
  if (BEGINS.includes(kind)) return null;
  if (RESTARTS.includes(kind)) return detail.from ? { stage: detail.from, state: place?.state ?? "dead" } : null;
  if (kind === "discarded") return { stage, state: "dead" };
  if (kind === "canceled" && !stage) return null;
  if (kind === "resumed") return { stage, state: detail.was === "waiting" ? "waiting" : "parked" };
  // What runs was dispatched before, which the trail does not say line by line.
  const stands = place && place.state !== "waiting" ? place.state : kind === "canceled" ? "waiting" : "dispatched";
  return { stage: place?.stage ?? stage, state: stands };
}

/** Where it left the job; null: in no stage. */
function left(line, later, job, before) {
  const { kind, stage, detail = {} } = line;
  if (BEGINS.includes(kind) || RESTARTS.includes(kind)) return { stage, state: "waiting" };
  if (kind === "canceled") return detail.outcome_unclear ? before : null;
  // The ledger knew more than the line's actor: it is looked at again, or a person has to.
  if (detail.ledger === "taken" || detail.metadata === "other") return { stage: before.stage, state: "parked" };
  if (["kept", "second"].includes(detail.ledger) || detail.move === "held") return { stage: before.stage, state: "waiting" };
  if (ENDS.includes(kind)) return null;
  if (LEAVES[kind]) return { stage: before.stage, state: LEAVES[kind] };
  const next = later.find(other => other.stage && other.kind !== "swept" && hasMoved(other));
  const follows = next && !RESTARTS.includes(next.kind) ? next.stage : next ? next.detail.from : job.stage?.stage;
  return follows ? { stage: follows, state: "waiting" } : null;
}

/** What the job's status became. */
function became({ kind, detail = {} }, before, place, job) {
  if (kind === "created") return "queued";
  // Another application's row, as far as it has come.
  if (kind === "adopted") return null;
  if (RESTARTS.includes(kind)) return "processing";
  if (kind === "canceled") return "canceled";
  if (before === "canceled" || before === "failed") return before;
  if (kind === "gave_up" || (kind === "failed" && !place)) return place?.state === "waiting" ? before : "failed";
  if (kind === "advanced" && !place) return job.status === "completed" ? "completed" : before;
  // The vendor has begun.
  return String(detail.event).startsWith("Accepted") ? "processing" : before;
}

// What a line of a job's trail changed: where the job stood, as stage and state, and its status, before and after. A run's line says it
// itself; what people do, and how a job came in, is always the same change.

/** `[what, before, after]` of each change. */
export function changes({ kind, stage, detail }) {
  const { from, to, was, status, outcome_unclear: unclear } = detail ?? {};
  const changed = {
    created: [["stage", "none", `${stage} waiting`], ["status", "none", "queued"]],
    adopted: [["stage", "none", `${stage} waiting`]],
    retried: [["stage", from ?? "none", `${stage} waiting`], ["status", was, "processing"]],
    replayed: [["stage", from ?? "none", `${stage} waiting`], ["status", was, "processing"]],
    resumed: [["stage", `${stage} ${was === "waiting" ? was : "parked"}`, `${stage} waiting`]],
    canceled: [["stage", stage, unclear ? stage : "none"], ["status", was, "canceled"]],
    discarded: [["stage", `${stage} dead`, "none"]],
  };
  return (changed[kind] ?? [["stage", from, to], ["status", was, status]]).filter(
    ([, before, after]) => after && before !== after,
  );
}

// Whatever has some id: a job, a submission, a user.

import { get } from "./api.js";
import { h } from "./dom.js";
import { badge, vendorName } from "./words.js";

const byUser = user => `#/jobs?user_id=${user}`;

/** Goes to what has this id, if there is something; says whether it went. */
export async function lead(id) {
  // Whoever is not answered looks for names.
  const found = await get("/v1/find", { id }).catch(() => ({ jobs: [], submissions: [], users: [] }));
  const places = new Set([
    ...found.jobs.map(job => `#/jobs/${job.id}`),
    ...found.submissions.map(one => `#/jobs/${one.job_id}`),
    ...found.users.map(byUser),
  ]);
  if (places.size === 0) return false;
  location.hash = places.size === 1 ? [...places][0] : `#/find?id=${encodeURIComponent(id)}`;
  return true;
}

export function find({ query }) {
  const id = query.id ?? "";
  return {
    title: "Found",
    load: () => get("/v1/find", { id }),
    draw: ({ jobs, submissions, users }) => [
      h("h1", { tabindex: "-1" }, "Found by ", h("code", id)),
      h(
        "p.note",
        "At most ten of each kind. ",
        h("a", { href: `#/jobs?text=${encodeURIComponent(id)}` }, "Look for it in names and errors"),
      ),
      list("Jobs", jobs, job => [h("a.id", { href: `#/jobs/${job.id}` }, job.id), ` ${job.name} `, badge(job.status)]),
      list("Submissions", submissions, one => [
        h("a.id", { href: `#/jobs/${one.job_id}` }, one.token),
        ` ${vendorName(one.vendor)}, attempt ${one.attempt} `,
        one.vendor_task_id && ["work ", h("code", one.vendor_task_id), " "],
        badge(one.state),
      ]),
      list("Users", users, user => h("a.id", { href: byUser(user) }, user)),
    ],
  };
}

function list(title, rows, line) {
  return (
    rows.length > 0 && [
      h("h2", title),
      h(
        "ul",
        rows.map(row => h("li", { id: row.token ?? row.id ?? row, test: "found" }, line(row))),
      ),
    ]
  );
}

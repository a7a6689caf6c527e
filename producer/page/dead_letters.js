// What was given up, in groups of the same fault; a look at what a replay would do and cost; replaying and discarding.

import { action, ask, ifStill, problemBox, roleNote, sends } from "./act.js";
import { get } from "./api.js";
import { ANOTHER, begin, preview, told } from "./bulk.js";
import { definitions, h } from "./dom.js";
import { inWords } from "./selection.js";
import { badge, coded, plain, plural, said, time, words } from "./words.js";

const FILTERS = ["stage", "reason", "class", "since", "job", "user", "closed"];

export function deadLetters({ query, page }) {
  const filter = Object.fromEntries(Object.entries(query).filter(([name]) => FILTERS.includes(name)));
  const { closed: _, ...only } = filter;
  const previews = new Map();
  return {
    title: "Dead letters",
    async load() {
      const [grouped, flat] = await Promise.all([
        get("/v1/dead-letters", { ...filter, cursor: query.groups }),
        get("/v1/dead-letters", { ...filter, view: "flat", cursor: query.cursor }),
      ]);
      return { groups: grouped.groups, moreGroups: grouped.next_cursor, letters: flat.letters, next: flat.next_cursor };
    },
    draw: ({ groups, moreGroups, letters, next }) => [
      h("h1", { tabindex: "-1" }, "Dead letters"),
      h(
        "p.note",
        "Jobs that were given up. A replay puts them back to where the ledger says: what is paid for is not paid for again, what has to be is told before.",
      ),
      Object.keys(filter).length > 0 &&
        h(
          "p",
          filter.closed ? "The open and the closed ones" : "Only those",
          Object.keys(only).length > 0 && ` ${inWords(only)}`,
          ". ",
          h("a", { href: "#/dead-letters" }, "Show all that are open"),
        ),
      roleNote(),
      // What is closed is only looked at.
      filter.closed
        ? groups.filter(group => group.note).map(noted)
        : groups.length === 0
          ? h("p.empty", "No dead letter is open. All is well.")
          : groups.map(group => card(group, letters, { previews, page, filter })),
      !filter.closed && moreGroups && h("nav.pager", h("a.button", { href: address({ ...filter, groups: moreGroups }) }, "More groups")),
      letters.length > 0 && [h("h2", "One by one"), list(letters)],
      next &&
        h(
          "nav.pager",
          { "aria-label": "Pages" },
          h("a.button", { test: "older", href: address({ ...filter, cursor: next }) }, "Older"),
        ),
      !filter.closed &&
        h("p.note", h("a", { test: "closed", href: address({ ...filter, closed: true }) }, "Show the closed ones too"), ", with what was known about them."),
    ],
  };
}

const address = parameters => `#/dead-letters?${new URLSearchParams(parameters)}`;
const name = group => `${group.stage}/${group.reason}/${group.class}`;

function card(group, letters, { previews, page, filter }) {
  const selection = { ...filter, stage: group.stage, reason: group.reason, class: group.class };
  const sample = letters.find(
    letter => letter.stage === group.stage && letter.reason === group.reason && letter.class === group.class,
  );
  const looked = previews.get(name(group));
  const look = async () => {
    previews.set(name(group), await preview("replay", selection).catch(problem => ({ problem })));
    page.redraw();
  };
  return h(
    "article.card",
    { test: "group", id: name(group) },
    h("h2", plural(group.letters, "dead letter"), h("small", coded(group.reason), ` in ${group.stage}`)),
    h("div", said(group.class)),
    h(
      "p.note",
      "The oldest is from ",
      time(group.oldest),
      ", the newest from ",
      time(group.newest),
      ". ",
      h("a", { href: `#/dead-letters/${group.first}` }, `Sample: no. ${group.first}`),
      sample?.error && `: ${plain(sample.error)}`,
    ),
    known(group.note, group.oldest),
    h(
      "div.buttons.left",
      h("button", { id: "group-preview", type: "button", test: "group-preview", onclick: look }, "Preview a replay"),
      action("group-replay", "Replay…", () => begin(page, { ...REPLAY, filter: selection })),
      action("group-discard", "Discard…", () => begin(page, { ...DISCARD, filter: selection }), { danger: true }),
      action("group-note", group.note ? "Change the note…" : "Note…", () => noteDown(group.first, group.note, page)),
    ),
    looked && (looked.problem ? problemBox(looked.problem) : told(looked)),
  );
}

/** A group of which somebody has said something, where nothing is done to it. */
function noted(group) {
  return h(
    "article.card",
    { test: "group", id: name(group) },
    h("h2", plural(group.letters, "dead letter"), h("small", coded(group.reason), ` in ${group.stage}`)),
    h("div", said(group.class)),
    known(group.note, group.oldest),
  );
}

/** What people have found out about a group; `since`: when the oldest of it came. */
function known(note, since) {
  return (
    note &&
    h(
      "p.known",
      { test: "group-note-text" },
      h("b", "Note: "),
      note.text,
      h("small", ` ${note.by} `, time(note.at), Date.parse(note.at) < Date.parse(since) && ", when the same fault was there before"),
    )
  );
}

/** Asks what somebody has found out about the group of this letter. */
function noteDown(letter, note, page) {
  ask({
    title: "What is known about this group?",
    text: "Whoever looks next sees it. It stays when the letters are closed, and is there when the same fault comes again.",
    fields: [
      {
        name: "note",
        type: "textarea",
        label: "Note",
        hint: "Empty: there is none any more",
        value: note?.text,
        max: 1000,
        empty: null,
      },
    ],
    reasoned: false,
    confirm: "Keep the note",
    ...sends(
      "PUT",
      `/v1/dead-letters/${letter}/note`,
      page,
      "The note is kept.",
      note ? ifStill(note.version) : { "If-None-Match": "*" },
    ),
  });
}

const REPLAY = {
  action: "replay",
  verb: "Replay",
  thing: "dead letter",
  text: "Their jobs go to where the ledger says.",
  fields: [
    {
      name: "canary",
      type: "checkbox",
      value: true,
      label: "One of each group first",
      hint: "The others wait until you have seen what became of it",
    },
    { name: "per_minute", type: "number", min: 1, label: "At most so many a minute", hint: "Empty: all at once" },
    ANOTHER,
  ],
};
const DISCARD = {
  action: "discard",
  verb: "Discard",
  thing: "dead letter",
  text: "Their jobs stay failed. A job can still be put back on its way by a retry.",
  danger: true,
};

function list(letters) {
  return h(
    "table.cards",
    h(
      "thead",
      h(
        "tr",
        ["Letter", "Received", "Stage", "Why", "Job"].map(text => h("th", text)),
      ),
    ),
    h(
      "tbody",
      letters.map(letter =>
        h(
          "tr",
          { test: "letter-row", id: letter.id },
          h("th", { scope: "row" }, h("a", { href: `#/dead-letters/${letter.id}` }, `no. ${letter.id}`)),
          h("td", { "data-label": "Received" }, time(letter.received_at)),
          h("td", { "data-label": "Stage" }, letter.stage),
          h("td.wrap", { "data-label": "Why" }, letter.resolution && [badge(letter.resolution), h("small", ` by ${letter.resolved_by}: ${letter.resolved_reason}`), " "], coded(letter.reason), letter.error && h("small", { title: letter.error }, " ", plain(letter.error))),
          h("td.wrap", { "data-label": "Job" }, jobLink(letter) ?? "–"),
        ),
      ),
    ),
  );
}

const jobLink = letter =>
  letter.job_id && h("a", { href: `#/jobs/${letter.job_id}` }, letter.job_name, h("small.id", ` ${letter.job_id}`));

export function deadLetter({ id, page }) {
  return {
    title: `Dead letter ${id}`,
    load: async () => ({ letter: await get(`/v1/dead-letters/${encodeURIComponent(id)}`) }),
    draw: ({ letter }) => {
      const rows = [
        ["Received", time(letter.received_at)],
        ["Stage", letter.stage],
        ["Reason", coded(letter.reason)],
        ["Error", letter.error && said(letter.error)],
        ["Group", said(letter.class)],
        ["Job", jobLink(letter)],
        [
          "Closed",
          letter.resolution && [
            words(letter.resolution),
            " ",
            time(letter.resolved_at),
            ` by ${letter.resolved_by}: ${letter.resolved_reason}`,
          ],
        ],
        [
          "Message",
          letter.body && [h("small", `${letter.body.bytes} bytes`), h("pre", letter.body.text ?? letter.body.hex ?? "")],
        ],
        ["Headers of the broker", letter.headers && h("pre", JSON.stringify(letter.headers, null, 2))],
      ];
      return [
        h("p.crumbs", h("a", { href: "#/dead-letters" }, "Dead letters"), ` / ${letter.id}`),
        h("h1", { tabindex: "-1" }, `Dead letter ${letter.id}`),
        h(
          "p.why",
          letter.resolution
            ? "It is closed."
            : [
                "It is open. ",
                h(
                  "a",
                  { href: address({ stage: letter.stage, reason: letter.reason, class: letter.class }) },
                  "Replay or discard its group",
                ),
                letter.job_id && [", or ", h("a", { href: address({ job: letter.job_id }) }, "this one alone")],
                ".",
              ],
        ),
        known(letter.note, letter.received_at),
        h(
          "div.buttons.left",
          action("group-note", letter.note ? "Change the note…" : "Note…", () => noteDown(letter.id, letter.note, page)),
        ),
        definitions("dl.facts.card", rows),
      ];
    },
  };
}

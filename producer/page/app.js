// Begins here: who is signed in, which view the address names, and when it is drawn again.
//
// A view is a function of the address that returns `{ title, load, draw }`: `load` reads, `draw` makes elements of what was read,
// to which `fleet` is added, what `strip` read. `head` makes what is there although nothing could be read, `stream` are the
// events to follow. It is given the page: `refresh()` reads and draws again, `redraw()` only draws.

import { Problem, call, get, session } from "./api.js";
import { me, problemBox } from "./act.js";
import { h, refocus, renew, toast } from "./dom.js";
import { follow } from "./live.js";
import { strip, navigation } from "./strip.js";
import { signIn } from "./sign_in.js";
import { overview } from "./overview.js";
import { find } from "./find.js";
import { jobs } from "./jobs.js";
import { job } from "./job.js";
import { deadLetters, deadLetter } from "./dead_letters.js";
import { unknowns, unknown } from "./unknowns.js";
import { vendors } from "./vendors.js";
import { operations, operation } from "./operations.js";
import { audits, audit } from "./audits.js";
import { trail } from "./trail.js";
import { learn } from "./words.js";

const VIEWS = {
  "": [overview],
  jobs: [jobs, job],
  find: [find],
  "dead-letters": [deadLetters, deadLetter],
  unknowns: [unknowns, unknown],
  vendors: [vendors],
  operations: [operations, operation],
  audits: [audits, audit],
  trail: [trail],
};
/** Between two looks while events come, of one job and of the fleet, and when none come; milliseconds. */
const BUSY_JOB = 500;
const BUSY = 2000;
const IDLE = 10_000;

const main = document.getElementById("view");
let page = null;

/** What the address names: `#/jobs/ID?status=failed`. */
function address() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id = null] = path.split("/");
  return { name, id, query: Object.fromEntries(new URLSearchParams(search)) };
}

/** Whether the next view is gone to for its filter. */
let seeking = false;

function focusFilter() {
  const filter = main.querySelector("[data-shortcut='/']");
  filter?.focus();
  return Boolean(filter);
}

async function navigate() {
  if (!me.role) return;
  // What was asked about another view is not to be answered over this one.
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  const { name, id, query } = address();
  const make = VIEWS[name]?.[id === null ? 0 : 1];
  const held = page?.name === name && document.activeElement?.dataset.test;
  page?.close();
  if (!make) return lost();
  page = new Page(name, make, id, query);
  navigation(name);
  const mine = page;
  await mine.refresh();
  if (page !== mine) return;
  if (seeking) {
    seeking = false;
    focusFilter();
    return;
  }
  const back = held && main.querySelector(`[data-test="${held}"]`);
  (back || main.querySelector("h1"))?.focus({ preventScroll: Boolean(back) });
}

function lost() {
  page = null;
  follow(null);
  navigation(null);
  main.dataset.view = "lost";
  renew(main, h("h1", { tabindex: "-1" }, "There is no such view"), h("p", h("a", { href: "#/" }, "Go to the overview")));
}

class Page {
  constructor(name, make, id, query) {
    this.name = name;
    this.closed = false;
    this.reading = null;
    this.data = null;
    this.view = make({ id, query, page: this });
    document.title = `${this.view.title} · GhostFleet`;
    main.replaceChildren(h("h1", { tabindex: "-1" }, this.view.title), h("p.note", "Reading…"));
    main.dataset.view = name === "" ? "overview" : id === null ? name : name.replace(/s$/, "");
    main.dataset.ready = "false";
    this.timer = setInterval(() => this.refresh(), IDLE);
    // What is read meanwhile may be older than an event; the look after it is not.
    follow(this.view.stream ?? (me.role === "submit" ? null : "/v1/events"), () => this.soon());
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    clearTimeout(this.waiting);
  }

  soon() {
    if (this.closed || this.waiting) return;
    this.waiting = setTimeout(
      () => {
        this.waiting = null;
        this.refresh();
      },
      this.view.stream ? BUSY_JOB : BUSY,
    );
  }

  /** Reads and draws; one at a time, and once more when it is asked for meanwhile. */
  async refresh() {
    if (this.closed || (document.hidden && this.data)) return;
    if (this.reading) {
      this.more = true;
      return this.reading;
    }
    this.reading = this.#read().finally(() => (this.reading = null));
    await this.reading;
    if (this.more) {
      this.more = false;
      await this.refresh();
    }
  }

  async #read() {
    try {
      const [data, fleet] = await Promise.all([this.view.load(), strip()]);
      if (this.closed) return;
      this.data = { ...data, fleet };
      this.problem = null;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.problem = problem;
    }
    this.redraw();
  }

  redraw() {
    if (this.closed || !me.role) return;
    const title = h("h1", { tabindex: "-1" }, this.view.title);
    const hadFocus = main.contains(document.activeElement);
    renew(
      main,
      this.data
        ? [problemBox(this.problem), this.view.draw(this.data)]
        : [title, this.view.head?.(), problemBox(this.problem), otherToken(this.problem)],
    );
    if (hadFocus) refocus();
    main.dataset.ready = String(Boolean(this.data || this.problem));
  }
}

/** What helps when the role does not allow to look. */
function otherToken(problem) {
  return (
    problem?.status === 403 &&
    me.name &&
    h("div.buttons.left", h("button", { type: "button", onclick: signOut }, "Sign in with another token"))
  );
}

function who() {
  const name = me.name ?? "this machine";
  const hint = me.name
    ? null
    : "There are no access tokens, so the API is open to this machine alone. `producer tokens create` closes it.";
  renew(
    document.getElementById("who"),
    h("span.name", { test: "session", title: hint ?? `${name} · ${me.role}` }, name, " · ", me.role, hint && " · no tokens"),
    me.name && h("button.quiet", { type: "button", test: "sign-out", onclick: signOut }, "Sign out"),
  );
  // There is room for it on a phone, too.
  renew(document.getElementById("signed-in"), me.name ? `Signed in as ${name} · ${me.role}` : hint);
}

async function signOut() {
  try {
    await call("DELETE", "/session");
    over();
  } catch (problem) {
    toast(`${problem.message}. ${problem.detail}`);
  }
}

/** Nobody is signed in (any more): the address stays, so that signing in leads back to it. */
function over() {
  me.role = me.name = null;
  page?.close();
  page = null;
  follow(null);
  for (const id of ["who", "signed-in", "strip", "nav"]) renew(document.getElementById(id));
  document.querySelectorAll("dialog").forEach(dialog => dialog.close());
  document.title = "Sign in · GhostFleet";
  signIn(main, begin);
}

/** Shows what the address names to whoever this is. */
async function begin(identity) {
  // Without them the words themselves are shown: a producer of an older version may answer.
  await get("/v1/words").then(learn, () => {});
  Object.assign(me, identity);
  who();
  return navigate();
}

// The address is the view's, so the link to the content cannot be one.
document.querySelector(".skip").onclick = event => {
  event.preventDefault();
  main.focus();
};
session.addEventListener("over", () => me.role && over());
addEventListener("hashchange", navigate);
document.addEventListener("visibilitychange", () => document.hidden || page?.refresh());
document.addEventListener("keydown", event => {
  const isTyping = event.target.closest?.("input, textarea, select, dialog");
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
  if (!me.role || me.role === "submit") return;
  event.preventDefault();
  if (focusFilter()) return;
  seeking = true;
  location.hash = "#/jobs";
});

try {
  const identity = await get("/session");
  if (identity.role) await begin(identity);
  else over();
} catch (problem) {
  if (!(problem instanceof Problem)) throw problem;
  if (problem.status === 401) over();
  else renew(main, h("h1", "GhostFleet"), problemBox(problem), h("p", h("a", { href: "/" }, "Try again")));
}

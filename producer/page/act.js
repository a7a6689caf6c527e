// What an operator does: a dialog that says what will happen, asks why, and shows what came of it where it was asked.

import { call } from "./api.js";
import { h, refocus, renew, toast } from "./dom.js";
import { words } from "./words.js";

/** Who is signed in: `{ name, role }`. */
export const me = { name: null, role: null };

export const mayOperate = () => me.role === "operate" || me.role === "admin";

/** A button that does something; without the right it is there and says why it does nothing. */
export function action(test, text, onclick, { danger = false, disabled = false, why = null } = {}) {
  const refused = !mayOperate();
  return h(
    `button${danger ? ".danger" : ""}`,
    {
      // Never changed into another one under the hand, or the focus, of whoever is about to press it.
      id: test,
      type: "button",
      test,
      onclick,
      disabled: refused || disabled,
      title: refused ? `Your role is ${me.role}; this needs the role operate` : disabled ? why : null,
    },
    text,
  );
}

/** Stands beside actions when the role does not allow them. */
export function roleNote() {
  if (mayOperate()) return null;
  const sees = me.role === "read" ? "you see everything" : "you see a job by its address";
  return h(
    "p.note",
    { test: "role-note" },
    `You are signed in with the role “${me.role}”: ${sees}, and the actions need the role “operate”.`,
  );
}

/** What helps somebody at the page, where the API speaks to programs. */
const HINTS = {
  "version-outdated": "Close this and look at what is there now.",
  "worker-not-found": "It has stopped.",
  "account-not-found": "Nobody has used it yet.",
};

const kindOf = problem => problem.kind?.split(":").at(-1);

/** A problem where it happened, with every field fault. */
export function problemBox(problem) {
  if (!problem) return null;
  const hint = HINTS[kindOf(problem)];
  const detail = hint ? [problem.detail.startsWith("meanwhile") && `${problem.detail}. `, hint] : problem.detail;
  return h(
    "div.problem",
    { test: "problem", role: "alert" },
    h("strong", problem.message),
    detail && !problem.faults?.length && h("p", detail),
    problem.faults?.length > 0 &&
      h(
        "ul",
        problem.faults.map(fault => h("li", fault.path ? h("b", words(fault.path.replace(/^\//, ""))) : null, " ", fault.message)),
      ),
  );
}

/**
 * Asks and does. `fields` are `{ name, label, type, value, hint, options, required, … }`, `run` is given their values and the
 * `reason`, and its answer is told to `done`; `reasoned`: false when the fields say why. The dialog stays open with the problem when it
 * fails; it runs once however often it is clicked.
 */
export function ask({ title, text = [], fields = [], reasoned = true, confirm, danger = false, run, done }) {
  const reason = { name: "reason", label: "Reason (required)", hint: "For the others; kept in the trail", required: true, max: 1000 };
  const all = reasoned ? [...fields, reason] : fields;
  const faults = h("div");
  const button = h(`button.primary${danger ? ".danger" : ""}`, { type: "submit", test: "dialog-confirm" }, confirm);
  const form = h(
    "form",
    { method: "dialog", onsubmit: submit },
    h("h2", title),
    [text]
      .flat(Infinity)
      .filter(Boolean)
      .map(part => (part instanceof Node ? part : h("p", part))),
    all.map(field),
    faults,
    h("div.buttons", h("button", { type: "button", test: "dialog-close", onclick: () => dialog.close() }, "Close"), button),
  );
  const dialog = show(title, form);
  let running = false;
  let isOver = false;

  async function submit(event) {
    event.preventDefault();
    if (running) return;
    running = button.disabled = true;
    renew(faults);
    try {
      const answer = await run(values(form, all));
      dialog.close();
      await done?.(answer);
    } catch (problem) {
      if (!dialog.open) toast(`${title} ${problem.message}. ${problem.detail}`);
      renew(faults, problemBox(problem));
      // What was asked about is no more.
      isOver = kindOf(problem) === "version-outdated";
      for (const { name } of all) {
        const isAtFault = problem.faults?.some(fault => fault.path === `/${name}`);
        form.elements[name].setAttribute("aria-invalid", Boolean(isAtFault));
      }
    } finally {
      running = false;
      button.disabled = isOver;
    }
  }

  form.querySelector("input, select, textarea")?.focus();
}

/** Says why something was not even asked. */
export function refused(title, problem) {
  show(
    title,
    h(
      "form",
      { method: "dialog" },
      h("h2", title),
      problemBox(problem),
      h("div.buttons", h("button", { test: "dialog-close" }, "Close")),
    ),
  );
}

/** A dialog that goes when it is closed, and gives the focus back. */
function show(title, content) {
  const opener = document.activeElement;
  const dialog = h("dialog", { test: "dialog", "aria-label": title }, content);
  dialog.onclose = () => {
    dialog.remove();
    if (opener?.isConnected) opener.focus();
    refocus();
  };
  document.getElementById("dialogs").append(dialog);
  dialog.showModal();
  return dialog;
}

function field({ name, label, type = "text", value = "", hint, options, required = false, max, min, step }) {
  const shared = { name, required, test: `dialog-${name}` };
  if (type === "checkbox") {
    return h("label.check", h("input", { ...shared, type, checked: Boolean(value) }), h("span", label, hint && h("small", hint)));
  }
  const input = options
    ? h(
        "select",
        shared,
        options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
      )
    : type === "textarea"
      ? h("textarea", { ...shared, maxlength: max ?? null, rows: 4 }, value)
      : h("input", { ...shared, type, value, min, step, maxlength: max ?? null, autocomplete: "off" });
  return h("label.field", h("span", label), input, hint && h("small", hint));
}

/** Empty fields are left out, unless null stands for them. */
function values(form, fields) {
  const read = {};
  for (const { name, type, number, empty } of fields) {
    const input = form.elements[name];
    if (type === "checkbox") read[name] = input.checked;
    else if (input.value.trim() === "") {
      if (empty === null) read[name] = null;
    } else read[name] = number || type === "number" ? Number(input.value) : input.value.trim();
  }
  return read;
}

/** Refuses a change of what somebody else has changed since it was read. */
export const ifStill = version => ({ "If-Match": `"${version}"` });

/** Sends what was asked for, says so and shows what is new. */
export function sends(method, path, page, said, headers) {
  return {
    run: body => call(method, path, body, headers),
    done: answer => {
      toast(typeof said === "function" ? said(answer) : said);
      return page.refresh();
    },
  };
}

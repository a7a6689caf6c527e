// Signing in: the token is sent once and not kept; the cookie of the session that comes back cannot be read by scripts.

import { problemBox } from "./act.js";
import { post } from "./api.js";
import { h, renew } from "./dom.js";

/** Asks for a token in `main`; `begin` is told who it was. */
export function signIn(main, begin) {
  const faults = h("div");
  const button = h("button.primary", { type: "submit", test: "sign-in-submit" }, "Sign in");
  const token = h("input", {
    name: "token",
    type: "password",
    required: true,
    autocomplete: "current-password",
    spellcheck: "false",
    test: "token",
    placeholder: "gf_…",
  });
  const submit = async event => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    renew(faults);
    try {
      const identity = await post("/session", { token: token.value.trim() });
      token.value = "";
      await begin(identity);
    } catch (problem) {
      renew(faults, problemBox(problem));
      token.select();
    } finally {
      button.disabled = false;
    }
  };
  main.dataset.view = "sign-in";
  main.dataset.ready = "true";
  main.replaceChildren(
    h(
      "form.sign-in.card",
      { test: "sign-in", onsubmit: submit },
      h("h1", "Sign in"),
      h("p", "With an access token: ", h("code", "producer tokens create NAME --role operate --reason …"), " prints one, once."),
      // For password managers, which keep a secret under a name.
      h("input", { type: "text", autocomplete: "username", value: "GhostFleet", hidden: true }),
      h("label.field", h("span", "Access token"), token),
      faults,
      h("div.buttons", button),
    ),
  );
  token.focus();
}

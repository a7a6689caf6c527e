// Builds and renews parts of the page. Every text becomes a text node, so nothing that comes from the API is taken for markup.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "onsubmit", "onchange", "oninput"];

/**
 * An element: `h("td.number", { title: "…" }, "text", child, [more])`. Attributes that are null or false are left out, `on…` are
 * handlers, `test` is what tests find it by, `id` says which of its siblings it is when the page is renewed.
 */
export function h(selector, ...rest) {
  const [name, ...classes] = selector.split(".");
  return build(document.createElement(name), classes, rest);
}

/** The same in SVG. */
export function svg(selector, ...rest) {
  const [name, ...classes] = selector.split(".");
  return build(document.createElementNS(SVG, name), classes, rest);
}

function build(node, classes, rest) {
  if (classes.length) node.setAttribute("class", classes.join(" "));
  const first = rest[0];
  const isAttributes = first !== null && typeof first === "object" && !Array.isArray(first) && !(first instanceof Node);
  for (const [name, value] of Object.entries(isAttributes ? rest.shift() : {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node[name] = value;
    else if (name === "test" || name === "id") node.setAttribute(`data-${name}`, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...flat(rest));
  return node;
}

function flat(children) {
  return children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false);
}

/**
 * Gives `parent` these children. What is there already is changed and not replaced, so that the focus, what somebody types, what is
 * unfolded and where it is scrolled to stay.
 */
export function renew(parent, ...children) {
  const fresh = document.createElement("div");
  fresh.append(...flat(children));
  renewChildren(parent, fresh);
}

function renewChildren(old, fresh) {
  const needed = new Set(Array.from(fresh.children, key));
  // Those there with a key, in order: a key may be there more than once.
  const keyed = new Map();
  for (const child of [...old.children]) {
    if (!key(child)) continue;
    if (!needed.has(key(child))) child.remove();
    else keyed.set(key(child), [...(keyed.get(key(child)) ?? []), child]);
  }
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const match = key(next) ? keyed.get(key(next))?.shift() : at && !key(at) && isAlike(at, next) && at;
    if (!match) {
      old.insertBefore(next, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    renewNode(match, next);
  }
  while (at) {
    const rest = at.nextSibling;
    at.remove();
    at = rest;
  }
}

const key = node => node.dataset?.id && `${node.nodeName} ${node.dataset.id}`;
const isAlike = (a, b) => a.nodeName === b.nodeName && a.name === b.name;

function renewNode(old, next) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  const keeps = name => name === "open" && old.nodeName === "DETAILS";
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && !keeps(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value && !keeps(name)) old.setAttribute(name, value);
  }
  for (const handler of HANDLERS) if (old[handler] !== next[handler]) old[handler] = next[handler];
  renewChildren(old, next);
}

/** A list of names and values, `[name, value]` each; those without a value are left out. */
export function definitions(selector, rows) {
  const given = rows.filter(([, value]) => value);
  return h(
    selector,
    given.map(([name, value]) => h("div", { id: name }, h("dt", name), h("dd", value))),
  );
}

/** Gives the focus to the view if what had it is gone, so that keys go on from there and not from the top of the page. */
export function refocus() {
  if (document.querySelector("dialog[open]") || (document.activeElement && document.activeElement !== document.body)) return;
  document.querySelector("main h1")?.focus({ preventScroll: true });
}

/** Says below the header what was done, for some seconds. */
export function toast(text) {
  const node = h("p", text);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}

// Asks the API of the producer that served the page. Every error becomes a `Problem`.

/** What went wrong: a problem document (RFC 9457), or that nobody answers. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.title ?? `The answer was ${status}`);
    this.status = status;
    this.kind = document.type ?? "";
    this.detail = document.detail ?? "";
    /** `{ path, message }`; the path is a JSON pointer or the name of a parameter. */
    this.faults = document.errors ?? [];
  }
}

/** Hears of an answer that says that the session is over. */
export const session = new EventTarget();

// How far the server's clock is ahead of this one, in milliseconds: ages are told by the server's.
let ahead = 0;

/** Now, by the server's clock, in milliseconds. */
export const now = () => Date.now() + ahead;

/** Asks; the body of the answer is JSON or empty. */
export async function call(method, path, body, headers = {}) {
  const init = { method, headers: { ...headers } };
  if (body !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Problem(0, { title: "The producer does not answer", detail: "Is it running, and can this machine reach it?" });
  }
  const date = Date.parse(answer.headers.get("Date"));
  // The header has whole seconds: only a real difference counts.
  if (date) ahead = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
  const text = await answer.text();
  let document = {};
  try {
    document = text ? JSON.parse(text) : {};
  } catch {
    document = { title: `The answer was ${answer.status}`, detail: "and no JSON; is there a proxy in between?" };
    if (answer.ok) throw new Problem(answer.status, document);
  }
  if (answer.ok) return document;
  if (answer.status === 401) session.dispatchEvent(new Event("over"));
  throw new Problem(answer.status, document);
}

/** Reads; parameters that are empty are left out. */
export function get(path, parameters = {}) {
  return call("GET", path + query(parameters));
}

export const post = (path, body, headers) => call("POST", path, body, headers);

/** `?name=value…`, or nothing. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given).toString();
  return text && `?${text}`;
}

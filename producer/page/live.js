// Follows what happens, by server-sent events, and shows whether it can. A tab that nobody sees does not follow: the places are few.

let source = null;
let wanted = null;
let again = null;
// Refusals in a row: each doubles the wait, so that those who are refused under load do not add to it.
let refusals = 0;
/** The first and the longest wait after a refusal, in milliseconds. */
const FIRST_WAIT = 1000;
const LONGEST_WAIT = 60_000;

/**
 * Follows this stream instead of the one before; null: none. `heard` is called for every event, and with null when the stream
 * begins: what happened before is not told.
 */
export function follow(path, heard) {
  wanted = path && { path, heard };
  connect();
}

function connect() {
  clearTimeout(again);
  source?.close();
  source = null;
  if (!wanted) return mark("off");
  if (document.hidden) return mark("off");
  const { path, heard } = wanted;
  const mine = (source = new EventSource(path));
  mark("reconnecting");
  mine.onopen = () => {
    refusals = 0;
    mark("live");
    heard(null);
  };
  mine.onmessage = event => heard(JSON.parse(event.data));
  mine.onerror = () => {
    mark("reconnecting");
    // The browser comes again by itself unless it was refused.
    if (mine.readyState !== EventSource.CLOSED || mine !== source) return;
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** refusals);
    refusals += 1;
    // Not all at once.
    again = setTimeout(connect, wait * (0.8 + 0.4 * Math.random()));
  };
}

document.addEventListener("visibilitychange", connect);

const WORDS = { live: "Live", reconnecting: "Reconnecting…", off: "Not live" };
const HINTS = {
  live: "What happens is shown as it happens",
  reconnecting: "The stream of events is interrupted; what is shown is renewed every ten seconds",
  off: "This view is renewed every ten seconds",
};

/** Shows the state of the stream. */
function mark(state) {
  const node = document.getElementById("live");
  node.hidden = !wanted;
  node.dataset.state = state;
  node.textContent = WORDS[state];
  node.title = HINTS[state];
}

// Follows what happens, by server-sent events, and shows whether it can. A tab that nobody sees does not follow: the places are few.

let source = null;
let wanted = null;
let again = null;

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
    mark("live");
    heard(null);
  };
  mine.onmessage = event => heard(JSON.parse(event.data));
  mine.onerror = () => {
    mark("reconnecting");
    // The browser comes again by itself unless it was refused.
    if (mine.readyState === EventSource.CLOSED) again = setTimeout(connect, 3000);
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

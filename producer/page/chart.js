// Charts of the last hour as inline SVG, without a library: bars and lines over minutes.

import { h, svg } from "./dom.js";

const HEIGHT = 100;

/**
 * Bars on each other: `points` have `at` and one number for each of `parts`, `{ key, name, tone }`. `summary` says the same in words.
 */
export function bars(test, title, summary, points, parts) {
  const total = point => parts.reduce((sum, part) => sum + point[part.key], 0);
  const top = nice(Math.max(1, ...points.map(total)));
  const drawn = points.map((point, index) => {
    let y = HEIGHT;
    const stack = parts.map(part => {
      const height = (point[part.key] / top) * HEIGHT;
      y -= height;
      return height > 0 && svg(`rect.${part.tone}`, { x: index + 0.1, y, width: 0.8, height });
    });
    const words = parts.map(part => `${point[part.key]} ${part.name}`).join(", ");
    return svg(
      "g",
      svg("title", `${minute(point.at)}: ${words}`),
      svg("rect.hit", { x: index, y: 0, width: 1, height: HEIGHT }),
      stack,
    );
  });
  return figure(test, { title, summary, points, top: String(top), parts }, drawn);
}

/** Lines; a point without a value is a gap. `label` says a value in words. */
export function lines(test, title, summary, points, parts, label) {
  const values = points.flatMap(point => parts.map(part => point[part.key])).filter(value => value !== null);
  const top = Math.max(1, ...values) * 1.1;
  const drawn = parts.map(part => {
    let pen = "M";
    const path = points
      .map((point, index) => {
        if (point[part.key] === null) {
          pen = "M";
          return "";
        }
        const step = `${pen}${index + 0.5} ${HEIGHT - (point[part.key] / top) * HEIGHT}`;
        pen = "L";
        return step;
      })
      .join("");
    // A minute alone between two gaps is a dot, which a line of no length draws.
    return svg(`path.line.${part.tone}`, { d: path.replace(/M([\d.]+ [\d.]+)(?=M|$)/g, "M$1l0 0") });
  });
  const hits = points.map((point, index) =>
    svg(
      "g",
      svg(
        "title",
        `${minute(point.at)}: ${parts.map(part => `${part.name} ${point[part.key] === null ? "–" : label(point[part.key])}`).join(", ")}`,
      ),
      svg("rect.hit", { x: index, y: 0, width: 1, height: HEIGHT }),
    ),
  );
  return figure(test, { title, summary, points, top: label(top), parts }, [drawn, hits]);
}

function figure(test, { title, summary, points, top, parts }, drawn) {
  return h(
    "figure.chart",
    { test },
    h(
      "figcaption",
      h("strong", title),
      h(
        "span",
        parts.map(part => h(`span.key.${part.tone}`, part.name)),
      ),
    ),
    h(
      "div.plot",
      h("span.top", { "aria-hidden": "true" }, top),
      svg(
        "svg",
        {
          viewBox: `0 0 ${points.length} ${HEIGHT}`,
          preserveAspectRatio: "none",
          role: "img",
          "aria-label": `${title}: ${summary}`,
        },
        svg("path.grid", { d: `M0 0H${points.length}M0 ${HEIGHT / 2}H${points.length}M0 ${HEIGHT}H${points.length}` }),
        drawn,
      ),
    ),
    h(
      "div.axis",
      { "aria-hidden": "true" },
      points.length > 0 && [h("span", minute(points[0].at)), h("span", minute(points.at(-1).at))],
    ),
    h("p.note", summary),
  );
}

const minute = at => `${new Date(at).toISOString().slice(11, 16)} UTC`;

/** The next round number. */
function nice(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find(step => step * size >= value) * size;
}

/** A line of a card without a bar, aligned with those that have one. */
export const fact = (label, text) => gauge(label, 0, 0, text);

/** How much of what there may be, as a bar with the numbers in words beside it. */
export function gauge(label, value, most, text) {
  const full = most ? Math.min(1, value / most) : 0;
  return h(
    "div.gauge",
    h("span", label),
    h("span.number", text),
    most > 0 &&
      svg(
        "svg",
        { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect.rest", { width: 100, height: 4 }),
        svg(`rect.${full >= 1 ? "warn" : "busy"}`, { width: full * 100, height: 4 }),
      ),
  );
}

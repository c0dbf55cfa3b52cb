// Line charts as SVG. A series keeps its colour, dash and mark in every chart of the page.
const HUES = 8;
const DASHES = [null, "7 3", "2 3", "9 3 2 3"];
const MARKS = {
  circle: (x, y) => svg("circle", { cx: x, cy: y, r: 3.2 }),
  square: (x, y) => svg("rect", { x: x - 3, y: y - 3, width: 6, height: 6 }),
  triangle: (x, y) => svg("path", { d: `M${x},${y - 3.8}l3.7,6.6h-7.4z` }),
  diamond: (x, y) => svg("path", { d: `M${x},${y - 4}l4,4l-4,4l-4,-4z` }),
};

function styleOf(index) {
  return {
    hue: `c${index % HUES}`,
    dash: DASHES[Math.floor(index / HUES) % DASHES.length],
    mark: Object.keys(MARKS)[(index + Math.floor(index / HUES)) % 4],
  };
}

function mark(style, x, y, title) {
  const shape = MARKS[style.mark](x, y);
  shape.setAttribute("class", `mark ${style.hue}`);
  if (title) shape.append(svg("title", {}, title));
  return shape;
}

function niceTicks(low, high, count = 5) {
  const raw = (high - low || Math.abs(high) || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let i = Math.floor(low / step + 1e-9); i * step < high + step * 0.999; i++) ticks.push(Number((i * step).toPrecision(10)));
  return ticks;
}

function scaleOf(axis, values, from, to) {
  let ticks = axis.ticks;
  const forward = axis.log ? Math.log10 : (v) => v;
  if (!ticks && axis.log) {
    ticks = [];
    for (let p = 0; 10 ** p <= Math.max(...values) * 1.0001; p++) ticks.push(10 ** p);
  }
  if (!ticks) {
    ticks = niceTicks(Math.min(...values), Math.max(...values));
  }
  const ends = axis.log ? values : ticks;
  const [low, high] = [forward(Math.min(...ends)), forward(Math.max(...ends))];
  const margin = axis.margin || 0;
  const span = (to - from) * (1 - 2 * margin);
  const scale = (v) => from + (to - from) * margin + (high === low ? span / 2 : (span * (forward(v) - low)) / (high - low));
  return { ticks, scale };
}

const tickText = (v) => (Math.abs(v) >= 10000 ? `${Number((v / 1000).toPrecision(3))}k` : String(Number(v.toPrecision(4))));

// series: [{name, style, points: [[x, y]], errors: [e]}]; x and y: {label, log, ticks, margin}
function lineChart(title, x, y, series) {
  const drawn = series
    .map((one) => ({ ...one, points: one.points.filter((p) => p[0] !== null && p[1] !== null) }))
    .filter((one) => one.points.length);
  if (!drawn.length) return null;
  const [width, height, left, right, top, bottom] = [420, 268, 48, 12, 8, 42];
  const spread = (one, p, i) => (one.errors && one.errors[i] ? [p[1] - one.errors[i], p[1] + one.errors[i]] : [p[1]]);
  const xs = drawn.flatMap((one) => one.points.map((p) => p[0]));
  const ys = drawn.flatMap((one) => one.points.flatMap((p, i) => spread(one, p, i)));
  const horizontal = scaleOf(x, xs, left, width - right);
  const vertical = scaleOf(y, ys, height - bottom, top);
  const frame = svg("g", {});
  for (const tick of vertical.ticks) {
    const up = vertical.scale(tick);
    frame.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: up, y2: up }));
    frame.append(svg("text", { x: left - 6, y: up + 4, "text-anchor": "end" }, tickText(tick)));
  }
  for (const tick of horizontal.ticks) {
    const across = horizontal.scale(tick);
    frame.append(svg("line", { class: "axis", x1: across, x2: across, y1: height - bottom, y2: height - bottom + 4 }));
    frame.append(svg("text", { x: across, y: height - bottom + 16, "text-anchor": "middle" }, tickText(tick)));
  }
  frame.append(svg("path", { class: "axis", d: `M${left},${top}V${height - bottom}H${width - right}` }));
  frame.append(svg("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, x.label));
  const middle = (top + height - bottom) / 2;
  frame.append(svg("text", { x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})` }, y.label));
  for (const one of drawn) frame.append(drawSeries(one, horizontal.scale, vertical.scale, x, y));
  const description = `${title}; ${y.label} against ${x.label}; ${drawn.map((one) => one.name).join(", ")}`;
  return el("figure", {}, el("figcaption", {}, title), svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description }, frame));
}

function drawSeries(one, across, up, x, y) {
  const group = svg("g", { "data-series": one.name });
  const path = one.points.map((p, i) => `${i ? "L" : "M"}${across(p[0]).toFixed(1)},${up(p[1]).toFixed(1)}`).join("");
  group.append(svg("path", { class: `line ${one.style.hue}`, d: path, "stroke-dasharray": one.style.dash }));
  const few = one.points.length <= 12;
  const step = Math.max(1, Math.floor(one.points.length / 5));
  one.points.forEach((p, i) => {
    const [cx, cy] = [across(p[0]), up(p[1])];
    if (one.errors && one.errors[i]) {
      const [low, high] = [up(p[1] - one.errors[i]), up(p[1] + one.errors[i])];
      group.append(svg("path", { class: `error ${one.style.hue}`, d: `M${cx},${low}V${high}M${cx - 3},${low}h6M${cx - 3},${high}h6` }));
    }
    if (few || i % step === Math.floor(step / 2))
      group.append(mark(one.style, cx, cy, `${one.name}\n${x.label} ${tickText(p[0])}\n${y.label} ${fixed(p[1])}`));
  });
  return group;
}

// A legend for all charts in `scope`: pointing at a name dims the others.
function legend(names, styles, scope) {
  const point = (name) =>
    scope.querySelectorAll("[data-series]").forEach((g) => g.classList.toggle("dim", name !== null && g.dataset.series !== name));
  return el("ul", { class: "legend" }, names.map((name) =>
    el("li", { tabindex: 0, on: { mouseenter: () => point(name), mouseleave: () => point(null), focus: () => point(name), blur: () => point(null) } },
      svg("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" },
        svg("path", { class: `line ${styles[name].hue}`, d: "M1,7H33", "stroke-dasharray": styles[name].dash }), mark(styles[name], 17, 7)),
      name)));
}

function bandBar(low, high, from, to, expected) {
  const scale = (v) => 4 + (182 * (v - low)) / (high - low || 1);
  return svg("svg", { viewBox: "0 0 190 15", role: "img", "aria-label": `from ${fixed(from)} to ${fixed(to)}, expected ${fixed(expected)}` },
    svg("rect", { class: "band", x: scale(from), y: 4, width: Math.max(1, scale(to) - scale(from)), height: 7, rx: 3 }),
    svg("circle", { class: "dot", cx: scale(expected), cy: 7.5, r: 3.6 }));
}

function columnBar(share) {
  return svg("svg", { viewBox: "0 0 190 15", role: "img", "aria-label": fixed(share) },
    svg("rect", { class: "grid", x: 0, y: 3, width: 190, height: 9, rx: 2, fill: "none" }),
    svg("rect", { class: "column", x: 0, y: 3, width: Math.max(0, 190 * share), height: 9, rx: 2 }));
}

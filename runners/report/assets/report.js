// The report: filters above, and sections that follow them.
const CHART_LINES = 16;
const RECALL = { label: "recall", ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] };
const state = { dataset: "", direction: "", bits: "", measure: "mAP@all", method: "" };
const names = unique([...data.lines].sort((a, b) => b.mean - a.mean).map((line) => line.name));
const styles = Object.fromEntries(names.map((name, index) => [name, styleOf(index)]));

function chosenLines() {
  const part = state.method.toLowerCase();
  return data.lines.filter((line) =>
    (!state.dataset || line.dataset === state.dataset) && (!state.direction || line.direction === state.direction) &&
    (!state.bits || line.bits === Number(state.bits)) && (!part || line.name.toLowerCase().includes(part)));
}

// "dataset, direction" -> its lines
function byTask(lines) {
  const tasks = new Map();
  for (const line of lines) {
    const key = `${line.dataset}, ${line.direction}`;
    if (!tasks.has(key)) tasks.set(key, []);
    tasks.get(key).push(line);
  }
  return tasks;
}

// name -> code length -> line
function byName(lines) {
  const names = new Map();
  for (const line of lines) {
    if (!names.has(line.name)) names.set(line.name, {});
    names.get(line.name)[line.bits] = line;
  }
  return names;
}
const bitsOf = (lines) => unique(lines.map((line) => line.bits)).sort(byNumber);
const measured = (line, measure = state.measure) => (line && line.measures[measure] ? line.measures[measure][0] : null);

// ---- leaderboard

function leaderboard(lines) {
  const parts = [];
  for (const [task, ofTask] of byTask(lines)) {
    const bits = bitsOf(ofTask);
    const rows = [...byName(ofTask)].map(([name, cells]) => ({ name, cells }));
    const marked = state.measure === "mAP@all" && ofTask.some((line) => line.alike);
    const best = Object.fromEntries(bits.map((k) => [k, Math.max(...rows.map((row) => measured(row.cells[k]) ?? -1))]));
    const columns = [
      { name: "method", word: true, value: (row) => row.name },
      ...bits.map((k) => ({
        name: `${k} bits`,
        value: (row) => measured(row.cells[k]),
        cell: (row) => scoreCell(row.cells[k], marked),
        mark: (row) => (measured(row.cells[k]) !== null && measured(row.cells[k]) === best[k] ? "best" : ""),
      })),
      ...listedColumns("leaderboard", rows, (row) => Object.values(row.cells)),
    ];
    const down = { column: bits.length, down: true };
    parts.push(el("div", { class: "task" }, sortable(`leaderboard ${task}`, `${task}: ${state.measure}`, columns, rows, down), leaderboardNote(ofTask)));
  }
  return parts;
}

function scoreCell(line, marked) {
  const value = measured(line);
  if (value === null) return "–";
  const deviation = line.measures[state.measure][1];
  const alike = marked && line.alike;
  return el("span", { title: testText(line, alike) }, fixed(value),
    deviation === null ? null : el("span", { class: "std" }, ` ± ${fixed(deviation)}`),
    marked ? el("span", { class: "alike" }, alike ? "≈" : "") : null);
}

function testText(line, alike) {
  if (state.measure !== "mAP@all") return null;
  const parts = [`ties ${fixed(line.worst)} to ${fixed(line.best)}`];
  if (line.ci95 !== null) parts.push(`95 % interval of the mean ± ${fixed(line.ci95)}`);
  for (const [sample, p] of [["seeds", line.p_seeds], ["queries", line.p_queries]]) if (p !== null) parts.push(`against the best over ${sample}: p ${p.toPrecision(2)}`);
  return (alike ? ["not distinguishable from the best", ...parts] : parts).join("\n");
}

function leaderboardNote(lines) {
  const parts = ["bold: best of its column"];
  if (lines.some((line) => line.seeds > 1)) parts.push("± sample deviation over seeds");
  if (state.measure === "mAP@all" && lines.some((line) => line.alike)) parts.push(data.alike);
  const [few, tooFew] = data.too_few;
  if (state.measure === "mAP@all" && lines.some((line) => line.alike && line.seeds <= few)) parts.push(tooFew);
  const widest = Math.max(...lines.map((line) => line.best - line.worst));
  if (state.measure === "mAP@all" && widest > data.ties) parts.push(`expected over tie orders, whose band is up to ${fixed(widest, 3)} wide (see Ties)`);
  parts.push(`split ${unique(lines.flatMap((line) => line.splits)).join(", ")}`);
  const names = data.legends.filter(([dataset, direction]) => dataset === lines[0].dataset && direction === lines[0].direction);
  return el("div", { class: "note" }, el("p", {}, parts.join("; ")), names.map((legend) => el("p", {}, legend[2])));
}

function ranking() {
  const { ranks, groups, datasets, difference, p } = data.ranks ?? {};
  if (!ranks) return [];
  const marks = (name) => groups.map((group, i) => (group.includes(name) ? String.fromCharCode(65 + (i % 26)) : "")).filter(Boolean).join(" ");
  const friedman = p === null ? "" : `; Friedman test p ${p.toPrecision(2)}`;
  return [
    sortable("ranks", "", [word("method", (row) => row[0]), number("average rank", (row) => row[1], 2), word("alike", (row) => marks(row[0]))], ranks, { column: 1, down: false }),
    el("p", { class: "note" }, `Over all ${datasets} datasets, by mAP averaged over what every method has; 1 is best. Methods that share a letter differ by less than the critical difference ${fixed(difference, 2)} (Nemenyi, 5 %)${friedman}.`),
  ];
}

// ---- curves

function seriesOf(lines, points, errors) {
  return lines.map((line) => ({ name: line.name, style: styles[line.name], points: points(line) || [], errors: errors ? errors(line) : null }));
}

const zip = (x, y) => x.map((value, i) => [value, y[i]]);

const bestOf = (cells) => Math.max(...Object.values(cells).map((line) => line.mean));
const rankedNames = (lines) => [...byName(lines)].sort((a, b) => bestOf(b[1]) - bestOf(a[1])).map(([name]) => name);

function curveCharts(ofTask) {
  const ranked = rankedNames(ofTask);
  const shown = ranked.slice(0, CHART_LINES);
  const lines = ofTask.filter((line) => shown.includes(line.name));
  const charts = el("div", {});
  const bits = bitsOf(lines);
  if (bits.length > 1) {
    const grouped = [...byName(lines)].map(([name, cells]) => ({
      name, style: styles[name],
      points: bits.filter((k) => cells[k]).map((k) => [k, measured(cells[k])]),
      errors: bits.filter((k) => cells[k]).map((k) => (cells[k].measures[state.measure] || [])[1]),
    }));
    const note = lines.some((line) => line.seeds > 1) ? " (bars: ± std)" : "";
    charts.append(chartRow("", lineChart(`${state.measure} against code length${note}`, { label: "bits", log: true, ticks: bits, margin: 0.04 }, { label: state.measure }, grouped)));
  }
  for (const k of [...bits].reverse()) {
    const of = lines.filter((line) => line.bits === k);
    charts.append(chartRow(`${k} bits`,
      lineChart("Precision and recall by rank", RECALL, { label: "precision" },
        seriesOf(of, (line) => line.pr_rank && zip(line.pr_rank.recall, line.pr_rank.precision))),
      lineChart("Precision and recall by Hamming radius", RECALL, { label: "precision" },
        seriesOf(of, (line) => line.pr_radius && zip(line.pr_radius.recall, line.pr_radius.precision).filter((p) => p[0] > 0))),
      lineChart("Precision@N", { label: "N, rows retrieved", log: true }, { label: "precision@N" },
        seriesOf(of, (line) => line.pr_rank && zip(line.pr_rank.rank, line.pr_rank.precision)))));
  }
  return withLegend(charts, shown, ranked.length);
}

function chartRow(title, ...charts) {
  const drawn = charts.filter((chart) => chart !== null);
  return drawn.length ? el("div", {}, title ? el("h3", {}, title) : null, el("div", { class: "charts" }, drawn)) : "";
}

function withLegend(charts, shown, all) {
  const parts = [legend(shown, styles, charts), charts];
  if (all > shown.length) parts.unshift(el("p", { class: "note" }, `The best ${shown.length} of ${all} methods; filter by method for others.`));
  return parts;
}

const isTrained = (line) => Object.keys(line.epochs).length > 0;

function trainingCharts(lines) {
  const ranked = rankedNames(lines);
  const shown = ranked.slice(0, CHART_LINES);
  const charts = el("div", {});
  for (const k of [...bitsOf(lines)].reverse()) {
    const of = lines.filter((line) => line.bits === k && shown.includes(line.name));
    const losses = of.filter((line) => line.epochs.loss);
    const relative = losses.every((line) => line.epochs.loss[1][0] > 0 && line.epochs.loss[1].every((v) => v !== null && v >= 0));
    const scaled = (line) => zip(line.epochs.loss[0], line.epochs.loss[1].map((v) => (relative && v !== null ? v / line.epochs.loss[1][0] : v)));
    const scores = [["val", "validation rows"], ["query", "test queries"]].map(([part, rows]) =>
      lineChart(`mAP on ${rows}`, { label: "epoch" }, { label: "what epochs are compared by" }, seriesOf(of.filter((line) => line.epochs[part]), (line) => zip(...line.epochs[part]))));
    charts.append(chartRow(`${k} bits`,
      lineChart("Training loss", { label: "epoch" }, { label: relative ? "loss, first epoch = 1" : "loss" }, seriesOf(losses, scaled)), ...scores));
  }
  return withLegend(charts, shown, ranked.length);
}

// ---- ties

const isTied = (line) => line.best - line.worst > data.ties;

function tieTable(rows) {
  const low = Math.min(...rows.map((line) => line.worst));
  const high = Math.max(...rows.map((line) => line.best));
  return sortable(`ties ${rows[0].dataset} ${rows[0].direction}`, "", [
    word("method", (line) => line.name), number("bits", (line) => line.bits, 0), number("worst", (line) => line.worst),
    number("expected", (line) => line.mean), number("best", (line) => line.best), number("width", (line) => line.best - line.worst),
    { name: `${fixed(low, 2)} to ${fixed(high, 2)}`, value: (line) => line.mean, cell: (line) => bandBar(low, high, line.worst, line.best, line.mean) },
  ], rows, { column: 5, down: true });
}

// ---- zero-shot

function zeroShot(lines) {
  const entries = data.zero_shot.filter((entry) => lines.includes(data.lines[entry.line]));
  if (!entries.length) return [];
  const columns = unique(entries.flatMap((entry) => Object.keys(entry.measures)));
  const line = (entry) => data.lines[entry.line];
  const parts = [sortable("zero-shot", "Means over seeds", [
    word("method", (e) => line(e).name), word("dataset", (e) => line(e).dataset), word("task", (e) => line(e).direction),
    number("bits", (e) => line(e).bits, 0), ...columns.map((name) => number(name, (e) => e.measures[name] ?? null)),
  ], entries, { column: 4, down: true })];
  const groups = new Map();
  for (const entry of entries.filter((one) => one.classes.length)) {
    const { dataset, direction, bits } = line(entry);
    const key = `${dataset}, ${direction}, ${bits} bits`;
    groups.set(key, [...(groups.get(key) || []), entry]);
  }
  for (const [key, group] of groups) parts.push(folded(`${key}: each unseen class`, () => classTable(key, group), parts.length === 1));
  if (data.zero_shot.length > data.zero_shot_limit) parts.push(el("p", { class: "note" }, `Classes are shown of the first ${data.zero_shot_limit} rows.`));
  return parts;
}

function classTable(key, entries) {
  const rows = new Map();
  entries.forEach((entry, i) => entry.classes.forEach((one) => {
    if (!rows.has(one.name)) rows.set(one.name, { name: one.name, queries: one.queries, ap: entries.map(() => null) });
    rows.get(one.name).ap[i] = one.ap;
  }));
  return sortable(`classes ${key}`, "mAP@all of the queries of each class, first seed; bars from 0 to 1", [
    word("class", (c) => c.name), number("queries", (c) => c.queries, 0),
    ...entries.map((entry, i) => ({
      name: data.lines[entry.line].name, value: (c) => c.ap[i],
      cell: (c) => (c.ap[i] === null ? "–" : el("span", { class: "barred" }, columnBar(c.ap[i]), fixed(c.ap[i]))),
    })),
  ], [...rows.values()], { column: 2, down: true });
}

// ---- gallery

function galleryOf(entry) {
  if (entry.note) return el("p", { class: "note" }, entry.note);
  if (!entry.queries.length) return el("p", { class: "note" }, "No room was left on this page for its pictures.");
  return entry.queries.map((one) => el("div", { class: "query" },
    el("div", { class: "query-item" }, item(one.query), el("div", { class: "note" }, `query: ${one.query.classes || "no label"}`)),
    el("div", { class: "methods" }, one.methods.filter((m) => m.method.toLowerCase().includes(state.method.toLowerCase())).map((m) => el("div", { class: "method-hits" },
      el("div", { class: "method" }, m.method, el("span", {}, `  ${m.top.filter((hit) => hit.right).length} of ${m.top.length} right`)),
      strip(m.top))))));
}

function strip(hits) {
  return el("ol", { class: "strip" }, hits.map((hit, i) => {
    const title = `${i + 1}. ${hit.right ? "right" : "wrong"}, distance ${hit.distance}: ${hit.classes || "no label"}`;
    return el("li", { class: `hit ${hit.right ? "right" : "wrong"}`, title }, item(hit, true), el("span", { class: "sign", "aria-label": title }, hit.right ? "✓" : "✗"));
  }));
}

// ---- published, costs, protocols

function publishedTable(lines) {
  const line = (match) => data.lines[match.line];
  const shown = (matches) => matches.filter((match) => lines.includes(line(match)));
  const rows = shown(data.published.matches), near = shown(data.published.near);
  const sources = unique([...rows, ...near].map((match) => match.source));
  const difference = (m) => (m.ours === null ? "" : `${m.ours >= m.theirs ? "+" : "−"}${fixed(Math.abs(m.ours - m.theirs))}`);
  const table = (name, matches, last) => sortable(name, "", [
    word("method", (m) => line(m).name), word("dataset", (m) => line(m).dataset), word("task", (m) => line(m).direction),
    number("bits", (m) => line(m).bits, 0), word("measure", (m) => m.measure), number("published", (m) => m.theirs),
    { name: "ours", value: (m) => m.ours, cell: (m) => (m.ours === null ? "" : el("span", {}, fixed(m.ours), m.std === null ? null : el("span", { class: "std" }, ` ± ${fixed(m.std)}`))) },
    { name: "difference", value: (m) => (m.ours === null ? null : m.ours - m.theirs), cell: difference },
    word("recipe", (m) => m.recipe), word("our encoder", (m) => line(m).backbone),
    { name: "paper", word: true, value: (m) => m.paper, cell: (m) => `${m.paper} [${sources.indexOf(m.source) + 1}]` }, last,
  ], matches, { column: 7, down: true });
  const parts = [];
  if (rows.length) parts.push(table("published", rows, { ...word("notes", (m) => m.notes.join("; ")), long: true }));
  else parts.push(el("p", {}, `None of the ${data.published.rows} published rows has the recipe of a run shown here.`));
  if (near.length)
    parts.push(el("p", { class: "note" }, "Near: numbers of the same method, dataset, task and code length, by another recipe."),
      table("near", near, { ...word("what differs", (m) => m.differs.join("; ")), long: true }));
  if (sources.length) parts.push(el("ol", { class: "note sources" }, sources.map((text) => el("li", {}, linked(text)))));
  if (data.published.left_out.length)
    parts.push(el("p", { class: "note" }, "Published rows of the same method, dataset, task and code length that were not compared:"),
      el("ul", { class: "note" }, data.published.left_out.map(([reason, count]) => el("li", {}, `${count}: ${reason}`))));
  return parts;
}

function linked(text) {
  return /^https:\/\/[^\s"<>]+$/.test(text) ? el("a", { href: text, rel: "noreferrer noopener" }, text) : text;
}

function costTable(all) {
  const runs = new Map(); // a run is measured in several directions, and costs the same in all
  for (const line of all) runs.set(`${line.dataset} ${line.name} ${line.bits}`, line);
  const lines = [...runs.values()];
  return sortable("costs", "Means over seeds", [
    word("method", (line) => line.name), word("dataset", (line) => line.dataset), number("bits", (line) => line.bits, 0),
    ...listedColumns("costs", lines, (line) => [line]),
  ], lines, { column: 0, down: false });
}

function protocolTable(lines) {
  const datasets = new Set(lines.map((line) => line.dataset));
  return data.protocols.filter((p) => datasets.has(p.dataset)).map((p) => el("div", {},
    el("h3", {}, `${p.dataset}, ${counted(p.runs, "run")}`),
    el("dl", {}, [
      ["split", el("span", {}, el("code", {}, p.split_hash), ` ${p.split}`)],
      ["rows", Object.entries(p.rows).map(([part, count]) => `${part} ${count.toLocaleString("en")}`).join(", ")],
      ["measure", p.metric], ["relevance", p.relevance], ["queries without relevant rows", p.no_relevant], ["epoch chosen on", p.selected],
      ["captions", p.captions], ["made by", Object.entries(p.made).map(([software, count]) => `${software} (${count})`).join("; ")],
    ].filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))));
}

// ---- the page

const sections = [
  ["leaderboard", "Leaderboard", leaderboard],
  ["ranks", "Ranks over datasets", ranking],
  ["curves", "Curves", (lines) => perTask(lines, curveCharts)],
  ["training", "Training", (lines) => perTask(lines.filter(isTrained), trainingCharts)],
  ["ties", "Ties", (lines) => perTask(lines.filter(isTied), tieTable, "How far mAP@all depends on the order of rows at equal distance: the least and greatest value that an order gives.")],
  ["zero-shot", "Zero-shot", zeroShot],
  ["gallery", "What is retrieved", galleries],
  ["published", "Published and ours", (lines) => (data.published ? publishedTable(lines) : [])],
  ["costs", "Time and memory", (lines) => (lines.length ? [costTable(lines)] : [])],
  ["protocols", "Protocols and splits", protocolTable],
];

function perTask(lines, content, note) {
  const parts = [...byTask(lines)].map(([task, ofTask], index) => folded(task, () => content(ofTask), index === 0));
  return note && parts.length ? [el("p", { class: "note" }, note), ...parts] : parts;
}

function galleries(lines) {
  const entries = data.gallery.filter((entry) => lines.some((line) => line.dataset === entry.dataset && line.direction === entry.direction));
  if (!entries.length) return [];
  const note = "The ten nearest rows of the database by each method's first seed. Solid frame and ✓: shares a label with the query; dashed and ✗: does not. Rows at equal distance stand in the order of the database.";
  return [el("p", { class: "note" }, note), ...entries.map((entry, index) => folded(`${entry.dataset}, ${entry.direction}, ${entry.bits} bits`, () => galleryOf(entry), index === 0))];
}

function select(label, key, values, every) {
  const options = [...(every ? [["", every]] : []), ...values.map((value) => [String(value), String(value)])];
  const box = el("select", { name: key, on: { change: () => { state[key] = box.value; draw(); } } },
    options.map(([value, text]) => el("option", { value, selected: state[key] === value }, text)));
  return el("label", {}, label, box);
}

function filters() {
  const search = el("input", { type: "search", name: "method", placeholder: "part of a name", on: { input: () => { state.method = search.value; draw(); } } });
  const measures = unique(data.lines.flatMap((line) => Object.keys(line.measures)));
  if (!measures.includes(state.measure)) state.measure = measures[0];
  return el("div", { class: "bar" },
    el("form", { on: { submit: (event) => event.preventDefault() } },
      select("dataset", "dataset", unique(data.lines.map((line) => line.dataset)), "all"),
      select("task", "direction", unique(data.lines.map((line) => line.direction)), "all"),
      select("code length", "bits", bitsOf(data.lines), "all"),
      select("measure", "measure", measures), el("label", {}, "method", search)),
    el("nav", { "aria-label": "sections" }));
}

function draw() {
  const lines = chosenLines();
  const nav = [];
  for (const [id, title, content] of sections) {
    const section = document.getElementById(id);
    const parts = content(lines);
    const folds = parts.filter((part) => part.tagName === "DETAILS").length > 1;
    const all = folds ? el("button", { type: "button", class: "all", on: { click: () => section.querySelectorAll("details").forEach((d) => { d.open = true; }) } }, "open all") : null;
    section.replaceChildren(...(parts.length ? [el("h2", {}, title), all || "", ...parts] : []));
    if (parts.length) nav.push(el("a", { href: `#${id}` }, title));
  }
  document.querySelector(".bar nav").replaceChildren(...nav);
  if (!lines.length) document.getElementById("leaderboard").replaceChildren(el("p", {}, "No run is left by these filters."));
}

const datasets = unique(data.lines.map((line) => line.dataset));
document.title = `Retrieval report: ${datasets.slice(0, 3).join(", ")}${datasets.length > 3 ? ", …" : ""}`;
document.getElementById("page").append(
  el("header", {}, el("h1", {}, "Retrieval report"),
    el("p", { class: "lead" }, `${counted(data.runs, "run")} of ${counted(unique(data.lines.map((line) => line.method)).length, "method")} on ${datasets.join(", ")}. `,
      el("span", { class: "note" }, `From ${data.root}, ${data.made}.`))),
  filters(), ...sections.map(([id]) => el("section", { id })));
draw();
document.documentElement.dataset.ready = "yes";

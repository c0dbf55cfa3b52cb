// Tables that sort by a click on a heading. What is missing stays at the end.
const sortedBy = new Map();

// columns: [{name, word, long, value: row => sortable, cell: row => node or text, mark: row => class}]
function sortable(key, caption, columns, rows, start) {
  const chosen = sortedBy.get(key) || start || { column: 0, down: false };
  const body = el("tbody", {});
  const heads = columns.map((column, index) =>
    el("th", { scope: "col", class: column.word ? "word" : null },
      el("button", { type: "button", title: column.title, on: { click: () => choose(index) } }, column.name)));
  function fill() {
    const column = columns[Math.min(chosen.column, columns.length - 1)];
    const sign = chosen.down ? -1 : 1;
    const order = [...rows].sort((a, b) => {
      const [one, two] = [column.value(a), column.value(b)];
      if (one === null || two === null) return (one === null) - (two === null);
      return sign * (typeof one === "string" ? one.localeCompare(two, undefined, { numeric: true }) : one - two);
    });
    heads.forEach((head, i) => head.setAttribute("aria-sort", columns[i] === column ? (chosen.down ? "descending" : "ascending") : "none"));
    body.replaceChildren(...order.map((row) => el("tr", {}, columns.map((c) => {
      const shown = c.cell ? c.cell(row) : c.value(row);
      const brief = c.word && typeof shown === "string" && shown.length <= 36;
      const classes = [c.word ? "word" : "", c.long ? "long" : brief ? "brief" : "", c.mark ? c.mark(row) : ""].join(" ").trim();
      return el("td", { class: classes || null }, shown === null ? "–" : typeof shown === "number" ? String(shown) : shown);
    }))));
  }
  function choose(index) {
    chosen.down = index === chosen.column ? !chosen.down : !columns[index].word;
    chosen.column = index;
    sortedBy.set(key, chosen);
    fill();
  }
  fill();
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": caption },
    el("table", {}, caption ? el("caption", {}, caption) : null, el("thead", {}, el("tr", {}, heads)), body));
}

const number = (name, value, digits = 4, title) => ({ name, title, value, cell: (row) => fixed(value(row), digits) });
const word = (name, value) => ({ name, word: true, value });

// The columns that runners/results/tables.py lists for a table; `linesOf` gives the lines of a row, by code length.
const OVER = {
  mean: (values) => values.reduce((a, b) => a + b, 0) / values.length,
  max: (values) => Math.max(...values),
  words: (values) => unique(values).sort().join(", "),
};
function listedColumns(table, rows, linesOf) {
  const columns = data.columns[table].map(({ key, heading, over, digits, unit, title, optional }) => {
    const value = (row) => {
      const values = linesOf(row).map((line) => line[table][key]).filter((one) => one !== null);
      return values.length ? OVER[over](values) : null;
    };
    if (over === "words") return { ...word(heading, value), title };
    const column = number(heading, value, digits, title);
    if (unit === "bytes") column.cell = (row) => bytes(value(row));
    return optional && rows.every((row) => value(row) === null) ? null : column;
  });
  return columns.filter((column) => column !== null);
}

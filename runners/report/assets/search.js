// A search: the query, and the nearest rows.
function searchItem(entry) {
  if (entry.picture === undefined) return el("span", { class: "text" }, entry.text ?? entry.name);
  return el("img", { src: data.pictures[entry.picture], alt: entry.name, decoding: "async" });
}

document.title = "Search";
document.getElementById("page").append(
  el("header", {}, el("h1", {}, "Search"),
    el("p", { class: "lead" }, `The nearest ${data.hits.length} of ${data.rows.toLocaleString("en")} codes of ${data.bits} bits. `,
      el("span", { class: "note" }, `Coded by ${data.run}; searched in ${(data.seconds * 1000).toFixed(1)} ms.`))),
  el("section", {}, el("h2", {}, "Query"), el("div", { class: "query-item wide" }, searchItem(data.query), data.query.picture === undefined ? null : el("p", { class: "note" }, data.query.name))),
  el("section", {}, el("h2", {}, "Nearest rows"),
    el("ol", { class: "hits" }, data.hits.map((hit, i) => el("li", {}, searchItem(hit),
      el("p", {}, `${i + 1}. distance ${hit.distance}`), hit.name && hit.picture !== undefined ? el("p", { class: "note" }, hit.name) : null)))));
document.documentElement.dataset.ready = "yes";

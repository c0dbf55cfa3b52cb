"use strict";
// Words from captions, classes and paths come in as text nodes or attributes only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);

function make(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  make(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const fixed = (value, digits = 4) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const unique = (values) => [...new Set(values)];
const counted = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const byNumber = (a, b) => a - b;

function bytes(count) {
  if (!count) return "–";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (count < 1024 || unit === "GiB") return `${count < 10 && unit !== "B" ? count.toFixed(1) : Math.round(count)} ${unit}`;
    count /= 1024;
  }
}

// A folded part whose content is made when it is opened for the first time.
function folded(title, content, open = false) {
  const inside = el("div", { class: "inside" });
  const part = el("details", {}, el("summary", {}, title), inside);
  const fill = () => {
    if (part.open && !inside.hasChildNodes()) inside.append(...[content()].flat(Infinity));
  };
  part.addEventListener("toggle", fill);
  if (open) {
    part.open = true;
    fill();
  }
  return part;
}

function item(entry, hidden) {
  if (entry.picture !== undefined)
    return el("img", { src: data.pictures[entry.picture], alt: entry.classes || `row ${entry.row}`, loading: "lazy", decoding: "async" });
  if (entry.text !== undefined) return hidden ? el("span", { class: "text" }, entry.text) : el("q", {}, entry.text);
  return el("span", { class: "text" }, entry.name || `row ${entry.row}`);
}

/* What moves on the pages: figures drawn when they come into view, live parts looked at again
   when the database changed, tables sorted and searched. Every page can be read without it. */
"use strict";

const body = document.body;
const isLive = "events" in body.dataset;
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Set();

/* Figures. */

let loading = null;

function plotly() {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = body.dataset.plotly;
    script.onload = () => done(window.Plotly);
    script.onerror = () => failed(new Error("plotly could not be loaded"));
    document.head.append(script);
  });
  return loading;
}

async function specOf(figure) {
  const inline = document.getElementById(`spec-${figure.dataset.figure}`);
  if (inline) return JSON.parse(inline.textContent);
  const answer = await fetch(figure.dataset.src, { headers: { Accept: "application/json" } });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error || answer.statusText);
  return said;
}

function themed(layout) {
  const style = getComputedStyle(body);
  const line = style.getPropertyValue("--line").trim();
  const dressed = structuredClone(layout);
  for (const name of Object.keys(dressed)) {
    if (!/^[xy]axis\d*$/.test(name)) continue;
    Object.assign(dressed[name], { gridcolor: line, linecolor: line, tickcolor: line });
  }
  return Object.assign(dressed, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: style.color, family: style.fontFamily, size: 12 },
    hoverlabel: { bgcolor: style.getPropertyValue("--panel").trim(), font: { color: style.color } },
  });
}

async function draw(figure) {
  const plot = figure.querySelector(".plot");
  try {
    const [spec, Plotly] = await Promise.all([specOf(figure), plotly()]);
    if (plot.querySelector(".why")) plot.replaceChildren();
    const height = plot.clientHeight;
    await Plotly.react(plot, spec.data, { ...themed(spec.layout), height, autosize: true },
      { responsive: true, displayModeBar: false });
    drawn.add(figure.id);
    figure.dataset.drawn = "yes";
  } catch (error) {
    const why = document.createElement("p");
    why.className = "why";
    why.textContent = `Not drawn: ${error.message}`;
    plot.replaceChildren(why);
    figure.dataset.drawn = "no";
  }
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "200px" });

function watch(root) {
  for (const figure of root.querySelectorAll("figure[data-figure]")) seen.observe(figure);
}

dark.addEventListener("change", () => {
  for (const id of drawn) {
    const figure = document.getElementById(id);
    if (figure) draw(figure);
  }
});

/* Tables that are whole on the page: sorted by a heading, searched by a word, saved as CSV. */

function valueOf(row, k) {
  const cell = row.cells[k];
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

function compared(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a.localeCompare(b, undefined, { numeric: true });
}

function sortBy(table, k, heading) {
  const down = heading.ariaSort === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.ariaSort = down ? "descending" : "ascending";
  const rows = [...table.tBodies[0].rows];
  const rest = rows.splice(Number(table.dataset.pinned));
  rest.sort((a, b) => (down ? -1 : 1) * compared(valueOf(a, k), valueOf(b, k)));
  table.tBodies[0].append(...rows, ...rest);
}

function quoted(text) {
  const safe = /^[=+@-]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

function save(table) {
  const lines = [...table.rows].map((row) =>
    [...row.cells].map((c) => quoted(c.dataset.value ?? c.textContent.trim())).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n")], { type: "text/csv" }));
  link.download = `${table.dataset.name}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function searchBox(table) {
  const box = document.createElement("input");
  box.type = "search";
  box.placeholder = "search this table";
  box.ariaLabel = `search ${table.dataset.name}`;
  box.addEventListener("input", () => {
    const word = box.value.toLowerCase();
    [...table.tBodies[0].rows].forEach((row, k) => {
      row.hidden = k >= Number(table.dataset.pinned) && !row.textContent.toLowerCase().includes(word);
    });
  });
  return box;
}

function equip(root) {
  for (const table of root.querySelectorAll("table[data-sorts]")) {
    [...table.tHead.rows[0].cells].forEach((heading, k) => {
      const label = heading.textContent.trim();
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", () => sortBy(table, k, heading));
      heading.replaceChildren(button);
    });
    if (table.tBodies[0].rows.length > 12) table.parentElement.before(searchBox(table));
  }
  for (const button of root.querySelectorAll("button[data-csv]")) {
    button.hidden = false;
    button.addEventListener("click", () => save(document.getElementById(button.dataset.csv)));
  }
}

/* Live: when the database changed, the page is asked for again and its live parts are swapped. */

function isBusy(part) {
  return part.contains(document.activeElement) || part.querySelector("input:checked");
}

async function refresh() {
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    if (!next || isBusy(part)) continue;
    const kept = [...part.querySelectorAll("figure[data-figure]")];
    for (const figure of kept) {
      const place = next.querySelector(`#${CSS.escape(figure.id)}`);
      if (place) place.replaceWith(figure);
    }
    part.replaceChildren(...next.childNodes);
    equip(part);
    watch(part);
  }
  for (const figure of document.querySelectorAll("figure[data-live-figure][data-drawn]")) {
    await draw(figure);
  }
}

function listen() {
  const pulse = document.getElementById("pulse");
  let due = null;
  const events = new EventSource(body.dataset.events);
  events.addEventListener("open", () => { pulse.textContent = "live"; });
  events.addEventListener("error", () => { pulse.textContent = "not connected"; });
  events.addEventListener("changed", () => {
    due ??= setTimeout(async () => {
      if (!document.hidden) await refresh();
      due = null;
    }, 300);
  });
}

equip(document);
watch(document);
if (isLive) listen();

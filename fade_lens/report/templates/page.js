"use strict";
// Data comes from JSON in this page and is shown by text nodes only: no markup is ever made from it.
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function add(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== "").map((child) => (child instanceof Node ? child : document.createTextNode(child))));
  return node;
}
const el = (name, attributes = {}, ...children) => add(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => add(document.createElementNS(SVG, name), attributes, children);

const minus = (text) => text.replace("-", "−");
const fixed = (value) => minus((Math.abs(value) < 0.005 ? 0 : value).toFixed(2));
const short = (value) => value === null ? "none" : minus(Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 6 }));
const percent = (value) => `${(100 * value).toFixed(value > 0 && value < 0.01 ? 2 : 0)} %`;
const some = (shown, all) => shown < all ? `${shown} of ${all.toLocaleString("en")} shown` : `all ${all}`;

// --- The table ---

const body = byId("rows").tBodies[0];
const rows = [...body.rows].map((row) => ({
  row,
  place: Number(row.dataset.place),
  index: Number(row.dataset.index),
  text: row.querySelector(".open").textContent,
  words: [row.dataset.index, ...[...row.querySelectorAll(".text > *, .why")].map((node) => node.textContent)].join(" ").toLowerCase(),
  matches: true,
  dressed: false,
  standing: row.dataset.standing,
  kinds: row.dataset.kinds.split(" "),
  values: Object.fromEntries([...row.querySelectorAll("[data-name]")].map((cell) => [cell.dataset.name, cell.dataset.value === undefined ? null : Number(cell.dataset.value)])),
}));
const PAGE = Number(byId("rows").dataset.page);
let order = { key: "place", down: false }, limit = PAGE;

function compare(a, b) {
  const x = order.key in a ? a[order.key] : a.values[order.key];
  const y = order.key in b ? b[order.key] : b.values[order.key];
  if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place;  // undefined last, both ways
  const sign = order.down ? -1 : 1;
  return sign * (typeof x === "string" ? x.localeCompare(y) : x - y) || a.place - b.place;
}

function sort(key, down) {
  order = { key, down };
  rows.sort(compare);
  body.append(...rows.map((r) => r.row));
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.parentElement.setAttribute("aria-sort", button.dataset.sort !== key ? "none" : down ? "descending" : "ascending");
  }
  byId("order").value = key;
  paint();
}

// Only so many rows are laid out at once: a table of thousands stays quick.
function paint() {
  let count = 0;
  for (const r of rows) {
    const seen = r.matches && ++count <= limit;
    if (seen) dress(r);
    r.row.hidden = !seen;
    r.row.classList.remove("later");
  }
  byId("shown").textContent = `${count} of ${rows.length}`;
  byId("nothing").hidden = count > 0;
  byId("more").hidden = count <= limit;
  byId("more").textContent = `Show ${Math.min(4 * PAGE, count - limit)} more of ${count - limit}`;
}

// Draw a row's dots and intervals, once.
function dress(r) {
  if (r.dressed) return;
  r.dressed = true;
  for (const cell of r.row.querySelectorAll("[data-value]")) {
    const { name, value, low, high } = cell.dataset, number = cell.querySelector("b");
    const range = name === "clarity" || name === "responsiveness" ? [-1, 1] : [0, 1];
    const drawn = scale({ range, value: Number(value), interval: low === undefined ? null : [Number(low), Number(high)] }, number.className);
    drawn.setAttribute("class", "bar");
    number.after(drawn);
  }
}

function filter() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [wanted, flag, metric, test] = ["standing", "flag", "metric", "test"].map((id) => byId(id).value);
  const bound = Number(byId("limit").value);
  byId("limit").disabled = test === "undefined";
  for (const r of rows) {
    const value = r.values[metric];
    const passes = !metric || (test === "undefined" ? value === null : value !== null && (test === "below" ? value < bound : value >= bound));
    r.matches = passes && (!wanted || r.standing === wanted) && (!flag || r.kinds.includes(flag)) && words.every((w) => r.words.includes(w));
  }
  limit = PAGE;
  paint();
}

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => sort(button.dataset.sort, order.key === button.dataset.sort && !order.down));
}
byId("order").addEventListener("change", (event) => sort(event.target.value, false));
byId("filters").addEventListener("input", filter);
byId("filters").addEventListener("reset", () => setTimeout(() => { sort("place", false); filter(); }));
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").hidden = false;
byId("more").addEventListener("click", () => { limit += 4 * PAGE; paint(); });
paint();
body.addEventListener("click", (event) => {
  const button = event.target.closest(".open");
  if (button) show(Number(button.closest("tr").dataset.place));
});

// --- Drawings ---

const dots = (points) => points.map(([x, y]) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`).join("");

function ticks(low, high) {
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let t = Math.ceil(low / step); t * step <= high + step / 1e6; t++) found.push(t * step);
  return found;
}

// Rows of dots over one axis; the mark is the median.
function strips(groups, width) {
  const values = groups.flatMap((g) => g.points);
  const low = Math.min(0, ...values), high = Math.max(...values, low + 1e-9), pad = 8, tall = 46;
  const x = (v) => pad + (v - low) / (high - low) * (width - 2 * pad);
  const height = groups.length * tall + 24;
  const drawn = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const t of ticks(low, high)) {
    drawn.append(svg("path", { class: "axis", d: `M${x(t)} 0V${height - 20}` }));
    drawn.append(svg("text", { x: x(t), y: height - 6, "text-anchor": x(t) > width - 30 ? "end" : x(t) < 30 ? "start" : "middle" }, short(t)));
  }
  const said = [];
  groups.forEach((group, g) => {
    const top = g * tall, sorted = [...group.points].sort((a, b) => a - b);
    const middle = sorted.length ? (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2 : null;
    drawn.append(svg("text", { x: pad, y: top + 14, class: "name" }, group.name));
    drawn.append(svg("path", { class: `points ${group.kind}`, d: dots(group.points.map((v, i) => [x(v), top + 30 + ((i * 0.618) % 1 - 0.5) * 14])) }));
    if (middle !== null) drawn.append(svg("path", { class: "middle", d: `M${x(middle)} ${top + 19}v22` }));
    said.push(`${group.name}: ${middle === null ? "none" : `median ${short(middle)}, largest ${short(sorted[sorted.length - 1])}`}`);
  });
  drawn.setAttribute("aria-label", `Activations. ${said.join(". ")}.`);
  return drawn;
}

// Concept rate by steering factor, with Wilson intervals and the untouched model as a dashed line.
function rates(data, width) {
  const height = 220, left = 44, bottom = height - 36, wide = (width - left - 10) / data.length;
  const x = (i) => left + (i + 0.5) * wide, y = (rate) => 12 + (1 - rate) * (bottom - 12);
  const drawn = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const t of [0, 0.5, 1]) {
    drawn.append(svg("path", { class: "axis", d: `M${left} ${y(t)}H${width - 10}` }), svg("text", { x: left - 6, y: y(t) + 4, "text-anchor": "end" }, percent(t)));
  }
  const base = data.find((d) => d[0] === 0);
  if (base) drawn.append(svg("path", { class: "gate", d: `M${left} ${y(base[1])}H${width - 10}` }));
  drawn.append(svg("path", { class: "rate", d: data.map((d, i) => `${i ? "L" : "M"}${x(i)} ${y(d[1])}`).join("") }));
  data.forEach(([factor, rate, low, high], i) => {
    drawn.append(svg("path", { class: "rate", d: `M${x(i)} ${y(low)}V${y(high)}` }), svg("path", { class: "rate-dot", d: `M${x(i)} ${y(rate)}h0` }));
    drawn.append(svg("text", { x: x(i), y: bottom + 16, "text-anchor": "middle" }, factor === 0 ? "0 (untouched)" : short(factor)));
  });
  drawn.append(svg("text", { x: left + (width - left) / 2, y: height - 4, "text-anchor": "middle" }, "steering factor"));
  drawn.setAttribute("aria-label", `Continuations rated 2 by steering factor: ${data.map((d) => `${short(d[0])}: ${percent(d[1])}`).join(", ")}.`);
  return drawn;
}

function scale(metric, kind = "") {
  const [low, high] = metric.range, x = (v) => 4 + (v - low) / (high - low) * 192;
  return svg("svg", { viewBox: "0 0 200 14", "aria-hidden": "true" },
    svg("path", { class: "axis", d: `M4 7H196M${x(0)} 1V13` }),
    metric.interval ? svg("path", { class: "interval", "stroke-width": 3, d: `M${x(metric.interval[0])} 7H${x(metric.interval[1])}` }) : null,
    svg("path", { class: `dot ${kind}`.trim(), "stroke-width": 9, d: `M${x(metric.value)} 7h0` }));
}

// --- The card ---

function tile(metric) {
  const parts = metric.value === null
    ? [el("span", { class: "none" }, "undefined"), el("p", { dir: "auto" }, metric.reason)]
    : [el("b", metric.bad ? { class: "bad" } : {}, fixed(metric.value)), scale(metric, metric.bad ? "bad" : ""),
       el("p", { dir: "auto" }, metric.interval ? `95 % interval ${fixed(metric.interval[0])} to ${fixed(metric.interval[1])}` : metric.reason)];
  return el("div", { class: "tile" }, el("h4", {}, metric.name), ...parts, el("p", {}, metric.basis), el("p", {}, metric.question));
}

function shaded(text, largest) {
  const box = el("div", { class: "body", dir: "auto" }, text.before ? el("span", { class: "cut" }, "… ") : null);
  const peak = text.values.reduce((best, v, i) => Math.abs(v ?? 0) > Math.abs(text.values[best] ?? 0) ? i : best, 0);
  text.tokens.forEach((token, i) => {
    const value = text.values[i], seen = token.replaceAll("\n", "↵\n");
    const share = largest ? Math.min(Math.abs(value ?? 0) / largest, 1) : 0;
    if (value === null) box.append(el("span", { class: "never", title: "this position never counts" }, seen));
    else if (share < 0.02) box.append(seen);
    else {
      const mark = el("mark", { title: short(value), class: `${value < 0 ? "negative" : ""} ${i === peak ? "peak" : ""}`.trim() }, seen);
      mark.style.setProperty("--share", Math.round(10 + 45 * share));
      box.append(mark);
    }
  });
  if (text.after) box.append(el("span", { class: "cut" }, " …"));
  return box;
}

const RATED = { 0: "0 not", 1: "1 partly", 2: "2 clearly" };
const badge = (rating) => el("span", { class: `rating ${rating === null ? "unrated" : `r${rating}`}` }, rating === null ? "unrated" : RATED[rating]);
const item = (side, text, reason, attributes = {}) => el("li", attributes, el("div", { class: "side" }, ...side), text, reason ? el("div", { class: "reason", dir: "auto" }, reason) : null);
const plain = (text) => el("div", { class: "body", dir: "auto" }, text);
const section = (title, note, ...children) => el("section", {}, el("h3", {}, title), note ? el("p", { class: "note" }, note) : null, ...children);

function ratedTexts(rated) {
  const list = el("ol", { class: "texts" }, ...rated.texts.map(([activation, rating, score, text, reason]) =>
    item([badge(rating), " ", el("b", {}, short(activation)), score === null ? "" : ` score ${short(score)}`], plain(text), reason, { "data-rating": String(rating) })));
  const choice = el("select", {}, ...[["", "all"], ["2", "2: clearly"], ["1", "1: partly"], ["0", "0: not"], ["null", "unrated"]].map(([value, name]) => el("option", { value }, name)));
  choice.addEventListener("change", () => { for (const li of list.children) li.hidden = choice.value !== "" && li.dataset.rating !== choice.value; });
  return [el("p", {}, el("label", {}, "Rating ", choice)), list];
}

function steered(steering) {
  const groups = steering.rates.map(([factor, rate, , , expressed, n, unrated]) => {
    const texts = steering.texts.filter((t) => t[0] === factor);
    const name = factor === 0 ? "Untouched model" : `Factor ${short(factor)}`;
    return el("details", {}, el("summary", {}, `${name}: ${expressed} of ${n} rated 2 (${percent(rate)})${unrated ? `, ${unrated} unrated` : ""}; ${some(texts.length, n)}`),
      el("ol", { class: "texts" }, ...texts.map(([, rating, prompt, text, reason]) =>
        item([badge(rating)], el("div", { class: "body", dir: "auto" }, el("span", { class: "prompt" }, prompt), el("span", {}, text)), reason))));
  });
  const best = steering.rates.reduce((top, d, i) => d[0] !== 0 && d[1] > (steering.rates[top]?.[1] ?? -1) ? i : top, -1);
  if (best >= 0) groups[best].open = true;
  return groups;
}

function card(data, width) {
  const faithfulness = data.metrics[3];
  const counts = data.rated.counts;
  const groups = [
    { name: "Natural texts (a dot is 1 % of the corpus)", kind: "natural", points: data.natural },
    { name: `Synthetic texts written for the description (${data.synthetic.of})`, kind: "synthetic", points: data.synthetic.points },
    { name: `Rated 0, not expressed (${counts[0]})`, kind: "zero", points: data.rated.points[0] },
    { name: `Rated 1, partly (${counts[1]})`, kind: "one", points: data.rated.points[1] },
    { name: `Rated 2, clearly (${counts[2]})`, kind: "two", points: data.rated.points[2] },
  ];
  if (counts[3]) groups.push({ name: `Unrated (${counts[3]})`, kind: "unrated", points: data.rated.points[3] });
  const feature = data.feature;
  const title = el("h2", { id: "card-title", tabindex: "-1", dir: "auto" }, data.text);
  return [
    title,
    el("p", {}, el("span", { class: `tag ${data.standing}` }, data.standing), ` feature ${data.index}: ${data.why}`),
    el("p", { class: "note", dir: "auto" }, `Fires on ${percent(feature.rate)} of tokens and on ${feature.texts.toLocaleString("en")} of ${feature.of.toLocaleString("en")} texts; largest activation ${short(feature.largest)}`
      + (feature.reference === null ? "" : `, unit of steering ${short(feature.reference)}`) + (data.origin ? `. Description from ${data.origin}` : "")),
    ...data.flags.map((flag) => el("p", { class: "flag", dir: "auto" }, flag)),
    el("div", { class: "tiles" }, ...data.metrics.map(tile)),
    section("Activations", "The largest activation of each text; the bar is the median. Rated texts were chosen with more weight on those that fire.", strips(groups, width)),
    section("Texts that activate it most", data.top.length ? "Shade: activation of the token; framed: the peak; dotted: positions that never count." : "None: the feature never fires on the corpus.",
      el("ol", { class: "texts" }, ...data.top.map((text) => item([el("b", {}, short(text.activation)), ` text ${text.number}`], shaded(text, Math.abs(feature.largest))))),
      data.top.length < data.top_of ? el("p", { class: "note" }, some(data.top.length, data.top_of)) : null),
    section("Rated natural texts", data.rated.of ? `By activation; ${some(data.rated.texts.length, data.rated.of)}${data.rated.texts.length < data.rated.of ? ", disagreements first choice" : ""}.` : "No text was rated.",
      ...(data.rated.of ? ratedTexts(data.rated) : [])),
    section("Synthetic texts", data.synthetic.of ? `Written by the judge for the description; ${some(data.synthetic.texts.length, data.synthetic.of)}.` : "The judge wrote none.",
      ...data.synthetic.failures.map((failure) => el("p", { class: "flag", dir: "auto" }, failure)),
      el("ol", { class: "texts" }, ...data.synthetic.texts.map(([activation, text]) => item([activation === null ? "no counted position" : el("b", {}, short(activation))], plain(text))))),
    section("Steering", data.steering.rates.length ? "Continuations rated 2, with 95 % Wilson intervals; dashed: the untouched model." : `Not steered: ${faithfulness.reason || "no continuations"}`,
      data.steering.rates.length ? rates(data.steering.rates, width) : null, ...steered(data.steering)),
  ];
}

const dialog = byId("card");
let current = 0;
const visibleRows = () => rows.filter((r) => r.matches);

function show(place) {
  const element = byId(`data-${place}`);
  if (!element) return;
  current = place;
  if (!dialog.open) dialog.showModal();
  const room = byId("card-body");
  room.replaceChildren(...card(JSON.parse(element.textContent), Math.max(300, Math.min(room.clientWidth, 900))));
  dialog.scrollTop = 0;
  byId("card-title").focus();
  const list = visibleRows(), at = list.findIndex((r) => r.place === place);
  byId("place").textContent = at < 0 ? "" : `${at + 1} of ${list.length}`;
  byId("previous").disabled = at <= 0;
  byId("next").disabled = at < 0 || at >= list.length - 1;
  history.replaceState(null, "", `#d${place}`);
}

function step(by) {
  const list = visibleRows(), next = list[list.findIndex((r) => r.place === current) + by];
  if (next) show(next.place);
}

function fromHash() {
  const found = /^#d(\d+)$/.exec(location.hash);
  if (found) show(Number(found[1]));
}

byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  history.replaceState(null, "", " ");
  rows.find((r) => r.place === current)?.row.querySelector(".open").focus();
});
window.addEventListener("hashchange", fromHash);
fromHash();

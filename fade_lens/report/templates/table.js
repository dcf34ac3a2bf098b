// --- The table ---

const held = JSON.parse(byId("rows-data").textContent);
const body = byId("rows").tBodies[0], box = byId("box"), above = byId("above"), below = byId("below");
const RANKS = [...byId("standing").options].map((option) => option.value), AUDITED = byId("rows").classList.contains("audited");
const METRICS = held.metrics.map(([name]) => name);
// The rows by their place, the worst first; those of a large run arrive file by file.
const rows = new Array(held.of);
function arrive(first, some) {
  some.forEach((r, i) => { rows[first + i] ??= Object.assign(r, { place: first + i, key: null, words: null }); });
}
arrive(0, held.rows);

const missing = (folder) => { byId("shown").textContent = `Rows and cards lie in the folder ${folder} beside this page, which is not there.`; };
const beside = held.folder ? {
  rows: sharded("Rows", `${held.folder}/rows`, held.starts.rows, missing),
  cards: sharded("Cards", `${held.folder}/cards`, held.starts.cards, missing),
} : null;
async function readRows(shard) {
  const some = await beside.rows.read(shard);
  if (some) arrive(held.starts.rows[shard], some);
  return some !== null;
}
// All rows are read one file after the other when the page is drawn; what needs all of them waits.
let reading = beside && new Promise((done) => addEventListener("load", async () => {
  for (const [shard, first] of held.starts.rows.entries()) {
    byId("shown").textContent = `Reading rows: ${first.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
    if (!(await readRows(shard))) return;
  }
  reading = null;
  sorted = rows;
  filter();
  done();
}));
const when = (f) => (...given) => reading ? reading.then(() => f(...given)) : f(...given);
const rowOf = (index) => rows.find((r) => r?.index === index);

const PAGE = held.page;
// The order in which the rows come: what an audit found worst, by standing, or as they were asked for.
const FIRST = { key: byId("order").options[0].value, down: byId("order").options[0].value === "severity" };
let order = FIRST, limit = PAGE, sorted = rows.filter(Boolean), list = sorted;

const KEYS = { place: (r) => r.place, index: (r) => r.index, text: (r) => r.text, rank: (r) => RANKS.indexOf(r.standing), severity: (r) => r.severity ?? null };
const valueOf = (r, name) => r.cells[METRICS.indexOf(name)]?.[0] ?? null;

function sort(key, down) {
  order = { key, down };
  const sign = down ? -1 : 1, alphabet = new Intl.Collator();
  for (const r of rows) r.key = key in KEYS ? KEYS[key](r) : valueOf(r, key);
  const differ = key === "text" ? (x, y) => alphabet.compare(x, y) : (x, y) => x - y;
  sorted = [...rows].sort((a, b) => a.key === null || b.key === null
    ? (a.key === null) - (b.key === null) || a.place - b.place  // undefined last, both ways
    : sign * differ(a.key, b.key) || a.place - b.place);
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.parentElement.setAttribute("aria-sort", button.dataset.sort !== key ? "none" : down ? "descending" : "ascending");
  }
  byId("order").value = key;
  filter();
}

// What is searched for: all that stands in a row.
const wordsOf = (r) => r.words ??= [r.index, r.text, ...r.flags ?? [], ...(r.links ?? []).map(([name]) => name), ...r.hints ?? [], r.origin ?? "",
  ...r.cells.map(([value, , , , , said]) => value === null ? said : ""), r.verdict ?? "", r.suggestion ?? ""].join(" ").toLowerCase();

function filter() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [wanted, flag, metric, test] = ["standing", "flag", "metric", "test"].map((id) => byId(id).value);
  const verdict = byId("verdict")?.value ?? "";
  const bound = Number(byId("limit").value);
  byId("limit").disabled = test === "undefined";
  list = sorted.filter((r) => {
    const value = metric ? valueOf(r, metric) : null;
    return (!metric || (test === "undefined" ? value === null : value !== null && (test === "below" ? value < bound : value >= bound)))
      && (!wanted || r.standing === wanted) && (!flag || (r.kinds ?? "").split(" ").includes(flag)) && (!verdict || r.verdict === verdict)
      && (!words.length || words.every((w) => wordsOf(r).includes(w)));
  });
  limit = PAGE;
  if (box) box.scrollTop = 0;
  paint();
}

function cell([value, low, high, bad, words, said], at) {
  const [name, range] = held.metrics[at], kind = bad ? "bad" : "";
  return el("td", { role: "cell", class: "metric", "data-name": name, "data-value": value },
    el("span", { class: "heading", "aria-hidden": "true" }, name),
    ...(value === null ? [el("span", { class: "none" }, "undefined"), el("small", { class: "why", dir: "auto", title: said }, said)] : [
      el("b", { class: kind || null }, words),
      range ? add(scale({ range, value, interval: low === null ? null : [low, high] }, kind), { class: "bar" }, []) : null,
      el("small", {}, said)]));
}

function draw(r, at) {
  const cells = r.cells.length ? r.cells.map(cell) : [el("td", { role: "cell", class: "metric", colspan: METRICS.length }, el("span", { class: "none" }, "no metrics"))];
  const links = (r.links ?? []).map((link) => outward(link, ` of feature ${r.index}, in a new tab`));
  return el("tr", { role: "row", class: r.standing, "data-place": r.place, "data-index": r.index, "data-standing": r.standing, "data-verdict": r.verdict ?? null, "aria-rowindex": at + 2 },
    el("td", { role: "cell" }, el("span", { class: `tag ${r.standing}`, title: r.why ?? "" }, r.standing)),
    el("td", { role: "cell", class: "number index" }, String(r.index)),
    el("td", { role: "cell", class: "text" }, el("button", { type: "button", class: "opens", dir: "auto" }, r.text),
      ...(r.flags ?? []).map((flag) => el("span", { class: "flag", dir: "auto" }, flag)), ...links,
      ...(r.hints ?? []).map((hint) => el("small", { class: "hint", dir: "auto" }, hint)), r.origin ? el("span", { class: "unseen" }, r.origin) : null),
    AUDITED ? el("td", { role: "cell", class: "audit", dir: "auto" }, r.verdict ? el("b", {}, r.verdict) : null, r.suggestion ? el("small", { class: "advice" }, r.suggestion) : null) : null,
    ...cells);
}

// Only the rows near those on screen are there: blocks of rows, with room above and below that is as high as the others are. What was never
// drawn counts as high as the first that were: a guess that changed would move what is seen.
const BLOCK = 50, SPARE = 2, drawn = new Map();
let heights = [], guess = 0;

function measure() {
  for (const [b, some] of drawn) heights[b] = some.at(-1).getBoundingClientRect().bottom - some[0].getBoundingClientRect().top;
  const known = heights.filter((height) => height > 0);
  if (known.length) guess ||= known.reduce((a, b) => a + b) / known.length;
}
const height = (b) => heights[b] || guess || 60 * BLOCK;
function high(from, to) {
  let sum = 0;
  for (let b = from; b < to; b++) sum += height(b);
  return sum;
}

function lay() {
  const count = Math.min(limit, list.length), last = Math.ceil(count / BLOCK) - 1;
  measure();
  const view = box?.getBoundingClientRect() ?? { top: 0, bottom: innerHeight };
  let y = above.getBoundingClientRect().top, first = 0;
  while (first < last && y + height(first) < view.top) y += height(first++);
  let end = first;
  while (end < last && (y += height(end)) < view.bottom) end++;
  const from = Math.max(first - SPARE, 0), to = Math.min(end + SPARE, last);
  // What is seen stays where it is, whatever the height of rows that come above it; most browsers see to that themselves.
  const kept = [...drawn].filter(([b]) => b >= from && b <= to).flatMap(([, some]) => some).filter((row) => row.getBoundingClientRect().bottom > view.top);
  const before = kept[0]?.getBoundingClientRect().top;
  for (const [b, some] of drawn) if (b < from || b > to) {
    for (const row of some) row.remove();
    drawn.delete(b);
  }
  for (let b = to; b >= from; b--) if (!drawn.has(b)) {
    drawn.set(b, list.slice(b * BLOCK, Math.min((b + 1) * BLOCK, count)).map((r, i) => draw(r, b * BLOCK + i)));
    const next = drawn.get(b + 1)?.[0] ?? null;
    for (const row of drawn.get(b)) body.insertBefore(row, next);
  }
  measure();
  above.style.height = `${high(0, from)}px`;
  below.style.height = `${high(to + 1, last + 1)}px`;
  if (kept.length && !CSS.supports("overflow-anchor", "auto")) (box ?? document.scrollingElement).scrollTop += kept[0].getBoundingClientRect().top - before;
}

let due = false;
function soon() {
  if (!due) requestAnimationFrame(() => { due = false; lay(); });
  due = true;
}
addEventListener("scroll", soon, { capture: true, passive: true });
addEventListener("resize", () => { heights = []; guess = 0; soon(); });

function paint() {
  const told = (n) => n.toLocaleString("en");
  body.replaceChildren();
  drawn.clear();
  heights = [];
  lay();
  if (!reading) byId("shown").textContent = `${told(list.length)} of ${told(rows.length)}`;
  byId("rows").setAttribute("aria-rowcount", list.length + 1);
  byId("nothing").hidden = list.length > 0;
  byId("more").hidden = list.length <= limit;
  byId("more").textContent = `Show ${told(Math.min(4 * PAGE, list.length - limit))} more of ${told(list.length - limit)}`;
}

// The row of a place gets the focus, wherever in the table it is.
function focusOn(place) {
  const at = list.findIndex((r) => r.place === place), block = Math.floor(at / BLOCK);
  if (at < 0) return;
  if (at >= limit) {
    limit = PAGE * Math.ceil((at + 1) / PAGE);
    paint();
  }
  if (!drawn.has(block)) {
    (box ?? document.scrollingElement).scrollTop += above.getBoundingClientRect().top + high(0, block) - (box?.getBoundingClientRect().top ?? 0);
    lay();
  }
  drawn.get(block)?.[at % BLOCK].querySelector(".opens").focus();
}

for (const button of document.querySelectorAll("[data-sort]")) {
  const key = button.dataset.sort;
  button.addEventListener("click", when(() => sort(key, order.key === key ? !order.down : key === "severity")));
}
byId("order").addEventListener("change", when((event) => sort(event.target.value, event.target.value === "severity")));
byId("filters").addEventListener("input", when(filter));
byId("filters").addEventListener("reset", () => setTimeout(when(() => sort(FIRST.key, FIRST.down))));
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").hidden = false;
byId("more").addEventListener("click", () => { limit += 4 * PAGE; paint(); });
body.addEventListener("click", (event) => {
  const button = event.target.closest(".opens");
  if (button) show(Number(button.closest("tr").dataset.place));
});

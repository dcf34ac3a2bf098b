// --- The table ---

const body = byId("rows").tBodies[0];
const rows = [...body.rows].map((row) => ({
  row,
  place: Number(row.dataset.place),
  index: Number(row.dataset.index),
  text: row.querySelector(".opens").textContent,
  words: [row.dataset.index, ...[...row.querySelectorAll(".text > *, .why, .audit > *")].map((node) => node.textContent)].join(" ").toLowerCase(),
  matches: true,
  dressed: false,
  standing: row.dataset.standing,
  rank: [...byId("standing").options].findIndex((option) => option.value === row.dataset.standing),
  kinds: row.dataset.kinds.split(" "),
  verdict: row.dataset.verdict ?? "",
  severity: row.dataset.severity === undefined ? null : Number(row.dataset.severity),
  values: Object.fromEntries([...row.querySelectorAll("[data-name]")].map((cell) => [cell.dataset.name, cell.dataset.value === undefined ? null : Number(cell.dataset.value)])),
}));
const PAGE = Number(byId("rows").dataset.page);
// The order in which the rows come: what an audit found worst, by standing, or as they were asked for.
const FIRST = { key: byId("order").options[0].value, down: byId("order").options[0].value === "severity" };
let order = FIRST, limit = PAGE;

function compare(a, b) {
  const x = order.key in a ? a[order.key] : a.values[order.key] ?? null;
  const y = order.key in b ? b[order.key] : b.values[order.key] ?? null;
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
  for (const cell of r.row.querySelectorAll("[data-range]")) {
    const { value, low, high } = cell.dataset, number = cell.querySelector("b");
    if (value === undefined) continue;
    const drawn = scale({ range: cell.dataset.range.split(",").map(Number), value: Number(value), interval: low === undefined ? null : [Number(low), Number(high)] }, number.className);
    drawn.setAttribute("class", "bar");
    number.after(drawn);
  }
}

function filter() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [wanted, flag, metric, test] = ["standing", "flag", "metric", "test"].map((id) => byId(id).value);
  const verdict = byId("verdict")?.value ?? "";
  const bound = Number(byId("limit").value);
  byId("limit").disabled = test === "undefined";
  for (const r of rows) {
    const value = r.values[metric] ?? null;
    const passes = !metric || (test === "undefined" ? value === null : value !== null && (test === "below" ? value < bound : value >= bound));
    r.matches = passes && (!wanted || r.standing === wanted) && (!flag || r.kinds.includes(flag)) && (!verdict || r.verdict === verdict) && words.every((w) => r.words.includes(w));
  }
  limit = PAGE;
  paint();
}

for (const button of document.querySelectorAll("[data-sort]")) {
  const key = button.dataset.sort;
  button.addEventListener("click", () => sort(key, order.key === key ? !order.down : key === "severity"));
}
byId("order").addEventListener("change", (event) => sort(event.target.value, event.target.value === "severity"));
byId("filters").addEventListener("input", filter);
byId("filters").addEventListener("reset", () => setTimeout(() => { sort(FIRST.key, FIRST.down); filter(); }));
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").hidden = false;
byId("more").addEventListener("click", () => { limit += 4 * PAGE; paint(); });
paint();
body.addEventListener("click", (event) => {
  const button = event.target.closest(".opens");
  if (button) show(Number(button.closest("tr").dataset.place));
});

const data = JSON.parse(byId("data").textContent), n = data.x.length, plot = byId("plot"), panel = byId("latent");
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a", "#b8a800"];
const GREY = "#8a8a8a", scheme = matchMedia("(prefers-color-scheme: dark)");
let pinned = false, chosen = null, found = [], place = 0;

// What is said of many latents lies beside the page.
const said = sharded("Texts", data.folder, data.starts, (folder) => { byId("found").textContent = `What is said of the latents lies in the folder ${folder} beside this page, which is not there.`; });
const known = (i) => data.texts ? data.texts[i] : said.known(i);
async function textsOf(i) {
  if (!data.texts) await said.read(said.of(i));
  return known(i) ?? ["", "", "", ""];
}

async function show(i) {
  panel.dataset.latent = i;
  const [description, promoted, parent, url] = await textsOf(i);
  if (panel.dataset.latent !== String(i)) return; // the pointer is elsewhere by now
  const facts = [["Description", description], ["Promotes", promoted], ["Parent", parent],
    ["Cluster", data.cluster[i] < 0 ? "none" : String(data.cluster[i])],
    ...data.colours.map(([name, values]) => [name, values[i] === null ? "" : short(values[i])])];
  panel.replaceChildren(el("h3", { dir: "auto" }, `${data.saes[data.sae[i]]} #${data.index[i]}`),
    el("dl", {}, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", { dir: "auto" }, value)])),
    url.startsWith("https://") ? el("p", {}, el("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, "On Neuronpedia")) : "");
}

// A trace an SAE, so that each can be switched off; points keep their numbers as custom data.
const members = data.saes.map((_, sae) => [...Array(n).keys()].filter((i) => data.sae[i] === sae));
function markers(colour) { // 0: by SAE, 1: by cluster, then by column
  const column = data.colours[colour - 2]?.[1], dark = scheme.matches;
  const shown = column?.filter((v) => v !== null), low = shown?.reduce((a, b) => Math.min(a, b), Infinity), high = shown?.reduce((a, b) => Math.max(a, b), -Infinity);
  return members.map((rows, sae) => {
    const marker = { size: n > 30000 ? 3 : n > 3000 ? 4 : 7, opacity: 0.75 };
    if (column) Object.assign(marker, { color: rows.map((i) => column[i]), cmin: low, cmax: high, colorscale: "Viridis", showscale: sae === 0, colorbar: { thickness: 12 } });
    else if (colour === 1) marker.color = rows.map((i) => data.cluster[i] < 0 ? (dark ? "#444" : "#ccc") : `hsl(${(data.cluster[i] * 137.5) % 360}, 65%, ${dark ? 60 : 42}%)`);
    else marker.color = PALETTE[sae % PALETTE.length];
    return marker;
  });
}
function draw() {
  const made = markers(Number(byId("colour").value)), ink = scheme.matches ? "#e6e8ea" : "#1a1c1e";
  const traces = members.map((rows, sae) => ({
    type: "scattergl", mode: "markers", name: data.saes[sae].replaceAll("<", "‹").replaceAll("&", "＆"), hoverinfo: "none", customdata: rows,
    x: rows.map((i) => data.x[i]), y: rows.map((i) => data.y[i]), marker: made[sae], selected: { marker: { opacity: 1, size: n > 3000 ? 9 : 11 } }, unselected: { marker: { opacity: 0.15 } },
    selectedpoints: chosen && rows.flatMap((i, at) => chosen.has(i) ? [at] : []),
  }));
  const axis = { visible: false, zeroline: false };
  Plotly.react(plot, traces, { margin: { l: 0, r: 0, t: 0, b: 0 }, xaxis: axis, yaxis: { ...axis, scaleanchor: "x" }, dragmode: "pan", hovermode: "closest",
    showlegend: data.saes.length > 1, legend: { orientation: "h" }, font: { color: ink }, paper_bgcolor: "transparent", plot_bgcolor: "transparent", uirevision: "kept", modebar: { bgcolor: "transparent", color: GREY, activecolor: "#0072b2" } },
  { scrollZoom: true, responsive: true, displaylogo: false });
}
draw();
const point = (event) => event.points[0].customdata;
plot.on("plotly_hover", (event) => { if (!pinned) show(point(event)); });
plot.on("plotly_click", (event) => { pinned = true; show(point(event)); });
plot.on("plotly_doubleclick", () => { pinned = false; });
byId("colour").addEventListener("change", draw);
scheme.addEventListener("change", draw);

function choose(some, words) {
  chosen = some && new Set(some);
  [found, place] = [some ?? [], -1];
  byId("found").textContent = some ? `${some.length.toLocaleString("en")} ${words}` : "";
  draw();
  next();
}
function next() { // of what was found, one after the other
  if (!found.length) return;
  pinned = true;
  place = (place + 1) % found.length;
  show(found[place]);
}
async function search() {
  const wanted = byId("search").value.trim().toLowerCase();
  pinned = false;
  if (!wanted) return choose(null);
  const every = [...Array(n).keys()], number = /^#\d+$/.test(wanted) ? Number(wanted.slice(1)) : null;
  if (number !== null) return choose(every.filter((i) => data.index[i] === number), "found");
  for (const shard of data.starts.keys()) if (!(await said.read(shard))) return; // which is told
  if (wanted === byId("search").value.trim().toLowerCase())
    choose(every.filter((i) => String(data.index[i]) === wanted || known(i).slice(0, 3).some((text) => text.toLowerCase().includes(wanted))), "found");
}
let timer;
byId("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 250); });
byId("search").addEventListener("keydown", (event) => { if (event.key === "Enter") next(); });
for (const button of document.querySelectorAll("[data-cluster]")) button.addEventListener("click", () => {
  const cluster = Number(button.dataset.cluster);
  choose([...Array(n).keys()].filter((i) => data.cluster[i] === cluster), `latents of cluster ${cluster}`);
  plot.scrollIntoView({ block: "center" });
});

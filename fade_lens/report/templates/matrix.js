// --- The heat map of every feature against every description ---

function heatMap(data) {
  const canvas = byId("heat-map"), words = byId("heat-cell"), choice = byId("heat-metric");
  const height = data.features.length, width = data.columns.length;
  const rowOf = new Map(data.features.map((feature, row) => [feature, row]));
  const bytes = data.metrics.map((m) => Uint8Array.from(atob(m.data), (c) => c.charCodeAt(0)));
  let chosen = 0, at = null, cell = 1;

  choice.append(...data.metrics.map((m, i) => el("option", { value: i }, m.name)));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const valueOf = (row, column) => {
    const byte = bytes[chosen][row * width + column], [low, high] = data.metrics[chosen].range;
    return byte === 255 ? null : low + byte / 254 * (high - low);
  };

  function draw() {
    const [low] = data.metrics[chosen].range, room = byId("heat").clientWidth - 2;
    const density = window.devicePixelRatio || 1;
    cell = Math.max(2, Math.min(26, Math.floor(Math.min(room / width, 640 / height))));
    canvas.style.width = `${cell * width}px`;
    canvas.style.height = `${cell * height}px`;
    canvas.width = Math.round(cell * width * density);
    canvas.height = Math.round(cell * height * density);
    const pen = canvas.getContext("2d"), hot = colour("--hot"), cold = colour("--cold"), gap = cell > 6 ? 1 : 0;
    pen.scale(density, density);
    pen.clearRect(0, 0, cell * width, cell * height);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const value = valueOf(row, column);
        pen.globalAlpha = value === null ? 1 : Math.min(Math.abs(value), 1);
        pen.fillStyle = value === null ? colour("--line") : value < 0 ? cold : hot;
        const side = value === null ? Math.max(cell / 3, 1) : cell - gap, shift = value === null ? cell / 3 : 0;
        pen.fillRect(column * cell + shift, row * cell + shift, side, side);
      }
    }
    pen.globalAlpha = 1;
    const frame = (row, column, name, line) => {
      pen.strokeStyle = colour(name);
      pen.lineWidth = line;
      pen.strokeRect(column * cell + 0.5, row * cell + 0.5, cell - gap - 1, cell - gap - 1);
    };
    if (cell > 3) data.columns.forEach(([owner], column) => frame(rowOf.get(owner), column, "--fg", 1));
    if (at) frame(at[0], at[1], "--focus", 3);
    byId("heat-low").textContent = fixed(low);
    byId("heat-high").textContent = fixed(1);
    byId("heat-ramp").className = low < 0 ? "ramp both" : "ramp";
  }

  function select(row, column) {
    at = [Math.max(0, Math.min(height - 1, row)), Math.max(0, Math.min(width - 1, column))];
    const value = valueOf(...at), [owner, text] = data.columns[at[1]], feature = data.features[at[0]];
    const own = owner === feature ? `its own feature ${feature}` : `feature ${feature} (it describes ${owner})`;
    words.textContent = `${data.metrics[chosen].name} ${value === null ? "undefined" : fixed(value)}: “${text}” for ${own}`;
    draw();
  }

  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    return [Math.floor((event.clientY - box.top) / cell), Math.floor((event.clientX - box.left) / cell)];
  };
  const open = () => { if (at) show(data.columns[at[1]][2]); };
  canvas.addEventListener("pointermove", (event) => {
    const [row, column] = under(event);
    if (!at || row !== at[0] || column !== at[1]) select(row, column);
  });
  canvas.addEventListener("click", (event) => { select(...under(event)); open(); });
  canvas.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (event.key === "Enter") open();
    else if (down || right) select(...(at ? [at[0] + down, at[1] + right] : [0, 0]));
    else return;
    event.preventDefault();
  });
  choice.addEventListener("change", () => { chosen = Number(choice.value); at ? select(...at) : draw(); });
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  byId("heat").hidden = false;
  draw();
}

if (byId("heat-data")) heatMap(JSON.parse(byId("heat-data").textContent));

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

// Concept rate by steering factor, with Wilson intervals and the unsteered model as a dashed line.
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
    drawn.append(svg("text", { x: x(i), y: bottom + 16, "text-anchor": "middle" }, factor === 0 ? "0 (unsteered)" : short(factor)));
  });
  drawn.append(svg("text", { x: left + (width - left) / 2, y: height - 4, "text-anchor": "middle" }, "steering factor"));
  drawn.setAttribute("aria-label", `Continuations rated 2 by steering factor: ${data.map((d) => `${short(d[0])}: ${percent(d[1])}`).join(", ")}.`);
  return drawn;
}

// How many texts have their largest activation in each of some bins of equal width.
function bars(data, width) {
  const { low, high, counts } = data, height = 120, left = 34, bottom = height - 20, most = Math.max(...counts, 1);
  const x = (v) => left + (v - low) / (high - low || 1) * (width - left - 8), wide = (width - left - 8) / counts.length;
  const drawn = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const t of ticks(low, high)) drawn.append(svg("path", { class: "axis", d: `M${x(t)} 0V${bottom}` }), svg("text", { x: x(t), y: height - 6, "text-anchor": x(t) > width - 30 ? "end" : "middle" }, short(t)));
  counts.forEach((n, i) => { if (n) drawn.append(svg("path", { class: "bars", d: `M${left + i * wide} ${bottom}v${-(bottom - 8) * n / most}h${wide - 1}v${(bottom - 8) * n / most}z` }, svg("title", {}, `${n} texts`))); });
  drawn.append(svg("text", { x: left - 6, y: 16, "text-anchor": "end" }, most.toLocaleString("en")), svg("text", { x: left - 6, y: bottom, "text-anchor": "end" }, "0"));
  drawn.setAttribute("aria-label", `Histogram of the activations of ${counts.reduce((a, b) => a + b, 0)} texts, from ${short(low)} to ${short(high)}.`);
  return drawn;
}

function scale(metric, kind = "") {
  const [low, high] = metric.range, x = (v) => 7 + (v - low) / (high - low) * 186;  // the widest dot is 12
  return svg("svg", { viewBox: "0 0 200 14", "aria-hidden": "true" },
    svg("path", { class: "axis", d: `M7 7H193M${x(0)} 1V13` }),
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

// How a token is underlined for what it does to the activations behind it, and that in words; nothing below 2 % of the largest activation.
function caused(value, largest) {
  if (value === null || !largest || Math.abs(value) < 0.02 * largest) return ["", ""];
  return [value > 0 ? "raises" : "lowers", `; ${value > 0 ? "makes it fire" : "holds it back"}, ${signed(value)}`];
}

function shaded(text, largest) {
  const box = el("div", { class: "body", dir: "auto" }, text.before ? el("span", { class: "cut" }, "… ") : null);
  const peak = text.values.reduce((best, v, i) => Math.abs(v ?? 0) > Math.abs(text.values[best] ?? 0) ? i : best, 0);
  text.tokens.forEach((token, i) => {
    const value = text.values[i], seen = token.replaceAll("\n", "↵\n");
    const share = largest ? Math.min(Math.abs(value ?? 0) / largest, 1) : 0;
    const [underline, cause] = caused(text.causes?.[i] ?? null, largest);
    if (value === null) box.append(el("span", { class: `never ${underline}`.trim(), title: `this position never counts${cause}` }, seen));
    else if (share < 0.02 && !underline) box.append(seen);
    else {
      const [kind, classes] = share < 0.02 ? ["span", []] : ["mark", [value < 0 && "negative", i === peak && "peak"]];
      const mark = el(kind, { title: `${short(value)}${cause}`, class: [...classes, underline].filter(Boolean).join(" ") }, seen);
      if (kind === "mark") mark.style.setProperty("--share", Math.round(10 + 45 * share));
      box.append(mark);
    }
    if (underline) box.lastChild.style.setProperty("--cause", Math.min(Math.abs(text.causes[i]) / largest, 1).toFixed(2));
  });
  if (text.after) box.append(el("span", { class: "cut" }, " …"));
  return box;
}

const RATED = { 0: "0 not", 1: "1 partly", 2: "2 clearly" };
const badge = (rating) => el("span", { class: `rating ${rating === null ? "unrated" : `r${rating}`}` }, rating === null ? "unrated" : RATED[rating]);
const item = (side, text, reason, attributes = {}) => el("li", attributes, el("div", { class: "side" }, ...side), text, reason ? el("div", { class: "reason", dir: "auto" }, reason) : null);
const plain = (text) => el("div", { class: "body", dir: "auto" }, text);
const section = (title, note, ...children) => el("section", { "aria-label": title }, el("h3", {}, title), note ? el("p", { class: "note" }, note) : null, ...children);

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
    const name = factor === 0 ? "Unsteered model" : `Factor ${short(factor)}`;
    return el("details", {}, el("summary", {}, `${name}: ${expressed} of ${n} rated 2 (${percent(rate)})${unrated ? `, ${unrated} unrated` : ""}; ${some(texts.length, n)}`),
      el("ol", { class: "texts" }, ...texts.map(([, rating, prompt, text, reason]) =>
        item([badge(rating)], el("div", { class: "body", dir: "auto" }, el("span", { class: "prompt" }, prompt), el("span", {}, text)), reason))));
  });
  const best = steering.rates.reduce((top, d, i) => d[0] !== 0 && d[1] > (steering.rates[top]?.[1] ?? -1) ? i : top, -1);
  if (best >= 0) groups[best].open = true;
  return groups;
}

// What was added by an audit: verdict, suggestion, facts.
function audit(data) {
  if (!data.verdict && !data.suggestion && !data.facts.length) return null;
  return section("Audit", "",
    data.verdict ? el("p", { dir: "auto" }, el("b", {}, data.verdict)) : null,
    data.suggestion ? el("p", { class: "advice", dir: "auto" }, data.suggestion) : null,
    data.facts.length ? el("table", { class: "record" }, el("tbody", {}, ...data.facts.map(([name, value]) =>
      el("tr", {}, el("th", { scope: "row", dir: "auto" }, name), el("td", { dir: "auto" }, value))))) : null);
}

// The description beside the others of its run.
function besides(data) {
  const found = data.null;
  if (!found) return null;
  if (found.reason) return section("Beside the other descriptions", found.reason);
  const p = (value) => value < 0.001 ? "below 0.001" : value.toFixed(3);
  return section("Beside the other descriptions",
    `The share of ${found.of} other descriptions of the run that score lower on this feature; chance is 50 %.`,
    el("table", { class: "record" }, el("tbody", {}, ...found.percentiles.map(([name, value]) =>
      el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, meter(value)), el("td", { class: "number" }, `${short(value)} %`))))),
    found.p === null ? null : el("p", {}, `p ${p(found.p)}: so often a description dealt out at random fits at least as well`
      + (found.q === null ? "." : `; q ${p(found.q)}, the false discovery rate over the run.`)),
    found.better === null ? null : el("p", { class: "advice" }, `Feature ${found.better} fits this description better`
      + (found.suggested === null || found.suggested === data.index ? "." : `; dealt out anew over the run, it goes to feature ${found.suggested}.`)));
}

const meter = (share) => svg("svg", { class: "meter", viewBox: "0 0 120 10", "aria-hidden": "true" },
  svg("path", { class: "axis", d: "M4 5H116M60 0V10" }), svg("path", { class: "dot", "stroke-width": 7, d: `M${4 + share * 1.12} 5h0` }));

// Addresses were checked to be http or https when the page was made, and are checked here again.
const outward = ([name, url], about = ", in a new tab") => /^https?:\/\//.test(url)
  ? el("a", { class: "out", href: url, target: "_blank", rel: "noopener noreferrer" }, name, el("span", { class: "unseen" }, about)) : null;

function head(data) {
  return [
    el("h2", { id: "card-title", tabindex: "-1", dir: "auto" }, data.text),
    el("p", {}, el("span", { class: `tag ${data.standing}` }, data.standing), ` feature ${data.index}: ${data.why}`),
    data.links.length ? el("p", {}, ...data.links.map((link) => outward(link))) : null,
    ...data.flags.map((flag) => el("p", { class: "flag", dir: "auto" }, flag)),
  ];
}

// Controls for steering, and how likely the steered texts are to the unsteered model.
function controls(steering) {
  const broken = steering.fluency.filter(([, , , breaks]) => breaks).map(([factor]) => short(factor));
  return [
    steering.fluency.length ? el("p", { class: "note" }, "Fluency, nats a token above the unsteered model's own texts: "
      + steering.fluency.map(([factor, increase]) => `${short(factor)}: ${increase === null ? "not known" : signed(increase)}`).join(", ") + "."
      + (broken.length ? ` At ${broken.join(", ")} the model no longer writes sense.` : "")) : null,
    steering.fluency.length ? el("p", { class: "note" }, `Words that repeat: ${steering.fluency.map(([factor, , repeated]) => `${short(factor)}: ${percent(repeated)}`).join(", ")}.`) : null,
    steering.controls.length ? el("table", { class: "record" },
      el("thead", {}, el("tr", {}, ...["Control", "Faithfulness", "Rated 2 by factor"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...steering.controls.map((control) => el("tr", {}, el("th", { scope: "row" }, control.name),
        el("td", { dir: "auto" }, control.value === null ? `undefined: ${control.reason}` : fixed(control.value) + (control.interval ? ` (${fixed(control.interval[0])} to ${fixed(control.interval[1])})` : "")),
        el("td", {}, control.rates.map(([factor, rate]) => `${short(factor)}: ${percent(rate)}`).join(", ")))))) : null,
  ];
}

// The rules that a description is made of, and what each scores alone.
function ruled(found) {
  if (!found?.rows.length) return null;
  const { names, rows } = found;
  const cell = ([value, interval, reason]) => el("td", { dir: "auto" }, value === null ? reason : fixed(value) + (interval ? ` (${fixed(interval[0])} to ${fixed(interval[1])})` : ""));
  return section("Rules", names.length ? "What each rule scores alone, with 95 % intervals; one of strength 0 claims nothing and is not asked about." : "", el("table", { class: "record" },
    el("thead", {}, el("tr", {}, ...["Strength, of 5", "Fires on", ...names].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows.map(([text, strength, cells]) => el("tr", {}, el("td", { class: "number" }, String(strength)), el("td", { dir: "auto" }, text), ...cells.map(cell))))));
}

// Lists of tokens, or of other features, side by side; a feature that has a row opens its card.
const words = (title, items, made, none) => el("div", {}, el("h4", {}, title), items.length ? el("ul", { class: "words" }, ...items.map(made)) : el("p", { class: "note" }, none));
const token = ([text, value]) => el("li", { dir: "auto" }, text.replaceAll("\n", "↵"), el("small", {}, short(value)));
const tokens = (found) => section(found.title, found.note, el("div", { class: "pair" }, ...found.lists.map(([title, list]) => words(title, list, token, "none"))));
function neighbour([index, value]) {
  const there = rowOf(index);
  const name = there ? el("button", { type: "button" }, String(index)) : String(index);
  if (there) name.addEventListener("click", () => show(there.place));
  return el("li", {}, name, el("small", {}, fixed(value)));
}
const neighbours = (found) => found && section("Neighbours", found.note, el("div", { class: "pair" }, ...found.lists.map(([title, list, none]) => words(title, list, neighbour, none))));

// Texts of every strength, beside the strongest.
const strata = (list, largest) => list.some((stratum) => stratum.texts.length) ? section("Texts of every strength", "The texts on which it fires in parts of equal size by activation, the strongest part first; of each some at random.",
  ...list.map((stratum) => el("details", { open: "" }, el("summary", {}, `${short(stratum.low)} to ${short(stratum.high)}: ${some(stratum.texts.length, stratum.of)}`), texts(stratum.texts, largest)))) : null;

const texts = (list, largest) => el("ol", { class: "texts" }, ...list.map((text) => item([el("b", {}, short(text.activation)), ` text ${text.number}`], shaded(text, largest))));

// Who explained the feature, and on what.
function explained(found) {
  if (!found) return null;
  return section("Explanation", "",
    el("dl", { class: "facts" }, ...found.facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { dir: "auto" }, value)))),
    found.windows.length ? el("details", { open: "" }, el("summary", {}, `What its explainer was shown: ${some(found.windows.length, found.of)}`), texts(found.windows, found.largest)) : null);
}

// The decisions behind a score, those worth a look first.
const OUTCOMES = { true: "right", false: "wrong", null: "unanswered" };
function decided(group) {
  const verdict = (one) => one.reason ? el("span", { class: "rating unrated" }, "unanswered")
    : one.right === null ? (one.score === null ? "" : el("b", {}, short(one.score)))
    : el("span", { class: `rating ${one.right ? "right" : "wrong"}` }, `${one.right ? "✓ right" : "✗ wrong"}${one.said ? `: ${one.said}` : ""}`);
  const body = (one) => el("div", { class: "several" },
    ...one.texts.map(([label, pieces]) => el("div", { class: "body", dir: "auto" }, label ? el("span", { class: "rating" }, label) : "", label ? " " : "",
      ...pieces.map(([text, marked]) => marked ? el("mark", { class: "set" }, text) : text))),
    ...(one.tokens.length ? [["active", one.activations, group.largest[0]], ["predicted", one.predicted, group.largest[1]]].map(([name, values, largest]) => values.length
      ? el("div", { class: "beside" }, el("span", { class: "side" }, name), shaded({ tokens: one.tokens, values, before: false, after: false }, largest)) : null) : []));
  const list = el("ol", { class: "texts" }, ...group.items.map((one) =>
    item([verdict(one), ` ${one.kind}`, one.right !== null && one.score !== null ? ` score ${short(one.score)}` : ""], body(one), one.reason, { "data-outcome": OUTCOMES[one.reason ? null : one.right] })));
  const choice = el("select", {}, ...["all", "wrong", "right", "unanswered"].map((name) => el("option", { value: name }, name)));
  choice.addEventListener("change", () => { for (const li of list.children) li.hidden = choice.value !== "all" && li.dataset.outcome !== choice.value; });
  const shown = el("details", {}, el("summary", {}, `${some(group.items.length, group.of)}${group.items.length < group.of ? "; those worth a look first" : ""}`),
    group.judged ? el("p", {}, el("label", {}, "Decisions ", choice)) : null, list);
  return section(group.title, group.judged || !group.unanswered ? "" : `${group.unanswered} of ${group.of} unanswered.`,
    group.judged ? el("table", { class: "record" }, el("thead", {}, el("tr", {}, ...["Of", "Right", "Wrong", "Unanswered"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...group.kinds.map(([kind, , right, wrong, none]) => el("tr", {}, el("th", { scope: "row", dir: "auto" }, kind), ...[right, wrong, none].map((n) => el("td", { class: "number" }, String(n))))))) : null,
    shown);
}

function card(data, width) {
  if (!data.feature) return [...head(data), audit(data), ruled(data.rules), explained(data.explained)].filter((part) => part !== null);
  const counts = data.rated?.counts, groups = [
    { name: "Natural texts (a dot is 1 % of the corpus)", kind: "natural", points: data.natural },
  ];
  if (data.fade) groups.push(
    { name: `Synthetic texts written for the description (${data.synthetic.of})`, kind: "synthetic", points: data.synthetic.points },
    { name: `Rated 0, not expressed (${counts[0]})`, kind: "zero", points: data.rated.points[0] },
    { name: `Rated 1, partly (${counts[1]})`, kind: "one", points: data.rated.points[1] },
    { name: `Rated 2, clearly (${counts[2]})`, kind: "two", points: data.rated.points[2] },
  );
  if (counts?.[3]) groups.push({ name: `Unrated (${counts[3]})`, kind: "unrated", points: data.rated.points[3] });
  const feature = data.feature;
  return [
    ...head(data),
    el("p", { class: "note", dir: "auto" }, `Fires on ${percent(feature.rate)} of tokens and on ${feature.texts.toLocaleString("en")} of ${feature.of.toLocaleString("en")} texts; largest activation ${short(feature.largest)}`
      + (feature.reference === null ? "" : `, unit of steering ${short(feature.reference)}`) + (data.origin ? `. Description from ${data.origin}` : "")),
    audit(data),
    data.metrics.length ? el("div", { class: "tiles" }, ...data.metrics.map(tile)) : null,
    ruled(data.rules),
    data.detection.length ? el("p", { class: "note" }, `On the rated texts, weighted: ${data.detection.map(([name, value]) => `${name} ${fixed(value)}`).join(", ")}.`) : null,
    ...data.judge.map((said) => el("p", { class: "note", dir: "auto" }, `${said}.`)),
    explained(data.explained),
    besides(data),
    data.look ? (data.look.histogram ? section("Activations", "The largest activation of each text; texts on which it is silent are left out.", bars(data.look.histogram, width)) : null)
      : section("Activations", "The largest activation of each text; the bar is the median. Rated texts were chosen with more weight on those that fire.", strips(groups, width)),
    section("Texts that activate it most", data.top.length ? `Shade: activation of the token; framed: the peak; dotted: positions that never count. ${data.legend}` : "None: the feature never fires on the corpus.",
      texts(data.top, Math.abs(feature.largest)),
      data.top.length < data.top_of ? el("p", { class: "note" }, some(data.top.length, data.top_of)) : null),
    data.look ? strata(data.look.strata, Math.abs(feature.largest)) : null,
    ...data.tokens.map(tokens),
    neighbours(data.neighbours),
    ...(data.decided ?? []).map(decided),
    ...(data.fade ? [section("Rated natural texts", data.rated.of ? `By activation; ${some(data.rated.texts.length, data.rated.of)}${data.rated.texts.length < data.rated.of ? ", disagreements first choice" : ""}.` : "No text was rated.",
      ...(data.rated.of ? ratedTexts(data.rated) : [])),
    section("Synthetic texts", data.synthetic.of ? `Written by the judge for the description; ${some(data.synthetic.texts.length, data.synthetic.of)}.` : "The judge wrote none.",
      ...data.synthetic.failures.map((failure) => el("p", { class: "flag", dir: "auto" }, failure)),
      el("ol", { class: "texts" }, ...data.synthetic.texts.map(([activation, text]) => item([activation === null ? "no counted position" : el("b", {}, short(activation))], plain(text))))),
    section("Steering", data.steering.rates.length ? "Continuations rated 2, with 95 % Wilson intervals; dashed: the unsteered model." : `Not steered: ${data.not_steered}`,
      data.steering.rates.length ? rates(data.steering.rates, width) : null, ...controls(data.steering), ...steered(data.steering))] : []),
  ].filter((part) => part !== null);
}

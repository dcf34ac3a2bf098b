// --- The dialog that holds a card ---

// The address names the open card, where there is an address to change: a frame in a notebook has none.
function remember(hash) {
  if (location.protocol !== "about:") history.replaceState(null, "", hash);
}

const dialog = byId("card");
let current = 0;

// The card of a row: in the page, or in a file of its folder.
async function show(place) {
  if (place >= rows.length) return;
  current = place;
  if (!rows[place] && !(await readRows(beside.rows.of(place)))) return;
  const { card: number } = rows[place], inside = byId(`data-${place}`);
  const data = inside ? JSON.parse(inside.textContent) : beside.cards.known(number) ?? (await beside.cards.read(beside.cards.of(number)) && beside.cards.known(number));
  if (!data || current !== place) return; // another was asked for by now
  if (!dialog.open) dialog.showModal();
  const room = byId("card-body");
  room.replaceChildren(...card(data, Math.max(300, Math.min(room.clientWidth, 900))));
  dialog.scrollTop = 0;
  byId("card-title").focus();
  const at = list.findIndex((r) => r.place === place);
  byId("place").textContent = at < 0 ? "" : `${(at + 1).toLocaleString("en")} of ${list.length.toLocaleString("en")}`;
  byId("previous").disabled = at <= 0;
  byId("next").disabled = at < 0 || at >= list.length - 1;
  remember(`#d${place}`);
}

function step(by) {
  const next = list[list.findIndex((r) => r.place === current) + by];
  if (next) show(next.place);
}

// #d7: the row at place 7, as the address of an open card has it; #7: the first row of feature 7.
function fromHash() {
  const found = /^#(d?)(\d+)$/.exec(location.hash);
  if (found?.[1]) show(Number(found[2]));
  else if (found) when(() => { const row = rowOf(Number(found[2])); if (row) show(row.place); })();
}

byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  remember(" ");
  focusOn(current);
});
window.addEventListener("hashchange", fromHash);
paint();
fromHash();

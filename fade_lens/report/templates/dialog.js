// --- The dialog that holds a card ---

// The address names the open card, where there is an address to change: a frame in a notebook has none.
function remember(hash) {
  if (location.protocol !== "about:") history.replaceState(null, "", hash);
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
  remember(`#d${place}`);
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
  remember(" ");
  rows.find((r) => r.place === current)?.row.querySelector(".opens").focus();
});
window.addEventListener("hashchange", fromHash);
fromHash();

// What is too much for one page comes from script files in a folder beside it, each read once, when it is first asked for.
function sharded(kind, folder, starts, missing) {
  const there = new Map(), asked = new Map();
  globalThis[`fadeLens${kind}`] = (number, values) => there.set(number, values);
  // The file in which a value lies.
  function of(i) {
    let low = 0, high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= i) low = middle; else high = middle - 1;
    }
    return low;
  }
  function read(number) {
    if (!asked.has(number)) asked.set(number, new Promise((done) => {
      const script = document.createElement("script");
      script.src = `${folder.split("/").map(encodeURIComponent).join("/")}/${String(number).padStart(4, "0")}.js`;
      script.onload = () => { script.remove(); done(there.get(number) ?? null); };
      script.onerror = () => { script.remove(); asked.delete(number); missing(folder); done(null); };
      document.head.append(script);
    }));
    return asked.get(number);
  }
  const known = (i) => there.get(of(i))?.[i - starts[of(i)]];
  return { of, read, known };
}

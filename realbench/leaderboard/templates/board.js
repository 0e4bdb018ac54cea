"use strict";
(() => {
  const tables = [...document.querySelectorAll("#board, #grid")];
  const controls = document.getElementById("controls");
  const sorter = document.getElementById("sorter");
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const rowsOf = table => [...table.querySelectorAll("tbody.models > tr")];

  // Rows that are equal, or have no figure, keep the order of the ranking.
  const places = new Map(tables.flatMap(table => rowsOf(table).map((row, n) => [row, n])));
  const compare = (key, up) => (one, other) => {
    const [a, b] = [one.dataset[key], other.dataset[key]];
    if ((a === "") !== (b === "")) return a === "" ? 1 : -1;
    const order = key === "name" ? a.localeCompare(b) : Number(a) - Number(b);
    return (up ? order : -order) || places.get(one) - places.get(other);
  };

  const sort = (table, key, up) => {
    const body = table.querySelector("tbody.models");
    if (!body) return;
    body.append(...rowsOf(table).sort(compare(key, up)));
    for (const head of table.querySelectorAll("th[data-key]")) {
      if (head.dataset.key === key) head.setAttribute("aria-sort", up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    if (table.id === "board") sorter.value = `${key} ${up ? "up" : "down"}`;
  };

  for (const table of tables) {
    for (const head of table.querySelectorAll("thead th[data-key]")) {
      const button = document.createElement("button");
      const first = head.dataset.first === "up";
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        sort(table, head.dataset.key, now ? now !== "ascending" : first);
      });
      head.append(button);
      if (table.id === "board") {
        for (const up of first ? [true, false] : [false, true]) {
          const end = head.dataset.key === "name" ? (up ? "A–Z" : "Z–A")
            : head.dataset.key === "rank" ? (up ? "best first" : "last first")
            : up ? "lowest first" : "highest first";
          sorter.add(new Option(`${head.textContent.trim()}, ${end}`, `${head.dataset.key} ${up ? "up" : "down"}`));
        }
      }
    }
  }
  sorter.addEventListener("change", () => {
    const [key, way] = sorter.value.split(" ");
    sort(document.getElementById("board"), key, way === "up");
  });
  document.querySelector("#board th[data-key=rank]").setAttribute("aria-sort", "ascending");

  const entries = [...document.querySelectorAll("details.entry:not([data-anchor])")];
  const texts = new Map(entries.map(entry => [entry.id.slice("model-".length), entry.dataset.name]));
  const rows = tables.flatMap(rowsOf);
  const slugOf = row => row.querySelector("a.name").hash.slice("#model-".length);
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = slug => words.every(word => texts.get(slug).includes(word));
    for (const row of rows) row.hidden = !matches(slugOf(row));
    for (const entry of entries) entry.hidden = !matches(entry.id.slice("model-".length));
    const left = entries.filter(entry => !entry.hidden).length;
    shown.textContent = words.length ? `${left} of ${entries.length} models` : "";
  };
  filter.addEventListener("input", apply);
  controls.addEventListener("submit", event => event.preventDefault());

  const open = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.matches("details.entry")) {
      target.hidden = false;
      target.open = true;
      target.scrollIntoView();
    }
  };
  window.addEventListener("hashchange", open);
  controls.hidden = false;
  apply();
  open();
})();

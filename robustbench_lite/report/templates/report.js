"use strict";
// Sorting, filtering, toggles, values under the pointer, copying. The page says all of it without.
(() => {
  const all = (what, from = document) => [...from.querySelectorAll(what)];
  const one = (id) => document.getElementById(id);
  const say = (text) => { one("said").textContent = text; };
  const make = (name, text) => Object.assign(document.createElement(name), { textContent: text });

  // ---- toggles: a model or an attack is hidden wherever it stands, gates never are
  const view = one("view");
  const boxes = all("input", view);
  const show = () => {
    const off = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
    for (const part of all("[data-m], [data-a]")) {
      part.classList.toggle("off", off.has(part.dataset.m) || off.has(part.dataset.a));
    }
    const note = one("filtered");
    note.hidden = !off.size;
    note.textContent = `${off.size} of ${boxes.length} models and attacks are hidden. Verdict, gates, worst cases and findings are those of the whole run. `;
    if (off.size) {
      const back = make("button", "Show all");
      back.type = "button";
      back.addEventListener("click", () => { for (const box of boxes) box.checked = true; show(); });
      note.append(back);
    }
  };
  for (const box of boxes) box.addEventListener("change", show);
  view.hidden = false;

  // ---- sorting: a button in every column head; groups of rows stay together
  const cellAt = (row, column) => {
    let at = 0;
    for (const cell of row.cells) { at += cell.colSpan; if (at > column) return cell; }
    return row.cells[row.cells.length - 1];
  };
  const worth = (cell) => {
    const text = (cell.dataset.v || (cell.querySelector(".val") || cell).textContent).trim();
    const number = parseFloat(text.replace(/[,<>≥≤+%\s]/g, "").replace("\u2212", "-"));
    return { text, number, none: text === "" || text === "–" };
  };
  const compare = (a, b, numeric) =>
    numeric ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });
  const sort = (table, head, column) => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      const keyed = rows.map((row) => ({ row, key: worth(cellAt(row, column)) }));
      const numeric = keyed.every(({ key }) => key.none || /^[<>≥≤+\u2212-]?\s?[\d.]/.test(key.text) && !Number.isNaN(key.number));
      keyed.sort((a, b) => a.key.none - b.key.none || (up ? 1 : -1) * compare(a.key, b.key, numeric));
      body.append(...keyed.map(({ row }) => row));
    }
    say(`sorted by ${head.textContent}, ${up ? "ascending" : "descending"}`);
  };
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, column) => {
      if (head.classList.contains("plain")) return;
      const button = make("button", "");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head, column));
      head.replaceChildren(button);
    });
  }

  // ---- filtering the long table by text
  for (const table of all("table.filterable")) {
    const field = make("input", "");
    field.type = "search";
    field.placeholder = "Filter: model, attack, budget, status";
    field.setAttribute("aria-label", "Filter the rows");
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const body of table.tBodies) {
        const group = body.querySelector(".group");
        let shown = 0;
        for (const row of body.rows) {
          if (row === group) continue;
          const text = `${group.textContent} ${row.textContent}`.toLowerCase();
          const keep = wanted.every((word) => text.includes(word));
          row.classList.toggle("out", !keep);
          shown += keep;
        }
        group.classList.toggle("out", !shown);
        left += shown;
      }
      say(`${left} rows`);
    });
    table.closest(".scroll").before(field);
  }

  // ---- values: under the pointer, and by the arrow keys in a focused chart
  const tip = one("tip");
  let here = null;
  const leave = () => { if (here) here.classList.remove("here"); here = null; tip.hidden = true; };
  const point = (target) => {
    if (target === here) return;
    leave();
    here = target;
    here.classList.add("here");
    tip.textContent = here.dataset.tip;
    tip.hidden = false;
    const box = here.getBoundingClientRect();
    const x = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${x}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
  };
  for (const target of all(".pt")) {
    const title = target.querySelector("title");
    target.dataset.tip = title.textContent;
    if (target.tagName === "g" || target.tagName === "rect") title.remove();
    target.addEventListener("pointerenter", () => point(target));
    target.addEventListener("pointerleave", leave);
  }
  addEventListener("scroll", leave, { passive: true });
  for (const chart of all("svg.chart, svg.heat")) {
    let at = -1;
    chart.setAttribute("tabindex", "0");
    chart.addEventListener("blur", () => { at = -1; leave(); });
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") leave();
      const points = all(".pt", chart).filter((each) => !each.closest(".off"));
      if (!step || !points.length) return;
      event.preventDefault();
      at = (at + step + points.length + (at < 0 && step < 0 ? 1 : 0)) % points.length;
      point(points[at]);
      say(points[at].dataset.tip);
    });
  }

  // ---- copying the command
  const copy = one("copy");
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    const command = one("command");
    getSelection().selectAllChildren(command);
    let done = false;
    try { await navigator.clipboard.writeText(command.textContent); done = true; } catch { done = document.execCommand("copy"); }
    copy.textContent = done ? "Copied" : "Press Ctrl+C";
    say(copy.textContent);
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });
})();

// A table that is too wide for its column, even with every line broken between words, becomes a list of cards: one for
// each row, in which each cell has the heading of its column. Without this script such a table scrolls sideways.
"use strict";

const tables = [...document.querySelectorAll("article table.docutils")];

// A browser may take what CSS shows as blocks for no table any more, and would not read it out as one.
const roles = { table: "table", tbody: "rowgroup", tr: "row", td: "cell" };

for (const table of tables) {
  for (const each of [table, ...table.querySelectorAll("tbody, tr, td")]) each.setAttribute("role", roles[each.localName]);
  const headings = [...table.tHead?.rows[0]?.cells ?? []].map((cell) => cell.textContent.trim());
  for (const row of table.tBodies[0]?.rows ?? []) {
    // Two columns need no headings: the first cell is the title of its card, and the second is all that is in it.
    [...row.cells].slice(1).forEach((cell, n) => {
      if (headings.length > 2 && headings[n + 1]) cell.dataset.heading = headings[n + 1];
    });
  }
}

function fit() {
  for (const table of tables) table.classList.remove("cards");
  const wide = tables.filter(({ parentElement: box }) => box.scrollWidth > box.clientWidth);
  for (const table of wide) table.classList.add("cards");
}

fit();
addEventListener("resize", fit);

// Sorting, filtering and copying. Every page is whole without this file.
"use strict";

function cellValue(row, column) {
  const cell = row.cells[column];
  const text = (cell.dataset.value ?? cell.textContent).trim();
  const number = Number.parseFloat(text);
  return { text: text.toLocaleLowerCase(), number: /^[-+]?[\d.]/.test(text) ? number : Number.NaN };
}

function compare(one, two) {
  const both = !Number.isNaN(one.number) && !Number.isNaN(two.number);
  if (both) return one.number - two.number;
  if (Number.isNaN(one.number) !== Number.isNaN(two.number)) return Number.isNaN(one.number) ? 1 : -1;
  return one.text.localeCompare(two.text);
}

function sortBy(table, header) {
  const column = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, value: cellValue(row, column) }));
  rows.sort((one, two) => (down ? -1 : 1) * compare(one.value, two.value));
  body.append(...rows.map((each) => each.row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.rows[0].cells) {
    if ("fixed" in header.dataset) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => sortBy(table, header));
  }
}

for (const input of document.querySelectorAll("input[data-filter]")) {
  const name = input.dataset.filter;
  const rows = [...document.getElementById(name).tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLocaleLowerCase());
  const count = document.querySelector(`[data-count="${name}"]`);
  const none = document.querySelector(`[data-none="${name}"]`);
  const apply = () => {
    const words = input.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
    none.hidden = shown > 0;
  };
  input.addEventListener("input", apply);
  input.closest(".filter").classList.add("ready");
  apply();
}

async function copyText(text, block) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const range = document.createRange();
    range.selectNodeContents(block);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
  }
}

for (const box of document.querySelectorAll(".copy")) {
  const block = box.querySelector("code");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy: ${box.querySelector("pre").getAttribute("aria-label")}`);
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(block.textContent, block)) ? "Copied" : "Press Ctrl-C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  box.append(button);
}

"use strict";
// A picture is in the page once; where it is shown again it is copied from there.
for (const image of document.querySelectorAll("img[data-of]")) {
  const source = document.getElementById(image.dataset.of);
  if (source) image.src = source.src;
}
const table = document.getElementById("prompts");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filter = document.getElementById("filter");
  const sort = document.getElementById("sort");
  const count = document.getElementById("count");
  const texts = new Map(rows.map((row) => [row, row.cells[0].textContent.toLowerCase()]));

  function arrange() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const key = sort.value;
    const value = (row) => (row.dataset[key] === "" ? Infinity : Number(row.dataset[key]));
    const sign = key === "spread" ? -1 : 1;
    const ordered = [...rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === y) return 0;
      if (x === Infinity || y === Infinity) return x === Infinity ? 1 : -1;
      return sign * (x - y);
    });
    let visible = 0;
    for (const row of ordered) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      visible += !row.hidden;
    }
    body.append(...ordered);
    count.textContent = `${visible} of ${rows.length} prompts`;
  }

  function step(by) {
    const visible = [...body.rows].filter((row) => !row.hidden);
    const now = visible.indexOf(document.activeElement && document.activeElement.closest("tr"));
    const next = visible[Math.max(0, Math.min(visible.length - 1, now < 0 ? 0 : now + by))];
    if (next) {
      next.focus({ preventScroll: true });
      next.scrollIntoView({ block: "nearest" });
    }
  }

  document.getElementById("tools").addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("input", arrange);
  sort.addEventListener("change", arrange);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") filter.focus();
    else if (event.key === "Enter" && event.target.tagName === "TR") {
      const picture = event.target.querySelector("a.picture");
      if (picture) picture.click();
      return;
    } else return;
    event.preventDefault();
  });
  arrange();
}

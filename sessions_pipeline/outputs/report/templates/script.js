(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);

  const tip = byId("tip");
  const hide = () => { tip.hidden = true; };
  const show = (event) => {
    const mark = event.target.closest && event.target.closest("[data-tip]");
    if (!mark) return hide();
    tip.textContent = mark.getAttribute("data-tip");
    tip.hidden = false;
    const place = mark.getBoundingClientRect();
    const left = Math.min(Math.max(8, place.left + place.width / 2 - tip.offsetWidth / 2), document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = place.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : place.bottom + 8}px`;
  };
  document.addEventListener("pointerover", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  const PLACES = 18;

  // JavaScript's numbers keep 15 digits, and costs have up to 38. So costs are BigInts, in units of 10^-18 dollars.
  const units = (text) => {
    const [whole, fraction = ""] = text.split(".");
    return BigInt(whole + fraction.padEnd(PLACES, "0"));
  };
  const digits = (value) => {
    const text = value.toString().padStart(PLACES + 1, "0");
    const fraction = text.slice(-PLACES).replace(/0+$/, "");
    return text.slice(0, -PLACES) + (fraction ? `.${fraction}` : "");
  };
  const element = (name, text, attributes = {}) => {
    const created = document.createElement(name);
    if (text !== null) created.textContent = text;
    for (const [attribute, value] of Object.entries(attributes)) created.setAttribute(attribute, value);
    return created;
  };
  // Shows how a table is sorted, in its header and in its caption.
  const showOrder = (table, header, down) => {
    for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const words = header.classList.contains("n") ? ["smallest first", "largest first"] : header.dataset.column === "start_date" ? ["earliest first", "latest first"] : ["A to Z", "Z to A"];
    table.querySelector(".order").textContent = `, by ${header.textContent.toLowerCase()}, ${words[Number(down)]}`;
  };
  const onClick = (header, sort) => {
    const button = element("button", header.textContent, { type: "button" });
    header.replaceChildren(button);
    button.addEventListener("click", sort);
  };
  // Unknown values come last in either order.
  const compared = (a, b, down) => {
    if (a === b) return 0;
    if (a === null) return 1;
    if (b === null) return -1;
    return (a < b ? -1 : 1) * (down ? -1 : 1);
  };
  for (const table of document.querySelectorAll(".sortable")) {
    const body = table.tBodies[0];
    const key = (row, header) => {
      const cell = row.cells[header.cellIndex];
      if (!header.classList.contains("n")) return cell.textContent.trim().toLowerCase();
      const known = cell.querySelector("data");
      return known ? units(known.value) : null;
    };
    for (const header of table.tHead.rows[0].cells) {
      if (!header.classList.contains("n") && header.cellIndex) continue;
      onClick(header, () => {
        const down = header.classList.contains("n") ? header.getAttribute("aria-sort") !== "descending" : header.getAttribute("aria-sort") === "ascending";
        body.append(...[...body.rows].sort((one, other) => compared(key(one, header), key(other, header), down)));
        showOrder(table, header, down);
      });
    }
  }

  const scope = byId("scope");
  if (scope) {
    const choose = () => {
      for (const one of document.querySelectorAll("[data-scope]")) one.hidden = one.dataset.scope !== scope.value;
    };
    scope.addEventListener("change", choose);
    scope.form.hidden = false;
    const offered = new Set([...scope.options].map((option) => option.value));
    for (const row of document.querySelectorAll(".datasets tbody tr")) {
      if (!offered.has(row.dataset.dataset)) continue;
      const name = row.querySelector(".name");
      const button = element("button", null, { type: "button", class: "pick", title: "Show its cost by attribute" });
      name.replaceWith(button);
      button.append(name);
      button.addEventListener("click", () => {
        scope.value = row.dataset.dataset;
        choose();
        byId("attributes").scrollIntoView();
        scope.focus({ preventScroll: true });
      });
    }
    choose();
  }

  const folded = [...document.querySelectorAll("details")];
  addEventListener("beforeprint", () => { for (const one of folded) one.open = true; });

  const source = byId("data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const place = Object.fromEntries(data.columns.map((name, index) => [name, index]));
  const STEP = 50;
  const grouped = (text) => text.replace(/\B(?=(\d{3})+$)/g, ",");
  // Like `money` in formatting.py: cents, or below a dollar two significant digits, rounded half to even.
  const money = (text) => {
    const value = units(text);
    if (value === 0n) return "$0.00";
    if (value < 10n ** 12n) return "<$0.000001";
    const first = value.toString().length - 1 - PLACES;
    let places = first >= 0 ? 2 : Math.max(2, 1 - first);
    const step = 10n ** BigInt(PLACES - places);
    let rounded = value / step;
    const rest = (value % step) * 2n;
    if (rest > step || (rest === step && rounded % 2n === 1n)) rounded += 1n;
    if (places > 2 && rounded === 100n) [places, rounded] = [places - 1, 10n];
    const shown = rounded.toString().padStart(places + 1, "0");
    return `$${grouped(shown.slice(0, -places))}.${shown.slice(-places)}`;
  };

  const rows = data.rows.map((row) => ({
    row,
    words: [row[0], row[place.reference_dataset_id], data.names[row[place.reference_dataset_id]], row[place.tenant_id]].join("\n").toLowerCase(),
    cost: row[place.total_cost] === null ? null : units(row[place.total_cost]),
  }));
  const headers = [...document.querySelectorAll("#rows thead th")];
  const columns = headers.map((header) => header.dataset.column);
  const body = document.querySelector("#rows tbody");
  const foot = document.querySelector("#rows tfoot tr");
  let sort = { column: "start_date", down: true };
  let limit = STEP;

  const key = (item, column) => {
    if (column === "total_cost") return item.cost;
    const value = item.row[place[column]];
    if (column === "reference_dataset_id") return data.names[value].toLowerCase();
    return value;
  };
  const compare = (one, other) => compared(key(one, sort.column), key(other, sort.column), sort.down);
  const unknown = (word = "unknown") => element("span", word, { class: "unknown" });
  // `isPart`: costs that belong to the amount are unknown.
  const amount = (text, isPart) => {
    if (text === null) return [unknown()];
    return [isPart ? element("span", "≥ ", { class: "qualifier", title: "At least: some costs are unknown" }) : "", element("data", money(text), { value: text, title: `$${text}` })];
  };
  const figure = (value) => (value === null ? unknown() : element("data", grouped(String(value)), { value }));
  const without = (unpriced, zero) => [figure(unpriced), ...(zero ? [" ", element("em", `and ${grouped(String(zero))} at $0`)] : [])];
  const content = (column, row) => {
    const value = row[place[column]];
    if (column === "reference_dataset_id") return element("bdi", data.names[value], { class: "name", title: value });
    if (column === "tenant_id") return element("span", value.slice(0, 8), { title: value });
    if (column === "unpriced_session_count") return without(value, row[place.zero_cost_with_tokens_count]);
    return column === "total_cost" ? amount(value, row[place.unpriced_session_count]) : figure(value);
  };
  const line = ({ row }) => {
    const tableRow = document.createElement("tr");
    for (const column of columns) {
      if (column === "start_date") {
        const head = element("th", row[0], { scope: "row" });
        if (!row[place.is_day_over]) head.append(" ", element("em", "not over"));
        tableRow.append(head);
      } else {
        const cell = element("td", null, column.endsWith("_id") ? {} : { class: "n" });
        cell.append(...[content(column, row)].flat());
        tableRow.append(cell);
      }
    }
    return tableRow;
  };
  const sum = (found, column) => {
    const known = found.map((item) => (column === "total_cost" ? item.cost : item.row[place[column]])).filter((value) => value !== null);
    if (!known.length) return found.length ? unknown() : unknown("none");
    const total = known.reduce((a, b) => a + BigInt(b), 0n);
    if (column === "unpriced_session_count") return without(total, found.reduce((zero, { row }) => zero + row[place.zero_cost_with_tokens_count], 0));
    return column === "total_cost" ? amount(digits(total), found.some(({ row }) => row[place.unpriced_session_count])) : figure(total);
  };

  const draw = () => {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const onlyUnknown = byId("unpriced").checked;
    const found = rows.filter((item) => words.every((word) => item.words.includes(word)) && (!onlyUnknown || item.row[place.unpriced_session_count] > 0));
    found.sort(compare);
    body.replaceChildren(...found.slice(0, limit).map(line));
    columns.forEach((column, index) => {
      if (column !== "start_date" && !column.endsWith("_id")) foot.cells[index].replaceChildren(...[sum(found, column)].flat());
    });
    foot.cells[0].textContent = `Sum of ${grouped(String(found.length))} row${found.length === 1 ? "" : "s"}`;
    const shown = Math.min(limit, found.length);
    const of = found.length === rows.length ? "" : ` found, of ${grouped(String(rows.length))}`;
    byId("shown").textContent = `${grouped(String(shown))} of ${grouped(String(found.length))} rows${of}`;
    byId("more").hidden = shown === found.length;
    showOrder(body.parentElement, headers.find((header) => header.dataset.column === sort.column), sort.down);
  };
  for (const header of headers) {
    onClick(header, () => {
      const { column } = header.dataset;
      sort = { column, down: sort.column === column ? !sort.down : !column.endsWith("_id") };
      limit = STEP;
      draw();
    });
  }
  const redraw = () => { limit = STEP; draw(); };
  byId("search").addEventListener("input", redraw);
  byId("unpriced").addEventListener("change", redraw);
  const tools = byId("search").form;
  tools.addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", () => {
    const next = limit;
    limit += 4 * STEP;
    draw();
    const row = body.rows[next];
    row.tabIndex = -1;
    row.focus();
  });

  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = () => {
    const lines = [[...data.columns, "dataset_name"].join(",")];
    for (const { row } of rows) {
      const cells = row.map((value) => (value === null ? "" : String(value)));
      lines.push([...cells, quoted(data.csvNames[row[place.reference_dataset_id]])].join(","));
    }
    return `${lines.join("\r\n")}\r\n`;
  };
  byId("csv").addEventListener("click", () => {
    // Excel on Windows reads a file as UTF-8 only if it begins with a byte order mark.
    const address = URL.createObjectURL(new Blob(["\ufeff", csv()], { type: "text/csv" }));
    const link = element("a", null, { href: address, download: data.file });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });
  // Print all rows: on paper there is no button for more.
  addEventListener("beforeprint", () => { limit = Infinity; draw(); });
  addEventListener("afterprint", redraw);
  tools.hidden = false;
  draw();
})();

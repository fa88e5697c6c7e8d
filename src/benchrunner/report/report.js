// Sorts, filters and opens the cells of the page. Every text is set as text: nothing from a log becomes markup.
"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const make = (tag, text, kind) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (kind) node.className = kind;
    return node;
  };
  document.documentElement.classList.add("js");
  const table = get("cells"), body = table.tBodies[0];
  const numLabels = +table.dataset.labels, numMeasures = +table.dataset.measures;
  const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);

  // Rows are kept as texts; the document holds those that are shown, a page of them at a time. Those behind the first
  // page stand in a noscript, whose text costs no layout: a line a row, as the server wrote it.
  const signs = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&#34;": '"', "&#39;": "'" };
  const plain = (text) => text.replace(/&(?:amp|lt|gt|#34|#39);/g, (sign) => signs[sign]).trim();
  const rest = get("rest") ? get("rest").textContent.split("\n").filter((line) => line.startsWith("<tr>")) : [];
  const rows = [
    ...Array.from(body.rows, (node) => ({ node, texts: Array.from(node.cells, (cell) => cell.textContent.trim()) })),
    ...rest.map((line) => ({ node: null, texts: line.split(/<td[^>]*>/).slice(1).map(plain) })),
  ];
  const PAGE = rows.length > 1000 ? 50 : 100;  // laying out 100 rows takes 50 ms
  rows.forEach((row) => { row.all = row.texts.join(" ").toLowerCase(); row.status = row.texts[0].split(" ").pop(); });
  const nodeOf = (row) => {
    if (!row.node) {
      row.node = make("tr");
      row.node.append(...row.texts.map((text, place) => make("td", text, place ? undefined : row.status)));
    }
    row.node.tabIndex = 0;
    return row.node;
  };
  const number = (text) => { const value = parseFloat(text.replace(/,/g, "")); return Number.isNaN(value) ? null : value; };
  const state = { statuses: new Set(), words: [], picked: new Map(), sort: null, down: false, limit: PAGE, most: null };
  let found = rows;

  const peak = headings.indexOf("peak GiB");
  const isSmall = (row) => {
    const value = state.most === null ? null : number(row.texts[peak]);
    return state.most === null || (value !== null && value <= state.most);
  };
  const fits = (row) => isSmall(row) && (!state.statuses.size || state.statuses.has(row.status))
    && state.words.every((word) => row.all.includes(word))
    && [...state.picked].every(([column, value]) => row.texts[column] === value);

  const sorted = (list) => {
    if (state.sort === null) return list;
    const column = state.sort, sign = state.down ? -1 : 1;
    const keyed = list.map((row) => [number(row.texts[column]), row.texts[column], row]);
    keyed.sort(([a, textA], [b, textB]) => {
      if (a === null && b === null) return sign * textA.localeCompare(textB);
      return a === null ? 1 : b === null ? -1 : sign * (a - b);
    });
    return keyed.map((entry) => entry[2]);
  };

  const show = () => {
    body.replaceChildren(...found.slice(0, state.limit).map(nodeOf));
    get("shown").textContent = `${found.length} of ${rows.length} cells. Open one by a click; a heading sorts.`;
    const more = get("more");
    more.hidden = found.length <= state.limit;
    more.textContent = `show all ${found.length}`;
  };
  const update = () => { found = sorted(rows.filter(fits)); state.limit = PAGE; show(); };
  get("more").addEventListener("click", () => { state.limit = Infinity; show(); });

  // --- filters
  for (const chip of get("chips").children) {
    chip.addEventListener("click", () => {
      const status = chip.dataset.status, on = !state.statuses.has(status);
      on ? state.statuses.add(status) : state.statuses.delete(status);
      chip.setAttribute("aria-pressed", on);
      for (const other of get("chips").children) other.classList.toggle("muted", state.statuses.size > 0 && !state.statuses.has(other.dataset.status));
      update();
    });
  }
  get("search").addEventListener("input", (event) => {
    state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    update();
  });
  const values = (column) => [...new Set(rows.map((row) => row.texts[column]))];
  const chooser = (label, options, chosen) => {
    const select = make("select");
    select.setAttribute("aria-label", label);
    select.title = label;
    for (const [value, text] of options) select.append(new Option(text, value, false, value === chosen));
    return select;
  };
  const pickers = new Map();
  for (let column = 1; column <= numLabels; column++) {
    const options = values(column);
    if (options.length < 2 || options.length > 60) continue;
    const select = chooser(headings[column], [["", `${headings[column]}: all`], ...options.map((one) => ["=" + one, one || "none"])], "");
    select.addEventListener("change", () => {
      select.value ? state.picked.set(column, select.value.slice(1)) : state.picked.delete(column);
      update();
    });
    pickers.set(column, select);
    get("tools").append(select);
  }
  let redraw = () => {};
  let limit = null;
  if (peak > 0) {
    const label = make("label", "peak GiB at most ");
    limit = make("input");
    limit.type = "number"; limit.min = 0; limit.step = "any"; limit.id = "most";
    limit.addEventListener("input", () => { state.most = limit.value === "" ? null : +limit.value; update(); redraw(); });
    label.append(limit);
    get("tools").append(label);
  }
  const reset = make("button", "all cells");
  reset.addEventListener("click", () => {
    state.statuses.clear(); state.words = []; state.picked.clear(); state.sort = null; state.most = null; get("search").value = "";
    if (limit) limit.value = "";
    for (const select of pickers.values()) select.value = "";
    for (const chip of get("chips").children) { chip.setAttribute("aria-pressed", "false"); chip.classList.remove("muted"); }
    update();
    redraw();
  });
  get("tools").append(reset);
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    cell.addEventListener("click", () => {
      const isNumber = column > numLabels && column <= numLabels + numMeasures;
      state.down = state.sort === column ? !state.down : isNumber;
      state.sort = column;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      update();
    });
  });

  // --- heat map
  const heat = get("heat");
  if (heat) {
    const labels = [];
    for (let column = 1; column <= numLabels; column++) if (values(column).length > 1 && values(column).length <= 24) labels.push(column);
    const measures = [["0", "status"]];
    for (let column = numLabels + 1; column <= numLabels + numMeasures; column++) measures.push([String(column), headings[column]]);
    const named = (name) => headings.indexOf(name);
    const options = labels.map((column) => [String(column), headings[column]]);
    const heads = [...heat.tHead.rows[0].cells].map((cell) => cell.textContent);
    const across = labels.find((column) => values(column).includes(heads[1]) && headings[column] !== heads[0]);
    const pick = {
      row: chooser("rows", options, String(named(heads[0]))),
      column: chooser("columns", [["-1", "all"], ...options], String(across ?? -1)),
      measure: chooser("number", measures, String(named("tokens/s/device") > 0 ? named("tokens/s/device") : numLabels + 1)),
    };
    const lowIsBest = /ms|GiB|error|compile|retries/;
    const glyph = (row) => row.texts[0].split(" ")[0];
    const draw = () => {
      const [a, b, at] = [+pick.row.value, +pick.column.value, +pick.measure.value];
      const groups = new Map(), key = (one, other) => JSON.stringify([one, other]);
      for (const row of rows.filter(isSmall)) {
        const name = key(row.texts[a], b < 0 ? "all" : row.texts[b]);
        groups.has(name) ? groups.get(name).push(row) : groups.set(name, [row]);
      }
      const low = lowIsBest.test(headings[at]), better = (x, y) => (low ? x < y : x > y);
      const bests = new Map();
      for (const [name, list] of groups) {
        let best = null;
        for (const row of list) {
          const value = at ? number(row.texts[at]) : null;
          if (value !== null && (best === null || better(value, best.value))) best = { value, row };
        }
        bests.set(name, best);
      }
      const numbers = [...bests.values()].filter(Boolean).map((best) => best.value);
      const most = Math.max(...numbers), least = Math.min(...numbers);
      const columns = b < 0 ? ["all"] : values(b);
      const head = make("tr"), lines = [];
      head.append(make("th", headings[a]), ...columns.map((name) => make("th", name || "none")));
      for (const value of values(a)) {
        const line = make("tr");
        line.append(make("th", value || "none"));
        for (const name of columns) {
          const list = groups.get(key(value, name)) || [], best = bests.get(key(value, name));
          const cell = make("td", "", "absent");
          if (best) {
            cell.textContent = best.row.texts[at];
            cell.className = "ok";
            cell.style.setProperty("--v", Math.round(10 * (low ? least / (best.value || 1) : best.value / (most || 1))));
          } else if (list.length) {
            const counts = new Map();
            for (const row of list) counts.set(row.status, (counts.get(row.status) || 0) + 1);
            const status = [...counts].sort((x, y) => y[1] - x[1])[0][0];
            cell.textContent = at ? glyph(list.find((row) => row.status === status))
              : [...counts].map(([one, count]) => `${glyph(list.find((row) => row.status === one))} ${count}`).join(" ");
            cell.className = status;
            if (!at && status === "ok") cell.style.setProperty("--v", Math.round(10 * counts.get("ok") / list.length));
          }
          if (list.length) {
            cell.dataset.f = "1";
            cell.title = `${list.length} cells`;
            cell.addEventListener("click", () => {
              state.picked.set(a, value);
              if (b >= 0) state.picked.set(b, name);
              for (const [column, select] of pickers) select.value = state.picked.has(column) ? "=" + state.picked.get(column) : "";
              update();
              table.scrollIntoView({ behavior: "smooth" });
            });
          }
          line.append(cell);
        }
        lines.push(line);
      }
      heat.tHead.replaceChildren(head);
      heat.tBodies[0].replaceChildren(...lines);
      const within = state.most === null ? "" : ` in at most ${state.most} GiB`;
      get("heat-title").textContent = `${headings[at]}: ${at ? "the best cell of each combination" : "how many cells"}${within}`;
    };
    for (const [name, select] of Object.entries(pick)) {
      const label = make("label", `${name} `);
      label.append(select);
      select.addEventListener("change", draw);
      get("heat-tools").append(label);
    }
    draw();
    redraw = draw;
  }

  // --- one cell
  let details = null;
  const load = async () => {
    if (details) return details;
    const bytes = Uint8Array.from(atob(get("details").textContent.trim()), (one) => one.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    details = JSON.parse(await new Response(stream).text());
    return details;
  };
  const section = (parent, title, node) => { if (node) parent.append(make("h3", title), node); };
  const grid = (head, lines) => {
    const node = make("table"), top = make("tr");
    top.append(...head.map((text) => make("th", text)));
    node.append(top, ...lines.map((line) => { const row = make("tr"); row.append(...line.map((one) => (one instanceof Node ? one : make("td", one)))); return row; }));
    return node;
  };
  const bars = (phases) => {
    const most = Math.max(...Object.values(phases), 1e-9);
    return grid(["phase", "seconds"], Object.entries(phases).map(([name, seconds]) => {
      const cell = make("td"), bar = make("span", "", "bar");
      bar.style.width = `${Math.round(200 * seconds / most)}px`;
      cell.append(bar, String(seconds));
      return [name, cell];
    }));
  };
  const samples = (list) => {
    const most = Math.max(...list), NS = "http://www.w3.org/2000/svg", svg = document.createElementNS(NS, "svg");
    const width = 600, height = 90, step = width / list.length;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    list.forEach((value, place) => {
      const bar = document.createElementNS(NS, "rect"), size = (height - 4) * value / most, title = document.createElementNS(NS, "title");
      for (const [name, what] of Object.entries({ x: place * step, y: height - size, width: Math.max(step - 1, 0.5), height: size, fill: "var(--accent)" })) bar.setAttribute(name, what);
      title.textContent = `${value} ms`;
      bar.append(title);
      svg.append(bar);
    });
    return svg;
  };
  const link = (target, text) => { const node = make("a", text); node.setAttribute("href", target); return node; };
  const open = async (place) => {
    const cell = (await load())[place], row = rows[place], dialog = get("cell");
    dialog.replaceChildren();
    const close = make("button", "✕", "close");
    close.setAttribute("aria-label", "close");
    close.addEventListener("click", () => dialog.close());
    dialog.append(close, make("h2", cell.slug), make("p", row.texts[0], row.status));
    if (cell.reason) dialog.append(make("p", `${cell.code}: ${cell.reason}`));
    for (const flag of cell.flags || []) dialog.append(make("p", `⚑ ${flag}`));
    const files = make("p"), home = `${cell.folder}${cell.slug}/`;
    if (cell.folder !== undefined) files.append(link(`${home}record.json`, "record.json"), " ");
    if (cell.attempt) files.append(link(`${home}attempt-${cell.attempt}/`, "logs"), " ");
    if (cell.started) files.append(make("span", `started ${cell.started}${cell.wall_s ? `, took ${cell.wall_s} s` : ""}`, "quiet"));
    dialog.append(files);
    const command = make("pre", cell.command), copy = make("button", "copy the command");
    copy.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(cell.command); copy.textContent = "copied"; }
      catch { getSelection().selectAllChildren(command); copy.textContent = "selected: copy with Ctrl+C"; }
    });
    section(dialog, "Run it again", command);
    dialog.append(copy, " ");
    const speed = headings.indexOf("tokens/s/device"), ratio = headings.indexOf("× baseline");
    if (ratio > 0 && number(row.texts[speed]) !== null) {
      const base = make("button", "use as the baseline");
      base.addEventListener("click", () => {
        const one = number(row.texts[speed]);
        for (const other of rows) {
          const value = number(other.texts[speed]);
          other.texts[ratio] = value === null ? "–" : (value / one).toFixed(2);
          if (other.node) other.node.cells[ratio].textContent = other.texts[ratio];
        }
        dialog.close();
        update();
      });
      dialog.append(base);
    }
    section(dialog, "Measured", grid(["", ""], headings.slice(1, 1 + numLabels + numMeasures).map((name, place) => [name, row.texts[1 + place]])));
    const known = [["peak GiB a device", cell.predicted_gib, cell.measured_gib], ["step ms", cell.predicted_ms, cell.measured_ms]];
    const compared = known.filter(([, predicted]) => predicted !== undefined).map(([name, predicted, measured]) =>
      [name, String(predicted), measured === undefined ? "–" : String(measured), measured === undefined || !predicted ? "–" : (measured / predicted).toFixed(2)]);
    const head = ["", cell.at_least ? "predicted ≥" : "predicted", "measured", "measured ÷ predicted"];
    section(dialog, "Prediction against measurement", compared.length ? grid(head, compared) : null);
    section(dialog, "Checks", cell.checks ? grid(["check", "", "expected", "observed", "note"], cell.checks.map(([name, ok, ...rest]) =>
      [name, make("td", ok === true ? "✓" : ok === false ? "✗" : "?", ok === false ? "failed" : "ok"), ...rest])) : null);
    section(dialog, "Phases", cell.phases ? bars(cell.phases) : null);
    section(dialog, "Steps of the window (ms)", cell.samples_ms ? samples(cell.samples_ms) : null);
    section(dialog, "Expected of it", cell.expected ? make("pre", cell.expected.join("\n")) : null);
    section(dialog, "Evidence", cell.evidence ? make("pre", cell.evidence.join("\n")) : null);
    section(dialog, "Earlier attempts", cell.earlier ? make("pre", cell.earlier.join("\n")) : null);
    dialog.showModal();
  };
  const placeOf = (node) => rows.findIndex((row) => row.node === node);
  body.addEventListener("click", (event) => {
    const node = event.target.closest("tr");
    if (node && !event.target.closest("a")) open(placeOf(node));
  });
  body.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target.tagName === "TR") open(placeOf(event.target)); });
  document.querySelectorAll(".mark").forEach((mark) => mark.addEventListener("click", () => open(+mark.dataset.row)));
  get("cell").addEventListener("click", (event) => { if (event.target === get("cell")) get("cell").close(); });
  update();
})();

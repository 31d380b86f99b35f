"use strict";
// Texts come from models and data files: they reach the page as text nodes only, never as markup.
(() => {
  const PAGE = 40, DEBOUNCE_MS = 40, LONG = 320;
  const lines = document.getElementById("lines");
  if (!lines) return;
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const control = (id) => document.getElementById(id);
  const query = control("query"), found = control("found"), previous = control("previous"), next = control("next");
  const filters = ["iteration", "status", "reason"].map(control);

  const rows = data.rows.map(([number, status, reason, detail, text, output, ordinal, attempt]) => {
    const [iteration, rowId, seedId, input, gold, completion, answer] = data.mistakes[number];
    const searched = [rowId, seedId, input, gold, completion, status, reason, detail, text, output].join("\n").toLowerCase();
    const keys = [String(iteration), status, reason];
    return {iteration, rowId, seedId, input, gold, completion, answer, status, reason, detail, text, output, ordinal, attempt,
      searched, keys};
  });
  const several = rows.some((row) => row.status !== "none" && row.ordinal !== row.iteration);  // requests for one mistake
  let matching = rows, page = 0, terms = [];

  const element = (tag, name, ...children) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...children);
    return made;
  };

  const marked = (text) => {
    const lower = text.toLowerCase(), parts = document.createDocumentFragment();
    // Lower case can have another length (İ); then places in it are no places in the text. Single letters are everywhere.
    const usable = lower.length === text.length ? terms.filter((term) => term.length > 1) : [];
    let at = 0;
    while (at < text.length) {
      let start = -1, length = 0;
      for (const term of usable) {
        const place = lower.indexOf(term, at);
        if (place >= 0 && (start < 0 || place < start || (place === start && term.length > length))) {
          start = place;
          length = term.length;
        }
      }
      if (start < 0) break;
      parts.append(text.slice(at, start), element("mark", "", text.slice(start, start + length)));
      at = start + length;
    }
    parts.append(text.slice(at));
    return parts;
  };

  const text = (name, value) => {
    const made = element("div", name, marked(value));
    made.dir = "auto";
    return made;
  };

  const long = (value, empty) => {
    if (!value) return element("div", "muted", empty);
    const made = text("text", value);
    if (value.length <= LONG && value.split("\n").length <= 6) return made;
    made.classList.add("folded");
    const more = element("button", "more", "show all");
    more.type = "button";
    more.addEventListener("click", () => { more.textContent = made.classList.toggle("folded") ? "show all" : "show less"; });
    return element("div", "", made, more);
  };

  const cell = (name, ...children) => {
    const made = element("div", "cell", ...children);
    made.dataset.name = name;
    made.setAttribute("role", "cell");
    return made;
  };

  const outcome = (row) => {
    const tag = row.status === "none" ? "nothing written" : row.status;
    const about = row.status === "none" ? "" : `${several ? `request ${row.ordinal}, ` : ""}attempt ${row.attempt + 1}`;
    return [
      element("div", `tag ${row.status}`, tag),
      ...(row.reason ? [text("reason", row.reason)] : []),
      ...(row.detail ? [text("muted", row.detail)] : []),
      ...(about ? [element("div", "muted", about)] : []),
    ];
  };

  const line = (row) => {
    const said = row.completion.trim();
    const made = element(
      "div", "line",
      cell("Seed", long(row.input, "(empty)"), text("gold", row.gold),
        element("div", "muted id", `iteration ${row.iteration} · `, marked(row.rowId),
          ...(row.seedId === row.rowId ? [] : [" · seed ", marked(row.seedId)]))),
      cell("Student", long(said, "(empty answer)"),
        ...(row.answer !== row.completion && row.answer.trim() !== said ? [element("div", "muted", "read as ", marked(row.answer))] : [])),
      cell("Teacher", long(row.text, "–"), ...(row.output ? [text("gold", row.output)] : [])),
      cell("Outcome", ...outcome(row)),
    );
    made.setAttribute("role", "row");
    return made;
  };

  const show = () => {
    const first = page * PAGE, part = matching.slice(first, first + PAGE);
    lines.replaceChildren(...(part.length ? part.map(line) : [element("p", "muted nothing", "Nothing matches.")]));
    const number = (value) => value.toLocaleString("en");
    found.textContent = part.length
      ? `${number(first + 1)}–${number(first + part.length)} of ${number(matching.length)}`
        + (matching.length < rows.length ? ` (${number(rows.length)} in all)` : "")
      : `0 of ${number(rows.length)}`;
    previous.disabled = page === 0;
    next.disabled = first + PAGE >= matching.length;
    lines.dataset.query = query.value;
  };

  const search = () => {
    terms = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = filters.map((filter) => filter.value);
    matching = rows.filter((row) =>
      wanted.every((value, i) => !value || row.keys[i] === value) && terms.every((term) => row.searched.includes(term)));
    page = 0;
    show();
  };

  let waiting = 0;
  query.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, DEBOUNCE_MS);
  });
  for (const filter of filters) filter.addEventListener("change", search);
  const turn = (by) => {
    page += by;
    show();
    document.getElementById("explorer").scrollIntoView();
  };
  previous.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  search();  // not show(): a reloaded page keeps what was typed
})();

// Keyboard shortcuts. `?` lists them, and a setting there turns them off (WCAG 2.1.4). None works while a field has the focus.
"use strict";
(() => {
  const PAGES = { o: ["", "Overview"], q: ["queues", "Queues"], j: ["jobs", "Jobs"], l: ["workflows", "Workflows"], f: ["failures", "Failures"], c: ["schedules", "Schedules"], w: ["workers", "Workers"], p: ["operations", "Operations"], a: ["audit", "Audit"], s: ["system", "System"] };
  const base = document.body.dataset.base;
  let on = true;
  try { on = localStorage.getItem("jobq-keys") !== "off"; } catch { /* on */ }
  let going = 0;

  const rows = () => [...document.querySelectorAll("#main [data-rows] tbody tr")].filter((row) => row.querySelector("a[href]"));
  const at = () => document.querySelector("#main tr.at");

  function move(step) {
    const all = rows();
    if (!all.length) return;
    const old = at();
    const next = old ? all[Math.min(Math.max(all.indexOf(old) + step, 0), all.length - 1)] : all[step > 0 ? 0 : all.length - 1];
    old?.classList.remove("at");
    next.classList.add("at");
    next.querySelector("a[href]").focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  function dialog() {
    const old = document.getElementById("key-list");
    if (old) return old;
    const box = Object.assign(document.createElement("dialog"), { id: "key-list" });
    box.setAttribute("aria-labelledby", "key-title");
    const title = Object.assign(document.createElement("h2"), { id: "key-title", textContent: "Keys" });
    const list = Object.assign(document.createElement("dl"), { className: "keys" });
    const add = (keys, words) => {
      const term = document.createElement("dt");
      for (const key of keys) term.append(Object.assign(document.createElement("kbd"), { textContent: key }), " ");
      list.append(term, Object.assign(document.createElement("dd"), { textContent: words }));
    };
    add(["?"], "this list");
    add(["/"], "search");
    for (const [key, [, words]] of Object.entries(PAGES)) add(["g", key], words);
    add(["j", "k"], "next row, previous row");
    add(["x"], "select the row");
    add(["Enter"], "open the row");
    add(["p"], "pause or resume updates");
    add(["Esc"], "close the open form or dialog");
    const label = Object.assign(document.createElement("label"), { className: "row" });
    const box1 = Object.assign(document.createElement("input"), { type: "checkbox", checked: on });
    box1.addEventListener("change", () => {
      on = box1.checked;
      try { localStorage.setItem("jobq-keys", on ? "on" : "off"); } catch { /* for this page */ }
    });
    label.append(box1, "Enable shortcuts");
    const form = Object.assign(document.createElement("form"), { method: "dialog" });
    form.append(Object.assign(document.createElement("button"), { textContent: "Close" }));
    const foot = Object.assign(document.createElement("div"), { className: "do" });
    foot.append(label, form);
    box.append(title, list, foot);
    document.body.append(box);
    return box;
  }

  const list = () => { const box = dialog(); if (!box.open) box.showModal(); };

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      document.querySelectorAll("details.ask[open]").forEach((one) => { one.open = false; one.querySelector("summary").focus(); });
      return;
    }
    if (!on || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest?.("input:not([type=checkbox]), select, textarea, [contenteditable], dialog[open]")) return;
    if (going && Date.now() - going < 1500) {
      going = 0;
      const page = PAGES[event.key];
      if (page) { event.preventDefault(); location.href = base + page[0]; }
      return;
    }
    const act = {
      "?": list,
      "/": () => (document.querySelector("#main input[data-suggest]") ?? document.getElementById("find")).focus(),
      g: () => { going = Date.now(); },
      j: () => move(1),
      k: () => move(-1),
      x: () => at()?.querySelector("input[type=checkbox]")?.click(),
      p: () => window.jobq.togglePause?.(),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  // Enter opens a row whose link has the focus without our help; after a refresh the link may have lost the focus.
  document.addEventListener("keydown", (event) => {
    if (on && event.key === "Enter" && document.activeElement === document.body) at()?.querySelector("a[href]")?.click();
  });
  // A form behind "…" closes when something else is clicked, as a menu does.
  document.addEventListener("click", (event) => {
    document.querySelectorAll("details.ask[open]").forEach((one) => { if (!one.contains(event.target)) one.open = false; });
  });
  // On a phone the navigation is one row: scroll the current page into view. Not with scrollIntoView: some browsers then continue
  // with Tab from there, after the link that skips to the content.
  const here = document.querySelector(".side nav [aria-current]"), row = here?.closest("nav");
  if (row) row.scrollLeft = here.offsetLeft - row.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;
  const button = document.getElementById("keys");
  if (button) { button.hidden = false; button.title = "List the keys (?)"; button.addEventListener("click", list); }
})();

// Selected rows, and completion in search fields. The forms also work without this file.
"use strict";
(() => {
  // --- Selected rows ---
  function count() {
    const bar = document.querySelector("#main [data-bulk]");
    if (!bar) return;
    const boxes = [...document.querySelectorAll("#main input[name=id][type=checkbox]")];
    const selected = boxes.filter((box) => box.checked).length;
    bar.classList.toggle("some", selected > 0);
    const label = bar.querySelector("[data-selected]");
    const text = selected ? `${selected} selected` : label.dataset.selected;
    if (label.textContent !== text) label.textContent = text;
    bar.querySelectorAll("button[name=action]").forEach((button) => { button.disabled = selected === 0; });
    const all = document.getElementById("tick-all");
    if (all) {
      all.hidden = false;
      all.checked = selected > 0 && selected === boxes.length;
      all.indeterminate = selected > 0 && selected < boxes.length;
    }
  }
  let last = null;
  document.addEventListener("click", (event) => {
    const box = event.target;
    if (!(box instanceof HTMLInputElement) || box.type !== "checkbox") return;
    const boxes = [...document.querySelectorAll("#main input[name=id][type=checkbox]")];
    if (box.id === "tick-all") boxes.forEach((one) => { one.checked = box.checked; });
    else if (box.name === "id") {
      if (event.shiftKey && last !== null && boxes[last]) {
        const here = boxes.indexOf(box);
        for (let n = Math.min(here, last); n <= Math.max(here, last); n += 1) boxes[n].checked = box.checked;
      }
      last = boxes.indexOf(box);
    }
    count();
  });
  document.addEventListener("jobq:fresh", count);
  count();

  // --- Completion ---
  for (const field of document.querySelectorAll("input[data-suggest]")) complete(field);

  function complete(field) {
    const list = document.createElement("ul");
    list.className = "suggest";
    list.id = (field.id || "q") + "-suggest";
    list.hidden = true;
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Suggestions");
    list.dataset.keep = "";
    field.setAttribute("role", "combobox");
    field.setAttribute("aria-autocomplete", "list");
    field.setAttribute("aria-expanded", "false");
    field.setAttribute("aria-controls", list.id);
    field.after(list);
    let chosen = -1;
    let turn = 0;
    let timer = 0;

    const close = () => {
      turn += 1;
      list.hidden = true;
      chosen = -1;
      field.setAttribute("aria-expanded", "false");
      field.removeAttribute("aria-activedescendant");
    };
    const mark = (n) => {
      chosen = n;
      [...list.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === n)));
      const item = list.children[n];
      if (item) { field.setAttribute("aria-activedescendant", item.id); item.scrollIntoView({ block: "nearest" }); }
      else field.removeAttribute("aria-activedescendant");
    };
    // Each suggestion is the whole text with the term at the cursor completed.
    const take = (text) => {
      const old = field.value;
      const behind = old.slice(field.selectionStart ?? old.length).replace(/^[^\s]*/, "");
      const more = /[:.]$/.test(text) || behind ? "" : " ";
      field.value = text + more;
      const end = field.value.length - (behind && text.endsWith(behind) ? behind.length : 0);
      field.setSelectionRange(end, end);
      close();
      if (!more) ask();
    };
    async function ask() {
      const mine = ++turn;
      const url = new URL(field.dataset.suggest, location.href);
      url.searchParams.set("q", field.value);
      url.searchParams.set("cursor", String(field.selectionStart ?? field.value.length));
      try {
        const response = await fetch(url, { credentials: "same-origin", headers: { Accept: "application/json" } });
        const found = response.ok ? (await response.json()).suggestions : [];
        if (mine !== turn || document.activeElement !== field) return;
        list.replaceChildren(...found.slice(0, 12).map((text, n) => {
          const item = document.createElement("li");
          item.id = `${list.id}-${n}`;
          item.dir = "auto";
          item.textContent = text;
          item.setAttribute("role", "option");
          item.setAttribute("aria-selected", "false");
          item.addEventListener("mousedown", (event) => { event.preventDefault(); take(text); });
          return item;
        }));
        list.hidden = found.length === 0;
        field.setAttribute("aria-expanded", String(found.length > 0));
        chosen = -1;
        field.removeAttribute("aria-activedescendant");
      } catch { close(); }
    }
    field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 120); });
    field.addEventListener("focus", () => { if (field.value === "") ask(); });
    field.addEventListener("blur", close);
    field.addEventListener("keydown", (event) => {
      if (list.hidden) return;
      const last = list.children.length - 1;
      if (event.key === "ArrowDown") { event.preventDefault(); mark(chosen >= last ? 0 : chosen + 1); }
      else if (event.key === "ArrowUp") { event.preventDefault(); mark(chosen <= 0 ? last : chosen - 1); }
      else if (event.key === "Tab" && chosen >= 0) { event.preventDefault(); take(list.children[chosen].textContent); }
      else if (event.key === "Enter" && chosen >= 0) { event.preventDefault(); take(list.children[chosen].textContent); }
      else if (event.key === "Escape") { event.stopPropagation(); close(); }
    });
  }
})();

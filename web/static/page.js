// Reloads the page every few seconds and lets htmx swap in the changes; the page also works without this file. It pauses
// while a form is in use, text is selected, the tab is hidden, or the reader has paused it.
"use strict";
(() => {
  const base = Number(document.body.dataset.refresh);
  const live = document.getElementById("live");
  if (!base || !live || !window.htmx) return;

  const CHOICES = [2, 5, 15, 60];
  if (!CHOICES.includes(base)) CHOICES.push(base);
  CHOICES.sort((a, b) => a - b);
  const remembered = () => { try { return sessionStorage.getItem("jobq-every"); } catch { return null; } };
  const saved = Number(remembered() ?? base);
  let seconds = saved === 0 || CHOICES.includes(saved) ? saved : base;
  let paused = seconds === 0;
  let etag = null;
  let asked = false;
  let failures = 0;
  let timer = 0;

  live.innerHTML = "";
  const lamp = Object.assign(document.createElement("span"), { className: "lamp" });
  lamp.setAttribute("aria-hidden", "true");
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  const select = document.createElement("select");
  select.setAttribute("aria-label", "Refresh the page");
  for (const value of [0, ...CHOICES]) {
    select.append(new Option(value === 0 ? "off" : `every ${value} s`, String(value), false, value === seconds));
  }
  const button = Object.assign(document.createElement("button"), { type: "button", className: "bare" });
  live.append(lamp, status, select, button);
  live.hidden = false;

  function show(is, words) {
    live.dataset.is = is;
    // Unchanged text is not written again, so that screen readers do not repeat it.
    if (status.textContent !== words) status.textContent = words;
    button.textContent = paused ? "Resume" : "Pause";
    button.title = paused ? "Resume refreshing the page (p)" : "Stop refreshing the page (p)";
    select.value = String(paused ? 0 : seconds);
  }

  function now() {
    if (paused) show("paused", "Paused");
    else if (failures > 0) show("lost", "No response; data is old");
    else if (inUse()) show("held", "Paused while in use");
    else show("live", "Live");
  }

  function pause(value) {
    paused = value;
    if (!paused && seconds === 0) seconds = base;
    try { sessionStorage.setItem("jobq-every", String(paused ? 0 : seconds)); } catch { /* for this page */ }
    now();
    plan();
    if (!paused) refresh();
  }

  button.addEventListener("click", () => pause(!paused));
  select.addEventListener("change", () => {
    const chosen = Number(select.value);
    if (chosen > 0) seconds = chosen;
    pause(chosen === 0);
  });

  function inUse() {
    const main = document.getElementById("main");
    const focused = document.activeElement;
    return main.querySelector("details.ask[open], details.fold[open] form, input[type=checkbox]:checked, dialog[open], [data-dirty]") !== null
      || document.querySelector("dialog[open]") !== null
      || (focused !== null && main.contains(focused) && focused.matches("input, select, textarea"))
      || String(getSelection()) !== "";
  }

  async function refresh() {
    if (paused || asked || document.hidden || inUse()) { now(); return; }
    asked = true;
    try {
      // The note of the last action must not reappear with each refresh.
      const url = new URL(location.href);
      url.searchParams.delete("note");
      await htmx.ajax("GET", url.pathname + url.search, { source: "#main", target: "#main", select: "#main", swap: "outerMorph" });
    } catch {
      failures += 1;
    } finally {
      asked = false;
      now();
    }
  }

  document.addEventListener("htmx:config:request", (event) => {
    const request = event.detail.ctx.request;
    if (etag) request.headers["If-None-Match"] = etag;
    request.redirect = "error";
    request.cache = "no-store";
  });
  document.addEventListener("htmx:before:response", (event) => {
    const response = event.detail.ctx.response;
    window.jobq.setClock(response.headers.get("Date"));
    if (response.status === 304) { failures = 0; return; }
    // An error page replaces nothing: the old content is still useful.
    if (response.status !== 200) { failures += 1; event.preventDefault(); return; }
    failures = 0;
    etag = response.headers.get("ETag");
  });
  // The reader may have opened a form while the response was on its way.
  document.addEventListener("htmx:before:swap", (event) => {
    if (paused || inUse()) { etag = null; event.preventDefault(); }
  });
  document.addEventListener("htmx:after:swap", () => document.dispatchEvent(new Event("jobq:fresh")));
  document.addEventListener("htmx:error", () => { failures += 1; now(); });

  function plan() {
    clearInterval(timer);
    if (!paused) timer = setInterval(refresh, seconds * 1000);
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  for (const name of ["focusin", "focusout", "selectionchange", "change"]) document.addEventListener(name, () => setTimeout(now));
  document.addEventListener("toggle", now, true);
  now();
  plan();
  window.jobq.togglePause = () => pause(!paused);
})();

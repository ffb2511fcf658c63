// Reads the page anew every few seconds and swaps its main part; without this file the page works all the same.
// It stands still while a form is in use, text is selected, the tab is hidden, or the reader asked it to.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.refresh);
  const live = document.getElementById("live");
  if (!seconds || !live) return;

  let paused = false;
  let asked = false;
  const button = document.createElement("button");
  const say = (text, title) => { button.textContent = text; button.title = title; };
  button.type = "button";
  live.append(button);
  show();

  function show() {
    button.setAttribute("aria-pressed", String(paused));
    if (paused) say("Paused", "This page stands still. Press to read it anew every " + seconds + " s.");
    else say("Live", "This page is read anew every " + seconds + " s. Press to let it stand still.");
    live.className = paused ? "live paused" : "live";
  }

  button.addEventListener("click", () => { paused = !paused; show(); if (!paused) refresh(); });

  function inUse() {
    const main = document.getElementById("main");
    const focused = document.activeElement;
    return main.querySelector("details.ask[open], input[type=checkbox]:checked") !== null
      || (focused !== null && main.contains(focused) && focused.matches("input, select, textarea"))
      || String(window.getSelection()) !== "";
  }

  async function refresh() {
    if (paused || asked || document.hidden || inUse()) return;
    asked = true;
    try {
      const response = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("main");
      // The reader may have opened a form while the answer was on its way.
      if (fresh === null || paused || inUse()) return;
      const old = document.getElementById("main");
      const open = [...old.querySelectorAll("details.attempt")].map((one) => one.open);
      const back = keepFocus(old);
      fresh.querySelectorAll("details.attempt").forEach((one, n, all) => {
        const was = open[open.length - all.length + n];
        if (was !== undefined) one.open = was;
      });
      // A scrolled table or traceback stays where it was.
      const scrolled = [...old.querySelectorAll("pre, .card")].map((one) => [one.scrollLeft, one.scrollTop]);
      old.replaceWith(document.importNode(fresh, true));
      document.querySelectorAll("#main pre, #main .card").forEach((one, n) => {
        if (scrolled[n]) [one.scrollLeft, one.scrollTop] = scrolled[n];
      });
      back();
      show();
    } catch {
      live.className = "live lost";
      say("No answer", "The server did not answer; what you see is older.");
    } finally {
      asked = false;
    }
  }

  // Somebody who moves by keyboard stays on the link where they were.
  function keepFocus(old) {
    const focused = document.activeElement;
    if (focused === null || !old.contains(focused) || !focused.href) return () => {};
    const href = focused.getAttribute("href");
    return () => [...document.querySelectorAll("#main a")].find((one) => one.getAttribute("href") === href)?.focus();
  }

  setInterval(refresh, seconds * 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
})();

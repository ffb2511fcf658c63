// Keeps relative times current between two refreshes, and shows times in UTC or in the reader's zone.
"use strict";
(() => {
  // The server's clock, not this machine's: the newest time on the page is "now" when it arrives.
  let skew = 0;
  let local = false;
  try { local = localStorage.getItem("jobq-zone") === "local"; } catch { /* UTC */ }

  const pad = (number, width = 2) => String(number).padStart(width, "0");

  // The same as jobq/_core/durations.py and ago in web/rendering/formatting.py.
  function duration(seconds, rough) {
    seconds = Math.max(seconds, 0);
    if (seconds < 0.9995) return Math.round(seconds * 1000) + " ms";
    if (seconds < 9.95) return seconds.toFixed(Number.isInteger(seconds) ? 0 : 1) + " s";
    const whole = Math.round(seconds);
    if (whole < 90) return whole + " s";
    if (whole < 600) return Math.floor(whole / 60) + " min" + (whole % 60 && !rough ? " " + (whole % 60) + " s" : "");
    if (whole < 5400) return Math.floor(whole / 60) + " min";
    if (whole < 129600) {
      const minutes = Math.floor((whole % 3600) / 60);
      return Math.floor(whole / 3600) + " h" + (minutes ? " " + minutes + " min" : "");
    }
    return Math.floor(whole / 86400) + " d";
  }

  function ago(seconds) {
    if (Math.abs(seconds) < 1) return "now";
    const text = duration(Math.abs(seconds), true);
    return seconds > 0 ? text + " ago" : "in " + text;
  }

  function moment(then) {
    const milliseconds = "." + pad(then.getMilliseconds(), 3);
    if (!local) return then.toISOString().replace("T", " ").replace(/\.\d+Z$/, "") + milliseconds + " UTC";
    const offset = -then.getTimezoneOffset();
    const zone = (offset < 0 ? "−" : "+") + pad(Math.floor(Math.abs(offset) / 60)) + ":" + pad(Math.abs(offset) % 60);
    return `${then.getFullYear()}-${pad(then.getMonth() + 1)}-${pad(then.getDate())} `
      + `${pad(then.getHours())}:${pad(then.getMinutes())}:${pad(then.getSeconds())}${milliseconds} ${zone}`;
  }

  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };

  function update() {
    if (String(getSelection())) return;
    const now = Date.now() + skew;
    for (const node of document.querySelectorAll("time[datetime]")) {
      const then = new Date(node.dateTime);
      if (Number.isNaN(then.getTime())) continue;
      const seconds = (now - then.getTime()) / 1000;
      const as = node.dataset.as;
      if (as === "moment") put(node, moment(then));
      else if (as === "for") put(node, duration(seconds, false));
      else put(node, ago(seconds));
      if (as !== "moment") node.title = moment(then);
    }
  }

  function setClock(date) {
    const server = Date.parse(date ?? "");
    // The header has whole seconds, so a difference of one second means nothing.
    if (!Number.isNaN(server) && Math.abs(server - Date.now()) > 1500) skew = server - Date.now();
    else skew = 0;
  }

    document.addEventListener("DOMContentLoaded", () => {
    const asOf = document.querySelector(".page-foot time");
    if (asOf) setClock(asOf.dateTime);
    const button = document.getElementById("zone");
    const show = () => {
      const name = local ? "Times: local" : "Times: UTC";
      button.querySelector(".word").textContent = name;
      button.title = name + (local ? " (" + Intl.DateTimeFormat().resolvedOptions().timeZone + "). Press for UTC." : ". Press for your own zone.");
      button.hidden = false;
      update();
      document.dispatchEvent(new Event("jobq:zone"));
    };
    if (button) {
      show();
      button.addEventListener("click", () => {
        local = !local;
        try { localStorage.setItem("jobq-zone", local ? "local" : "utc"); } catch { /* for this page */ }
        show();
      });
    }
    setInterval(() => { if (!document.hidden) update(); }, 1000);
  });
  document.addEventListener("jobq:fresh", update);

  window.jobq = Object.assign(window.jobq ?? {}, { duration, moment, isLocal: () => local, setClock, update });
})();

// Refreshes the changing part of an album while its jobs are at work. Without this script the page shows the state at
// the time it was loaded.
const live = document.getElementById("live");

async function refresh() {
  let pause = 700;
  try {
    const response = await fetch(live.dataset.url, { credentials: "same-origin" });
    if (response.ok) {
      const html = await response.text();
      if (html !== live.dataset.shown) {
        const focused = live.contains(document.activeElement) && document.activeElement.getAttribute("href");
        live.innerHTML = html;
        live.dataset.shown = html;
        if (focused) live.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
      }
      if (response.headers.get("Gallery-Pending") !== "yes") return;
    }
  } catch {
    pause = 3000; // the server is away: a worker or the gallery is being restarted
  }
  setTimeout(refresh, pause);
}

if (live.dataset.pending === "yes") setTimeout(refresh, 400);

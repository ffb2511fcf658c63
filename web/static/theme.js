// Applies the reader's theme before anything is drawn. Without this file, the system's theme applies.
"use strict";
(() => {
  const themes = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  const read = () => { try { return localStorage.getItem("jobq-theme") ?? "auto"; } catch { return "auto"; } };
  const apply = (name) => {
    if (name === "auto" || !(name in themes)) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  };
  let theme = read();
  apply(theme);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const show = () => {
      const words = themes[theme] ?? themes.auto;
      button.querySelector(".word").textContent = words;
      button.title = words + ". Press to change.";
      button.hidden = false;
    };
    show();
    button.addEventListener("click", () => {
      const names = Object.keys(themes);
      theme = names[(names.indexOf(theme) + 1) % names.length];
      try { localStorage.setItem("jobq-theme", theme); } catch { /* the choice holds for this page */ }
      apply(theme);
      show();
      document.dispatchEvent(new Event("jobq:theme"));
    });
  });
})();

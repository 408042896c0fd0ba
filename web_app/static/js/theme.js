// Light or dark: the system's preference unless the reader has switched. Loaded before the first paint, as a classic
// script, so that the page never flashes in the wrong colours.
(() => {
  const KEY = "telltale-theme";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is switched off: follow the system
    }
  };
  const store = (theme) => {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      return; // the choice then holds for this page only
    }
  };
  const current = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const show = () => {
    const button = document.getElementById("theme-switch");
    if (button) button.setAttribute("aria-pressed", String(current() === "dark"));
    root.dataset.shown = current();
  };

  const chosen = stored();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  show();
  system.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme-switch").addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      store(root.dataset.theme);
      show();
    });
  });
})();

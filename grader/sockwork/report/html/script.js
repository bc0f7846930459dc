"use strict";
// The page reads well without this: it adds a button for the theme, the keys j and k, and opens
// the check that a link names. Nothing is stored and nothing is fetched.
(() => {
  const root = document.documentElement;
  const tools = document.querySelector(".tools");
  const theme = document.getElementById("theme");
  const keys = document.getElementById("keys");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const label = () => { theme.textContent = isDark() ? "light" : "dark"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
  });
  dark.addEventListener("change", label);
  label();
  tools.hidden = false;

  // A link to a check, or to something inside one, opens what is around it.
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let each = target; each; each = each.parentElement) {
      if (each.tagName === "DETAILS") each.open = true;
    }
    target?.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();

  // A single letter may be somebody's own shortcut, so the keys can be switched off
  // (WCAG 2.1, criterion 2.1.4).
  keys.addEventListener("click", () => {
    keys.setAttribute("aria-pressed", String(keys.getAttribute("aria-pressed") !== "true"));
  });
  addEventListener("keydown", (event) => {
    const step = { j: 1, k: -1 }[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    if (keys.getAttribute("aria-pressed") !== "true") return;
    if (event.target.closest("input, select, textarea")) return;
    const drawing = document.activeElement.closest("svg");
    const items = drawing
      ? [...drawing.querySelectorAll("[tabindex='0']")]
      : [...document.querySelectorAll(".check > summary")];
    const next = items.indexOf(document.activeElement.closest("[tabindex], summary")) + step;
    items[next < 0 ? 0 : Math.min(next, items.length - 1)]?.focus();
    event.preventDefault();
  });

  // Paper cannot be opened.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".check.fail:not([open]), .check[open] details:not([open])")];
    opened.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((each) => { each.open = false; }));
})();

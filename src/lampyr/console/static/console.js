// What all pages share: light and dark, the keyboard, and a poll that leaves people alone.
"use strict";

const root = document.documentElement;
const $ = (id) => document.getElementById(id);

function toggleTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : !matchMedia("(prefers-color-scheme: light)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `lampyr-console-theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
  dispatchEvent(new Event("themechange"));
}
$("theme")?.addEventListener("click", toggleTheme);
$("keys")?.addEventListener("click", () => $("help").showModal());

// A page that nobody looks at asks nothing; one that was told to hold still does not change.
let held = false;
document.addEventListener("htmx:beforeRequest", (event) => {
  if ((document.hidden || held) && event.target.hasAttribute("data-poll")) event.preventDefault();
});
// A server that is away for a moment is not worth a word in the browser's console each time.
document.addEventListener("htmx:sendError", (event) => event.preventDefault());
document.addEventListener("htmx:beforeOnLoad", (event) => {
  root.classList.toggle("away", event.detail.xhr.status !== 200);
  if (event.detail.xhr.status === 401) location.reload();
});

// On a phone the row of pages is wider than the screen.
document.querySelector(".pages [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

for (const field of document.querySelectorAll("[data-submits]"))
  field.addEventListener("change", () => field.form.requestSubmit());

for (const why of document.querySelectorAll(".why"))
  why.addEventListener("toggle", (event) => {
    why.parentElement.querySelector("button").setAttribute("aria-expanded", String(event.newState === "open"));
  });

let going = false;
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) {
    if (event.key === "Escape") typing.blur();
    return;
  }
  const key = event.key;
  if (going) {
    going = false;
    const link = document.querySelector(`[data-go="${CSS.escape(key)}"]`);
    if (link) {
      event.preventDefault();
      link.click();
    }
    return;
  }
  if (key === "g") going = true;
  else if (key === "/") {
    const field = document.querySelector("[data-slash]");
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  } else if (key === "t") toggleTheme();
  else if (key === "?") $("help").showModal();
  else if (key === ".") {
    held = !held;
    root.classList.toggle("held", held);
  } else if (/^[1-9]$/.test(key)) document.querySelectorAll("#side-functions a")[key - 1]?.click();
});

// Runs before the first paint, so that a chosen theme does not flash. "system" is no attribute at all.
"use strict";
try {
  const theme = localStorage.getItem("meshtalk.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden: then the system decides.
}

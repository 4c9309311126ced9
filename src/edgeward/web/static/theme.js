// The chosen theme, before the first paint. A classic script on purpose: modules run after it.
try {
  const chosen = localStorage.getItem("edgeward-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden; the system's preference then decides.
}

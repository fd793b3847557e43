"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false };
  // On touch screens, dragging scrolls the page instead of zooming a figure.
  const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";

  // Replace the CSS variables that figures use as colours by their values in the current theme.
  function coloured(value, key, style) {
    if (Array.isArray(value)) return value.map((item) => coloured(item, key, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, coloured(item, name, style)]));
    }
    const variable = typeof value === "string" && /color(scale)?$/.test(key) && /^var\((--[\w-]+)\)$/.exec(value);
    return variable ? style.getPropertyValue(variable[1]).trim() : value;
  }

  function drawOne(box) {
    const style = getComputedStyle(document.documentElement);
    const { data, layout } = coloured(figures[box.dataset.figure], "", style);
    const large = "large" in box.dataset ? {
      showlegend: true,
      legend: { orientation: "h", x: 0, y: 1.06, yanchor: "bottom" },  // beside the plot it would take half the width of a phone
      margin: { ...layout.margin, t: 56 },
      height: Math.max(360, Math.min(560, innerHeight - 240)),
    } : {};
    Plotly.react(box, data, { ...layout, dragmode, width: box.clientWidth, ...large }, config);
    box.dataset.drawn = "";
  }

  function draw() {
    document.querySelectorAll("[data-drawn]").forEach((box) => box.clientWidth && drawOne(box));
  }

  // Draw each figure when it comes near the window, or its dialog or details open, so that the page loads at once.
  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      near.unobserve(entry.target);
      drawOne(entry.target);
    }),
    { rootMargin: "600px" },
  );
  document.querySelectorAll("[data-figure]").forEach((box) => near.observe(box));

  document.querySelectorAll("[data-opens]").forEach((button) => button.addEventListener("click", () => {
    document.getElementById(button.dataset.opens).showModal();
  }));
  document.querySelectorAll("dialog").forEach((dialog) => dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.matches(".close")) dialog.close();
  }));

  // For printing, draw all curves in the light theme and in the width of the paper before the page is laid out.
  function printing(on) {
    document.documentElement.classList.toggle("printing", on);
    if (on) {
      document.getElementById("curves").open = true;
      document.querySelectorAll("[data-figure]").forEach((box) => box.closest("dialog") || drawOne(box));
    }
    draw();
  }

  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) {
      width = innerWidth;
      draw();
    }
  });
  dark.addEventListener("change", draw);
  addEventListener("beforeprint", () => printing(true));
  addEventListener("afterprint", () => printing(false));
})();

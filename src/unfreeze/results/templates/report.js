"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false };
  // A finger that scrolls the page must not zoom a figure.
  const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";

  // Figures name their colours by the page's CSS variables; only keys that hold colours are looked at.
  function coloured(value, key, style) {
    if (Array.isArray(value)) return value.map((item) => coloured(item, key, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, coloured(item, name, style)]));
    }
    const variable = typeof value === "string" && /color(scale)?$/.test(key) && /^var\((--[\w-]+)\)$/.exec(value);
    return variable ? style.getPropertyValue(variable[1]).trim() : value;
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    for (const box of document.querySelectorAll("[data-figure]")) {
      const { data, layout } = coloured(figures[box.dataset.figure], "", style);
      Plotly.react(box, data, { ...layout, dragmode, width: box.clientWidth }, config);
    }
  }

  // Paper is white and narrower than the window, and the curves have to be drawn for it before the page is laid out.
  function printing(on) {
    document.documentElement.classList.toggle("printing", on);
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
  draw();
})();

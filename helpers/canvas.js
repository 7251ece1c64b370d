// Draws a `picture` (helpers/widgets.py) on a canvas: axes, grid, series, legend, text.
const WIDTH = 620, HEIGHT = 360, LEFT = 64, RIGHT = 16, TOP = 30, BOTTOM = 46;

function ticks(low, high, log) {
  if (!log) {
    const raw = (high - low) / 6, unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw);
    const first = Math.ceil(low / step - 1e-9), found = [];
    for (let i = first; i * step <= high + step * 1e-9; i++) found.push(i * step);
    return found;
  }
  const from = Math.ceil(Math.log10(low) - 1e-9), to = Math.floor(Math.log10(high) + 1e-9);
  const every = Math.max(1, Math.ceil((to - from) / 8)), found = [];
  for (let p = from; p <= to; p += every) found.push(10 ** p);
  return found.length > 1 ? found : [low, Math.sqrt(low * high), high];
}

function number(v) {
  const size = Math.abs(v);
  if (size && (size < 1e-3 || size >= 1e5)) return v.toExponential(1).replace(".0e", "e");
  return String(Number(v.toPrecision(4)));
}

function draw(canvas, picture, colors) {
  const ratio = window.devicePixelRatio || 1, g = canvas.getContext("2d");
  canvas.width = WIDTH * ratio;
  canvas.height = HEIGHT * ratio;
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.fillStyle = "white";
  g.fillRect(0, 0, WIDTH, HEIGHT);
  const scale = (axis, from, to) => {
    const log = picture.log.includes(axis), [low, high] = picture[axis + "lim"];
    const f = log ? Math.log : (v) => v;
    return (v) => from + ((f(v) - f(low)) / (f(high) - f(low))) * (to - from);
  };
  const X = scale("x", LEFT, WIDTH - RIGHT), Y = scale("y", HEIGHT - BOTTOM, TOP);
  g.font = "12px sans-serif";
  g.lineWidth = 1;
  for (const v of ticks(...picture.xlim, picture.log.includes("x"))) {
    g.strokeStyle = "#ddd";
    g.strokeRect(X(v), TOP, 0, HEIGHT - TOP - BOTTOM);
    g.fillStyle = "#333";
    g.textAlign = "center";
    g.fillText(number(v), X(v), HEIGHT - BOTTOM + 16);
  }
  for (const v of ticks(...picture.ylim, picture.log.includes("y"))) {
    g.strokeStyle = "#ddd";
    g.strokeRect(LEFT, Y(v), WIDTH - LEFT - RIGHT, 0);
    g.fillStyle = "#333";
    g.textAlign = "right";
    g.fillText(number(v), LEFT - 6, Y(v) + 4);
  }
  g.textAlign = "center";
  g.fillText(picture.xlabel, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10);
  g.save();
  g.translate(14, (TOP + HEIGHT - BOTTOM) / 2);
  g.rotate(-Math.PI / 2);
  g.fillText(picture.ylabel, 0, 0);
  g.restore();
  g.font = "bold 13px sans-serif";
  g.fillText(picture.title, (LEFT + WIDTH - RIGHT) / 2, 18);
  g.save();
  g.beginPath();
  g.rect(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
  g.clip();
  picture.series.forEach((one, i) => {
    g.strokeStyle = g.fillStyle = colors[(one.color ?? i) % colors.length];
    if (one.kind === "cells") {
      one.x.forEach((x, k) => {
        g.globalAlpha = one.shade[k];
        const left = X(x - 0.5), top = Y(one.y[k] + 0.5);
        g.fillRect(left, top, X(x + 0.5) - left, Y(one.y[k] - 0.5) - top);
      });
      g.globalAlpha = 1;
      return;
    }
    g.lineWidth = 2;
    g.setLineDash(one.kind === "dash" ? [6, 4] : []);
    g.beginPath();
    one.x.forEach((x, k) => {
      if (one.kind === "points") {
        g.moveTo(X(x) + 3, Y(one.y[k]));
        g.arc(X(x), Y(one.y[k]), 3, 0, 2 * Math.PI);
      } else g[k ? "lineTo" : "moveTo"](X(x), Y(one.y[k]));
    });
    one.kind === "points" ? g.fill() : g.stroke();
  });
  g.restore();
  g.setLineDash([]);
  g.font = "12px sans-serif";
  g.textAlign = "left";
  const named = picture.series.map((one, i) => [one, i]).filter(([one]) => one.label);
  const wide = Math.max(0, ...named.map(([one]) => g.measureText(one.label).width)) + 34;
  g.fillStyle = "rgba(255, 255, 255, 0.85)";
  g.fillRect(WIDTH - RIGHT - wide - 6, TOP + 4, wide, named.length * 17 + 4);
  named.forEach(([one, i], row) => {
    const y = TOP + 16 + row * 17, x = WIDTH - RIGHT - wide;
    g.fillStyle = colors[(one.color ?? i) % colors.length];
    if (one.kind === "points") g.fillRect(x + 7, y - 4, 6, 6);
    else g.fillRect(x, y - 2, one.kind === "dash" ? 8 : 20, 2);
    if (one.kind === "dash") g.fillRect(x + 12, y - 2, 8, 2);
    g.fillStyle = "#333";
    g.fillText(one.label, x + 26, y + 3);
  });
}

function render({ model, el }) {
  const canvas = document.createElement("canvas"), readout = document.createElement("div");
  canvas.className = "course-canvas";
  canvas.style.cssText = `width: ${WIDTH}px; height: ${HEIGHT}px; max-width: 100%`;
  canvas.setAttribute("role", "img");
  readout.className = "course-readout";
  readout.setAttribute("aria-live", "polite");
  el.append(canvas, readout);
  const show = () => {
    const picture = model.get("picture");
    draw(canvas, picture, model.get("colors"));
    canvas.setAttribute("aria-label", `${picture.title}: ${picture.ylabel} over ${picture.xlabel}`);
    readout.textContent = picture.text;
  };
  model.on("change:picture", show);
  show();
  return () => model.off("change:picture", show);
}

export default { render };

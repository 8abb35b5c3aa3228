// Draws the charts that chart.rs describes into the places that page.rs made for them. Scales,
// ticks and words come from there; here is only where things go. Strings become text nodes.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
  const longest = (texts) => Math.max(0, ...texts.map((text) => pen.measureText(text).width));
  const colour = ({ tone }) => `var(--${tone})`;
  const quiet = { fill: "var(--quiet)" };
  const ink = { fill: "var(--ink)", stroke: "var(--page)", strokeWidth: 4 };
  const hair = { stroke: "var(--hair)", strokeOpacity: 1 };
  const scale = ({ log, low, high }) => ({ type: log ? "log" : "linear", domain: [low, high] });

  // Ticks as told: of a scale by powers D3 would leave some out.
  const axis = (mark, { ticks, label }, options) => {
    const texts = new Map(ticks);
    return mark([...texts.keys()], {
      ...quiet,
      tickSize: 0,
      text: (value) => texts.get(value),
      label,
      labelArrow: "none",
      ...options,
    });
  };

  const across = (x) => axis(Plot.axisX, x, { labelAnchor: "center", labelOffset: 38 });

  const tip = (points) =>
    Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "text", fill: "var(--page)" }));

  function lines({ series, level, x, y }) {
    const within = (point) => ({
      ...point,
      low: Math.max(point.low_high[0], y.low),
      high: Math.min(point.low_high[1], y.high),
    });
    const marks = series.flatMap((one) => {
      const bounds = one.points.filter((point) => point.low_high !== null).map(within);
      const place = { x: "x", y: "y" };
      const span = { x: "x", y1: "low", y2: "high", stroke: colour(one), strokeOpacity: 0.45 };
      const dashed = one.stroke === "dashed" ? "5 4" : null;
      const line = { ...place, stroke: colour(one), strokeWidth: 2, strokeDasharray: dashed };
      const dot = { ...place, r: 3, fill: colour(one), stroke: "var(--page)" };
      return [
        Plot.ruleX(bounds, span),
        one.stroke === "points" ? null : Plot.line(one.points, line),
        one.stroke === "dashed" ? null : Plot.dot(one.points, dot),
      ];
    });
    const levels = (level === null ? [] : [level]).flatMap(([name, at]) => [
      Plot.ruleY([at], { stroke: "var(--quiet)", strokeDasharray: "2 3" }),
      Plot.text([name], { ...ink, y: () => at, frameAnchor: "left", textAnchor: "start", dy: -8 }),
    ]);
    const options = { tickPadding: 6, labelAnchor: "top", labelOffset: 0 };
    return {
      height: 260,
      marginTop: 28,
      marginLeft: longest(y.ticks.map(([, text]) => text)) + 12,
      marginRight: 16,
      y: scale(y),
      marks: [
        Plot.gridY(y.ticks.map(([value]) => value), hair),
        axis(Plot.axisY, y, options),
        marks,
        levels,
        tip(series.flatMap(({ points }) => points)),
      ],
    };
  }

  // Below a row's name its bar, or its dots below each other, so that none hides another.
  function bars({ kind, series, rows, x }) {
    const ends = rows.map(() => 0);
    const shown = series.flatMap((one, at) =>
      one.points.map((point) => {
        const begin = kind === "stack" ? ends[point.y] : x.low;
        const end = kind === "stack" ? begin + point.x : point.x;
        ends[point.y] = Math.max(ends[point.y], end);
        const middle = kind === "stack" ? (begin + end) / 2 : end;
        return { ...point, at, begin, end, x: middle, size: point.x, colour: colour(one) };
      }),
    );
    const points = shown.filter(({ size }) => size > (x.log ? x.low : 0));
    const step = kind === "stack" ? 46 : 30 + 9 * series.length;
    const row = { y: (_, at) => at, frameAnchor: "left", textAnchor: "start", dy: 10 - step / 2 };
    const dots = series.map((_, at) => {
      const here = points.filter((point) => point.at === at);
      const dy = 26 + 9 * at - step / 2;
      return [
        Plot.ruleY(here, { x1: "begin", x2: "end", y: "y", stroke: "var(--hair)", dy }),
        Plot.dot(here, { x: "x", y: "y", r: 4, fill: "colour", dy }),
      ];
    });
    const place = { x1: "begin", x2: "end", y: "y", insetTop: 22, insetBottom: 6 };
    return {
      height: rows.length * step + 54,
      marginTop: 4,
      marginLeft: 4 + longest(x.ticks.slice(0, 1).map(([, text]) => text)) / 2,
      marginRight: 16,
      y: { type: "band", domain: rows.map((_, at) => at), padding: 0, axis: null },
      marks: [
        Plot.gridX(x.ticks.map(([value]) => value), hair),
        kind === "stack" ? Plot.barX(points, { ...place, fill: "colour" }) : dots,
        Plot.text(rows, { ...ink, ...row, text: (name) => name }),
        tip(points),
      ],
    };
  }

  charts.forEach((chart, place) => {
    const box = document.querySelector(`#chart-${place} .plot`);
    const redraw = () => {
      const width = Math.floor(box.clientWidth);
      if (width === 0 || `${width}` === box.dataset.width) return;
      box.dataset.width = width;
      const { marks, ...options } = chart.kind === "lines" ? lines(chart) : bars(chart);
      const svg = Plot.plot({
        width,
        marginBottom: 46,
        style: { background: "none", fontSize: "12px", fontFamily: "inherit", overflow: "visible" },
        ariaLabel: chart.title,
        x: scale(chart.x),
        ...options,
        marks: [...marks, across(chart.x)],
      });
      svg.setAttribute("role", "img");
      box.replaceChildren(svg);
    };
    redraw();
    new ResizeObserver(redraw).observe(box);
  });
})();

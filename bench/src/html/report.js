// Draws the charts that chart.rs describes into the places that page.rs made for them. Scales,
// ticks and words come from there; here is only where things go. Strings become text nodes.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const tone = (name) => `var(--${name})`;
  const size = 12;
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `600 ${size}px ${getComputedStyle(document.body).fontFamily}`;
  const short = (name) => (name.length > 20 ? `${name.slice(0, 19)}…` : name);
  const longest = (texts) => Math.max(0, ...texts.map((text) => pen.measureText(text).width));

  const scale = (axis) => ({
    type: axis.log ? "log" : "linear",
    domain: [axis.low, axis.high],
    label: axis.label,
    labelArrow: "none",
    labelAnchor: "center",
  });

  // Not by tickFormat: of a scale by powers D3 would leave some out.
  const text = (axis) => {
    const texts = new Map(axis.ticks);
    return (value) => texts.get(value);
  };

  const values = (axis) => axis.ticks.map(([value]) => value);

  const ticks = { tickSize: 0, stroke: "none", fill: "var(--quiet)", label: null };

  // Ticks, and below them what they count.
  const across = (axis) => [
    Plot.axisX(values(axis), { ...ticks, text: text(axis) }),
    Plot.axisX([], { ...ticks, label: axis.label, labelArrow: "none" }),
  ];

  const hair = { stroke: "var(--hair)", strokeOpacity: 1 };

  const word = { stroke: "var(--page)", strokeWidth: 4, strokeLinejoin: "round" };

  const tip = (points) =>
    Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "text", fill: "var(--raised)" }));

  function plot(chart, options) {
    const svg = Plot.plot({
      style: {
        background: "none",
        overflow: "visible",
        fontSize: `${size}px`,
        fontFamily: "inherit",
      },
      ariaLabel: chart.title,
      ...options,
    });
    svg.setAttribute("role", "img");
    return svg;
  }

  // Names of lines stand at their ends, moved apart where those meet.
  function ends(series, y) {
    const placed = series
      .filter(({ points }) => points.length > 0)
      .map(({ name, tone, points }) => {
        const end = points[points.length - 1];
        // A line that turned back has room before its end.
        return { name, tone, end, back: points.some((point) => point.x > end.x) };
      })
      .map((label) => ({ ...label, at: y.apply(label.end.y), to: y.apply(label.end.y) }))
      .sort((a, b) => a.at - b.at);
    for (let round = 0; round < 20; round += 1) {
      for (let i = 1; i < placed.length; i += 1) {
        const lack = 15 - (placed[i].to - placed[i - 1].to);
        if (lack > 0) {
          placed[i - 1].to -= lack / 2;
          placed[i].to += lack / 2;
        }
      }
    }
    return placed;
  }

  function lines(chart, width) {
    const { series, levels, x, y } = chart;
    const points = series.flatMap((each) => each.points);
    const bands = series.flatMap(({ tone: name, points }) => {
      const within = points.filter((point) => point.low_high !== null);
      const low = (point) => Math.max(point.low_high[0], y.low);
      const high = (point) => Math.min(point.low_high[1], y.high);
      const forward = within.every((point, at) => at === 0 || within[at - 1].x <= point.x);
      return [
        forward
          ? Plot.areaY(within, { x: "x", y1: low, y2: high, fill: tone(name), fillOpacity: 0.16 })
          : null,
        Plot.ruleX(within, { x: "x", y1: low, y2: high, stroke: tone(name), strokeOpacity: 0.45 }),
      ];
    });
    const strokes = series.flatMap(({ tone: name, stroke, points }) => [
      stroke === "points"
        ? null
        : Plot.line(points, {
            x: "x",
            y: "y",
            stroke: tone(name),
            strokeWidth: stroke === "solid" ? 2 : 1.5,
            strokeDasharray: stroke === "dashed" ? "5 4" : null,
          }),
      stroke === "dashed"
        ? null
        : Plot.dot(points, { x: "x", y: "y", r: 3, fill: tone(name), stroke: "var(--page)" }),
    ]);
    const marks = [
      Plot.gridY(values(y), hair),
      Plot.axisY(values(y), { ...ticks, text: text(y), tickPadding: 6 }),
      across(x),
      bands,
      levels.map((level) =>
        Plot.ruleY([level.y], { stroke: "var(--quiet)", strokeDasharray: "2 3" }),
      ),
      strokes,
      levels.map((level) =>
        Plot.text([level], {
          y: "y",
          text: "name",
          frameAnchor: "left",
          textAnchor: "start",
          dx: 2,
          dy: -8,
          fill: "var(--quiet)",
          ...word,
        }),
      ),
    ];
    const frame = {
      width,
      height: Math.round(Math.min(290, Math.max(220, width * 0.62))),
      marginTop: 28,
      marginLeft: longest(y.ticks.map(([, text]) => text)) + 12,
      marginRight: longest(series.map(({ name }) => short(name))) + 16,
      marginBottom: 44,
      x: scale(x),
      y: { ...scale(y), label: null },
    };
    const bare = plot(chart, { ...frame, marks });
    const labels = ends(series, bare.scale("y")).map(({ name, tone: colour, end, at, to, back }) =>
      Plot.text([end], {
        x: "x",
        y: "y",
        text: () => short(name),
        textAnchor: back ? "end" : "start",
        dx: back ? -8 : 8,
        dy: to - at,
        fill: tone(colour),
        fontWeight: 600,
        ...word,
      }),
    );
    const title = Plot.text([y.label], {
      text: (label) => label,
      frameAnchor: "top-left",
      dx: -frame.marginLeft,
      dy: -24,
      fill: "var(--quiet)",
    });
    return plot(chart, { ...frame, marks: [...marks, labels, title, tip(points)] });
  }

  function bars(chart, width) {
    const { parts, rows, dots, x } = chart;
    const pieces = rows.flatMap((row, place) => {
      let end = 0;
      return row.values.map((value, part) => {
        const begin = dots ? 0 : end;
        end = begin + value;
        const colour = tone(parts[part][1]);
        const at = dots ? value : (begin + end) / 2;
        return { place, value, begin, end, colour, x: at, y: place, text: row.texts[part] };
      });
    });
    const shown = pieces.filter(({ value }) => value > 0 && (!x.log || value >= x.low));
    const last = rows.map((row, place) => ({
      place,
      name: row.name,
      text: row.text,
      end: Math.max(x.low, ...pieces.filter((one) => one.place === place).map(({ end }) => end)),
    }));
    // Dots that would hide each other become rings around the first of them.
    const rings = (place) => {
      const here = shown.filter((one) => one.place === place).sort((a, b) => a.x - b.x);
      const at = (value) => {
        const span = x.log
          ? (Math.log(value) - Math.log(x.low)) / (Math.log(x.high) - Math.log(x.low))
          : (value - x.low) / (x.high - x.low);
        return span * width;
      };
      here.forEach((one, i) => {
        const near = i > 0 && at(one.x) - at(here[i - 1].x) < 9;
        one.r = near ? here[i - 1].r + 3.5 : 5;
      });
      return here.sort((a, b) => b.r - a.r);
    };
    const dotted = dots ? rows.flatMap((_, place) => rings(place)) : [];
    const step = 46;
    const marks = [
      Plot.gridX(values(x), hair),
      across(x),
      dots
        ? [
            Plot.ruleY(last, { y: "place", stroke: "var(--hair)", dy: 9 }),
            Plot.dot(dotted, {
              x: "x",
              y: "place",
              r: { value: "r", scale: null },
              dy: 9,
              fill: "colour",
              stroke: "var(--page)",
              strokeWidth: 1.5,
            }),
          ]
        : Plot.barX(shown, {
            x1: "begin",
            x2: "end",
            y: "place",
            fill: "colour",
            insetTop: 22,
            insetBottom: 6,
            insetRight: 0.5,
          }),
      Plot.text(last, {
        y: "place",
        text: "name",
        frameAnchor: "left",
        textAnchor: "start",
        dy: -11,
        fill: "var(--ink)",
        ...word,
      }),
      Plot.text(last, {
        x: "end",
        y: "place",
        text: "text",
        textAnchor: "start",
        dx: Math.max(0, ...dotted.map(({ r }) => r)) + 6,
        dy: 9,
        fill: "var(--ink)",
        fontWeight: 600,
        ...word,
      }),
      tip(shown),
    ];
    return plot(chart, {
      width,
      height: rows.length * step + 54,
      marginTop: 4,
      marginLeft: 4,
      marginRight: longest(rows.map(({ text }) => text)) + 16,
      marginBottom: 44,
      x: scale(x),
      y: { type: "band", domain: rows.map((_, place) => place), padding: 0, axis: null },
      marks,
    });
  }

  const draw = { lines, bars };
  charts.forEach((chart, place) => {
    const box = document.querySelector(`#chart-${place} .plot`);
    let drawn = 0;
    const redraw = () => {
      const width = Math.floor(box.clientWidth);
      if (width === drawn || width === 0) return;
      drawn = width;
      box.replaceChildren(draw[chart.kind](chart, width));
    };
    redraw();
    new ResizeObserver(redraw).observe(box);
  });
})();

// What is wrong with the page, as far as a script can see it: a line on the console for each.
"use strict";
const say = (what) => console.log(`WRONG ${what}`);
const frames = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
const all = (root, selector) => [...root.querySelectorAll(selector)];

// Every chart that the page's data describes is there, whole, and inside its place.
function chart({ title, kind, series, x, y }, place) {
  const wrong = (what) => say(`chart ${place} (${title}): ${what}`);
  const svg = document.querySelector(`#chart-${place} .plot svg`);
  if (!svg) return wrong("not drawn");
  const points = series.filter(({ stroke }) => stroke !== "dashed").flatMap((one) => one.points);
  const least = x.log ? x.low : 0;
  const seen = kind === "lines" ? points : points.filter((point) => point.x > least);
  const marks = all(svg, kind === "stack" ? "g[aria-label='bar'] rect" : "circle");
  if (marks.length !== seen.length) wrong(`${marks.length} marks, expected ${seen.length}`);
  const words = all(svg, "text").map((text) => text.textContent);
  for (const [, tick] of kind === "lines" ? [...x.ticks, ...y.ticks] : x.ticks) {
    if (!words.includes(tick)) wrong(`no tick ${tick}`);
  }
  if (/NaN|undefined|Infinity/.test(svg.outerHTML)) wrong("draws what is no number");
  const frame = svg.getBoundingClientRect();
  if (frame.width < 200 || frame.height < 80) wrong("is too small to be seen");
  for (const mark of all(svg, "text, circle, rect, path")) {
    const box = mark.getBoundingClientRect();
    const out = box.left < frame.left - 2 || box.right > frame.right + 2;
    if (out && box.width > 0) wrong(`${mark.tagName} ${mark.textContent} sticks out`);
  }
  const covers = (selector, what, least) => {
    const boxes = all(svg, selector).filter((one) => one.textContent || selector !== "text");
    boxes.forEach((one, at) => {
      const a = one.getBoundingClientRect();
      for (const other of boxes.slice(at + 1)) {
        const b = other.getBoundingClientRect();
        const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (width > least && height > 4) wrong(`${what} ${one.textContent} lies on another`);
      }
    });
  };
  covers("text", "text", 1);
  if (kind === "dots") covers("circle", "dot", 4);
}

function* texts() {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    const hidden = element.closest("script, style") || element.getClientRects().length === 0;
    if (node.textContent.trim() !== "" && !hidden) yield [node, element];
  }
}

// No word is broken, and no text has marks that were meant for a program.
function words(node, element) {
  if (element.closest("svg, code, pre, table")) return;
  if (node.textContent.includes("`")) say(`a backtick in "${node.textContent}"`);
  for (const { index, 0: word } of node.textContent.matchAll(/[\p{L}]{2,18}/gu)) {
    const range = document.createRange();
    range.setStart(node, index);
    range.setEnd(node, index + word.length);
    const tops = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
    if (tops.size > 1) say(`"${word}" is broken in "${node.textContent}"`);
  }
}

// Contrast with the page behind it, as WCAG 2 counts it.
function contrast(node, element) {
  const light = (colour) => {
    const part = (text) => {
      const value = Number(text) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    };
    const [r, g, b] = colour.match(/[\d.]+/g).map(part);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(element);
  const colour = element.closest("svg") ? style.fill : style.color;
  const behind = getComputedStyle(document.documentElement).backgroundColor;
  const [a, b] = [light(colour), light(behind)].sort((one, other) => other - one);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) say(`contrast ${ratio.toFixed(2)} of "${node.textContent}"`);
  if (parseFloat(style.fontSize) < 11.5) say(`small text: "${node.textContent}"`);
}

// A point tells its numbers when it is pointed at.
async function pointing() {
  const circle = document.querySelector("circle");
  if (!circle) return say("there is no point");
  const { left, right, top, bottom } = circle.getBoundingClientRect();
  const [clientX, clientY] = [(left + right) / 2, (top + bottom) / 2];
  const init = { clientX, clientY, bubbles: true, pointerType: "mouse" };
  circle.dispatchEvent(new PointerEvent("pointerenter", init));
  circle.dispatchEvent(new PointerEvent("pointermove", init));
  await frames();
  const tips = all(document, "g[aria-label=tip]").map((tip) => tip.textContent);
  if (!tips.join("").includes(": ")) say("nothing is shown of a point");
}

addEventListener("load", async () => {
  await frames();
  all(document, "details").forEach((each) => (each.open = true));
  const charts = JSON.parse(document.getElementById("data").textContent);
  charts.forEach(chart);
  const seen = [...texts()];
  seen.forEach(([node, element]) => words(node, element) || contrast(node, element));
  // Not of innerWidth: a phone zooms out until all is seen.
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) say(`scrolls sideways: ${scrollWidth} px in ${clientWidth}`);
  if (window.ran) say("a record's text ran");
  if (all(document, "img, b, h6, object").length > 0) say("a record's text became elements");
  await pointing();
  console.log(`LOOKED ${charts.length} charts, ${seen.length} texts, ${clientWidth} px`);
});

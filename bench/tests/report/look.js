// What is wrong with the page, as far as a script can see it: a list of sentences.
(() => {
  const wrong = [];
  const say = (what) => wrong.push(what);
  document.querySelectorAll("details").forEach((each) => (each.open = true));

  // Every chart that the page's data describes is there, whole, and inside its place.
  const charts = JSON.parse(document.getElementById("data").textContent);
  const figures = document.querySelectorAll("figure");
  if (figures.length !== charts.length) say(`${figures.length} places, ${charts.length} charts`);
  charts.forEach((chart, place) => {
    const name = `chart ${place} (${chart.title})`;
    const svg = document.querySelector(`#chart-${place} .plot svg`);
    if (!svg) return say(`${name}: not drawn`);
    const count = (selector) => svg.querySelectorAll(selector).length;
    const expect = (what, found, expected) =>
      found === expected || say(`${name}: ${found} ${what}, expected ${expected}`);
    if (chart.kind === "lines") {
      const drawn = chart.series.filter(({ points }) => points.length > 0);
      const sum = (list) => list.reduce((all, { points }) => all + points.length, 0);
      const dotted = drawn.filter(({ stroke }) => stroke !== "dashed");
      const lined = drawn.filter(({ stroke }) => stroke !== "points");
      expect("points", count("g[aria-label='dot'] circle"), sum(dotted));
      expect("lines", count("g[aria-label='line'] path"), lined.length);
      const words = [...svg.querySelectorAll("text")].map((text) => text.textContent);
      const begins = (name, word) => name.startsWith(word.replace(/…$/, "") || " ");
      const named = (one) => words.some((word) => begins(one.name, word));
      drawn.forEach((one) => named(one) || say(`${name}: ${one.name} has no name`));
    } else {
      const values = chart.rows.flatMap(({ values }) => values);
      const marks = chart.dots ? "g[aria-label='dot'] circle" : "g[aria-label='bar'] rect";
      expect("marks", count(marks), values.filter((value) => value > 0).length);
      // A circle lies wholly under one that is drawn later.
      const circles = [...svg.querySelectorAll("g[aria-label='dot'] circle")].map((circle) => {
        const box = circle.getBoundingClientRect();
        const [x, y] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
        return { x, y, r: box.width / 2 };
      });
      circles.forEach((one, at) => {
        const over = (other) => Math.hypot(one.x - other.x, one.y - other.y) + one.r <= other.r + 1;
        if (circles.slice(at + 1).some(over)) say(`${name}: a dot hides dot ${at}`);
      });
    }
    const axes = [...svg.querySelectorAll("g[aria-label$='axis tick label'] text")];
    const said = axes.map((text) => text.textContent);
    const scales = chart.kind === "lines" ? [chart.x, chart.y] : [chart.x];
    scales.forEach((axis) => {
      axis.ticks.forEach(([, text]) => said.includes(text) || say(`${name}: no tick ${text}`));
    });
    if (/NaN|undefined|Infinity/.test(svg.outerHTML)) say(`${name}: draws what is no number`);
    const frame = svg.getBoundingClientRect();
    if (frame.width < 200 || frame.height < 80) say(`${name}: is too small to be seen`);
    svg.querySelectorAll("text, circle, rect, path").forEach((mark) => {
      const box = mark.getBoundingClientRect();
      const out = box.left < frame.left - 2 || box.right > frame.right + 2;
      if (out && box.width > 0) say(`${name}: ${mark.tagName} ${mark.textContent} sticks out`);
    });
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent !== "");
    texts.forEach((one, at) => {
      const a = one.getBoundingClientRect();
      texts.slice(at + 1).forEach((other) => {
        const b = other.getBoundingClientRect();
        const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (x > 1 && y > 4) say(`${name}: "${one.textContent}" lies on "${other.textContent}"`);
      });
    });
  });

  // No word is broken, and no text has marks that were meant for a program.
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const element = node.parentElement;
    if (element.closest("script, style, svg, code, footer, table")) continue;
    if (element.getClientRects().length === 0) continue;
    if (node.textContent.includes("`")) say(`a backtick in "${node.textContent}"`);
    for (const { index, 0: word } of node.textContent.matchAll(/[\p{L}]{2,18}/gu)) {
      const range = document.createRange();
      range.setStart(node, index);
      range.setEnd(node, index + word.length);
      const tops = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      if (tops.size > 1) say(`"${word}" is broken in "${node.textContent}"`);
    }
  }

  // Not of innerWidth: a phone zooms out until all is seen.
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) say(`scrolls sideways: ${scrollWidth} px in ${clientWidth}`);

  // Contrast of every text with what is behind it, as WCAG 2 counts it.
  const parse = (text) => {
    const numbers = text.match(/^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/);
    if (!numbers) return null;
    return numbers.slice(1).map((number) => (number === undefined ? 1 : Number(number)));
  };
  const light = ([r, g, b]) => {
    const part = (value) =>
      value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour && colour[3] > 0) return colour;
    }
    return null;
  };
  const opacity = (element) => {
    let all = 1;
    for (let each = element; each; each = each.parentElement) {
      all *= Number(getComputedStyle(each).opacity);
    }
    return all;
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (node.textContent.trim() === "" || element.closest("script, style")) continue;
    if (element.getClientRects().length === 0) continue;
    seen += 1;
    const style = getComputedStyle(element);
    const svg = element.closest("svg");
    const colour = parse(svg ? style.fill : style.color);
    const back = behind(element);
    if (!colour || !back) {
      say(`unknown colours of "${node.textContent}": ${svg ? style.fill : style.color}`);
      continue;
    }
    const solid = colour[3] * opacity(element) * (svg ? Number(style.fillOpacity) : 1);
    const mixed = [0, 1, 2].map((i) => colour[i] * solid + back[i] * (1 - solid));
    const [a, b] = [light(mixed), light(back)].sort((one, other) => other - one);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) say(`contrast ${ratio.toFixed(2)} of "${node.textContent}"`);
    if (parseFloat(style.fontSize) < 11.5) say(`small text: "${node.textContent}"`);
  }
  if (seen < 20) say(`only ${seen} texts`);
  return wrong;
})()
